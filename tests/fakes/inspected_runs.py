"""Runs as the inspection process leaves them, written from arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from control_plane.debugging.comparing import Inspected
from serving_agent.contract.inspection import RUN, VALUES, Failure, InspectedRun, Point, Stage, TensorSummary
from serving_agent.datatypes import NUMPY_TYPE

Array = np.ndarray[Any, Any]
DATATYPES = {kind: name for name, kind in NUMPY_TYPE.items() if name not in ("BF16", "BYTES")}


class Writer:
    """One run in *folder*: give it points and stages, then `write`."""

    def __init__(self, folder: Path, level: Any = "module") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._level = folder, level
        self._values = bytearray()
        self._points: list[Point] = []
        self._stages: list[Stage] = []

    def point(self, name: str, *outputs: Array, module: str | None = None, kind: str = "Linear") -> None:
        """Add a layer and what it put out."""
        summaries = tuple(self.tensor(str(at), each) for at, each in enumerate(outputs))
        own = name if module is None else module
        self._points.append(Point(id=name, module=own, kind=kind, source="model.py:3", outputs=summaries))

    def stage(self, name: Any, failure: Failure | None = None, **tensors: Array) -> None:
        """Add a stage and its tensors."""
        summaries = tuple(self.tensor(each, array) for each, array in tensors.items())
        state: Any = "failed" if failure else "done"
        self._stages.append(Stage(name=name, state=state, tensors=summaries, failure=failure))

    def tensor(self, name: str, array: Array, *, is_kept: bool = True) -> TensorSummary:
        """Sum up *array*, and keep its elements."""
        if array.dtype == object:
            data, datatype, finite = msgspec.json.encode(array.ravel().tolist()), "BYTES", np.empty(0)
        else:
            data, datatype = array.tobytes(), DATATYPES[array.dtype]
            finite = array[np.isfinite(array)].astype(np.float64)
        offset = len(self._values)
        self._values += data if is_kept else b""
        return TensorSummary(
            name=name,
            datatype=datatype,
            shape=array.shape,
            device="cpu",
            elements=array.size,
            nan=int(np.isnan(array).sum()) if array.dtype.kind == "f" else 0,
            inf=int(np.isinf(array).sum()) if array.dtype.kind == "f" else 0,
            low=float(finite.min()) if finite.size else None,
            high=float(finite.max()) if finite.size else None,
            offset=offset if is_kept else None,
            kept_datatype=datatype if is_kept else "",
            kept_bytes=len(data) if is_kept else 0,
        )

    def write(self, tokens: Sequence[Sequence[str]] = (), **changes: Any) -> Inspected:
        """Leave the files."""
        run = InspectedRun(
            level=self._level,
            stages=tuple(self._stages),
            points=tuple(self._points),
            load_s=0.1,
            tokens=tuple(map(tuple, tokens)),
            **changes,
        )
        (self._folder / RUN).write_bytes(msgspec.json.encode(run))
        (self._folder / VALUES).write_bytes(self._values)
        return Inspected(run, self._folder)


def of_layers(folder: Path, layers: Mapping[str, Array]) -> Inspected:
    """A run of those layers."""
    writer = Writer(folder)
    for name, output in layers.items():
        writer.point(name, output)
    return writer.write()
