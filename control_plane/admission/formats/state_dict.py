"""State dicts (.pt, .pth, .bin, .ckpt): pickled weights, read without unpickling and written anew."""

from __future__ import annotations

import re
from typing import Final

from control_plane.admission import hf_index, state_dicts
from control_plane.admission.archive import member_names
from control_plane.admission.base import Accepted, Received, ReceivedFile
from control_plane.admission.formats import bare_weights

INDEX: Final = re.compile(r"(.*/)?[\w.-]+\.bin\.index\.json")


class StateDict:
    """Lets pickled weights in after a person said which network they belong to."""

    name = "state_dict"

    def recognises(self, received: Received) -> bool:
        """Tell whether what matters is one file that torch.save wrote, or parts that say they are parts."""
        files, _ = bare_weights.split(received)
        weights = _weights(files)
        if len(files) > 1 and not all(hf_index.PART.fullmatch(file.name) for file in weights):
            return False
        one_index = len(files) - len(weights) <= 1
        return bool(weights) and one_index and all(map(_is_state_dict, weights))

    def read(self, received: Received) -> Accepted:
        """Find the weights; optimiser and resume state are left out."""
        files, beside = bare_weights.split(received)
        parts = bare_weights.by_name(_weights(files))
        found = {name: state_dicts.read(file) for name, file in parts.items()}
        index = next((file for file in files if INDEX.fullmatch(file.path)), None)
        held = {name: each.tensors for name, each in found.items()}
        tensors = bare_weights.joined(held, index, files[0].path)
        left_out = tuple(entry for each in found.values() for entry in each.left_out)
        return bare_weights.accepted(tensors, (*left_out, *beside), converted=True)


def _weights(files: list[ReceivedFile]) -> list[ReceivedFile]:
    return [file for file in files if not INDEX.fullmatch(file.path)]


def _is_state_dict(file: ReceivedFile) -> bool:
    return state_dicts.is_state_dict(file, member_names((file,)))


FORMAT: Final = StateDict()
