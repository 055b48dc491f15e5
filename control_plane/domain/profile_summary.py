"""What a report of a profile says in plain words: its largest costs and what usually helps. Pure.

A cost is a stage of the request, or where the model itself is known better, one of its layers or operators:
shares of the whole request. Hints name optimisation methods only where they apply to the version.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from control_plane.domain.profile import Cost, Hint, Summary
from serving_agent.contract.profile import Flame, FlameNode, Report
from serving_agent.profiling.views import tells_layers

LARGEST: Final = 3
COMPILERS: Final = (
    "compile-cache", "aot-inductor", "openvino", "onnx-runtime", "torchscript-script", "torchscript-trace",
)  # fmt: skip
"""Methods that leave Python out, the least change of the artefact first."""
QUANTISERS: Final = (
    "dynamic-int8", "onnx-dynamic-int8", "weight-only-int8", "static-int8", "openvino-int8", "bf16",
)  # fmt: skip
"""Methods that make products of matrices cheaper."""
PRODUCTS: Final = ("mm", "linear", "matmul", "conv", "attention", "einsum")
"""Parts of the names of operators that multiply matrices."""
MUCH: Final = 0.25
"""Share of a request from which a stage besides the model is worth a hint."""
MOSTLY: Final = 0.4
"""Share of the model's time from which a kind of work is worth a hint."""
BATCH_GAIN: Final = 1.5
"""Times as many rows a second that a larger batch must bring for a hint."""
SLOW_S: Final = 0.002
"""Requests quicker than this gain nothing from threads."""


def summarise(report: Report, *, methods: Sequence[str], live: bool = False) -> Summary:
    """Return *report* in plain words. methods: names of optimisation methods that apply to the version."""
    costs = largest_costs(report)
    return Summary(
        headline=headline(report, costs), costs=costs, hints=tuple(_hints(report, methods, live=live))
    )


def largest_costs(report: Report) -> tuple[Cost, ...]:
    """Return the three largest costs of one request."""
    stages = {stage.name: stage.p50_s for stage in report.stages}
    whole = sum(stages.values())
    if whole <= 0:
        return ()
    predict_s = stages.pop("predict", 0.0)
    found = [Cost(name=name, kind="stage", seconds=each, share=each / whole) for name, each in stages.items()]
    found += _parts(report, predict_s, whole)
    found.sort(key=lambda cost: (-cost.seconds, cost.name))
    return tuple(cost for cost in found[:LARGEST] if cost.seconds > 0)


def headline(report: Report, costs: Sequence[Cost]) -> str:
    """Return the report in one sentence."""
    key = report.key
    rows = f" of {key.batch} row{'s' if key.batch != 1 else ''}" if key.batch else ""
    if key.wall_s <= 0:
        return "No request was answered while the profile was taken."
    sentence = f"One request{rows} takes {duration(key.wall_s)}"
    if not costs:
        return f"{sentence}."
    top = costs[0]
    return f"{sentence}; the largest cost is {described(top)} with {top.share:.0%} of it."


def described(cost: Cost) -> str:
    """Return a cost with its kind: `the layer encoder.1`."""
    if cost.kind != "stage":
        return f"the {cost.kind} {cost.name}"
    return {
        "queue": "waiting in the queue",
        "predict": "the model itself",
        "encode": "writing the answer",
        "other": "reading and handing over",
    }.get(cost.name, cost.name)


def duration(seconds: float) -> str:
    """Return *seconds* for people."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1 or unit == "µs":
            return f"{seconds * factor:.3g} {unit}"
    raise AssertionError


def python_share(report: Report) -> float | None:
    """Return the share of the model's time that is spent in Python, between operators; None if unknown."""
    flame = next((each for each in report.flames if each.name == "operators"), None)
    inside = _inside(flame, "predict") if flame else ()
    whole = sum(node.self_s for node in inside)
    if whole <= 0:
        return None
    return sum(node.self_s for node in inside if node.kind in ("function", "layer")) / whole


def product_share(report: Report) -> float | None:
    """Return the share of operators' time that multiplies matrices; None where there are no operators."""
    times = [(each.name, each.self_s + each.device_self_s) for each in report.operators]
    whole = sum(seconds for _, seconds in times)
    if whole <= 0:
        return None
    return sum(each for name, each in times if any(part in name for part in PRODUCTS)) / whole


