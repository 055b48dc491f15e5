"""Copying strided regions of received files into memory, with checksums of what is read on the way.

Runs that lie together are read from the file; others are copied by `memoryview` slices over a memory map,
whose pages are given back after each tensor.
"""

from __future__ import annotations

import math
import mmap
import os
import zlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from control_plane.admission.tensors import Piece, Storage, row_major

FORMATS: Final[dict[int, Literal["B", "H", "I", "Q"]]] = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""Size of a unit in bytes → format of a memory view of such units."""
LARGEST_UNIT: Final = 8
SHORT_RUN: Final = 32
"""Units; where the run that lies together is shorter, the longest axis is copied in one go instead."""
TILE: Final = 256
"""Units copied in one go where neighbours lie apart: as many lines as the second-level cache keeps."""
READ_BYTES: Final = 1024 * 1024


class CutShortError(Exception):
    """A file ends before the storage that should lie in it."""


class ChecksumError(Exception):
    """A storage is not what its archive says it is."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a region: its size, and the distance of neighbours in source and target, in units."""

    size: int
    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Region:
    """What to copy: from where in a storage to where in a block, in units."""

    storage: Storage
    source_start: int
    target_start: int
    axes: tuple[Axis, ...]

    @property
    def is_one_run(self) -> bool:
        """Whether its units lie one behind the other on both sides."""
        return not self.axes or self.axes == (Axis(self.axes[0].size, 1, 1),)

    @property
    def units(self) -> int:
        """How many units a region of one run has."""
        return self.axes[0].size if self.axes else 1

    @property
    def runs(self) -> int:
        """How many copies it takes when it is copied in one go."""
        if self.is_one_run:
            return 1
        return math.prod(axis.size for axis in _ordered(self.axes)[:-1])


def part(piece: Piece, low: tuple[int, ...], size: tuple[int, ...], units_per_item: int) -> Region | None:
    """Return what *piece* gives to the box of *size* at *low* of its tensor, or None where they are apart."""
    starts = tuple(map(max, piece.at, low))
    ends = tuple(min(a + n, b + m) for a, n, b, m in zip(piece.at, piece.shape, low, size, strict=True))
    sizes = tuple(end - start for start, end in zip(starts, ends, strict=True))
    if any(length <= 0 for length in sizes):
        return None
    targets = row_major(size)
    source = piece.start + _offset(starts, piece.at, piece.strides)
    target = _offset(starts, low, targets)
    axes = [Axis(*each) for each in zip(sizes, piece.strides, targets, strict=True)]
    if units_per_item > 1:
        axes = [Axis(axis.size, axis.source * units_per_item, axis.target * units_per_item) for axis in axes]
        axes.append(Axis(units_per_item, 1, 1))
    return Region(piece.storage, source * units_per_item, target * units_per_item, merged(axes))


def _offset(places: tuple[int, ...], origins: tuple[int, ...], strides: tuple[int, ...]) -> int:
    return sum(
        (place - origin) * stride for place, origin, stride in zip(places, origins, strides, strict=True)
    )


def merged(axes: list[Axis]) -> tuple[Axis, ...]:
    """Return the same region with as few axes as possible: axes of one unit dropped, neighbours joined."""
    result: list[Axis] = []
    for axis in axes:
        if axis.size == 1:
            continue
        last = result[-1] if result else None
        if last and (last.source, last.target) == (axis.size * axis.source, axis.size * axis.target):
            result[-1] = Axis(last.size * axis.size, axis.source, axis.target)
        else:
            result.append(axis)
    return tuple(result)


