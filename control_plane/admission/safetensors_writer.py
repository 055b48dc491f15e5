"""Writes safetensors files from where the bytes of tensors lie: canonical, streaming, without arithmetic.

The result is byte for byte what safetensors' own `serialize_file` writes: tensors by element type (its
order), then by name; compact JSON; the header padded with spaces to a multiple of 8 bytes.
Format: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, Final

from control_plane.admission import coverage
from control_plane.admission.base import Refusal, WeightsFile
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.safetensors_header import BITS, MAX_HEADER_BYTES
from control_plane.admission.strided_copy import LARGEST_UNIT, ChecksumError, CutShortError, Sources, part
from control_plane.admission.tensors import ITEM_BYTES, SourceTensor

ORDER: Final = (
    "BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16", "U16", "F16",
    "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64",
)  # fmt: skip
"""Element types as safetensors orders them; files hold the last first, so that wide types are aligned."""
METADATA: Final = {"format": "pt"}
"""transformers opens no file without it."""
BLOCK_BYTES: Final = 8 * 1024 * 1024
RUN_BYTES: Final = 1024 * 1024
"""Block for tensors that lie together: small enough to stay in a processor's cache."""
WRITE_BUFFER_BYTES: Final = 1024 * 1024
INDEX: Final = "model.safetensors.index.json"

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""Low corner and size of a part of a tensor, in elements."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Element types that are written as others."""

    targets: Mapping[str, str]
    """Element type as it comes → as it is written; types that are not in it stay as they are."""
    convert: Callable[[memoryview, str], bytes]
    """Whole elements and their type → the same elements in the target type."""


class _Output:
    """The file that is written, and who wants to know of it."""

    def __init__(
        self,
        raw: BinaryIO,
        progress: Callable[[int], object] | None,
        observe: Callable[[bytes | memoryview], object] | None,
    ) -> None:
        self._raw = raw
        self._progress = progress
        self._observe = observe
        self.size_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        self._raw.write(data)
        self.size_bytes += len(data)
        if self._observe:
            self._observe(data)
        if self._progress:
            self._progress(len(data))


def write(
    tensors: Sequence[SourceTensor],
    target: Path,
    *,
    metadata: Mapping[str, str] | None = None,
    cast: Cast | None = None,
    progress: Callable[[int], object] | None = None,
    observe: Callable[[bytes | memoryview], object] | None = None,
    source: str = "the upload",
) -> int:
    """Write *tensors* to the new file *target* and return its size in bytes.

    *metadata* is the header's (`METADATA` where None). *progress* is told how many bytes were written since
    it was last told, *observe* sees these bytes, in order; an error of either ends the writing. *source*
    names the upload in refusals. Memory is constant: one block, besides pages of files that the system may
    take back. Raises Refusal where tensors do not tile, names clash, types cannot be written, a file is cut
    or a checksum differs, and OSError where our own disk fails; the target is then removed. No fsync.
    """
    coverage.check(tensors, source)
    head, ordered = header(tensors, METADATA if metadata is None else metadata, cast, source)
    try:
        with target.open("xb", buffering=WRITE_BUFFER_BYTES) as raw, Sources() as sources:
            output = _Output(raw, progress, observe)
            output.write(head)
            for tensor in ordered:
                _write_tensor(tensor, sources, output, cast)
            sources.verify()
    except (CutShortError, ChecksumError) as error:
        target.unlink()
        raise _damaged(source, error) from None
    except FileExistsError:
        raise
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return output.size_bytes


