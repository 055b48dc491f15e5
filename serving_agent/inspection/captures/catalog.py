"""The captures: one dotted module name each; the first that applies to a model watches it."""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

from serving_agent.inspection.captures.base import Capture
from serving_agent.model_server import ModelServer

MODULES: Final = (
    "serving_agent.inspection.captures.modules",
    "serving_agent.inspection.captures.script_graph",
    "serving_agent.inspection.captures.exported_graph",
    "serving_agent.inspection.captures.onnx_graph",
    "serving_agent.inspection.captures.openvino_graph",
    "serving_agent.inspection.captures.nothing",
)


def captures() -> tuple[Capture, ...]:
    """Return every capture, in the order in which they are asked."""
    return tuple(cast(Capture, import_module(module).CAPTURE) for module in MODULES)


def for_model(server: ModelServer) -> Capture:
    """Return the capture for what *server* has opened; the last one takes anything."""
    return next(capture for capture in captures() if capture.applies_to(server))
