"""How two reports of profiles differ, thing by thing. Pure.

Times are of one request each, so that reports over different numbers of requests compare; of samples they
are shares of the median request, and of a live agent's samples the seconds at work for one request. What one
report does not have took no time there, unless it was not measured or its table was cut: then nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from serving_agent.contract.profile import (
    MOST_FUNCTIONS,
    MOST_LAYERS,
    MOST_OPERATORS,
    Flame,
    FlameNode,
    Report,
)

SAMPLES: Final = "samples"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing in both reports."""

    name: str
    a_s: float | None
    """None where nobody knows, as the next."""
    b_s: float | None

    @property
    def delta_s(self) -> float | None:
        """How much longer it takes in B; None where one is not known."""
        return None if self.a_s is None or self.b_s is None else self.b_s - self.a_s

    @property
    def ratio(self) -> float | None:
        """B's time as a multiple of A's; None where A has none, or one is not known."""
        return None if not self.a_s or self.b_s is None else self.b_s / self.a_s


class DifferingNode(msgspec.Struct, frozen=True, kw_only=True):
    """One box of both flame views, laid over each other."""

    name: str
    parent: int
    kind: str
    a_self_s: float
    b_self_s: float
    a_total_s: float
    b_total_s: float


class DifferingFlame(msgspec.Struct, frozen=True, kw_only=True):
    """Two flame views of one name."""

    name: str
    nodes: tuple[DifferingNode, ...]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All that differs between report A and report B, largest differences first."""

    wall: Difference
    stages: tuple[Difference, ...]
    """In their order."""
    layers: tuple[Difference, ...]
    operators: tuple[Difference, ...]
    functions: tuple[Difference, ...]
    flames: tuple[DifferingFlame, ...]
    notes: tuple[str, ...] = ()
    """What is not compared, and why: one sentence each."""


def compare(a: Report, b: Report) -> Comparison:
    """Return how *b* differs from *a*."""
    notes: list[str] = []
    return Comparison(
        wall=Difference(name="request", a_s=a.key.wall_s, b_s=b.key.wall_s),
        stages=tuple(_paired(_stages(a), _stages(b), None, None)),
        layers=_table("layers", _layers(a), _layers(b), notes),
        operators=_table("operators", _operators(a), _operators(b), notes),
        functions=_table("functions", _functions(a), _functions(b), notes),
        flames=tuple(_flames(a, b)),
        notes=tuple(notes),
    )


class _Table(msgspec.Struct, frozen=True):
    """One report's seconds by name."""

    times: dict[str, float]
    is_cut: bool
    """Whether there was more of it."""

    @property
    def missing(self) -> float | None:
        """What a name took that it does not have."""
        return None if self.is_cut else 0.0


def _stages(report: Report) -> dict[str, float]:
    return {stage.name: stage.p50_s for stage in report.stages}


def _layers(report: Report) -> _Table:
    return _Table({layer.path: layer.self_s for layer in report.layers}, len(report.layers) >= MOST_LAYERS)


def _operators(report: Report) -> _Table:
    requests = max(1, report.traced_requests)
    pairs = ((each.name, (each.self_s + each.device_self_s) / requests) for each in report.operators)
    return _Table(_summed(pairs), len(report.operators) >= MOST_OPERATORS)


def _functions(report: Report) -> _Table:
    requests = max(1, report.function_requests)
    pairs = ((f"{each.name} ({each.place})", each.self_s / requests) for each in report.functions)
    return _Table(_summed(pairs), len(report.functions) >= MOST_FUNCTIONS)


def _summed(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, seconds in pairs:
        sums[name] = sums.get(name, 0.0) + seconds
    return sums


def _paired(
    a: Mapping[str, float], b: Mapping[str, float], a_missing: float | None, b_missing: float | None
) -> list[Difference]:
    return [
        Difference(name=name, a_s=a.get(name, a_missing), b_s=b.get(name, b_missing))
        for name in dict.fromkeys((*a, *b))
    ]


def _table(title: str, a: _Table, b: _Table, notes: list[str]) -> tuple[Difference, ...]:
    """Return both laid side by side; nothing, and a note, where one of them alone has any."""
    if bool(a.times) != bool(b.times):
        notes.append(f"The {title} are not compared: they were not measured in {'B' if a.times else 'A'}")
        return ()
    pairs = _paired(a.times, b.times, a.missing, b.missing)
    return tuple(sorted(pairs, key=lambda each: (-abs((each.b_s or 0.0) - (each.a_s or 0.0)), each.name)))


def _flames(a: Report, b: Report) -> Iterable[DifferingFlame]:
    ours = {flame.name: flame for flame in a.flames}
    for flame in b.flames:
        if flame.name in ours:
            other = ours[flame.name]
            yield DifferingFlame(
                name=flame.name,
                nodes=laid_over(other.nodes, flame.nodes, _scale(a, other), _scale(b, flame)),
            )


def _scale(report: Report, flame: Flame) -> float:
    """Return what turns a flame's times into those of one request."""
    if report.source == "agent":
        return 1 / max(1, report.key.requests)
    if flame.name.startswith(SAMPLES):
        return report.key.wall_s / flame.total_s if flame.total_s > 0 else 0.0
    return 1 / max(1, flame.requests)


class _Place:
    """One place of the tree of both views."""

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind = name, kind
        self.own = [0.0, 0.0]
        self.total = [0.0, 0.0]
        self.children: dict[tuple[str, str], _Place] = {}


def laid_over(
    a: tuple[FlameNode, ...], b: tuple[FlameNode, ...], a_scale: float = 1.0, b_scale: float = 1.0
) -> tuple[DifferingNode, ...]:
    """Return one tree with the times of both, boxes matched by their names from the root on."""
    root = _Place("", "")
    for side, (nodes, scale) in enumerate(((a, a_scale), (b, b_scale))):
        places: list[_Place] = []
        for node in nodes:
            parent = root if node.parent < 0 else places[node.parent]
            place = parent.children.setdefault((node.kind, node.name), _Place(node.name, node.kind))
            place.own[side] += node.self_s * scale
            place.total[side] += node.total_s * scale
            places.append(place)
    return _flat(root, lambda place: -max(place.total))


def _flat(root: _Place, order: Callable[[_Place], float]) -> tuple[DifferingNode, ...]:
    nodes: list[DifferingNode] = []
    level = [(-1, root)]
    while level:
        below: list[tuple[int, _Place]] = []
        for parent, place in level:
            for child in sorted(place.children.values(), key=order):
                nodes.append(
                    DifferingNode(
                        name=child.name,
                        parent=parent,
                        kind=child.kind,
                        a_self_s=child.own[0],
                        b_self_s=child.own[1],
                        a_total_s=child.total[0],
                        b_total_s=child.total[1],
                    )
                )
                below.append((len(nodes) - 1, child))
        level = below
    return tuple(nodes)
