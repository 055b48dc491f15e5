"""`aot-inductor`: the exported program, compiled ahead of time into native code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from control_plane.optimization import containers, exporting
from control_plane.optimization.base import BuildError, Built, Gains, Params, Parent, Subject, Work
from control_plane.optimization.openvino_graph import has_bf16

if TYPE_CHECKING:
    from torch.nn import Module

TOLERANCE: Final = {"fp32": 1e-3, "bf16": 0.05}
"""Largest difference between compiled code and the program it was made of, relative to the output."""
NATIVE_NOTE: Final = "Native code for this kind of processor: build it again for machines with another one."


class AotInductorParams(Params):
    """What the compiler may do."""

    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        title="Precision",
        description="bf16 casts the network inside; inputs and outputs keep their types.",
    )
    freezing: bool = Field(
        default=True,
        title="Freeze weights",
        description="Lay weights out for the kernels beforehand: 2 to 4 times faster in bf16.",
    )
    max_autotune: bool = Field(
        default=False,
        title="Try kernels out",
        description="Time several kernels for each product while building: slow, and seldom better.",
    )


class AotInductor:
    """torch.export and AOTInductor; no compiler is needed to open it."""

    name = "aot-inductor"
    title = "AOTInductor"
    description = (
        "Compiled ahead of time into native code for this kind of processor: fused loops, no Python. In "
        "bfloat16 up to 5 times faster for batches of large layers. Building takes 20 s and more."
    )
    params = AotInductorParams
    calibrated = False
    cost_s = 30.0
    gains = Gains(latency=2.9, throughput=5.3, size=1.7)

    def inapplicable(self, subject: Subject) -> str | None:
        """Whatever torch.export can follow, on a machine with a C++ compiler."""
        return exporting.unexportable(subject) or containers.uncompilable(subject.machine)

    def candidates(self, subject: Subject) -> tuple[AotInductorParams, ...]:
        """bfloat16 where the processor has it, and FP32."""
        exact = AotInductorParams()
        if has_bf16(subject.machine):
            return (AotInductorParams(precision="bf16"), exact)
        return (exact,)

    def build(self, work: Work, params: AotInductorParams) -> Built:
        """Write `model.pt2`. Raises BuildError."""
        containers.require_compiler()
        work.say("export")
        change = narrowed(work.parent) if params.precision == "bf16" else None
        program = exporting.exported(work.parent, change)
        return containers.package(
            program,
            program.module(),
            work,
            options=options(params),
            tolerance=TOLERANCE[params.precision],
            notes=(NATIVE_NOTE,),
        )


def options(params: AotInductorParams) -> dict[str, Any]:
    """Settings of Inductor. Threads are counted at run time: an agent may have more than the build."""
    return {
        "freezing": params.freezing,
        "max_autotune": params.max_autotune,
        "cpp.dynamic_threads": True,
    }


def narrowed(parent: Parent) -> Callable[[Module], Module]:
    """Return what turns the network into bfloat16 behind edges of the signature's types."""
    edges = exporting.with_edges(parent.signature, "bfloat16")

    def change(module: Module) -> Module:
        try:
            return edges(module.bfloat16())
        except RuntimeError as error:
            raise BuildError(f"it cannot be cast to bfloat16: {exporting.first_line(error)}") from error

    return change


METHOD: Final = AotInductor()
