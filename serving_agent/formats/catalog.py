"""The artefact formats an agent can open: one dotted module name each, imported when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

from serving_agent.errors import StartError
from serving_agent.formats.base import Format

MODULES: Final = (
    "serving_agent.formats.torchscript",
    "serving_agent.formats.exported_program",
    "serving_agent.formats.huggingface",
    "serving_agent.formats.state_dict",
    "serving_agent.formats.onnx",
    "serving_agent.formats.openvino",
    "serving_agent.formats.aot_inductor",
    "serving_agent.formats.compiled",
)


def formats() -> tuple[Format, ...]:
    """Return every format, in the catalogue's order; imports no torch."""
    return tuple(cast(Format, import_module(module).FORMAT) for module in MODULES)


def names() -> tuple[str, ...]:
    """Return the formats' names."""
    return tuple(format_.name for format_ in formats())


def programs() -> tuple[str, ...]:
    """Return the names of the formats that hold a program or a graph of their own."""
    return tuple(format_.name for format_ in formats() if format_.is_program)


def get(name: str) -> Format:
    """Return the format called *name*. Raises StartError listing the known ones."""
    for format_ in formats():
        if format_.name == name:
            return format_
    raise StartError(f"unknown format {name!r}; known formats are {', '.join(names())}")
