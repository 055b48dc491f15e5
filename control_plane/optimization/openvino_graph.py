"""OpenVINO graphs of versions: converted, named and saved; imports torch when called."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from pydantic import Field

from control_plane.optimization import exporting, graph_layers
from control_plane.optimization.base import BuildError, Calibration, Machine, Params, Parent, Subject
from serving_agent.contract.signature import Signature
from serving_agent.formats.openvino import OPTIONS, Options, properties

if TYPE_CHECKING:
    from torch import Tensor

FILE: Final = "model.xml"
LIBRARIES: Final = ("openvino",)
NNCF_LIBRARIES: Final = ("openvino", "nncf")
TOLERANCE: Final = 2e-3
NARROW_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16"})
NATIVE_NOTE: Final = "Computes in bfloat16 on processors that have it, and in FP32 on all others."
Precision = Literal["f32", "bf16"]


class Precise(Params):
    """In which numbers the graph is computed."""

    precision: Precision = Field(
        default="f32",
        title="Precision",
        description="bf16 is faster on processors with AVX-512 BF16 or AMX, and nearly as exact.",
    )


def inapplicable(subject: Subject) -> str | None:
    """Return why no OpenVINO graph can be made of it, as a sentence; None where one can."""
    if subject.format == "openvino":
        return "it is an OpenVINO graph already"
    specs = (*subject.signature.inputs, *subject.signature.outputs)
    if found := next((spec for spec in specs if spec.datatype == "BF16"), None):
        return f"{found.name} is BF16, which OpenVINO does not carry"
    return exporting.unexportable(subject)


def has_bf16(machine: Machine) -> bool:
    """Whether the processor multiplies in bfloat16."""
    return bool(NARROW_FLAGS & machine.flags)


def converted(parent: Parent) -> Any:
    """Return *parent* as an OpenVINO graph in FP32, compared with it on several sizes. Raises BuildError.

    From the exported program, without ONNX between: attention stays one operator then.
    """
    program = exporting.exported(parent, exporting.widened(parent))
    import openvino

    with exporting.quiet():
        try:
            model = openvino.convert_model(program)
        except Exception as error:
            raise BuildError(f"OpenVINO cannot convert it: {exporting.first_line(error)}") from error
    name_ports(model, parent.signature)
    exporting.check_answers(program.module(), running(model), parent, TOLERANCE)
    return model


def name_ports(model: Any, signature: Signature) -> None:
    """Give inputs and outputs the signature's names, and inputs its shapes."""
    import openvino

    pairs = list(zip(model.inputs, signature.inputs, strict=True))
    shapes = {port: openvino.PartialShape(list(spec.shape)) for port, spec in pairs}
    model.reshape(shapes)
    for port, spec in (*pairs, *zip(model.outputs, signature.outputs, strict=True)):
        port.get_tensor().set_names({spec.name})


def running(model: Any) -> Any:
    """Return the graph as a function of tensors in order, computed in FP32."""
    import openvino
    import torch

    compiled = openvino.Core().compile_model(model, "CPU", properties(Options()))

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        results = compiled([tensor.numpy() for tensor in tensors])
        return tuple(torch.from_numpy(results[index].copy()) for index in range(len(compiled.outputs)))

    return run


def save(model: Any, out: Path, precision: Precision, *, halve: bool) -> None:
    """Write `model.xml`, `model.bin` and `openvino.json`. halve: whether FP32 weights are stored as FP16."""
    import openvino

    openvino.save_model(model, out / FILE, compress_to_fp16=halve)
    (out / OPTIONS).write_bytes(msgspec.json.encode(Options(inference_precision=precision)))


def notes(precision: Precision) -> tuple[str, ...]:
    """What people should know of a graph of that precision."""
    return (NATIVE_NOTE,) if precision == "bf16" else ()


def is_transformer(model: Any) -> bool:
    """Whether the graph has attention, or what it is made of."""
    kinds = {node.get_type_name() for node in model.get_ops()}
    return "ScaledDotProductAttention" in kinds or {"Softmax", "MVN"} <= kinds


def ignored(model: Any, parent: Parent, kept: Collection[str]) -> list[str]:
    """Names of the graph's nodes that compute one of the layers *kept*.

    Constants carry the names of the program's tensors, with `_` for `.`.
    """
    paths = {name.replace(".", "_"): name for name in _tensor_names(parent)}
    found = []
    for node in model.get_ops():
        for source in node.input_values():
            tensors = {name.rpartition(":")[0] for name in source.get_names()}
            own = [original for name, original in paths.items() if any(t.endswith(name) for t in tensors)]
            if graph_layers.kept(own, kept):
                found.append(node.get_friendly_name())
    return found


def _tensor_names(parent: Parent) -> Iterable[str]:
    yield from (name for name, _ in parent.network.named_parameters())
    yield from (name for name, _ in parent.network.named_buffers())


def dataset(calibration: Calibration, signature: Signature) -> Any:
    """The calibration rows as NNCF reads them. Raises BuildError where there are none."""
    import nncf

    if not calibration.batches:
        raise BuildError("it needs rows to calibrate with, and got none")
    names = [spec.name for spec in signature.inputs]
    return nncf.Dataset(
        [
            {name: tensor.numpy() for name, tensor in zip(names, batch, strict=True)}
            for batch in calibration.batches
        ]
    )


def quiet_nncf() -> None:
    """Have NNCF say only what is wrong, and nobody else what it is used for."""
    import logging

    import nncf

    nncf.set_log_level(logging.ERROR)


def constants(model: Any) -> Iterator[Any]:
    """The graph's constants."""
    return (node for node in model.get_ops() if node.get_type_name() == "Constant")
