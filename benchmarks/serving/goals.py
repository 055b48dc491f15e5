"""The goals of the serving agent as comparisons within one run. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.serving import plan, ratios
from benchmarks.serving.load import MOST_BUSY
from benchmarks.serving.peers.base import Variant
from benchmarks.serving.plan import BOUND, GATEWAY, KINDS, OURS, TORCH, TORCH_WIRE
from benchmarks.serving.ratios import Series, Spread
from benchmarks.serving.records import Record

PYTHON_PEERS: Final = frozenset({"mlserver", "kserve", "litserve", "bentoml"})
TRITON: Final = frozenset({"triton"})
PEERS: Final = PYTHON_PEERS | TRITON
LOOP_BATCH: Final = 16
PLAIN: Final = Variant()


@dataclass(frozen=True, slots=True)
class Side:
    """One variant of one server."""

    server: str
    variant: Variant = PLAIN


UNBATCHED: Final = Side(OURS)
BATCHED: Final = Side(OURS, Variant(batching=True))
TUNED_BATCHED: Final = Side(OURS, Variant(tuned=True, batching=True))


@dataclass(frozen=True, slots=True)
class Case:
    """One column of a comparison: everything that was measured under the same load."""

    workload: str
    kind: str
    concurrency: int

    def holds(self, record: Record) -> bool:
        """Tell whether *record* was measured under this load."""
        return (
            record.workload == self.workload
            and KINDS.get(record.wire, record.wire) == self.kind  # type: ignore[call-overload] # or `none`
            and record.concurrency == self.concurrency
        )


@dataclass(frozen=True, slots=True)
class Goal:
    """`metric` of ours against the best of `against`, as a ratio or a difference, within a bound.

    against: servers, all their variants; of our own only the same variant. Their best is the highest rps or
    the lowest latency of that round. at_least: whether the bound is to be reached, or not passed.
    """

    title: str
    case: Case
    ours: Side
    metric: str
    against: frozenset[str]
    bound: float
    at_least: bool
    as_difference: bool = False
    against_case: Case | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A goal and what the run says of it."""

    goal: Goal
    found: Spread | None
    verdict: ratios.Verdict
    against: tuple[str, ...]
    """The servers that were measured and counted."""


def series(records: Iterable[Record], metric: str) -> Series:
    """Return *metric* by round of the records that count; *records* are of one side and one case."""
    return {record.round: record.figures[metric] for record in records if record.void is None}


def side(record: Record) -> Side:
    """Return what *record* is a figure of."""
    return Side(record.server, Variant(record.tuned, record.batching))


def sides(records: Iterable[Record]) -> list[Side]:
    """Return each side among *records* once, in the order of first sight."""
    return list(dict.fromkeys(map(side, records)))


def one(records: Iterable[Record], wanted: Side) -> list[Record]:
    """Return the records of one side."""
    return [record for record in records if side(record) == wanted]


def judge(goal: Goal, records: Sequence[Record]) -> Outcome:
    """Say whether *goal* is met in *records*.

    What was met against servers that the generator may have held back is open: they may be faster.
    """
    here = [record for record in records if goal.case.holds(record)]
    there = [record for record in records if (goal.against_case or goal.case).holds(record)]
    choose: Callable[[Iterable[float]], float] = max if goal.metric == "rps" else min
    servers = [_of_server(goal, server, there, choose) for server in _measured(goal, there)]
    rounds = ratios.in_all(servers)
    against = {number: figure for number, figure in ratios.best(servers, choose).items() if number in rounds}
    compare = ratios.difference if goal.as_difference else ratios.ratio
    own = one(here, goal.ours)
    found = compare(series(own, goal.metric), against)
    verdict = ratios.verdict(found, goal.bound, at_least=goal.at_least)
    if verdict == "met" and any(record.void is not None for record in own):
        verdict = "not met"
    if verdict == "met" and is_limited(_counted(goal, there)):
        verdict = "open"
    return Outcome(goal, found, verdict, tuple(_measured(goal, there)))


def is_limited(records: Iterable[Record]) -> bool:
    """Tell whether the generator, not the server, may have set the pace in some round."""
    return any(record.figures.get("generator_busy", 0.0) > MOST_BUSY for record in records)


def _counted(goal: Goal, there: Sequence[Record]) -> list[Record]:
    """Return the records that ours are compared with."""
    return [record for record in there if record.server in goal.against and _counts(goal, side(record))]


def _counts(goal: Goal, other: Side) -> bool:
    """Tell whether a variant is compared with; of our own only the one that is judged."""
    return other.server != OURS or other.variant == goal.ours.variant


def _measured(goal: Goal, there: Sequence[Record]) -> list[str]:
    return [name for name in dict.fromkeys(record.server for record in there) if name in goal.against]


def _of_server(
    goal: Goal, server: str, there: Sequence[Record], choose: Callable[[Iterable[float]], float]
) -> Series:
    """Return one server's best variant by round; our own one is the variant that is compared."""
    wanted = [each for each in sides(there) if each.server == server and _counts(goal, each)]
    return ratios.best([series(one(there, each), goal.metric) for each in wanted], choose)


def all_goals() -> list[Goal]:
    """Return every goal that is a comparison of speed, in the order of the report."""
    return [*_tiny(), *_large(), *_batching(), *_gateway()]


def _tiny() -> Iterable[Goal]:
    for kind in ("json", "grpc"):
        busy, alone = Case("tiny", kind, 16), Case("tiny", kind, 1)
        for ours in (UNBATCHED, BATCHED):
            yield Goal("≥ 2× the best Python peer", busy, ours, "rps", PYTHON_PEERS, 2.0, True)
            yield Goal("≥ 60 % of the bare bound", busy, ours, "rps", frozenset({BOUND}), 0.6, True)
            title = "median latency below every Python peer"
            yield Goal(title, alone, ours, "p50_us", PYTHON_PEERS, 1.0, False)
            yield Goal("median latency ≤ 1.2× Triton", alone, ours, "p50_us", TRITON, 1.2, False)


def _large() -> Iterable[Goal]:
    for concurrency in plan.GRID["large"]["json"]:
        binary, text = Case("large", "binary", concurrency), Case("large", "json", concurrency)
        yield Goal("≥ 1.5× the best peer that has binary", binary, UNBATCHED, "rps", PEERS, 1.5, True)
        yield Goal("≥ 2× the best Python peer", text, UNBATCHED, "rps", PYTHON_PEERS, 2.0, True)


def _batching() -> Iterable[Goal]:
    loop = Case("cnn5", TORCH_WIRE, LOOP_BATCH)
    torch = frozenset({TORCH})
    for kind in ("json", "grpc"):
        case = Case("cnn5", kind, 16)
        for ours in (BATCHED, TUNED_BATCHED):
            title = f"≥ 92 % of the torch loop at batch {LOOP_BATCH}"
            yield Goal(title, case, ours, "rps", torch, 0.92, True, against_case=loop)
            yield Goal("above every peer", case, ours, "rps", PEERS, 1.0, True)


def _gateway() -> Iterable[Goal]:
    title = "≤ 150 µs added at the median by Envoy"
    ours, direct = Side(GATEWAY), frozenset({OURS})
    for kind in ("json", "grpc"):
        case = Case("tiny", kind, 1)
        yield Goal(title, case, ours, "p50_us", direct, 150.0, False, as_difference=True)
