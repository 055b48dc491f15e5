"""Debugger runs, their layers and comparisons as views, for tests of what is said of them."""

from __future__ import annotations

from typing import Any

from control_plane.domain.debugging import DebugRunDetail, DebugRunView, SideView
from control_plane.domain.divergence import Comparison, Divergence, Pair
from serving_agent.contract.inspection import BINS, Histogram, InspectedRun, Point, Stage, TensorSummary


def tensor(**changes: Any) -> TensorSummary:
    given: dict[str, Any] = {
        "name": "output", "datatype": "FP32", "shape": (1, 8), "device": "cpu", "elements": 8, "zeros": 2,
        "low": -1.5, "high": 2.0, "mean": 0.25, "std": 1.0, "offset": 0, "kept_datatype": "FP32",
        "histogram": Histogram(low=-1.5, high=2.0, counts=(3, *[0] * (BINS - 2), 5)),
    }  # fmt: skip
    return TensorSummary(**{**given, **changes})


def point(name: str, **changes: Any) -> Point:
    given: dict[str, Any] = {"id": name, "module": name, "kind": "Linear", "outputs": (tensor(),)}
    return Point(**{**given, **changes})


def pair(at: int, **changes: Any) -> Pair:
    given: dict[str, Any] = {
        "name": f"layer{at}", "a": f"layer{at}", "b": f"other{at}", "index_a": at, "index_b": at + 1,
        "matched_by": "module", "max_abs": 0.5, "mean_abs": 0.1, "cosine": 0.99, "sqnr_db": 40.0,
    }  # fmt: skip
    return Pair(**{**given, **changes})


def run(*layers: Point, stages: tuple[Stage, ...] = (), **changes: Any) -> InspectedRun:
    return InspectedRun(level="module", stages=stages, points=layers, load_s=0.2, **changes)


def view(**changes: Any) -> DebugRunView:
    given: dict[str, Any] = {
        "id": "1" * 32, "name": "", "saved": False, "state": "succeeded", "stage": "", "progress": 1.0,
        "reason": None, "job_id": "2" * 32, "a": "digits@1", "b": None, "input": "example 1 of digits@1",
        "inputs": (), "edits": (), "parent_id": None, "size_bytes": 2048, "summary": "", "created_by": "ana",
        "created_at": 1000.0, "expires_at": 1000.0 + 86_400,
    }  # fmt: skip
    return DebugRunView(**{**given, **changes})


def detail(
    a: InspectedRun, b: InspectedRun | None = None, comparison: Comparison | None = None, **changes: Any
) -> DebugRunDetail:
    sides = [SideView(side="a", ref="digits@1", run=a, problem=None)]
    if b is not None:
        sides.append(SideView(side="b", ref="digits@2", run=b, problem=None))
    return DebugRunDetail(
        view=view(b="digits@2" if b else None, **changes),
        sides=tuple(sides),
        comparison=comparison,
        tokens=None,
        ancestors=(),
        children=(),
    )


def compared(*pairs: Pair, at: int | None = None, rule: Any = "falls") -> Comparison:
    found = None if at is None or rule is None else Divergence(pair=at, rule=rule, sentence="it falls")
    return Comparison(
        pairs=pairs, stages=(), only_a=("alone",), only_b=(), first_difference=at, divergence=found,
        sentence="They diverge at layer1: it falls",
    )  # fmt: skip
