"""Rollouts in every state, as services and controller would have written them."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from control_plane.domain.rollout import (
    ENDED,
    IN_TRAFFIC,
    Plan,
    Rollout,
    RolloutState,
    Strategy,
    default_steps,
)
from control_plane.registry import rollouts
from control_plane.registry import session as sessions
from control_plane.registry.tables import Disagreement, Event
from control_plane.registry.tables import Rollout as Row
from control_plane.services import versions
from control_plane.services.context import Context
from tests.fakes import seeded

STABLE, CANDIDATE = "digits@1", "digits@2"
SAFE: Final = "every guardrail is safe"
UNDECIDED: Final = (
    "latency: 95 % quantile of the candidate 13.1 ms against 12.3 ms of stable, not decided yet"
)
WORSE: Final = "server errors: candidate 5.1 % against 0.4 % of stable"


def reading(name: str, title: str, outcome: str, **changes: Any) -> dict[str, Any]:
    """One guardrail's reading as the controller stores it."""
    figure = {
        "stable": 0.0042,
        "candidate": 0.0051,
        "difference": 0.0009,
        "low": -0.0031,
        "high": 0.0049,
        "unit": "share",
    }
    made = {
        "name": name,
        "title": title,
        "outcome": outcome,
        "sentence": f"{title}: candidate 0.51 % against 0.42 % of stable",
        "worse": 0.04,
        "safe": 0.62,
        "figure": figure,
        "stable_n": 18240,
        "candidate_n": 6012,
        "tolerance": 0.002,
        "max_regression": 0.01,
        "observe_only": False,
        "more_requests": None,
    }
    return {**made, **changes}


def readings(worst: str = "undecided") -> list[dict[str, Any]]:
    """A set of readings as a canary has it; *worst*: outcome of the server errors."""
    slow = {
        "stable": 0.0123,
        "candidate": 0.0131,
        "difference": 0.0008,
        "low": -0.0002,
        "high": 0.0018,
        "unit": "s",
    }
    drift = {
        "stable": None,
        "candidate": 0.031,
        "difference": 0.031,
        "low": 0.012,
        "high": 0.06,
        "unit": "PSI",
    }
    errors: dict[str, Any] = {"safe": 1.0} if worst == "safe" else {}
    if worst == "worse":
        far = {
            "stable": 0.004,
            "candidate": 0.051,
            "difference": 0.047,
            "low": 0.021,
            "high": 0.074,
            "unit": "share",
        }
        errors = {"figure": far, "worse": 1.0, "safe": 0.0, "sentence": WORSE}
    nothing = {
        "stable": None,
        "candidate": None,
        "difference": None,
        "low": None,
        "high": None,
        "unit": "share",
    }
    return [
        reading("errors", "server errors", worst, **errors),
        reading(
            "latency",
            "latency",
            "undecided",
            figure=slow,
            tolerance=0.0,
            max_regression=0.3,
            worse=0.21,
            safe=0.44,
            more_requests=310,
            sentence=UNDECIDED,
        ),
        reading(
            "outputs",
            "output drift",
            "safe",
            figure=drift,
            tolerance=0.0,
            max_regression=0.1,
            safe=1.0,
            observe_only=True,
            sentence="the classes are answered as often as by stable",
        ),
        reading(
            "nonfinite",
            "NaN or infinite outputs",
            "safe",
            safe=1.0,
            worse=0.0,
            figure={
                **nothing,
                "stable": 0.0,
                "candidate": 0.0,
                "difference": 0.0,
                "low": -0.0005,
                "high": 0.0005,
            },
            sentence="none in 6,012 answers",
        ),
        reading(
            "disagreement",
            "disagreement on copies",
            "not_applicable",
            figure=nothing,
            worse=0.0,
            safe=0.0,
            candidate_n=0,
            stable_n=0,
            sentence="only judged while copies are sent",
        ),
    ]


def verdict(kind: str, sentence: str, *, age_s: float = 3.0, worst: str = "undecided") -> dict[str, Any]:
    """A verdict as the controller stores it, given *age_s* seconds ago."""
    return {
        "kind": kind,
        "code": "undecided",
        "sentence": sentence,
        "at": time.time() - age_s,
        "readings": readings(worst),
        "eta_s": 95.0 if kind == "WAIT" else None,
    }


