"""ONNX graphs of versions: written, named, and fed with calibration rows; imports torch when called."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from control_plane.optimization import exporting, graph_layers
from control_plane.optimization.base import BuildError, Calibration, Parent, Subject
from control_plane.optimization.machine import this_machine
from serving_agent.contract.signature import Signature

if TYPE_CHECKING:
    from torch import Tensor

FILE: Final = "model.onnx"
OPSET: Final = 20
LARGEST_FILE: Final = 1_900_000_000
"""Bytes of weights that one ONNX file can hold; above it they go into a file beside it."""
SCOPES: Final = "pkg.torch.onnx.name_scopes"
"""Key under which torch.onnx writes which modules a node comes from, as a list in Python's words."""
LIBRARIES: Final = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE: Final = 1e-3


def inapplicable(subject: Subject) -> str | None:
    """Return why no ONNX graph can be made of it, as a sentence; None where one can."""
    if subject.format == "onnx":
        return "it is an ONNX graph already"
    return exporting.unexportable(subject)


def write(parent: Parent, path: Path) -> None:
    """Write *parent* as an ONNX graph whose inputs and outputs have the signature's names. Raises BuildError.

    Numbers inside are FP32; the answers of ONNX Runtime were compared with the parent's on several sizes.
    """
    import torch

    program = exporting.exported(parent, exporting.widened(parent))
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    with exporting.quiet():
        try:
            torch.onnx.export(
                program,
                (),
                str(path),
                input_names=[spec.name for spec in parent.signature.inputs],
                output_names=[spec.name for spec in parent.signature.outputs],
                opset_version=OPSET,
                external_data=size > LARGEST_FILE,
                dynamo=True,
                verbose=False,
            )
        except Exception as error:
            raise BuildError(f"it cannot be written as ONNX: {exporting.first_line(error)}") from error
    with exporting.quiet():
        exporting.check_answers(program.module(), running(path, parent.signature), parent, TOLERANCE)


def running(path: Path, signature: Signature) -> Any:
    """Return the graph as a function of tensors in the signature's order."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    taken = {port.name for port in session.get_inputs()}
    names = [spec.name for spec in signature.inputs]
    wanted = [spec.name for spec in signature.outputs]

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        arrays = {n: t.numpy() for n, t in zip(names, tensors, strict=True) if n in taken}
        return tuple(torch.from_numpy(result) for result in session.run(wanted, arrays))

    return run


def nodes_of(model: Any, kept: Collection[str]) -> list[str]:
    """Names of the nodes of *model* that compute one of the layers *kept*, for quantisers to leave alone."""
    found: list[str] = []
    for node in model.graph.node:
        paths = {*_scopes(node), *node.input}
        if graph_layers.kept(paths, kept):
            found += [node.name, f"{node.name}_MatMul"]  # what a quantiser calls the product inside a Gemm
    return found


def operators(model: Any) -> frozenset[str]:
    """The kinds of operators in *model*."""
    return frozenset(node.op_type for node in model.graph.node)


def reduced_range() -> bool:
    """Whether weights must have 7 bits here."""
    return not has_vnni(this_machine().flags)


def notes() -> tuple[str, ...]:
    """What people should know of a quantised graph that was made here."""
    if not reduced_range():
        return ()
    return ("Weights have 7 bits: this processor has no VNNI, and sums of 8-bit products would overflow.",)


def has_vnni(flags: frozenset[str]) -> bool:
    """Whether the processor sums products of 8-bit numbers in 32 bits; others lose what exceeds 16."""
    return bool({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"} & flags)


def reader(calibration: Calibration, signature: Signature) -> Any:
    """The calibration rows as ONNX Runtime's quantiser reads them. Raises BuildError where there are none."""
    from onnxruntime.quantization import CalibrationDataReader

    if not calibration.batches:
        raise BuildError("it needs rows to calibrate with, and got none")
    names = [spec.name for spec in signature.inputs]

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        """Hands out one batch after another."""

        def __init__(self) -> None:
            self._batches = self._all()

        def get_next(self) -> Mapping[str, Any] | None:
            """Return the next batch by input name; None at the end."""
            return next(self._batches, None)

        def rewind(self) -> None:
            """Begin again."""
            self._batches = self._all()

        def _all(self) -> Iterator[dict[str, Any]]:
            for batch in calibration.batches:
                yield {name: tensor.numpy() for name, tensor in zip(names, batch, strict=True)}

    return Reader()


def _scopes(node: Any) -> list[str]:
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            return [str(scope) for scope in ast.literal_eval(entry.value)]
    return []
