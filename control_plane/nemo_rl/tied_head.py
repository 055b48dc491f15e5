"""The output head of a model whose head is its embedding: form A saves it twice, we once."""

from __future__ import annotations

import math
from collections.abc import Iterator

from control_plane.admission.safetensors_writer import blocks
from control_plane.admission.strided_copy import LARGEST_UNIT, Sources, part
from control_plane.admission.tensors import ITEM_BYTES, SourceTensor
from control_plane.errors import RefusedError
from control_plane.nemo_rl.architecture import Expected

BLOCK_BYTES = 4 * 1024 * 1024


def without_tied_head(tensors: tuple[SourceTensor, ...], wanted: Expected) -> tuple[SourceTensor, ...]:
    """Return *tensors* without second names of tied ones, after checking that both hold the same bytes.

    Raises RefusedError where they differ: the training then had two tensors and the config says one.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    second = {name: first for name, first in wanted.tied.items() if name in by_name and first in by_name}
    for name, first in second.items():
        if not equal(by_name[name], by_name[first]):
            raise RefusedError(
                f"config.json ties {name} to {first}, but the step holds different values for them",
                next_step="If it was trained so, set tie_word_embeddings to false in the base's config.json.",
                reason="not-tied",
            )
    return tuple(tensor for tensor in tensors if tensor.name not in second)


def equal(one: SourceTensor, other: SourceTensor) -> bool:
    """Tell whether two tensors have the same type, shape and bytes, reading both block by block."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    with Sources() as sources:
        pairs = zip(_blocks(one, sources), _blocks(other, sources), strict=True)
        return all(ours == theirs for ours, theirs in pairs)


def _blocks(tensor: SourceTensor, sources: Sources) -> Iterator[bytes]:
    item = ITEM_BYTES[tensor.dtype]
    unit = min(item, LARGEST_UNIT)
    for low, extent in blocks(tensor.shape, BLOCK_BYTES // item):
        block = bytearray(math.prod(extent) * item)
        for piece in tensor.pieces:
            region = part(piece, low, extent, item // unit)
            if region:
                sources.copy(region, unit, memoryview(block))
        yield bytes(block)