def add(
    ctx: Context,
    endpoint: str,
    state: RolloutState,
    *,
    strategy: Strategy = Strategy.CANARY,
    step: int = 2,
    judged: Mapping[str, Any] | None = None,
    gates: list[dict[str, Any]] | None = None,
    plan: Mapping[str, Any] | None = None,
    age_s: float = 400.0,
    **changes: Any,
) -> str:
    """Write a rollout of digits@2 to *endpoint* and what happened to it; its id."""
    now = time.time()
    steps = default_steps(strategy)
    whole = replace(Plan(strategy=strategy, steps=steps), **(plan or {}))
    at = whole.steps[min(step, len(whole.steps) - 1)] if state in IN_TRAFFIC else None
    value = Rollout(
        id="",
        endpoint=endpoint,
        stable=STABLE,
        candidate=CANDIDATE,
        plan=whole,
        state=state,
        step_index=min(step, len(whole.steps) - 1),
        weight=at.weight if at else 0.0,
        mirror=at.mirror if at else 0.0,
        entered_at=now - 142,
        created_by="ana",
        created_at=now - age_s,
        revision=step + 4,
        baked_s=142.0 if at else 0.0,
        step_requests=6012 if at else 0,
    )
    value = replace(value, **changes)
    with sessions.write(ctx.engine) as session:
        stable, candidate = (versions.find(session, ref) for ref in (STABLE, CANDIDATE))
        row = Row(
            endpoint=endpoint,
            stable_version_id=stable.id,
            candidate_version_id=candidate.id,
            stable_handler=stable.handler,
            candidate_handler=candidate.handler,
            plan=rollouts.plan_json(whole),
            verdict=dict(judged) if judged else None,
            gates=gates,
            created_by="ana",
            created_at=value.created_at,
        )
        rollouts.write(row, value)
        if value.state in ENDED:
            row.ended_at = now - 90
        session.add(row)
        session.flush()
        for event in _events(row, value, now):
            session.add(event)
        return row.id


def _events(row: Row, value: Rollout, now: float) -> list[Event]:
    def event(
        at: float, actor: str, action: str, message: str, weight: float, reason: str | None = None
    ) -> Event:
        details = {"rollout": row.id, "endpoint": row.endpoint, "weight": weight, "reason": reason}
        return Event(
            at=at,
            actor=actor,
            action=action,
            subject=f"endpoint/{row.endpoint}",
            message=message,
            details=details,
        )

    began = value.created_at
    made = [
        event(began, "ana", "rollout.started", f"ana started a rollout of {CANDIDATE} to {row.endpoint}", 0.0)
    ]
    if value.state is RolloutState.STARTING:
        return made
    for index in range(min(value.step_index, 3) + 1):
        weight = value.plan.steps[index].weight
        at = began + (now - began) * (index + 1) / (value.step_index + 2)
        made.append(
            event(
                at, "controller", "rollout.advanced", f"step {index + 1}: weight {weight * 100:g} %", weight
            )
        )
    if value.reason:
        made.append(event(now - 90, "controller", f"rollout.{value.state}", value.reason, 0.0, value.reason))
    return made


def gate(name: str, title: str, outcome: str, sentence: str, **figures: Any) -> dict[str, Any]:
    """One gate's result as the job stores it."""
    return {"name": name, "title": title, "outcome": outcome, "sentence": sentence, "figures": figures}


GATES: Final = [
    gate("golden", "Golden set", "passed", "96.9 % right against 97.2 % of stable: within 5 %", items=360),
    gate("memory", "Memory fit", "passed", "311 MiB of 1 GiB while both run", peak_mib=311),
    gate("warmup", "Warm-up latency", "passed", "first answer after 1.9 s", first_s=1.9, p95_ms=12.4),
    gate("equivalence", "Equivalence to its parent", "not_applicable", "it was not made from stable"),
]


