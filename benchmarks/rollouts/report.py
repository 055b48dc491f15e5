"""The report: goals with what was found, and every scenario as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.rollouts.simulation import Crossing, Played

INTRODUCTION = """\
{runs} simulated rollouts a row, judged tick by tick (5 s) by the code that judges real ones,
with the default guardrails on errors and latency. Errors 0.5 %, times lognormal with p95 91 ms,
unless the row says otherwise. Rows climb 5, 10, 25, 50, 75 % every ten minutes whatever the
evidence says, as thresholds do; *gated* rows climb as the product does: after 300 s, when all is
safe. *Flagger*: success of at least 99 % each minute, rolled back at the fifth failed check.
*Argo*: the same condition, aborted when more than 3 have failed. *Flagger p95*: at most 1.1 times
the p95 that stable is known to have, threshold 5. Thresholds see the same traffic. Quantiles are
over all runs."""


@dataclass(frozen=True)
class Goal:
    """One goal, what was found, and whether it is met."""

    text: str
    found: str
    met: bool


def goals(played: Mapping[str, Played]) -> list[Goal]:
    """Every goal of the issue against what was simulated."""
    equal = [f"equal, {rate:g} rps" for rate in (2.0, 10.0, 50.0, 500.0)]
    return [
        *(_false_rollback(played[name]) for name in [*equal, "shared +3 pp incident of 8 min"]),
        _within("+1 pp on 0.5 % at 50 rps, ten minutes a step", _rule(played, "+1 pp, 50 rps"), 480.0, 780.0),
        _within("the same, held at 5 % until it is safe", _rule(played, "+1 pp, gated"), 480.0, 780.0),
        _within("+20 pp at 50 rps", _rule(played, "+20 pp, 50 rps"), None, 30.0),
        _within("p95 +20 % at 50 rps", _rule(played, "p95 +20 %, 50 rps"), None, 180.0),
        _false_pass(played, "+1 pp, held at 5 %", "errors safe", "+1 pp is called safe, ever"),
        _false_pass(played, "p95 +30 %, held at 5 %", "latency safe", "p95 +30 % is called safe, ever"),
        _passes(_rule(played, "equal, held at 5 %", "safe")),
    ]


def _rule(played: Mapping[str, Played], name: str, rule: str = "rolled back") -> Crossing:
    return played[name].rules[rule]


def _false_rollback(played: Played) -> Goal:
    share = played.rules["rolled back"].share
    return Goal(f"false rollback at most 1 %: {played.scenario.name}", f"{share:.2%}", share <= 0.01)


def _within(text: str, crossing: Crossing, median_s: float | None, p90_s: float) -> Goal:
    median, p90 = (crossing.quantile(crossing.at_s, q) for q in (0.5, 0.9))
    wanted = f"median {_time(median_s)}, p90 {_time(p90_s)}" if median_s else f"p90 {_time(p90_s)}"
    met = p90 is not None and p90 <= p90_s
    if median_s is not None:
        met = met and median is not None and median <= median_s
    return Goal(f"{text}: {wanted}", f"median {_time(median)}, p90 {_time(p90)}", met)


def _false_pass(played: Mapping[str, Played], name: str, rule: str, text: str) -> Goal:
    share = _rule(played, name, rule).share
    return Goal(f"{text}: at most 5 %", f"{share:.2%}", share <= 0.05)


def _passes(crossing: Crossing) -> Goal:
    requests = crossing.quantile(crossing.requests, 0.5)
    found = "never" if requests is None else f"{requests:.0f}"
    met = requests is not None and requests <= 700.0
    return Goal(
        "equal versions pass errors and latency in at most 700 candidate requests (median)", found, met
    )


def document(played: Mapping[str, Played], measured: str) -> str:
    """The whole report as Markdown."""
    runs = next(iter(played.values())).scenario.runs
    return "\n".join(
        [
            "# Rollout statistics",
            "",
            f"Measured {measured}. Raw figures, with the time of every run: the JSON file of the same name.",
            "",
            INTRODUCTION.format(runs=runs),
            "",
            "## Goals",
            "",
            "| goal | found | |",
            "| --- | --- | --- |",
            *map(_goal, goals(played)),
            "",
            "## Rolled back though nothing is wrong with the candidate",
            "",
            *_shares({name: one for name, one in played.items() if _is_equal(one)}),
            "",
            "Errors that come in bursts of one client break the assumption of independence; counted by",
            "client, as for an endpoint that names its unit, they do not.",
            "",
            "## Caught",
            "",
            "Share of rollouts; median / p90 of the time; the candidate's requests at the median.",
            "",
            *_caught({name: one for name, one in played.items() if not _is_equal(one)}),
            "",
            "## Safe",
            "",
            "Share of runs called safe at any time; the candidate's requests until then, median / p90.",
            "",
            *_safe(played),
            "",
        ]
    )


def _goal(goal: Goal) -> str:
    return f"| {goal.text} | {goal.found} | {'met' if goal.met else 'missed'} |"


def _is_equal(played: Played) -> bool:
    return played.scenario.rise == 0.0 and played.scenario.slowdown == 1.0


def _shares(played: Mapping[str, Played]) -> list[str]:
    rules = ("rolled back", "by errors", "by latency", "flagger", "argo", "flagger p95")
    lines = [
        "| scenario | ours | of it errors | latency | Flagger | Argo | Flagger p95 |",
        "| --- |" + " ---: |" * 6,
    ]
    for name, one in played.items():
        lines.append(f"| {name} | " + " | ".join(f"{one.rules[rule].share:.2%}" for rule in rules) + " |")
    return lines


def _caught(played: Mapping[str, Played]) -> list[str]:
    lines = ["| scenario | ours | Flagger | Argo | Flagger p95 |", "| --- |" + " ---: |" * 4]
    for name, one in played.items():
        cells = [_cell(one.rules[rule]) for rule in ("rolled back", "flagger", "argo", "flagger p95")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _cell(crossing: Crossing) -> str:
    median, p90 = (crossing.quantile(crossing.at_s, q) for q in (0.5, 0.9))
    requests = crossing.quantile(crossing.requests, 0.5)
    told = f" ({requests:.0f})" if requests is not None else ""
    return f"{crossing.share:.0%}; {_time(median)} / {_time(p90)}{told}"


def _safe(played: Mapping[str, Played]) -> list[str]:
    lines = ["| scenario | errors | latency | both at once |", "| --- |" + " ---: |" * 3]
    for name, one in played.items():
        cells = []
        for rule in ("errors safe", "latency safe", "safe"):
            crossing = one.rules[rule]
            median, p90 = (crossing.quantile(crossing.requests, q) for q in (0.5, 0.9))
            cells.append(f"{crossing.share:.1%}; {_count(median)} / {_count(p90)}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _count(requests: float | None) -> str:
    return "–" if requests is None else f"{requests:.0f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.0f} s" if seconds < 120.0 else f"{seconds / 60.0:.1f} min"
