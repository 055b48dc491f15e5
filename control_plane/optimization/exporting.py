"""torch.export of a version: one program for every batch size and all sizes its signature leaves open."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from control_plane.optimization.base import BuildError, Parent, Subject
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.datatypes import FLOATS, TORCH_NAME
from serving_agent.formats.base import name_outputs

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram
    from torch.jit import ScriptModule
    from torch.nn import Module

FORMATS: Final = ("state_dict", "huggingface", "exported_program", "torchscript")
TOLERANCE: Final = 1e-3
"""Largest difference between a network and its own program that rounding explains, relative to the output."""
LEAST_OPEN: Final = 2
"""torch.export fixes sizes of 1: an example has at least two of everything that is open."""
TINY: Final = 1e-6
"""Outputs below it count as zeros when errors are compared with them."""
NARROW: Final = frozenset({"FP16", "BF16"})


def unexportable(subject: Subject) -> str | None:
    """Return why the version cannot be exported, as a sentence; None where it can. Imports no torch."""
    if subject.format not in FORMATS:
        return f"a version of format {subject.format} holds no torch network that could be exported"
    specs = (*subject.signature.inputs, *subject.signature.outputs)
    if text := next((spec.name for spec in specs if spec.datatype == "BYTES"), None):
        return f"{text} is text, which no exported graph takes"
    fixed = next((spec.name for spec in subject.signature.inputs if spec.shape[:1] != (-1,)), None)
    return f"input {fixed} has a fixed batch size" if fixed else None


def exported(parent: Parent, change: Callable[[Module], Module] | None = None) -> ExportedProgram:
    """Return *parent* as one program, whose results are proven on other sizes than it was exported with.

    It takes tensors in the order of the signature's inputs and returns a tuple in the order of its outputs.
    change: what to wrap the network in beforehand, e.g. casts; answers are compared with what it returns.
    Raises BuildError.
    """
    prepare(parent)
    module = parent.module if parent.kind != "script" else converted(parent)
    wrapped = change(module) if change else module
    return program_of(wrapped, parent)


def program_of(module: Module, parent: Parent) -> ExportedProgram:
    """Return *module*, which has the signature of *parent*, as a checked program. Raises BuildError."""
    import torch

    inputs = example(parent.samples, parent.signature)
    with quiet(), torch.no_grad():
        try:
            program = torch.export.export(
                _positional(module, parent.signature), inputs, dynamic_shapes=(_open_dims(parent),)
            )
        except Exception as error:
            raise BuildError(f"torch.export cannot follow it: {first_line(error)}") from error
        check_answers(module, program.module(), parent)
    return program


def prepare(parent: Parent) -> None:
    """Have transformers' networks return no cache of attention, which nothing here reads."""
    config = getattr(parent.network, "config", None)
    if getattr(config, "use_cache", False):
        config.use_cache = False  # type: ignore[union-attr]  # getattr above says that it has one


def converted(parent: Parent) -> Module:
    """The TorchScript program of *parent* as a graph of torch.export, for sizes like its example's."""
    from torch._export.converter import TS2EPConverter

    inputs = example(parent.samples, parent.signature)
    try:
        with quiet():
            graph = TS2EPConverter(cast("ScriptModule", parent.network), inputs).convert().module()
    except Exception as error:
        raise BuildError(f"its TorchScript cannot be turned into a graph: {first_line(error)}") from error
    return graph


def check_answers(
    expected: Callable[..., Any], actual: Callable[..., Any], parent: Parent, tolerance: float = TOLERANCE
) -> None:
    """Compare both on one row and on more rows and other open sizes than the example. Raises BuildError.

    tolerance: largest difference relative to the largest output.
    """
    for inputs in probes(parent.samples, parent.signature):
        sizes = " and ".join(str(list(tensor.shape)) for tensor in inputs)
        try:
            theirs = listed(actual(*inputs), parent.signature)
        except Exception as error:
            raise BuildError(f"exported, it fails on inputs of {sizes}: {first_line(error)}") from error
        for ours, other in zip(listed(expected(*inputs), parent.signature), theirs, strict=True):
            _compare(ours, other, sizes, tolerance)


def _compare(ours: Tensor, theirs: Tensor, sizes: str, tolerance: float) -> None:
    if ours.shape != theirs.shape:
        raise BuildError(
            f"exported, it returns the shape {list(theirs.shape)} for {sizes}, not {list(ours.shape)}"
        )
    if not ours.numel():
        return
    scale = max(float(ours.float().abs().max()), TINY)
    if not float((ours.float() - theirs.float()).abs().max()) <= tolerance * scale:
        raise BuildError(f"exported, it answers otherwise for {sizes}: it decides by what it sees")


