"""The optimisation methods: one dotted module name each, imported when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

from control_plane.errors import InvalidInputError
from control_plane.optimization.base import Method

MODULES: Final = (
    "control_plane.optimization.methods.dynamic_int8",
    "control_plane.optimization.methods.static_int8",
    "control_plane.optimization.methods.weight_only_int8",
    "control_plane.optimization.methods.weight_only_int4",
    "control_plane.optimization.methods.bf16",
    "control_plane.optimization.methods.fp16",
    "control_plane.optimization.methods.l1_pruning",
    "control_plane.optimization.methods.channel_pruning",
    "control_plane.optimization.methods.sparse_2_4",
    "control_plane.optimization.methods.torchscript_trace",
    "control_plane.optimization.methods.torchscript_script",
    "control_plane.optimization.methods.onnx_runtime",
    "control_plane.optimization.methods.onnx_dynamic_int8",
    "control_plane.optimization.methods.onnx_static_int8",
    "control_plane.optimization.methods.openvino",
    "control_plane.optimization.methods.openvino_int8",
    "control_plane.optimization.methods.openvino_weights",
    "control_plane.optimization.methods.aot_inductor",
    "control_plane.optimization.methods.compile_cache",
)


def methods() -> tuple[Method, ...]:
    """Return every method, in the catalogue's order; imports no torch."""
    return tuple(cast(Method, import_module(module).METHOD) for module in MODULES)


def names() -> tuple[str, ...]:
    """Return the methods' names."""
    return tuple(method.name for method in methods())


def get(name: str) -> Method:
    """Return the method called *name*. Raises InvalidInputError listing the known ones."""
    for method in methods():
        if method.name == name:
            return method
    raise InvalidInputError(
        f"There is no optimisation method {name[:80]!r}; known methods are {', '.join(names())}"
    )