def _parts(report: Report, predict_s: float, whole: float) -> list[Cost]:
    """Return the model's own time, taken apart as far as it is known."""
    layers = [(each.path, "layer", each.self_s) for each in report.layers] if tells_layers(report) else []
    operators = [(each.name, "operator", each.self_s + each.device_self_s) for each in _by_name(report)]
    listed = layers or operators
    known = sum(seconds for _, _, seconds in listed)
    if known <= 0:
        return [Cost(name="predict", kind="stage", seconds=predict_s, share=predict_s / whole)]
    return [
        Cost(name=name, kind=kind, seconds=predict_s * each / known, share=predict_s * each / known / whole)
        for name, kind, each in listed
    ]


class _Sum:
    """One operator over all shapes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.self_s = self.device_self_s = 0.0


def _by_name(report: Report) -> list[_Sum]:
    sums: dict[str, _Sum] = {}
    for each in report.operators:
        found = sums.setdefault(each.name, _Sum(each.name))
        found.self_s += each.self_s
        found.device_self_s += each.device_self_s
    return list(sums.values())


def _inside(flame: Flame, name: str) -> tuple[FlameNode, ...]:
    """Return the boxes within those of the stage *name*."""
    chosen: set[int] = set()
    for at, node in enumerate(flame.nodes):
        if node.parent in chosen or (node.kind == "stage" and node.name == name):
            chosen.add(at)
    return tuple(flame.nodes[at] for at in sorted(chosen))


def _hints(report: Report, methods: Sequence[str], *, live: bool) -> Iterable[Hint]:
    stages = {stage.name: stage.p50_s for stage in report.stages}
    whole = sum(stages.values())
    if whole <= 0:
        return
    shares = {name: seconds / whole for name, seconds in stages.items()}
    if shares.get("queue", 0.0) >= MUCH:
        yield Hint(
            sentence=f"Requests wait for {shares['queue']:.0%} of their time: more replicas, or larger "
            "shared batches (the endpoint's option batching), shorten the queue"
        )
    outside = shares.get("preprocess", 0.0) + shares.get("postprocess", 0.0) + shares.get("encode", 0.0)
    if outside >= MUCH:
        yield Hint(
            sentence=f"Preparing inputs and writing answers take {outside:.0%}: send and ask for tensors in "
            "binary form, and prepare inputs in the client where that is possible"
        )
    yield from _batch_hint(report)
    if live:
        yield Hint(sentence="Profile the version for its layers and operators", profiles_version=True)
    if shares.get("predict", 0.0) >= MOSTLY:
        yield from _model_hints(report, methods, live=live)


def _batch_hint(report: Report) -> Iterable[Hint]:
    ran = {point.rows: point.rows_per_s for point in report.sweep if point.rows_per_s}
    if report.knee is None or not ran:
        return
    single, best = ran.get(min(ran)), ran.get(report.knee)
    if single and best and best >= BATCH_GAIN * single:
        yield Hint(
            sentence=f"A batch of {report.knee} answers {best / single:.1f} times as many rows a second as "
            f"one of {min(ran)}: let requests share batches of up to {report.knee} rows (the endpoint's "
            "option batching)"
        )


def _model_hints(report: Report, methods: Sequence[str], *, live: bool) -> Iterable[Hint]:
    in_python = python_share(report)
    compiler = next((name for name in COMPILERS if name in methods), None)
    if in_python is not None and in_python >= MOSTLY and compiler:
        yield Hint(
            sentence=f"{in_python:.0%} of the model's time passes in Python, between operators: a compiled "
            "form leaves it out",
            method=compiler,
        )
    products = product_share(report)
    quantiser = next((name for name in QUANTISERS if name in methods), None)
    if products is not None and products >= MOSTLY and quantiser:
        yield Hint(
            sentence=f"Products of matrices take {products:.0%} of the operators' time: quantised weights "
            "make them cheaper",
            method=quantiser,
        )
    computes = in_python is not None and 1 - in_python >= MOSTLY
    if computes and not live and report.key.threads == 1 and report.key.wall_s >= SLOW_S:
        yield Hint(
            sentence="One thread computes all of it: give the endpoint's agents two threads or more, and "
            "profile again with as many"
        )
