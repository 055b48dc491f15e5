"""Distributed checkpoints of torch, and training steps around them: weights without their network.

Two layouts: a `.metadata` with `.distcp` files, and safetensors that several processes wrote
(`shard-00001-model-00001-of-00001.safetensors`). Optimiser, data loader and replay state are left out.
"""

from __future__ import annotations

import re
from typing import Final

from control_plane.admission import dcp_tensors, sharded_safetensors
from control_plane.admission.base import Accepted, LeftOut, Received, ReceivedFile, Refusal
from control_plane.admission.formats import bare_weights
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.tensors import SourceTensor

METADATA: Final = ".metadata"
DATA: Final = ".distcp"
SHARD: Final = re.compile(r"(.*/)?shard-\d+-model-\d+-of-\d+\.safetensors")
OTHER_STATE: Final = re.compile(r"(.*/)?(optimizer|optim|value|scheduler)/.*")
"""Parts of a training step that hold no weights of the model that is served."""
RESUME: Final = re.compile(r".*\.(pt|pth|pkl)")


class DistributedCheckpoint:
    """Lets distributed checkpoints in after a person said which network they belong to."""

    name = "state_dict"

    def recognises(self, received: Received) -> bool:
        """Tell whether a `.distcp` file or one process's part of safetensors is there."""
        return any(file.name.endswith(DATA) or SHARD.fullmatch(file.path) for file in received)

    def read(self, received: Received) -> Accepted:
        """Find the weights and say what is left out."""
        weights = [file for file in received if not OTHER_STATE.fullmatch(file.path)]
        parts = [file for file in weights if SHARD.fullmatch(file.path)]
        keys: tuple[LeftOut, ...] = ()
        if parts:
            tensors, used = sharded_safetensors.tensors(parts), set(parts)
        else:
            metadata = _only_metadata(weights)
            data = _beside(metadata, weights)
            found = dcp_tensors.read(metadata, data)
            tensors, used = found.tensors, {metadata, *data.values()}
            keys = tuple(LeftOut(f"{metadata.path}!/{key}", 0, "not weights") for key in found.left)
        left_out = tuple(_left_out(file) for file in received if file not in used)
        return bare_weights.accepted(_checked(tensors, received), (*left_out, *keys), converted=True)


def _checked(tensors: tuple[SourceTensor, ...], received: Received) -> tuple[SourceTensor, ...]:
    if tensors:
        return bare_weights.together([tensors], received[0].path)
    raise Refusal(
        ReasonCode.NO_TENSORS,
        "the checkpoint holds no weights, only other state",
        "Upload the folder that holds the model's weights.",
        file=received[0].path,
    )


def _only_metadata(files: list[ReceivedFile]) -> ReceivedFile:
    found = [file for file in files if file.name == METADATA]
    if len(found) == 1:
        return found[0]
    if not found:
        raise Refusal(
            ReasonCode.MISSING_WEIGHTS,
            "the checkpoint's .metadata is missing, which says where each tensor lies",
            "Upload the whole folder, hidden files too.",
            file=files[0].path if files else None,
        )
    raise Refusal(
        ReasonCode.SEVERAL_FILES,
        f"there are {len(found)} checkpoints: {found[0].path} and {found[1].path}",
        "Upload one of them.",
        file=found[1].path,
    )


def _beside(metadata: ReceivedFile, files: list[ReceivedFile]) -> dict[str, ReceivedFile]:
    folder = metadata.path.removesuffix(METADATA)
    return {file.name: file for file in files if file.path == folder + file.name and file is not metadata}


def _left_out(file: ReceivedFile) -> LeftOut:
    if OTHER_STATE.fullmatch(file.path):
        why = "optimiser state"
    else:
        why = "resume state" if RESUME.fullmatch(file.name) else "not weights"
    return LeftOut(file.path, file.size_bytes, why)


FORMAT: Final = DistributedCheckpoint()
