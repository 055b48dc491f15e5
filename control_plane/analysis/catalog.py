"""The guardrails there are: one dotted module name each, imported when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

from control_plane.analysis.base import Metric
from control_plane.domain.rollout import Guardrail
from control_plane.errors import InvalidInputError

MODULES: Final = (
    "control_plane.analysis.metrics.errors",
    "control_plane.analysis.metrics.tries",
    "control_plane.analysis.metrics.latency",
    "control_plane.analysis.metrics.first_byte",
    "control_plane.analysis.metrics.outputs",
    "control_plane.analysis.metrics.disagreement",
    "control_plane.analysis.metrics.nonfinite",
)


def metrics() -> tuple[Metric, ...]:
    """Return every kind of guardrail, in the catalogue's order."""
    return tuple(cast(Metric, import_module(module).METRIC) for module in MODULES)


def names() -> tuple[str, ...]:
    """Return the guardrails' names."""
    return tuple(metric.name for metric in metrics())


def defaults() -> tuple[Guardrail, ...]:
    """Return what a rollout is guarded by unless it says otherwise."""
    return tuple(metric.default for metric in metrics())


def get(name: str) -> Metric:
    """Return the metric called *name*. Raises InvalidInputError listing the known ones."""
    for metric in metrics():
        if metric.name == name:
            return metric
    raise InvalidInputError(f"There is no guardrail {name[:80]!r}; known guardrails are {', '.join(names())}")
