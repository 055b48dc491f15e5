"""ONNX: one `.onnx` file, with its large tensors in files beside it where they are external."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.errors import StartError
from serving_agent.formats.base import only_file
from serving_agent.formats.graph import GraphModel, Run, failure, opening, running

if TYPE_CHECKING:
    from torch import Tensor

ENGINE: Final = "ONNX Runtime"
CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
DATATYPES: Final = {
    "tensor(bool)": "BOOL", "tensor(uint8)": "UINT8", "tensor(uint16)": "UINT16", "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64", "tensor(int8)": "INT8", "tensor(int16)": "INT16", "tensor(int32)": "INT32",
    "tensor(int64)": "INT64", "tensor(float16)": "FP16", "tensor(bfloat16)": "BF16", "tensor(float)": "FP32",
    "tensor(double)": "FP64",
}  # fmt: skip
"""Types as ONNX Runtime names them → the protocol's, of those that both have."""


class Onnx:
    """Opens ONNX graphs with the operators that ONNX Runtime brings; it never loads libraries with others."""

    name = "onnx"
    title = "ONNX"
    description = "One .onnx file, with the files of its external tensors beside it; a program."
    is_program = True
    is_native = False
    is_module = False
    libraries = ("onnxruntime",)

    def load(self, artifact_dir: Path, device: str, signature: Signature) -> GraphModel:
        """Open the graph: on the GPU where *device* is one and ONNX Runtime can use it, else on the CPU.

        It gets as many threads as torch has. Raises StartError.
        """
        import onnxruntime

        path = only_file(artifact_dir, ".onnx")
        provider = CUDA if device != "cpu" and CUDA in onnxruntime.get_available_providers() else CPU
        with opening(ENGINE):
            session = onnxruntime.InferenceSession(
                str(path), session_options(), providers=_providers(provider, device)
            )
        tensors = Signature(tuple(map(_spec, session.get_inputs())), tuple(map(_spec, session.get_outputs())))
        return GraphModel(
            _runner(session, tensors, device if provider == CUDA else "cpu"), tensors, signature
        )


def _runner(session: Any, tensors: Signature, device: str) -> Run:
    inputs, outputs = ([spec.name for spec in side] for side in (tensors.inputs, tensors.outputs))
    if device == "cpu" and all(spec.datatype != "BF16" for spec in (*tensors.inputs, *tensors.outputs)):
        return _ArraySession(session, inputs, outputs)
    return _BoundSession(session, inputs, outputs, device)


def _spec(port: Any) -> TensorSpec:
    """Return an input or output of a session; sizes that vary are -1. Raises StartError."""
    if port.type not in DATATYPES:
        raise StartError(f"{port.name!r} is of type {port.type}, which requests cannot carry")
    shape = tuple(size if isinstance(size, int) and size > 0 else -1 for size in port.shape)
    return TensorSpec(port.name, DATATYPES[port.type], shape)


def session_options() -> Any:
    """Return the options every session has: torch's number of threads, which sleep between operators."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def _providers(provider: str, device: str) -> list[Any]:
    if provider == CPU:
        return [CPU]
    return [(CUDA, {"device_id": int(device.partition(":")[2] or 0)}), CPU]


class _ArraySession:
    """Runs on the CPU; tensors share their memory with the arrays that go in and come out.

    A small graph runs in tens of microseconds: every call counts here.
    """

    def __init__(self, session: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        import torch

        self._run = session.run
        self._inputs = tuple(inputs)
        self._outputs = list(outputs)
        self._tensor = torch.from_numpy

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        arrays = [_array(tensor) for tensor in tensors]
        try:
            results = self._run(self._outputs, dict(zip(self._inputs, arrays, strict=True)))
        except Exception as error:
            raise failure(ENGINE, error) from error
        return [self._tensor(result) for result in results]


def _array(tensor: Tensor) -> Any:
    if tensor.is_cpu and tensor.is_contiguous():
        return tensor.numpy()
    return tensor.cpu().contiguous().numpy()


class _BoundSession:
    """Runs where the tensors are: on a GPU, or on the CPU with types that numpy does not have (bfloat16)."""

    def __init__(self, session: Any, inputs: Sequence[str], outputs: Sequence[str], device: str) -> None:
        self._session = session
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self._device, _, index = device.partition(":")
        self._index = int(index or 0)

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        import onnxruntime
        import torch
        from torch.utils.dlpack import from_dlpack

        binding = self._session.io_binding()
        with running(ENGINE):
            held = [tensor.to(f"{self._device}:{self._index}").contiguous() for tensor in tensors]
            for name, tensor in zip(self._inputs, held, strict=True):
                binding.bind_ortvalue_input(name, onnxruntime.OrtValue.from_dlpack(tensor))
            for name in self._outputs:
                binding.bind_output(name, self._device, self._index)
            if self._device != "cpu":
                torch.cuda.current_stream().synchronize()  # ONNX Runtime has a stream of its own
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            return [from_dlpack(value) for value in binding.get_outputs()]


FORMAT: Final = Onnx()
