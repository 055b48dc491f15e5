"""Safetensors that several processes wrote, each its part of every tensor: headers alone are read.

Layout: torch/distributed/checkpoint/hf_storage.py. Each file's `__metadata__` holds `DCP_SHARDING_INFO`, JSON
that gives for every tensor of the file the place of its part in the whole (`saved_offsets`). How large the
whole is stands nowhere: it ends where its last part ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from control_plane.admission import bounded_json, safetensors_header
from control_plane.admission.base import ReceivedFile, Refusal
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.tensors import Piece, SourceTensor

SHARDING_INFO: Final = "DCP_SHARDING_INFO"
MAX_SIZE: Final = 1 << 48
SAVE_AGAIN: Final = "Copy the checkpoint again from where it was saved, with every file of its folder."


@dataclass(frozen=True, slots=True)
class _Part:
    """One file's part of a tensor."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    piece: Piece


def is_sharded(file: ReceivedFile) -> bool:
    """Tell whether the header of *file* places its tensors in larger ones. Hostile bytes make it False."""
    try:
        return SHARDING_INFO in _metadata(safetensors_header.header(file))
    except Refusal:
        return False


def tensors(files: Iterable[ReceivedFile]) -> tuple[SourceTensor, ...]:
    """Return the tensors that *files* hold together, by name, sorted.

    A file without `DCP_SHARDING_INFO` holds whole tensors. Raises Refusal for a damaged or cut file and for
    parts that do not belong together. Does not check that the parts tile the tensor: `coverage` does.
    """
    parts: dict[str, list[_Part]] = {}
    for file in files:
        for name, part in _parts(file):
            parts.setdefault(name, []).append(part)
    return tuple(_joined(name, parts[name]) for name in sorted(parts))


def _parts(file: ReceivedFile) -> Iterator[tuple[str, _Part]]:
    offsets = _saved_offsets(safetensors_header.header(file), file)
    for tensor in safetensors_header.tensors(file):
        at = _place(offsets, tensor.name, len(tensor.shape), file)
        piece = replace(tensor.pieces[0], at=at)
        yield tensor.name, _Part(file.path, tensor.dtype, tensor.shape, piece)


def _joined(name: str, parts: list[_Part]) -> SourceTensor:
    first = parts[0]
    for part in parts:
        if part.dtype != first.dtype or len(part.shape) != len(first.shape):
            raise Refusal(
                ReasonCode.BROKEN_WEIGHTS,
                f"{part.file} and {first.file} disagree about {name[:80]}: type or dimensions",
                SAVE_AGAIN,
                file=part.file,
                member=name[:120],
            )
    ends = [
        [at + size for at, size in zip(part.piece.at, part.shape, strict=True)]
        for part in parts
        if 0 not in part.shape
    ]
    shape = tuple(max(axis) for axis in zip(*ends, strict=True)) if ends else first.shape
    pieces = tuple(part.piece for part in parts if 0 not in part.shape)
    return SourceTensor(name, first.dtype, shape, pieces)


def _saved_offsets(header: dict[str, Any], file: ReceivedFile) -> dict[str, Any] | None:
    """Return `DCP_SHARDING_INFO`, None where the file holds whole tensors."""
    said = _metadata(header).get(SHARDING_INFO)
    if said is None:
        return None
    if not isinstance(said, str):
        raise _broken(file, f"its {SHARDING_INFO} is malformed")
    return bounded_json.parse(said.encode(errors="surrogatepass"), file.path)


def _place(offsets: dict[str, Any] | None, name: str, rank: int, file: ReceivedFile) -> tuple[int, ...]:
    if offsets is None:
        return (0,) * rank
    entry = offsets.get(name)
    place = entry.get("saved_offsets") if isinstance(entry, dict) else None
    if not isinstance(place, list) or len(place) != rank:
        raise _broken(file, f"it does not say where its part of {name[:80]} belongs", name)
    if not all(type(at) is int and 0 <= at <= MAX_SIZE for at in place):
        raise _broken(file, f"the place of its part of {name[:80]} is out of range", name)
    return tuple(place)


def _metadata(header: dict[str, Any]) -> dict[str, Any]:
    value = header.get("__metadata__")
    return value if isinstance(value, dict) else {}


def _broken(file: ReceivedFile, why: str, member: str | None = None) -> Refusal:
    message = f"{file.path} is not a whole safetensors file: {why}"
    return Refusal(
        ReasonCode.BROKEN_WEIGHTS,
        message,
        SAVE_AGAIN,
        file=file.path,
        member=member[:120] if member else None,
    )
