"""The report: Markdown from raw results. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from benchmarks.serving import goals, plan, ratios
from benchmarks.serving.agent_costs import GOAL_MIB
from benchmarks.serving.goals import BATCHED, UNBATCHED, Case, Outcome, Side
from benchmarks.serving.plan import TORCH, TORCH_WIRE
from benchmarks.serving.ratios import Spread
from benchmarks.serving.records import Record, Results
from benchmarks.serving.workloads import WORKLOADS

KIND_TITLES: Final = {"json": "REST, JSON", "binary": "REST, binary tensors", "grpc": "gRPC"}
SERVER_TITLES: Final = {
    "signalbox": "**Signalbox agent**",
    "gateway": "**Signalbox through Envoy**",
    "bare-envoy": "Signalbox through a bare Envoy",
    "mlserver": "MLServer",
    "kserve": "KServe (Python server)",
    "litserve": "LitServe",
    "bentoml": "BentoML",
    "triton": "Triton, Python backend",
    "bound": "bare ASGI / grpc.aio (bound)",
    "torch": "torch in a loop (limit)",
}
METHOD: Final = """\
One server at a time on core {server_core}, the load generator on core {load_core}, the model on one thread.
{rounds} rounds, {seconds:g} s for each figure after {warm_up_s:g} s of warm-up. In each round the workloads
come one after another, and within a workload the servers, in random order.
Closed loop: each of c connections sends its next request when it has read the reply. Every answer is checked:
200, and the tensor compared with torch's own; a measurement with one error or wrong value is void.
Figures are medians over rounds with the range in brackets; ratios are taken within a round.
**Bold** ratios: each of at least {min_rounds} rounds was on the same side of 1; nothing else is a claim.
† the generator used most of its core, so the server may have been faster than it could tell; a goal met only
against such a figure is open.
*Default* is as pip installs it; what *tuned* means is said in `benchmarks/serving/peers/`."""


def markdown(results: Results) -> str:
    """Return the whole report."""
    parts = [
        "# Serving benchmark",
        f"Measured {results.started_at}. Raw figures: the JSON file of the same name.",
        METHOD.format(**results.settings, min_rounds=ratios.MIN_ROUNDS),
        *("## Machine and versions", _machine(results)),
        *("## Goals", _goals(results.records)),
        *_tables(results.records),
        *_loop(results.records),
        *_agent(results),
        *_void(results.records),
    ]
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, first column left, the others right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def number(value: float) -> str:
    """Return *value* with three significant digits, thousands without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread_text(found: Spread | None, unit: str = "") -> str:
    """Return `median unit [low … high]`, or a dash."""
    if found is None:
        return "–"
    return f"{number(found.median)}{unit} [{number(found.low)} … {number(found.high)}]"


def ratio_text(found: Spread | None) -> str:
    """Return a ratio with its range, bold where it is a claim."""
    text = spread_text(found, "×")
    return f"**{text}**" if found is not None and ratios.is_claim(found) else text


def _machine(results: Results) -> str:
    machine = results.machine
    loads = [record.load_average for record in results.records]
    lines = [
        f"{machine['cpu']}; {machine['cores']} cores, {machine['memory_gib']} GiB; {machine['kernel']}; "
        f"Python {machine['python']}. Load average over the run: {min(loads):.1f} to {max(loads):.1f}."
        if loads
        else "Nothing was measured."
    ]
    for server, versions in results.versions.items():
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        lines.append(f"- {_title(server)}: {listed}")
    return "\n".join(lines)


def _goals(records: Sequence[Record]) -> str:
    outcomes = [goals.judge(goal, records) for goal in goals.all_goals()]
    header = ["goal", "workload", "c", "ours", "found", "verdict", "against"]
    return table(header, [_goal_row(outcome) for outcome in outcomes])


def _goal_row(outcome: Outcome) -> list[str]:
    goal = outcome.goal
    found = spread_text(outcome.found, " µs" if goal.as_difference else "×")
    workload = f"{goal.case.workload}, {KIND_TITLES[goal.case.kind]}"
    verdict = "**met**" if outcome.verdict == "met" else outcome.verdict
    counted = ", ".join(outcome.against)
    return [goal.title, workload, str(goal.case.concurrency), str(goal.ours.variant), found, verdict, counted]


