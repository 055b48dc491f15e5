"""The network that bare weights belong to: a class (or function) of the operator's and how it is called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import msgspec

FILE: Final = "architecture.json"
"""Its name in an artefact of format `state_dict`."""
WEIGHTS: Final = "model.safetensors"
"""The weights' name there."""
NAME: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


class Architecture(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"builder": "class"}):
    """`builder(**arguments)` makes the network; `class` is the builder's key in JSON."""

    builder: str
    """`module:Class`; a function that returns a module will do."""
    arguments: dict[str, Any] = {}
    """Keyword arguments, as JSON holds them."""

    def __post_init__(self) -> None:
        if NAME.fullmatch(self.builder) is None:
            raise ValueError(f"{self.builder[:80]!r} is not of the form module:Class")
        if bad := [name for name in self.arguments if not name.isidentifier()]:
            raise ValueError(f"{bad[0][:80]!r} is not the name of an argument")


def read(artifact_dir: Path) -> Architecture:
    """Read the artefact's architecture. Raises OSError, msgspec.MsgspecError."""
    return msgspec.json.decode((artifact_dir / FILE).read_bytes(), type=Architecture)


def write(architecture: Architecture, artifact_dir: Path) -> None:
    """Write *architecture* into the artefact's folder: the same one always as the same bytes."""
    encoded = msgspec.json.encode(architecture, order="sorted")
    (artifact_dir / FILE).write_bytes(msgspec.json.format(encoded, indent=2) + b"\n")