class Sources:
    """The files that tensors come from, opened when first read; use as a context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._descriptors: dict[Path, int] = {}
        self._maps: dict[Path, mmap.mmap] = {}
        self._checksums: dict[Storage, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def copy(self, region: Region, unit: int, target: memoryview) -> None:
        """Copy *region*, in units of *unit* bytes, into the bytes of *target*.

        Raises CutShortError where the file is shorter than it should be.
        """
        if region.is_one_run:
            start, size = region.target_start * unit, region.units * unit
            self.read(region.storage, region.source_start * unit, target[start : start + size])
            return
        usable = region.storage.size_bytes // unit * unit
        begin = region.storage.offset
        with (
            memoryview(self._map(region.storage)) as whole,
            whole[begin : begin + usable] as held,
            held.cast(FORMATS[unit]) as source,
            target.cast(FORMATS[unit]) as block,
        ):
            _copy_tiled(source, block, _ordered(region.axes), region.source_start, region.target_start)

    def read(self, storage: Storage, offset: int, target: memoryview) -> None:
        """Fill *target* from byte *offset* of *storage* on. Raises CutShortError."""
        descriptor = self._descriptor(storage.location)
        done = 0
        while done < len(target):
            count = os.preadv(descriptor, [target[done:]], storage.offset + offset + done)
            if count == 0:
                raise CutShortError
            done += count
        if storage.crc32 is not None:
            self._add(storage, offset, target)

    def expect(self, storage: Storage) -> None:
        """Note that *storage* is used: `verify` will have read all of it."""
        if storage.crc32 is not None:
            self._checksums.setdefault(storage, (0, 0))

    def release(self) -> None:
        """Give pages of memory maps back to the system."""
        for mapped in self._maps.values():
            mapped.madvise(mmap.MADV_DONTNEED)

    def verify(self) -> None:
        """Read what of the used storages was not read in order, and compare all checksums.

        Raises ChecksumError, CutShortError.
        """
        block = memoryview(bytearray(READ_BYTES))
        for storage in list(self._checksums):
            while (position := self._checksums[storage][0]) < storage.size_bytes:
                self.read(storage, position, block[: storage.size_bytes - position])
            if self._checksums[storage][1] != storage.crc32:
                raise ChecksumError

    def _add(self, storage: Storage, offset: int, data: memoryview) -> None:
        """Go on with a checksum where *data* begins exactly where the last one ended."""
        position, checksum = self._checksums.get(storage, (0, 0))
        if position == offset:
            self._checksums[storage] = (offset + len(data), zlib.crc32(data, checksum))

    def _descriptor(self, location: Path) -> int:
        if location not in self._descriptors:
            self._descriptors[location] = self._stack.enter_context(location.open("rb", buffering=0)).fileno()
        return self._descriptors[location]

    def _map(self, storage: Storage) -> mmap.mmap:
        if storage.location not in self._maps:
            mapped = mmap.mmap(self._descriptor(storage.location), 0, access=mmap.ACCESS_READ)
            self._maps[storage.location] = self._stack.enter_context(mapped)
        mapped = self._maps[storage.location]
        if storage.offset + storage.size_bytes > len(mapped):
            raise CutShortError
        return mapped


def _ordered(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Return *axes* with the one last that is best copied in one go."""
    last = axes[-1]
    if (last.source, last.target) == (1, 1) and last.size >= SHORT_RUN:
        return axes
    longest = max(range(len(axes)), key=lambda index: axes[index].size)
    return (*axes[:longest], *axes[longest + 1 :], axes[longest])


def _copy_tiled(
    source: memoryview, target: memoryview, axes: tuple[Axis, ...], source_start: int, target_start: int
) -> None:
    """Copy a region so that what is fetched from memory is used up before it leaves the processor's cache."""
    *others, last = axes
    if last.source == 1:
        tile = last.size if last.target == 1 else TILE
    else:
        tile = TILE
        others.sort(key=lambda axis: -axis.source)
    for begin in range(0, last.size, tile):
        part_ = Axis(min(tile, last.size - begin), last.source, last.target)
        starts = source_start + begin * last.source, target_start + begin * last.target
        _copy(source, target, (*others, part_), *starts)


def _copy(
    source: memoryview, target: memoryview, axes: tuple[Axis, ...], source_start: int, target_start: int
) -> None:
    axis = axes[0]
    if len(axes) > 1:
        for index in range(axis.size):
            _copy(
                source,
                target,
                axes[1:],
                source_start + index * axis.source,
                target_start + index * axis.target,
            )
        return
    places = slice(target_start, target_start + (axis.size - 1) * axis.target + 1, axis.target)
    if axis.source == 0:
        one = source[source_start : source_start + 1]
        target[places] = memoryview(one.tobytes() * axis.size).cast(source.format)  # type: ignore[call-overload] # any of FORMATS
    else:
        end = source_start + (axis.size - 1) * axis.source + 1
        target[places] = source[source_start : end : axis.source]
