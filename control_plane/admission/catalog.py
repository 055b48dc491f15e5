"""The formats the gate lets in: one dotted module name each, asked in this order."""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

from control_plane.admission.base import Format

MODULES: Final = (
    "control_plane.admission.formats.torchscript",
    "control_plane.admission.formats.exported_program",
    "control_plane.admission.formats.distributed_checkpoint",
    "control_plane.admission.formats.huggingface",
    "control_plane.admission.formats.state_dict",
    "control_plane.admission.formats.bare_safetensors",
    "control_plane.admission.formats.numpy_arrays",
    "control_plane.admission.formats.onnx",
)


def formats() -> tuple[Format, ...]:
    """Return every format, in the catalogue's order."""
    return tuple(cast(Format, import_module(module).FORMAT) for module in MODULES)
