"""The tensors of a step under Hugging Face names, as places in its files; one reader a form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from control_plane.admission import dcp_tensors, sharded_safetensors
from control_plane.admission.base import ReceivedFile
from control_plane.admission.tensors import SourceTensor
from control_plane.nemo_rl import form_megatron
from control_plane.nemo_rl.forms import Form

_NUMBER: Final = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Weights:
    """What a reader found."""

    tensors: tuple[SourceTensor, ...]
    """In the model's order: by name, numbers by value."""
    left: tuple[str, ...]
    """Keys that were not read: optimiser state and pickled objects."""
    saved_at: str | None
    """Folder on the training machine, where the checkpoint says it."""


def read(step: Path, form: Form, config: Mapping[str, Any]) -> Weights:
    """Find the weights of *step*, which has *form*; config: of the model they belong to.

    Raises admission's Refusal for damaged or hostile files, RefusedError for what is not converted.
    """
    files = [_received(step, path) for path in form.weights]
    if form.letter in ("B", "D"):
        return Weights(_ordered(sharded_safetensors.tensors(files)), (), None)
    found = _distributed(files)
    if form.letter == "F":
        by_key = {tensor.name: tensor for tensor in found.tensors}
        return Weights(_ordered(form_megatron.convert(by_key, config)), found.left, found.saved_at)
    return Weights(_ordered(found.tensors), found.left, found.saved_at)


def _distributed(files: list[ReceivedFile]) -> dcp_tensors.Found:
    metadata = next(file for file in files if file.name == ".metadata")
    return dcp_tensors.read(metadata, {file.name: file for file in files if file is not metadata})


def _received(step: Path, path: str) -> ReceivedFile:
    return ReceivedFile(path, step / path, (step / path).stat().st_size)


def _ordered(tensors: Iterable[SourceTensor]) -> tuple[SourceTensor, ...]:
    return tuple(sorted(tensors, key=lambda tensor: _natural(tensor.name)))


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key by which `layers.2` comes before `layers.10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _NUMBER.split(name)]
