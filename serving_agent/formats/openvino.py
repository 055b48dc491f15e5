"""OpenVINO: a graph as `model.xml` and `model.bin`, and `openvino.json`, which says how it is run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.errors import StartError
from serving_agent.formats.base import only_file
from serving_agent.formats.graph import GraphModel, opening, running

if TYPE_CHECKING:
    from torch import Tensor

ENGINE: Final = "OpenVINO"
OPTIONS: Final = "openvino.json"
DATATYPES: Final = {
    "boolean": "BOOL", "u8": "UINT8", "u16": "UINT16", "u32": "UINT32", "u64": "UINT64", "i8": "INT8",
    "i16": "INT16", "i32": "INT32", "i64": "INT64", "f16": "FP16", "f32": "FP32", "f64": "FP64",
}  # fmt: skip
"""Types as OpenVINO names them → the protocol's, of those that numpy has too."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of `openvino.json`."""

    inference_precision: Literal["f32", "bf16", "f16"] = "f32"
    """What the graph is computed in where the processor has it; inputs and outputs keep their types."""
    performance_hint: Literal["LATENCY", "THROUGHPUT"] = "LATENCY"


class OpenVino:
    """Opens OpenVINO's graphs on the CPU."""

    name = "openvino"
    title = "OpenVINO"
    description = "A graph as model.xml and model.bin, and openvino.json with the precision it runs in."
    is_program = True
    is_native = False
    is_module = False
    libraries = ("openvino",)

    def load(self, artifact_dir: Path, device: str, signature: Signature) -> GraphModel:
        """Open the graph on the CPU, whatever *device* is, with as many threads as torch has.

        Raises StartError.
        """
        del device
        path = only_file(artifact_dir, ".xml")
        weights = path.with_suffix(".bin")
        if not weights.exists():
            raise StartError(f"the artefact holds no {weights.name}")
        options = read_options(artifact_dir)
        import openvino

        with opening(ENGINE):
            core = openvino.Core()
            compiled = core.compile_model(core.read_model(path, weights), "CPU", properties(options))
            request = compiled.create_infer_request()
        tensors = Signature(
            tuple(_spec(port, signature.inputs) for port in compiled.inputs),
            tuple(_spec(port, signature.outputs) for port in compiled.outputs),
        )
        return GraphModel(_Request(request, len(tensors.outputs)), tensors, signature)


def read_options(artifact_dir: Path) -> Options:
    """Return the options in *artifact_dir*, the defaults where it holds none. Raises StartError."""
    try:
        return msgspec.json.decode((artifact_dir / OPTIONS).read_bytes(), type=Options)
    except FileNotFoundError:
        return Options()
    except msgspec.MsgspecError as error:
        raise StartError(f"{OPTIONS} cannot be used: {error}") from error


def properties(options: Options) -> dict[str, Any]:
    """Return OpenVINO's properties for *options*: one request at a time on torch's number of threads."""
    import torch

    return {
        "INFERENCE_PRECISION_HINT": options.inference_precision,
        "PERFORMANCE_HINT": options.performance_hint,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": "1",
        "ENABLE_CPU_PINNING": False,
    }


class _Request:
    """Runs one request at a time: inputs are shared with it, outputs are copied out of it.

    Tensors are set one by one: `infer` with all of them at once takes as long as a small graph itself.
    """

    def __init__(self, request: Any, outputs: int) -> None:
        import openvino

        self._request = request
        self._outputs = range(outputs)
        self._shared = openvino.Tensor

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        import torch

        held = [tensor.cpu().contiguous() for tensor in tensors]
        request = self._request
        with running(ENGINE):
            for index, tensor in enumerate(held):
                request.set_input_tensor(index, self._shared(tensor.numpy(), shared_memory=True))
            request.infer()
            return [torch.from_numpy(request.get_output_tensor(index).data.copy()) for index in self._outputs]


def _spec(port: Any, declared: Iterable[TensorSpec]) -> TensorSpec:
    """Return an input or output of a graph; sizes that vary are -1. Raises StartError.

    Converted graphs have several names a port: the declared one counts where it is among them.
    """
    names = sorted(port.get_names())
    known = [spec.name for spec in declared if spec.name in names]
    name = str((known or names or [port.get_node().get_friendly_name()])[0])
    kind = port.get_element_type().get_type_name()
    if kind not in DATATYPES:
        raise StartError(
            f"{name!r} is of type {kind}, which requests cannot carry; convert the model with another type"
        )
    shape = port.get_partial_shape()
    sizes = [size.get_length() if size.is_static else -1 for size in shape] if shape.rank.is_static else [-1]
    return TensorSpec(name, DATATYPES[kind], tuple(size or -1 for size in sizes))


FORMAT: Final = OpenVino()
