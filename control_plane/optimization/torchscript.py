"""TorchScript as a container of variants: tracing with a check, freezing, saving."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from control_plane.optimization import exporting
from control_plane.optimization.base import BuildError, Subject
from serving_agent.contract.signature import Signature

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

FILE: Final = "model.pt"
ENGINE_FILE: Final = "quantized.json"
TOLERANCE: Final = 1e-3
"""Largest difference between a network and its own trace that rounding explains, relative to the output."""
ROUNDINGS: Final = 4
"""Steps of a narrow type by which the two may differ."""


def untraceable(subject: Subject) -> str | None:
    """Return why the version cannot be traced, as a sentence; None where it can."""
    if subject.is_language_model:
        return "a language model is not traced: what one length took would be fixed for all"
    if subject.format == "torchscript":
        return "it is TorchScript already"
    if not subject.is_eager and subject.format != "exported_program":
        return f"a version of format {subject.format} holds no torch network"
    return None


def traced(
    module: Module, samples: Sequence[Tensor], signature: Signature, tolerance: float = TOLERANCE
) -> Any:
    """Return *module* traced with *samples* and proven on other sizes that *signature* leaves open.

    tolerance: largest difference relative to the largest output. Raises BuildError.
    """
    import torch

    with quiet():
        try:
            program = torch.jit.trace(  # type: ignore[no-untyped-call]  # its own is untyped
                module, tuple(samples), check_trace=False, strict=False
            )
        except Exception as error:
            raise BuildError(f"torch.jit.trace cannot follow it: {exporting.first_line(error)}") from error
        check_same(module, program, samples, signature, tolerance)
    return program


def check_same(
    module: Callable[..., Any],
    program: Callable[..., Any],
    samples: Sequence[Tensor],
    signature: Signature,
    tolerance: float = TOLERANCE,
) -> None:
    """Compare both on *samples*, on one row, and on more rows of other open sizes. Raises BuildError."""
    for inputs in (tuple(samples), *exporting.probes(samples, signature)):
        sizes = " and ".join(str(list(tensor.shape)) for tensor in inputs)
        try:
            result = program(*inputs)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise BuildError(f"as a program it fails on inputs of {sizes}: {reason[:200]}") from error
        theirs = exporting.listed(result, signature)
        for ours, other in zip(exporting.listed(module(*inputs), signature), theirs, strict=True):
            _compare(ours, other, sizes, tolerance)


def save(program: Any, out: Path, *, freeze: bool = False) -> None:
    """Write the program as `model.pt`, frozen if asked for."""
    import torch

    with quiet():
        made = torch.jit.freeze(program.eval()) if freeze else program
        torch.jit.save(made, str(out / FILE))


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's notices that TorchScript is no longer developed, and the tracer's about shapes."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        warnings.filterwarnings("ignore", "torch.ao.quantization", DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit._trace.TracerWarning)
        yield


def write_engine(engine: str, out: Path) -> None:
    """Write which engine's kernels the quantised program wants (`quantized.json`)."""
    (out / ENGINE_FILE).write_text(f'{{"engine": "{engine}"}}\n', "utf-8")


def _compare(ours: Tensor, theirs: Tensor, sizes: str, tolerance: float) -> None:
    if ours.shape != theirs.shape:
        raise BuildError(
            f"as a program it returns the shape {list(theirs.shape)} for {sizes}, not {list(ours.shape)}"
        )
    scale = float(ours.float().abs().max()) or 1.0
    least = max(tolerance, ROUNDINGS * _step_of(ours))
    if not float((ours.float() - theirs.float()).abs().max()) <= least * scale:
        raise BuildError(f"as a program it answers otherwise for {sizes}: it decides by the values it sees")


def _step_of(tensor: Tensor) -> float:
    """Relative distance of neighbouring numbers of its type."""
    import torch

    return float(torch.finfo(tensor.dtype).eps) if tensor.is_floating_point() else 0.0
