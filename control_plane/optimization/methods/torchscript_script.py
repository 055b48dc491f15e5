"""`torchscript-script`: the network's own Python, compiled by TorchScript with its branches and loops."""

from __future__ import annotations

import itertools
from typing import Any, Final

from pydantic import Field

from control_plane.optimization import torchscript
from control_plane.optimization.base import BuildError, Built, Gains, Params, Parent, Subject, Work


class ScriptParams(Params):
    """How much of the program is fixed."""

    freeze: bool = Field(
        default=True, title="Freeze", description="Inline the weights as constants and fold what is fixed."
    )


class TorchScriptScript:
    """torch.jit.script of the network, checked against the parent on other sizes."""

    name = "torchscript-script"
    title = "TorchScript script"
    description = (
        "Compiles the network's own Python, so that branches and loops over values stay as they are. Saves "
        "the overhead of Python: up to 1.5 times faster for one row of a small network, nothing for large "
        "batches. Understands part of Python only."
    )
    params = ScriptParams
    calibrated = False
    cost_s = 3.0
    gains = Gains(latency=1.5, throughput=1.1, size=1.0)

    def inapplicable(self, subject: Subject) -> str | None:
        """Compiling takes Python source, which programs have no more."""
        if subject.format == "torchscript":
            return "it is TorchScript already"
        if subject.format == "huggingface":
            return "transformers' networks use parts of Python that TorchScript does not understand"
        if not subject.is_eager:
            return f"a version of format {subject.format} has no Python source that could be compiled"
        return None

    def candidates(self, subject: Subject) -> tuple[ScriptParams, ...]:
        """Frozen only: it is never slower."""
        del subject
        return (ScriptParams(),)

    def build(self, work: Work, params: ScriptParams) -> Built:
        """Write `model.pt`. Raises BuildError in the compiler's words where it does not understand it."""
        work.say("compile")
        program = compiled(work.parent)
        torchscript.check_same(work.parent.module, program, work.parent.samples, work.parent.signature)
        torchscript.save(program, work.out, freeze=params.freeze)
        return Built(format="torchscript")


def compiled(parent: Parent) -> Any:
    """The network as TorchScript. Raises BuildError with the compiler's sentence and the line it means."""
    import torch

    with torchscript.quiet():
        try:
            return torch.jit.script(parent.network)
        except Exception as error:
            raise BuildError(f"TorchScript cannot compile it: {said(str(error))}") from error


def said(message: str) -> str:
    """The compiler's sentence, and the source it marks with `<--- HERE`, in one line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if not lines:
        return "it does not say why"
    if lines[0].endswith(":") and len(lines) > 1:  # e.g. "Arguments for call are not valid.\n...:"
        lines[0] = f"{lines[0]} {lines[1]}"
    marked = [before for before, line in itertools.pairwise(lines) if line.endswith("<--- HERE")]
    where = f" (at `{marked[0]}`)" if marked else ""
    return f"{lines[0].rstrip(':.')[:300]}{where[:200]}"


METHOD: Final = TorchScriptScript()
