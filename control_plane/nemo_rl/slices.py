"""Parts of tensors as tensors: rows picked, a leading axis dropped. Only places change, no values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from control_plane.admission.tensors import Piece, SourceTensor

Span = tuple[int, int]
"""Rows from the first number up to, not including, the second."""


def rows(tensor: SourceTensor, name: str, spans: Iterable[Span]) -> SourceTensor:
    """Return the rows (places along axis 0) in *spans*, one behind the other, as a tensor called *name*.

    Rows that *tensor* lacks are missing in the result too, which `coverage` finds.
    """
    pieces: list[Piece] = []
    height = 0
    for low, high in spans:
        pieces.extend(_cut(tensor.pieces, low, high, height))
        height += high - low
    return SourceTensor(name, tensor.dtype, (height, *tensor.shape[1:]), tuple(pieces))


def layer(tensor: SourceTensor, index: int) -> SourceTensor:
    """Return row *index* of *tensor*, which has at least one axis, without that axis."""
    pieces = tuple(
        Piece(piece.storage, piece.start, piece.shape[1:], piece.strides[1:], piece.at[1:])
        for piece in _cut(tensor.pieces, index, index + 1, 0)
    )
    return SourceTensor(tensor.name, tensor.dtype, tensor.shape[1:], pieces)


def renamed(tensor: SourceTensor, name: str) -> SourceTensor:
    """Return *tensor* as *name*."""
    return SourceTensor(name, tensor.dtype, tensor.shape, tensor.pieces)


def _cut(pieces: Iterable[Piece], low: int, high: int, to: int) -> Iterator[Piece]:
    """Yield the parts of *pieces* within rows [low, high), moved so that row *low* lands at row *to*."""
    for piece in pieces:
        begin, end = max(low, piece.at[0]), min(high, piece.at[0] + piece.shape[0])
        if begin < end:
            yield Piece(
                piece.storage,
                piece.start + (begin - piece.at[0]) * piece.strides[0],
                (end - begin, *piece.shape[1:]),
                piece.strides,
                (to + begin - low, *piece.at[1:]),
            )