def example(samples: Sequence[Tensor], signature: Signature) -> tuple[Tensor, ...]:
    """*samples* with at least two of everything that is open; sizes that were equal stay equal."""
    return tuple(
        resized(tensor, spec, lambda size: max(size, LEAST_OPEN), rows=max(len(tensor), LEAST_OPEN))
        for tensor, spec in zip(samples, signature.inputs, strict=True)
    )


def probes(samples: Sequence[Tensor], signature: Signature) -> Iterator[tuple[Tensor, ...]]:
    """Inputs of other sizes: one row as it is, and one more row than the samples with other open sizes."""
    more = len(samples[0]) + 1
    for rows, size_of in ((1, _same), (more, _other)):
        yield tuple(
            resized(tensor, spec, size_of, rows=rows)
            for tensor, spec in zip(samples, signature.inputs, strict=True)
        )


def of_rows(samples: Sequence[Tensor], signature: Signature, rows: int) -> tuple[Tensor, ...]:
    """*samples* cut or repeated to a batch of *rows*."""
    return tuple(
        resized(tensor, spec, _same, rows=rows)
        for tensor, spec in zip(samples, signature.inputs, strict=True)
    )


def resized(tensor: Tensor, spec: TensorSpec, size_of: Callable[[int], int], *, rows: int) -> Tensor:
    """*tensor* cut or repeated along what *spec* leaves open: *rows* on axis 0, size_of(size) elsewhere."""
    import torch

    for axis, size in enumerate(spec.shape):
        if size == -1:
            wanted = rows if axis == 0 else size_of(tensor.shape[axis])
            places = torch.arange(wanted) % tensor.shape[axis]
            tensor = tensor.index_select(axis, places)
    return tensor.contiguous()


def _same(size: int) -> int:
    return size


def _other(size: int) -> int:
    """A shorter size where there is one: what a network takes may be limited above."""
    return size // 2 + 1 if size > LEAST_OPEN else size + 1


def with_edges(signature: Signature, dtype: str) -> Callable[[Module], Module]:
    """Return what wraps a network of the type *dtype* so that it takes and gives what *signature* says.

    dtype: name of a floating type in torch; inputs of floating types are cast to it, all outputs back.
    """
    import torch
    from torch import nn

    inside = getattr(torch, dtype)
    floats = [spec.datatype in FLOATS for spec in signature.inputs]
    outside = [getattr(torch, TORCH_NAME[spec.datatype]) for spec in signature.outputs]

    class Edges(nn.Module):
        """Casts what goes in and what comes out."""

        def __init__(self, inner: Module) -> None:
            super().__init__()
            self.inner = inner
            self.training = False

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            cast = [t.to(inside) if is_float else t for t, is_float in zip(tensors, floats, strict=True)]
            return tuple(
                r.to(kind) for r, kind in zip(listed(self.inner(*cast), signature), outside, strict=True)
            )

    return Edges


def is_narrow(parent: Parent) -> bool:
    """Whether the network computes in 16-bit floating-point numbers."""
    return any(each.dtype.itemsize == 2 and each.is_floating_point() for each in _weights(parent.network))


def widened(parent: Parent) -> Callable[[Module], Module] | None:
    """Turn an eager network of 16-bit numbers into FP32 for engines that want that; None where it is already.

    Raises BuildError for a program, whose types are fixed.
    """
    if not is_narrow(parent):
        return None
    if parent.kind != "eager":
        raise BuildError("it is a program of 16-bit numbers, which this engine does not take")
    parent.network.float()
    return with_edges(parent.signature, "float32")


def narrow_edge(subject: Subject) -> str | None:
    """Return why an engine without 16-bit inputs and outputs cannot serve it; None where it can."""
    specs = (*subject.signature.inputs, *subject.signature.outputs)
    found = next((spec for spec in specs if spec.datatype in NARROW), None)
    return f"{found.name} is {found.datatype}, which this engine does not carry" if found else None


def listed(result: Any, signature: Signature) -> list[Any]:
    """What a network returned as tensors in the order of the signature's outputs."""
    return list(name_outputs(result, signature).values())


def first_line(error: BaseException) -> str:
    """The first telling line of what a library raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".:")[:300]


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's notices about its own insides while it exports and compiles."""
    import warnings

    loggers = [logging.getLogger(name) for name in ("torch", "torch._export", "torch.export", "torch.onnx")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _weights(network: Module) -> Iterable[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _open_dims(parent: Parent) -> tuple[dict[int, Any], ...]:
    from torch.export import Dim

    return tuple(
        {axis: Dim.DYNAMIC for axis, size in enumerate(spec.shape) if size == -1}
        for spec in parent.signature.inputs
    )


def _positional(module: Module, signature: Signature) -> Module:
    """*module* behind a function of positional tensors, whatever its arguments are called."""
    from torch import nn

    class Positional(nn.Module):
        """Tensors in, a tuple of tensors out."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.training = False  # eval() would go into graphs, which refuse it

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            return tuple(listed(self.module(*tensors), signature))

    return Positional()