def _tables(records: Sequence[Record]) -> list[str]:
    """One table for each load; batched and unbatched apart, each against ours of the same sort."""
    parts = []
    for name, kinds in plan.GRID.items():
        parts.append(f"## {WORKLOADS[name].title}")
        for kind in kinds:
            for concurrency in kinds[kind]:
                parts += _case(records, Case(name, kind, concurrency))
    return parts


def _case(records: Sequence[Record], case: Case) -> list[str]:
    here = [record for record in records if case.holds(record)]
    parts = []
    for ours in (UNBATCHED, BATCHED):
        rows = [_row(here, each, ours) for each in _shown(here, ours)]
        if rows:
            sort = ", batching" if ours.variant.batching else ""
            title = f"### {case.workload}: {KIND_TITLES[case.kind]}, c = {case.concurrency}{sort}"
            header = ["server", "requests/s", "p50 ms", "p99 ms", "ours ÷ this, requests/s"]
            parts += [title, table(header, rows)]
    return parts


def _shown(here: Sequence[Record], ours: Side) -> list[Side]:
    """Return the sides of one table: ours first, then the fastest first."""
    found = [each for each in goals.sides(here) if each.variant.batching == ours.variant.batching]
    return sorted(found, key=lambda each: (each != ours, -_median(here, each)))


def _median(here: Sequence[Record], side: Side) -> float:
    found = ratios.spread(goals.series(goals.one(here, side), "rps").values())
    return 0.0 if found is None else found.median


def _row(here: Sequence[Record], side: Side, ours: Side) -> list[str]:
    mine = goals.one(here, side)
    rps, p50, p99 = (goals.series(mine, metric) for metric in ("rps", "p50_us", "p99_us"))
    reference = goals.series(goals.one(here, ours), "rps")
    return [
        _name(side) + (" †" if goals.is_limited(mine) else ""),
        spread_text(ratios.spread(rps.values())),
        *(spread_text(ratios.spread(value / 1000 for value in each.values())) for each in (p50, p99)),
        "1" if side == ours else ratio_text(ratios.ratio(reference, rps)),
    ]


def _name(side: Side) -> str:
    return f"{_title(side.server)}, {side.variant}"


def _title(server: str) -> str:
    return SERVER_TITLES.get(server, server)


def _loop(records: Sequence[Record]) -> list[str]:
    rows = []
    for batch in plan.TORCH_BATCHES:
        here = [record for record in records if Case("cnn5", TORCH_WIRE, batch).holds(record)]
        mine = goals.one(here, Side(TORCH))
        if mine:
            calls = ratios.spread(value / 1000 for value in goals.series(mine, "p50_us").values())
            rows_per_s = ratios.spread(goals.series(mine, "rps").values())
            rows.append([str(batch), spread_text(rows_per_s), spread_text(calls)])
    if not rows:
        return []
    return ["## The limit: torch in a loop, cnn5", table(["rows per call", "rows/s", "ms per call"], rows)]


def _agent(results: Results) -> list[str]:
    costs = results.agent
    if costs is None:
        return []
    agent, torch, above = costs["agent"], costs["import_torch"], costs["above_torch"]
    memory = [
        [name.removesuffix("_mib").upper(), *(number(each[name]) for each in (torch, agent, above))]
        for name in above
    ]
    stages = [
        [name.removesuffix("_s"), number(value)] for name, value in agent.items() if name.endswith("_s")
    ]
    stages.append(["(import torch alone)", number(torch["import_torch_s"])])
    return [
        "## An idle agent",
        f"Medians of {costs['starts']} starts, tiny model, MiB. Goal: at most {GOAL_MIB:g} above torch.",
        table(["memory", "import torch", "agent", "above"], memory),
        "From the start of the process to ready, seconds, and the stages the agent reports:",
        table(["stage", "s"], stages),
    ]


def _void(records: Iterable[Record]) -> list[str]:
    rows = [
        [
            str(record.round),
            _name(goals.side(record)),
            f"{record.workload}, {record.wire}, c = {record.concurrency}",
            str(record.void).replace("|", "\\|"),
        ]
        for record in records
        if record.void is not None
    ]
    return ["## Void", table(["round", "server", "load", "why"], rows)] if rows else []
