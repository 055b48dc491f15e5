"""What a changed network is written as, so that an agent opens it without its Python class.

TorchScript where the network can be traced. A language model takes other paths for other lengths: it becomes
an exported program, for every length. Either can be compiled ahead of time instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from control_plane.optimization import exporting, torchscript
from control_plane.optimization.base import BuildError, Built, Machine, Params, Parent, Work

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.nn import Module

PROGRAM_FILE: Final = "model.pt2"
LANGUAGE_MODELS: Final = ("ForCausalLM", "LMHeadModel")


class Compilable(Params):
    """Whether machine code is made."""

    compile: bool = Field(
        default=False,
        title="Compile",
        description=(
            "Make machine code with AOTInductor, which takes up to a minute and a C++ compiler. Otherwise "
            "torch runs the operations one by one."
        ),
    )


def uncompilable(machine: Machine) -> str | None:
    """Return why nothing can be compiled there, as a sentence; None where it can."""
    return None if machine.compiler else "this machine has no C++ compiler, which AOTInductor needs"


def is_language_model(parent: Parent) -> bool:
    """Whether the network is a causal language model."""
    return parent.kind == "eager" and type(parent.network).__name__.endswith(LANGUAGE_MODELS)


def write(
    module: Module,
    work: Work,
    *,
    compiled: bool = False,
    freeze: bool = True,
    tolerance: float = exporting.TOLERANCE,
    notes: tuple[str, ...] = (),
) -> Built:
    """Write *module*, which has the parent's signature, and say as what. Raises BuildError.

    freeze: whether TorchScript inlines weights and folds what is fixed. tolerance: largest difference from
    *module* that the order of its sums explains, relative to the output.
    """
    if compiled:
        work.say("export")
        exporting.prepare(work.parent)
        program = exporting.program_of(module, work.parent)
        return package(program, module, work, tolerance=tolerance, notes=notes)
    if is_language_model(work.parent):
        work.say("export")
        exporting.prepare(work.parent)
        save_program(exporting.program_of(module, work.parent), work.out)
        return Built(format="exported_program", notes=notes)
    work.say("trace")
    program = torchscript.traced(module, work.parent.samples, work.parent.signature, tolerance)
    torchscript.save(program, work.out, freeze=freeze)
    return Built(format="torchscript", notes=notes)


def save_program(program: ExportedProgram, out: Path) -> None:
    """Write `model.pt2`."""
    import torch

    with exporting.quiet():
        torch.export.save(program, out / PROGRAM_FILE)


def package(
    program: ExportedProgram,
    expected: Callable[..., Any],
    work: Work,
    *,
    options: dict[str, Any] | None = None,
    tolerance: float = exporting.TOLERANCE,
    notes: tuple[str, ...] = (),
) -> Built:
    """Compile *program* into `model.pt2` and prove it against *expected*. Raises BuildError.

    options: settings of torch._inductor.config. tolerance: largest difference relative to the output.
    """
    import torch

    require_compiler()
    path = str(work.out / PROGRAM_FILE)
    work.say("compile")
    with exporting.quiet(), fresh_cache():
        made = torch._inductor.aoti_compile_and_package(
            program, package_path=path, inductor_configs=options or {}
        )
        exporting.check_answers(
            expected, torch._inductor.aoti_load_package(made), work.parent, tolerance=tolerance
        )
    return Built(format="aot_inductor", notes=notes)


def require_compiler() -> None:
    """Raise BuildError where no C++ compiler is found."""
    from control_plane.optimization.machine import this_machine

    if reason := uncompilable(this_machine()):
        raise BuildError(reason)


@contextmanager
def fresh_cache() -> Iterator[None]:
    """Compile into a folder of its own, which is gone afterwards."""
    from torch._inductor.utils import fresh_cache

    with fresh_cache():
        yield
