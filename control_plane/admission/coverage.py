"""Whether tensors can be written: their pieces lie inside their storages and tile their shapes exactly. Pure.

Tiling is decided by corners. The signed corners of a box (+ at its low corner, the sign changing along each
axis) determine its indicator function, and sums of indicator functions are determined by sums of corners. So
boxes tile a shape exactly when their corners add up to the shape's own: linear in the number of pieces.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Final

from control_plane.admission import strided_copy
from control_plane.admission.base import Refusal
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.tensors import ITEM_BYTES, Piece, SourceTensor, Storage

MAX_DIMENSIONS: Final = 64
MAX_ELEMENTS: Final = 1 << 48
"""Past any file's; beyond some such number readers of safetensors count wrong, also where a size is 0."""
MAX_TILED_AXES: Final = 6
"""Axes along which a tensor may be cut; distributed checkpoints cut one or two."""
MAX_NAME_CHARS: Final = 1024
MAX_TENSORS: Final = 200_000
MAX_GROWTH: Final = 20
"""Bytes written to bytes they come from; only looked at above `FREE_BYTES`."""
FREE_BYTES: Final = 8 * 1024 * 1024
FREE_RUNS: Final = 500_000
BYTES_PER_RUN: Final = 16
"""Copies that writing may take beyond `FREE_RUNS`, by the bytes held: scattered elements cost time."""
RESERVED_NAME: Final = "__metadata__"
SAVE_AGAIN: Final = "Save the weights again and check that the whole file was copied."
SAVE_CLONED: Final = (
    "Save real tensors: torch.save({k: v.clone() for k, v in model.state_dict().items()}, 'model.pt')."
)


def check(tensors: Iterable[SourceTensor], file: str) -> None:
    """Check all *tensors* of one artefact; *file* names the upload in refusals. Raises Refusal."""
    names: set[str] = set()
    storages: dict[Storage, None] = {}
    written = runs = 0
    for tensor in tensors:
        check_name(tensor.name, file)
        if tensor.name in names:
            raise _broken(file, tensor.name, "there twice")
        names.add(tensor.name)
        check_tensor(tensor, file)
        storages.update((piece.storage, None) for piece in tensor.pieces)
        written += tensor.size_bytes
        runs += _runs(tensor)
    if len(names) > MAX_TENSORS:
        raise _too_large(file, None, f"it holds {len(names)} tensors")
    held = sum(storage.size_bytes for storage in storages)
    check_growth(written, held, file)
    if runs > FREE_RUNS + held // BYTES_PER_RUN:
        raise Refusal(
            ReasonCode.UNSUPPORTED_TENSOR,
            f"the elements of tensors in {file} are scattered: writing them takes {runs} copies",
            "Save contiguous tensors: "
            "torch.save({k: v.contiguous() for k, v in model.state_dict().items()}, 'model.pt').",
            file=file,
        )


def check_name(name: str, file: str) -> None:
    """Check that *name* can name a tensor: printable, short, not reserved. Raises Refusal."""
    if name and len(name) <= MAX_NAME_CHARS and name.isprintable() and name != RESERVED_NAME:
        return
    shown = repr(name[:80])[1:-1]
    raise Refusal(
        ReasonCode.BROKEN_WEIGHTS,
        f"{file} holds a tensor called {shown!r}; names are 1 to {MAX_NAME_CHARS} printable characters",
        "Rename it: letters, digits, dots and underscores are what torch itself uses.",
        file=file,
        member=shown,
    )


def check_tensor(tensor: SourceTensor, file: str) -> None:
    """Check one tensor: its shape, each piece inside its storage, all pieces tiling it. Raises Refusal."""
    if not is_shape(tensor.shape) or tensor.dtype not in ITEM_BYTES:
        raise _broken(
            file, tensor.name, f"of the shape {str(tensor.shape[:8])[:80]} and type {tensor.dtype[:20]}"
        )
    for piece in tensor.pieces:
        if not _fits(piece, tensor):
            raise _broken(file, tensor.name, "not inside of its data")
    if not tiles(tensor):
        raise _broken(file, tensor.name, "not covered by its parts exactly once")


