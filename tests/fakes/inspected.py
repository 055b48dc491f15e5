"""Inspections for tests: orders, what came of them, and elements of the tensors that were kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from serving_agent import tensors
from serving_agent.contract import inspection
from serving_agent.contract.capture import CapturedTensor
from serving_agent.contract.inspection import (
    InspectedRun,
    InspectionOrder,
    NotInspected,
    Point,
    TensorSummary,
)
from serving_agent.contract.signature import Signature
from serving_agent.datatypes import NUMPY_TYPE
from serving_agent.inspection import inspecting

DATATYPE = {str(kind): name for name, kind in NUMPY_TYPE.items() if name not in ("BF16",)}


def captured(inputs: Mapping[str, Any]) -> tuple[CapturedTensor, ...]:
    """Arrays or lists of texts as a client sends them."""
    sent = []
    for name, value in inputs.items():
        array = (
            np.array([text.encode() for text in value], dtype=object) if isinstance(value, list) else value
        )
        datatype = DATATYPE[str(array.dtype)]
        data = bytes(tensors.to_raw(array, datatype))
        sent.append(CapturedTensor(name=name, datatype=datatype, shape=array.shape, data=data))
    return tuple(sent)


def order(
    format_: str, folder: Path, signature: Signature, inputs: Mapping[str, Any], out: Path, **more: Any
) -> InspectionOrder:
    """An order that keeps everything; *more*: other fields of it."""
    out.mkdir(parents=True, exist_ok=True)
    fields: dict[str, Any] = {"handler": "tensor", "keep_bytes": 1 << 24, **more}
    return InspectionOrder(
        folder=str(folder),
        format=format_,
        signature=signature,
        inputs=captured(inputs),
        out=str(out),
        **fields,
    )


class Seen:
    """What one inspection left."""

    def __init__(self, out: Path) -> None:
        self.run = msgspec.json.decode((out / inspection.RUN).read_bytes(), type=InspectedRun)
        self.values = (out / inspection.VALUES).read_bytes()

    def point(self, name: str) -> Point:
        return next(point for point in self.run.points if point.id == name)

    def of_module(self, path: str) -> Point:
        """The last point of a module, which holds its output."""
        return [point for point in self.run.points if point.module == path][-1]

    def stage(self, name: str) -> inspection.Stage:
        return next(stage for stage in self.run.stages if stage.name == name)

    def summaries(self) -> list[TensorSummary]:
        of_points = [tensor for point in self.run.points for tensor in point.outputs]
        return of_points + [tensor for stage in self.run.stages for tensor in stage.tensors]

    def array(self, summary: TensorSummary) -> np.ndarray:
        """Elements of a kept tensor."""
        assert summary.offset is not None
        if summary.kept_datatype == "BYTES":
            raw = self.values[summary.offset : summary.offset + summary.kept_bytes]
            return np.array(json.loads(raw), dtype=object).reshape(summary.shape)
        kind = NUMPY_TYPE[summary.kept_datatype].newbyteorder("<")
        assert summary.kept_bytes == summary.elements * kind.itemsize
        flat = np.frombuffer(self.values, kind, summary.elements, summary.offset)
        return flat.reshape(summary.shape)


def inspected(*args: Any, **more: Any) -> Seen:
    """Carry out an order in this process; it must succeed."""
    return carried_out(order(*args, **more))


def carried_out(given: InspectionOrder) -> Seen:
    said = inspecting.inspect(given, lambda progress: None)
    assert not isinstance(said, NotInspected), said
    return Seen(Path(given.out))


def refused(*args: Any, **more: Any) -> NotInspected:
    """Carry out an order in this process; it must fail."""
    given = order(*args, **more)
    said = inspecting.inspect(given, lambda progress: None)
    assert isinstance(said, NotInspected), said
    assert list(Path(given.out).iterdir()) == []
    return said