def header(
    tensors: Sequence[SourceTensor], metadata: Mapping[str, str], cast: Cast | None, source: str
) -> tuple[bytes, list[SourceTensor]]:
    """Return a file's header, its size field included, and *tensors* in the file's order. Raises Refusal."""
    ordered = sorted(
        tensors, key=lambda tensor: (-ORDER.index(_type(tensor, cast, source)), tensor.name.encode())
    )
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    position = 0
    for tensor in ordered:
        dtype = _type(tensor, cast, source)
        end = position + math.prod(tensor.shape) * ITEM_BYTES[dtype]
        entries[tensor.name] = {
            "dtype": dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise Refusal(
            ReasonCode.TOO_LARGE_TO_READ,
            f"the names of the {len(tensors)} tensors in {source} take {len(text)} bytes",
            f"Save fewer tensors in one file; at most {MAX_HEADER_BYTES} bytes of names are written.",
        )
    return len(text).to_bytes(8, "little") + text, ordered


def shards(
    tensors: Sequence[SourceTensor], max_bytes: int, *, stem: str = "model", cast: Cast | None = None
) -> tuple[WeightsFile, ...]:
    """Deal *tensors*, in their order, to files of at most *max_bytes*; a larger tensor gets one of its own.

    One file is called `<stem>.safetensors`, several `<stem>-00001-of-0000N.safetensors`, as Hugging Face.
    """
    groups: list[list[SourceTensor]] = [[]]
    held = 0
    for tensor in tensors:
        size = _written_bytes(tensor, cast)
        if groups[-1] and held + size > max_bytes:
            groups.append([])
            held = 0
        groups[-1].append(tensor)
        held += size
    count = len(groups)
    return tuple(
        WeightsFile(shard_name(number, count, stem), tuple(group)) for number, group in enumerate(groups, 1)
    )


def shard_name(number: int, count: int, stem: str = "model") -> str:
    """Return the name of file *number* (from 1) of *count*."""
    return f"{stem}.safetensors" if count == 1 else f"{stem}-{number:05d}-of-{count:05d}.safetensors"


def index(files: Sequence[WeightsFile], cast: Cast | None = None) -> bytes:
    """Return the content of `model.safetensors.index.json` for *files*."""
    places = {tensor.name: file.name for file in files for tensor in file.tensors}
    total = sum(_written_bytes(tensor, cast) for file in files for tensor in file.tensors)
    content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def write_all(
    files: Sequence[WeightsFile],
    folder: Path,
    *,
    cast: Cast | None = None,
    progress: Callable[[int], object] | None = None,
    source: str = "the upload",
) -> tuple[str, ...]:
    """Write all *files* into *folder*, with an index where they are several; return the names written.

    Raises Refusal and OSError as `write` does.
    """
    for file in files:
        write(file.tensors, folder / file.name, cast=cast, progress=progress, source=source)
    names = tuple(file.name for file in files)
    if len(files) < 2:
        return names
    (folder / INDEX).write_bytes(index(files, cast))
    return (*names, INDEX)


def blocks(shape: tuple[int, ...], max_items: int) -> Iterator[Box]:
    """Yield parts of a tensor, one behind the other in row-major order, of at most *max_items* each."""
    if not shape:
        yield (), ()
        return
    if math.prod(shape) == 0:
        return
    axis, below = len(shape) - 1, 1
    while axis and below * shape[axis] <= max_items:
        below *= shape[axis]
        axis -= 1
    step = max(1, max_items // below)
    rest = shape[axis + 1 :]
    for before in product(*map(range, shape[:axis])):
        for start in range(0, shape[axis], step):
            low = (*before, start, *(0 for _ in rest))
            yield low, (*(1 for _ in before), min(step, shape[axis] - start), *rest)


def _write_tensor(tensor: SourceTensor, sources: Sources, output: _Output, cast: Cast | None) -> None:
    item = ITEM_BYTES[tensor.dtype]
    unit = min(item, LARGEST_UNIT)
    for piece in tensor.pieces:
        sources.expect(piece.storage)
    size = RUN_BYTES if _is_one_run(tensor) else BLOCK_BYTES
    buffer = memoryview(bytearray(min(size, tensor.size_bytes)))
    for low, extent in blocks(tensor.shape, size // item):
        block = buffer[: math.prod(extent) * item]
        for piece in tensor.pieces:
            region = part(piece, low, extent, item // unit)
            if region:
                sources.copy(region, unit, block)
        converts = cast and tensor.dtype in cast.targets
        output.write(cast.convert(block, tensor.dtype) if cast and converts else block)
    sources.release()


def _is_one_run(tensor: SourceTensor) -> bool:
    if len(tensor.pieces) != 1:
        return False
    region = part(tensor.pieces[0], (0,) * len(tensor.shape), tensor.shape, 1)
    return region is None or region.is_one_run


def _type(tensor: SourceTensor, cast: Cast | None, source: str) -> str:
    """Return the element type that *tensor* is written as. Raises Refusal where safetensors knows none."""
    dtype = cast.targets.get(tensor.dtype, tensor.dtype) if cast else tensor.dtype
    if dtype in BITS:
        return dtype
    raise Refusal(
        ReasonCode.UNSUPPORTED_TENSOR,
        f"the tensor {tensor.name[:120]} in {source} is of the type {dtype}, which safetensors does not hold",
        "Convert it to a common type before saving, complex128 for example to complex64.",
        member=tensor.name[:120],
    )


def _written_bytes(tensor: SourceTensor, cast: Cast | None) -> int:
    dtype = cast.targets.get(tensor.dtype, tensor.dtype) if cast else tensor.dtype
    return math.prod(tensor.shape) * ITEM_BYTES[dtype]


def _damaged(source: str, error: Exception) -> Refusal:
    why = "it is cut" if isinstance(error, CutShortError) else "a checksum differs"
    return Refusal(
        ReasonCode.BROKEN_ARCHIVE,
        f"the weights in {source} are damaged: {why}",
        "Save the model again and check that the whole file was copied.",
    )
