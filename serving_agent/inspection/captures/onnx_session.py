"""Runs of ONNX graphs that give any of their values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from serving_agent.formats.onnx import session_options
from serving_agent.inspection.captures.onnx_model import OnnxGraph

Level = Literal["ORT_ENABLE_ALL", "ORT_DISABLE_ALL"]
FOLDER_OF_EXTERNAL: Final = "session.model_external_initializers_file_folder_path"
FAILED_NODE: Final = re.compile(r"Name:'([^']*)'")


def run(
    graph: OnnxGraph,
    feeds: Mapping[str, Any],
    wanted: Sequence[str],
    level: Level,
    first: int | None = None,
) -> dict[str, Any]:
    """Return the *wanted* values by name, as arrays, or tensors of torch where numpy lacks their type.

    level: how far ONNX Runtime may rewrite the graph. first: how many of its nodes are run, None for all.
    Values that are no tensors are missing. Raises what ONNX Runtime raises.
    """
    import onnxruntime

    options = session_options()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.add_session_config_entry(FOLDER_OF_EXTERNAL, str(graph.folder))
    session = onnxruntime.InferenceSession(
        graph.telling(wanted, first), options, providers=["CPUExecutionProvider"]
    )
    taken = {port.name for port in session.get_inputs()}
    held = {name: _as_value(value) for name, value in feeds.items() if name in taken}
    results = session.run_with_ort_values(list(wanted), held)
    return {
        name: _of_value(value)
        for name, value in zip(wanted, results, strict=True)
        if value.has_value() and value.is_tensor()
    }


def failed_place(error: BaseException, nodes: Sequence[Any]) -> int | None:
    """Return the place of the node in which *error* arose; None where the engine does not say."""
    match = FAILED_NODE.search(str(error))
    names = [node.name for node in nodes]
    return names.index(match[1]) if match and match[1] in names else None


def kind_of(value: Any) -> int:
    """Return ONNX's number of the type of an array's or a tensor's elements."""
    import numpy as np
    import onnx

    if isinstance(value, np.ndarray):
        return int(onnx.helper.np_dtype_to_tensor_dtype(value.dtype))
    return int(onnx.TensorProto.DataType.Value(str(value.dtype).removeprefix("torch.").upper()))


def _as_value(value: Any) -> Any:
    import numpy as np
    import onnxruntime
    import torch

    if isinstance(value, np.ndarray):
        return onnxruntime.OrtValue.ortvalue_from_numpy(value)
    on_cpu = value.detach().cpu().contiguous()
    if on_cpu.dtype == torch.bfloat16:
        return onnxruntime.OrtValue.from_dlpack(on_cpu)
    return onnxruntime.OrtValue.ortvalue_from_numpy(on_cpu.numpy())


def _of_value(value: Any) -> Any:
    from torch.utils.dlpack import from_dlpack

    if "bfloat16" in value.data_type() or "float8" in value.data_type():
        return from_dlpack(value).clone()
    return value.numpy()