def differ(ctx: Context, rollout_id: str, number: int = 4) -> None:
    """Add disagreements of a rollout, the worst first."""
    draw = random.Random(3)
    with sessions.write(ctx.engine) as session:
        for index in range(number):
            scores = [round(draw.random(), 3) for _ in range(10)]
            session.add(
                Disagreement(
                    rollout_id=rollout_id,
                    at=time.time() - 30 * index,
                    request_id=f"req-{index}",
                    distance=0.93 - index * 0.11,
                    inputs={"image": [seeded.picture(index)]},
                    answers={
                        "stable": {"logits": [scores]},
                        "candidate": {"logits": [scores[::-1]]},
                        "measure": "largest |Δ| of logits",
                    },
                )
            )


def fill(ctx: Context) -> dict[str, str]:
    """One rollout in every rendering that its page has, each at an endpoint of its own; their ids by name."""
    now, state = time.time(), RolloutState
    passed, waits = verdict("PASS", SAFE, worst="safe"), verdict("WAIT", UNDECIDED)
    failed = verdict("FAIL", WORSE, worst="worse")
    whole = {"step": 5, "weight": 1.0}
    made = {
        "waiver": add(
            ctx, "r-waiver", state.AWAITING_WAIVER, step=0, plan={"skip_gates": "the golden set is outdated"}
        ),
        "starting": add(ctx, "r-starting", state.STARTING, step=0, age_s=20),
        "preflight": add(ctx, "r-preflight", state.PREFLIGHT, step=0, age_s=40),
        "shifting": add(ctx, "r-shifting", state.SHIFTING, baked_s=0.0, step_requests=0, gates=GATES),
        "baking": add(ctx, "digits", state.BAKING, judged=waits, gates=GATES),
        "ready": add(ctx, "r-ready", state.BAKING, judged=passed, gates=GATES, plan={"auto_advance": False}),
        "nodata": add(
            ctx, "r-nodata", state.BAKING, judged=verdict("NO_DATA", "no request reached digits@2")
        ),
        "stale": add(
            ctx, "r-stale", state.BAKING, judged=verdict("NO_DATA", "measurements are old", age_s=185)
        ),
        "approval": add(ctx, "r-approval", state.AWAITING_APPROVAL, judged=passed, gates=GATES),
        "held": add(ctx, "r-held", state.BAKING, judged=waits, holds=frozenset({"operator"})),
        "final": add(ctx, "r-final", state.FINAL, judged=passed, gates=GATES, **whole),
        "shadow": add(ctx, "r-shadow", state.BAKING, strategy=Strategy.SHADOW, step=0, judged=waits),
        "bluegreen": add(ctx, "r-bluegreen", state.BAKING, strategy=Strategy.BLUE_GREEN, step=0, gates=GATES),
        "rolling": add(
            ctx,
            "r-rolling",
            state.ROLLING_BACK,
            judged=failed,
            ending=state.ROLLED_BACK,
            reason=WORSE,
            reason_code="errors",
            baked_s=61.0,
            step_requests=480,
        ),
        "rolled": add(
            ctx,
            "r-rolled",
            state.ROLLED_BACK,
            judged=failed,
            reason=WORSE,
            reason_code="errors",
            baked_s=61.0,
            step_requests=480,
            warm_until=now + 410,
            gates=GATES,
        ),
        "completed": add(
            ctx,
            "r-completed",
            state.COMPLETED,
            judged=passed,
            reason="digits@2 is stable now",
            warm_until=now + 730,
            gates=GATES,
            **whole,
        ),
        "aborted": add(ctx, "r-aborted", state.ABORTED, judged=waits, reason="the wrong version was chosen"),
        "superseded": add(
            ctx,
            "r-superseded",
            state.SUPERSEDED,
            judged=waits,
            age_s=900,
            reason="superseded by the rollout of digits@2",
        ),
        "newer": add(ctx, "r-superseded", state.BAKING, judged=waits, age_s=300),
        "failed": add(
            ctx,
            "r-failed",
            state.FAILED,
            step=0,
            reason="golden set: 71 % right against 97 % of stable",
            reason_code="golden",
            gates=[gate("golden", "Golden set", "failed", "71 % right", items=360)],
        ),
    }
    differ(ctx, made["shadow"])
    return made
