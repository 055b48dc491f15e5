"""The weights of a Hugging Face folder: safetensors, or pickled ones, whole or in parts with an index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from control_plane.admission import bounded_json, coverage, hf_index, safetensors_header, state_dicts
from control_plane.admission.archive import member_names
from control_plane.admission.base import LeftOut, ReceivedFile, Refusal, WeightsFile
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.tensors import SourceTensor

SAFETENSORS: Final = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
PICKLED: Final = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin")
INDEX: Final = "model.safetensors.index.json"
PICKLED_INDEX: Final = "pytorch_model.bin.index.json"
SAVE_WEIGHTS: Final = "Write them with model.save_pretrained(folder), which makes model.safetensors."


@dataclass(frozen=True, slots=True)
class FolderWeights:
    """What becomes of a folder's weights."""

    files: tuple[WeightsFile, ...]
    """By the names that safetensors files of a folder have."""
    left_out: tuple[LeftOut, ...]
    pickled: bool
    """Whether they come out of pickles."""


def is_weights(name: str) -> bool:
    """Tell whether *name*, without folders, is that of weights."""
    return bool(SAFETENSORS.fullmatch(name) or PICKLED.fullmatch(name))


def is_part(name: str) -> bool:
    """Tell whether *name*, in the model's folder, is that of weights or their index."""
    return is_weights(name) or name in (INDEX, PICKLED_INDEX)


def read(files: Mapping[str, ReceivedFile]) -> FolderWeights:
    """Find the weights in *files*, by name in the model's folder. Raises Refusal."""
    plain = sorted(name for name in files if SAFETENSORS.fullmatch(name))
    pickled = sorted(name for name in files if PICKLED.fullmatch(name))
    if plain:
        held = {name: safetensors_header.tensors(files[name]) for name in plain}
        _check_complete(held, INDEX, files)
        return FolderWeights(_written(held, files), _unused(pickled, files), pickled=False)
    if not pickled:
        raise Refusal(
            ReasonCode.MISSING_WEIGHTS, "the folder holds no weights", f"Add them. {SAVE_WEIGHTS}", file=None
        )
    read_ = {name: _read_pickled(files[name]) for name in pickled}
    tensors = {name: each.tensors for name, each in read_.items()}
    _check_complete(tensors, PICKLED_INDEX, files)
    left_out = tuple(entry for each in read_.values() for entry in each.left_out)
    return FolderWeights(_written(tensors, files), left_out, pickled=True)


def _read_pickled(file: ReceivedFile) -> state_dicts.StateDict:
    if not state_dicts.is_state_dict(file, member_names((file,))):
        raise Refusal(
            ReasonCode.PICKLED_WEIGHTS,
            f"{file.path} is not what torch.save writes",
            f"Save the weights again. {SAVE_WEIGHTS}",
            file=file.path,
        )
    return state_dicts.read(file)


def _unused(pickled: list[str], files: Mapping[str, ReceivedFile]) -> tuple[LeftOut, ...]:
    """Leave out pickled weights beside safetensors. What is no weights is refused."""
    for name in pickled:
        _read_pickled(files[name])
    names = [*pickled, *([PICKLED_INDEX] if PICKLED_INDEX in files else [])]
    return tuple(
        LeftOut(files[name].path, files[name].size_bytes, "the model in another form") for name in names
    )


def _check_complete(
    held: Mapping[str, tuple[SourceTensor, ...]], index: str, files: Mapping[str, ReceivedFile]
) -> None:
    if index in files:
        names = {part: frozenset(tensor.name for tensor in tensors) for part, tensors in held.items()}
        hf_index.check(bounded_json.parse_file(files[index]), names, files[index].path)
    elif len(held) > 1 or next(iter(held)) not in ("model.safetensors", "pytorch_model.bin"):
        raise hf_index.incomplete(f"they are in {len(held)} parts, but {index} is missing", index)
    hf_index.check_parts(held, index)


def _written(
    held: Mapping[str, tuple[SourceTensor, ...]], files: Mapping[str, ReceivedFile]
) -> tuple[WeightsFile, ...]:
    """Return the files to be written, after checking that no tensor is there twice."""
    first = files[next(iter(held))].path
    coverage.check([tensor for tensors in held.values() for tensor in tensors], first)
    return tuple(WeightsFile(_plain_name(name), tensors) for name, tensors in held.items())


def _plain_name(name: str) -> str:
    """Return `model-00001-of-00002.safetensors` for `pytorch_model-00001-of-00002.bin`, and so on."""
    return re.sub(r"^pytorch_model(.*)\.bin$", r"model\1.safetensors", name)
