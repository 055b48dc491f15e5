"""safetensors files alone, whole or in parts with their index: weights that no code touches."""

from __future__ import annotations

import re
from typing import Final

from control_plane.admission import safetensors_header
from control_plane.admission.base import Accepted, Received
from control_plane.admission.formats import bare_weights

SUFFIX: Final = ".safetensors"
INDEX: Final = re.compile(r"(.*/)?[\w.-]+\.safetensors\.index\.json")


class BareSafetensors:
    """Lets safetensors files in after a person said which network they belong to."""

    name = "state_dict"

    def recognises(self, received: Received) -> bool:
        """Tell whether the files that matter are safetensors, and at most one index of them."""
        files, _ = bare_weights.split(received)
        indexes = [file for file in files if INDEX.fullmatch(file.path)]
        weights = [file for file in files if file.name.endswith(SUFFIX)]
        return bool(weights) and len(indexes) <= 1 and len(weights) + len(indexes) == len(files)

    def read(self, received: Received) -> Accepted:
        """Check each file's header, and that parts are complete."""
        files, beside = bare_weights.split(received)
        parts = bare_weights.by_name(file for file in files if file.name.endswith(SUFFIX))
        held = {name: safetensors_header.tensors(file) for name, file in parts.items()}
        index = next((file for file in files if INDEX.fullmatch(file.path)), None)
        tensors = bare_weights.joined(held, index, files[0].path)
        return bare_weights.accepted(tensors, beside, converted=False)


FORMAT: Final = BareSafetensors()
