"""What a rollout is to be expected to do, before it runs: from its plan and the endpoint's traffic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from control_plane.analysis import simulation
from control_plane.domain.rollout import Plan, Step
from control_plane.domain.rollout_policy import DEFAULT as DEFAULT_POLICY
from control_plane.errors import InvalidInputError
from control_plane.services import endpoints, rollout_plans, rollout_words
from control_plane.services.context import Context
from control_plane.services.rollout_plans import GuardrailPatches, PlanWish
from control_plane.services.rollout_traffic import Traffic, measured

ASSUMED_ERROR_RATE: Final = 0.005
ASSUMED_P50_S: Final = 0.02
"""What is taken where nobody named and nothing measured it; the rate is never assumed."""
LONG_STEP_S: Final = 3600.0
"""A step that takes longer than this is warned of, in seconds."""
_TAIL: Final = 2.5
"""p95 as a multiple of the median, where only that is known or it is assumed."""


def simulate(
    ctx: Context,
    endpoint: str | None = None,
    *,
    strategy: str = "canary",
    weights: Sequence[float] | None = None,
    steps: Sequence[Step] | None = None,
    bake_s: float | None = None,
    min_requests: int | None = None,
    mirror: float | None = None,
    guardrails: GuardrailPatches | None = None,
    rate: float | None = None,
    error_rate: float | None = None,
    p50_s: float | None = None,
    p95_s: float | None = None,
) -> dict[str, Any]:
    """Time and requests that each step would take, and how soon regressions of several sizes were caught.

    The plan is named as `rollouts.start` names it; rate (requests/s), error_rate (share), p50_s and p95_s
    (seconds) win over what was measured at *endpoint* lately. Plain JSON: {"traffic": figures used, "origin":
    `given`, `measured` or `assumed` for each, "prediction": `analysis.simulation.Prediction`, "warnings":
    sentences}. Raises NotFoundError, and InvalidInputError for a plan that makes no sense or an unknown rate.
    """
    wish = PlanWish(
        strategy=strategy,
        weights=weights,
        steps=steps,
        bake_s=bake_s,
        min_requests=min_requests,
        mirror=mirror,
        guardrails=guardrails,
    )
    plan = rollout_plans.build(wish, warm_s=DEFAULT_POLICY.warm_s)
    given = Traffic(rate=rate, error_rate=error_rate, p50_s=p50_s, p95_s=p95_s)
    seen = _seen(ctx, endpoint)
    used = _used(given.over(seen))
    predicted = _predict(plan, used)
    return {
        "traffic": used,
        "origin": {name: _origin(name, given, seen) for name in used},
        "prediction": predicted.to_json(),
        "warnings": list(warnings(predicted)),
    }


def warnings(predicted: simulation.Prediction) -> Iterator[str]:
    """What a person should know before starting such a rollout. Pure."""
    for number, step in enumerate(predicted.steps, start=1):
        if step.median_s is not None and step.median_s <= LONG_STEP_S:
            continue
        share = rollout_words.percent(step.weight or step.mirror)
        time = "days" if step.median_s is None else f"about {step.median_s / 3600:.1f} h"
        yield f"step {number} ({share}) takes {time} at this rate: raise its weight, mirror, or accept it"


def _seen(ctx: Context, endpoint: str | None) -> Traffic:
    if endpoint is None:
        return Traffic()
    return measured(ctx, endpoints.get(ctx, endpoint).name)


def _used(known: Traffic) -> dict[str, float]:
    """Every figure, assumed where it is not known."""
    if known.rate is None:
        raise InvalidInputError(
            "nothing is known of the rate: no requests were measured lately",
            next_step="Name it, in requests per second.",
        )
    p95_s = (known.p50_s or ASSUMED_P50_S) * _TAIL if known.p95_s is None else known.p95_s
    return {
        "rate": known.rate,
        "error_rate": ASSUMED_ERROR_RATE if known.error_rate is None else known.error_rate,
        "p50_s": min(ASSUMED_P50_S, p95_s) if known.p50_s is None else known.p50_s,
        "p95_s": p95_s,
    }


def _origin(name: str, given: Traffic, seen: Traffic) -> str:
    if getattr(given, name) is not None:
        return "given"
    return "measured" if getattr(seen, name) is not None else "assumed"


def _predict(plan: Plan, used: dict[str, float]) -> simulation.Prediction:
    return simulation.predict(
        rate=used["rate"],
        error_rate=used["error_rate"],
        p50_s=used["p50_s"],
        p95_s=used["p95_s"],
        steps=plan.steps,
        guardrails=plan.guardrails,
    )
