"""Networks computed in 16-bit floating-point numbers, with the parent's types at the edges."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from control_plane.optimization import containers, exporting, layers
from control_plane.optimization.base import BuildError, Built, Parent, Subject, Work
from serving_agent.datatypes import FLOATS

if TYPE_CHECKING:
    from torch.nn import Module

FORMATS: Final = ("state_dict", "huggingface", "exported_program", "torchscript")


def inapplicable(subject: Subject) -> str | None:
    """Return why its numbers cannot be narrowed, as a sentence; None where they can."""
    if subject.format not in FORMATS:
        return f"a version of format {subject.format} holds no torch network whose numbers could be narrowed"
    if not any(spec.datatype in FLOATS for spec in subject.signature.outputs):
        return "it returns no floating-point numbers"
    return exporting.narrow_edge(subject)


def narrowed(work: Work, dtype: str, *, notes: tuple[str, ...] = ()) -> Built:
    """Write the parent in the type *dtype* of torch. Raises BuildError where it computes nonsense then."""
    import torch

    parent = work.parent
    if exporting.is_narrow(parent):
        raise BuildError("it computes in 16-bit floating-point numbers already")
    held = itertools.chain(parent.network.parameters(), parent.network.buffers())
    if not any(each.is_floating_point() for each in held):
        raise BuildError("it has no weights of its own whose numbers could be narrowed")
    layers.without_shortcuts()
    work.say(f"narrow to {dtype}")
    parent.network.to(getattr(torch, dtype))
    module = exporting.with_edges(parent.signature, dtype)(parent.module)
    check_finite(module, parent, dtype)
    return containers.write(module, work, notes=notes)


def check_finite(module: Module, parent: Parent, dtype: str) -> None:
    """Run it once. Raises BuildError where it fails or leaves the range of numbers."""
    try:
        results = module(*parent.samples)
    except RuntimeError as error:
        raise BuildError(f"it does not run in {dtype}: {exporting.first_line(error)}") from error
    if not all(bool(result.isfinite().all()) for result in results):
        raise BuildError(f"in {dtype} its numbers leave the range: it answers infinities or NaN")
