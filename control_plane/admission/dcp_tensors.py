"""The model's tensors of a distributed checkpoint: which of its keys are weights, and under which names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from control_plane.admission import dcp_chunks, dcp_metadata
from control_plane.admission.base import ReceivedFile
from control_plane.admission.dcp_metadata import DcpTensor, broken
from control_plane.admission.tensors import SourceTensor

MODEL_KEYS: Final = ("model", "state_dict", "model_state_dict", "module", "network", "net", "app")
"""Keys under which training programs save the weights beside other state."""
OTHER_STATE: Final = ("optimizer", "optim", "optimizers", "lr_scheduler", "scheduler", "rng_state")
"""Keys and beginnings of keys that are no weights."""


@dataclass(frozen=True, slots=True)
class Found:
    """The weights and what was left."""

    tensors: tuple[SourceTensor, ...]
    """Under the names of the model's own state dict; by name, sorted."""
    left: tuple[str, ...]
    """Keys of other tensors and of pickled objects, which are not read."""
    saved_at: str | None
    """Folder it was saved to, as the machine that saved it called it."""


def read(metadata: ReceivedFile, files: Mapping[str, ReceivedFile]) -> Found:
    """Return the weights that *metadata*, a `.metadata`, finds in *files* (by name). Raises Refusal."""
    said = dcp_metadata.read(metadata)
    names = names_of(said.tensors)
    wanted = tuple(tensor for tensor in said.tensors if tensor.key in names)
    found = [
        SourceTensor(names[tensor.name], tensor.dtype, tensor.shape, tensor.pieces)
        for tensor in dcp_chunks.tensors(wanted, files, metadata.path)
    ]
    _check_lengths([tensor for tensor in said.tensors if tensor.key not in names], files)
    left = tuple(tensor.key for tensor in said.tensors if tensor.key not in names) + said.objects
    return Found(tuple(sorted(found, key=lambda tensor: tensor.name)), left, said.saved_at)


def _check_lengths(others: list[DcpTensor], files: Mapping[str, ReceivedFile]) -> None:
    """Check that what is left out is not cut either where its file is there: the copy was cut short then."""
    for tensor in others:
        for chunk in tensor.chunks:
            file = files.get(chunk.file)
            if file is not None and chunk.offset + chunk.length > file.size_bytes:
                raise broken(
                    file.path, f"it is cut: {tensor.key[:120]} lies beyond its end", tensor.key[:120]
                )


def names_of(tensors: tuple[DcpTensor, ...]) -> dict[str, str]:
    """Return key → name of those that are weights, by the paths that `planner_data` gives them.

    A wrapper such as {"model": ..., "optimizer": ...} is known by the path's first part, never by the
    spelling of a flat key: the flat keys of many models begin with `model.` as well.
    """
    first = {tensor.path[0] for tensor in tensors if len(tensor.path) > 1}
    wrapper = next((key for key in MODEL_KEYS if key in first), None)
    if wrapper is not None:
        inside = [tensor for tensor in tensors if tensor.path[0] == wrapper and len(tensor.path) > 1]
        return {tensor.key: ".".join(tensor.path[1:]) for tensor in inside}
    return {tensor.key: tensor.key for tensor in tensors if not _is_other(tensor)}


def _is_other(tensor: DcpTensor) -> bool:
    return tensor.path[0].partition(".")[0] in OTHER_STATE