def check_growth(written: int, held: int, file: str) -> None:
    """Check that *written* bytes may come out of *held* ones. Raises Refusal."""
    if written > FREE_BYTES and written > MAX_GROWTH * held:
        raise Refusal(
            ReasonCode.ARCHIVE_BOMB,
            f"{file} would grow more than {MAX_GROWTH} times: {written} bytes out of {held}",
            SAVE_CLONED,
            file=file,
        )


def is_shape(shape: Sequence[int]) -> bool:
    """Tell whether *shape* has few enough axes of whole sizes >= 0, none of them past counting."""
    if len(shape) > MAX_DIMENSIONS or not all(type(size) is int and size >= 0 for size in shape):
        return False
    return math.prod(size or 1 for size in shape) <= MAX_ELEMENTS


def tiles(tensor: SourceTensor) -> bool:
    """Tell whether the tensor's pieces cover each of its elements exactly once."""
    boxes = [piece for piece in tensor.pieces if math.prod(piece.shape)]
    if not all(_inside(piece, tensor.shape) for piece in tensor.pieces):
        return False
    if math.prod(tensor.shape) == 0:
        return not boxes
    axes = [axis for axis, size in enumerate(tensor.shape) if any(box.shape[axis] != size for box in boxes)]
    if len(axes) > MAX_TILED_AXES:
        return False
    corners: Counter[tuple[int, ...]] = Counter()
    for box in boxes:
        corners.update(dict(_corners([(box.at[axis], box.shape[axis]) for axis in axes])))
    corners.subtract(dict(_corners([(0, tensor.shape[axis]) for axis in axes])))
    return not any(corners.values())


def _corners(intervals: list[tuple[int, int]]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield each corner of a box, given as (low, size) by axis, with its sign."""
    for ends in product((0, 1), repeat=len(intervals)):
        corner = tuple(low + end * size for (low, size), end in zip(intervals, ends, strict=True))
        yield corner, -1 if sum(ends) % 2 else 1


def _runs(tensor: SourceTensor) -> int:
    origin = (0,) * len(tensor.shape)
    regions = (strided_copy.part(piece, origin, tensor.shape, 1) for piece in tensor.pieces)
    return sum(region.runs for region in regions if region)


def _inside(piece: Piece, shape: tuple[int, ...]) -> bool:
    if not (len(piece.shape) == len(piece.at) == len(piece.strides) == len(shape)) or not is_shape(
        piece.shape
    ):
        return False
    return all(
        type(low) is int and low >= 0 and low + size <= whole
        for low, size, whole in zip(piece.at, piece.shape, shape, strict=True)
    )


def _fits(piece: Piece, tensor: SourceTensor) -> bool:
    """Tell whether every element of *piece* lies in its storage."""
    if not _inside(piece, tensor.shape):
        return False
    if any(type(stride) is not int or stride < 0 for stride in (piece.start, *piece.strides)):
        return False
    if math.prod(piece.shape) == 0:
        return True
    last = piece.start + sum(
        (size - 1) * stride for size, stride in zip(piece.shape, piece.strides, strict=True)
    )
    return (last + 1) * ITEM_BYTES[tensor.dtype] <= piece.storage.size_bytes


def _broken(file: str, name: str, how: str) -> Refusal:
    return Refusal(
        ReasonCode.BROKEN_WEIGHTS,
        f"the weights in {file} are damaged: the tensor {name[:120]} is {how}",
        SAVE_AGAIN,
        file=file,
        member=name[:120],
    )


def _too_large(file: str, member: str | None, why: str) -> Refusal:
    return Refusal(
        ReasonCode.TOO_LARGE_TO_READ, f"{file} cannot be read: {why}", SAVE_AGAIN, file=file, member=member
    )
