"""What people ask of a rollout, as a plan: steps and guardrails with everything filled in. No I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from control_plane.analysis import catalog
from control_plane.analysis.time_metric import TimeMetric
from control_plane.domain.rollout import (
    Guardrail,
    Plan,
    Step,
    Strategy,
    canary_steps,
    check_plan,
    default_steps,
)
from control_plane.errors import InvalidInputError

MAX_REASON_CHARS: Final = 500
_PATCHABLE: Final = tuple(field.name for field in fields(Guardrail) if field.name != "name")
_SHARE_SLACK: Final = 1e-9
MAX_SHARE: Final = 0.95
"""Largest tolerance and regression of a guardrail on shares: near 1 nothing would be left to be compared."""
MAX_FACTOR: Final = 10.0
"""The same of a guardrail on times, where they are factors less 1."""

GuardrailPatches = Mapping[str, Mapping[str, Any]]
"""Changes of guardrails by name: {"errors": {"tolerance": 0.01, "observe_only": True}}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanWish:
    """What a rollout is asked to be; None takes the strategy's default."""

    strategy: str = Strategy.CANARY
    weights: Sequence[float] | None = None
    """Canary weights; a last one of 1.0 is added where it lacks."""
    steps: Sequence[Step] | None = None
    """Whole steps, in place of weights; what follows below is laid over them where it is named."""
    bake_s: float | None = None
    min_requests: int | None = None
    approval: bool | Sequence[bool] = False
    """Whether every step but the last waits for a person; or one answer a step."""
    auto_advance: bool = True
    mirror: float | None = None
    """Share of requests copied in a step before the others, or of a shadow rollout, in (0, 1]."""
    guardrails: GuardrailPatches | None = None
    skip_gates: str | None = None
    break_freeze: str | None = None
    warm_s: float | None = None


def build(wish: PlanWish, *, warm_s: float) -> Plan:
    """The plan that *wish* asks for. warm_s: the endpoint's usual time to keep the old version warm, in s.

    Raises InvalidInputError saying what is wrong with it.
    """
    strategy = _strategy(wish.strategy)
    plan = Plan(
        strategy=strategy,
        steps=_approvals(_laid_over(_steps(strategy, wish), wish), wish.approval),
        auto_advance=wish.auto_advance,
        guardrails=guardrails(wish.guardrails or {}),
        warm_s=warm_s if wish.warm_s is None else wish.warm_s,
        skip_gates=reason_given(wish.skip_gates, "leaving out the gates"),
        break_freeze=reason_given(wish.break_freeze, "breaking a freeze"),
    )
    return check_plan(plan)


def guardrails(patches: GuardrailPatches) -> tuple[Guardrail, ...]:
    """Every guardrail of the catalogue with *patches* laid over. Raises InvalidInputError."""
    known = {each.name: each for each in catalog.defaults()}
    unknown = sorted(set(patches) - set(known))
    if unknown:
        raise InvalidInputError(
            f"there is no guardrail {unknown[0][:80]!r}; known guardrails are {', '.join(known)}"
        )
    chosen = tuple(_patched(each, patches.get(name, {})) for name, each in known.items())
    if all(each.observe_only for each in chosen):
        raise InvalidInputError(
            "every guardrail is observe_only: at least one must judge",
            next_step="Let one judge, for example errors; without any, nothing would ever be proven.",
        )
    spent = sum(each.alpha_share for each in chosen if not each.observe_only)
    if spent > 1 + _SHARE_SLACK:
        raise InvalidInputError(
            f"the guardrails' alpha_share add up to {spent:g}, and must not exceed 1",
            next_step="Give less to others, or set observe_only for some.",
        )
    return chosen


def reason_given(text: str | None, what: str) -> str | None:
    """*text* without white space around it, None for None. Raises InvalidInputError for no or a long text."""
    if text is None:
        return None
    reason = text.strip()
    if not reason or len(reason) > MAX_REASON_CHARS or "\0" in reason:
        raise InvalidInputError(f"{what} needs a reason of 1 to {MAX_REASON_CHARS} characters")
    return reason


def _strategy(name: str) -> Strategy:
    try:
        return Strategy(name)
    except ValueError as error:
        known = ", ".join(Strategy)
        raise InvalidInputError(
            f"there is no strategy {name[:40]!r}; known strategies are {known}"
        ) from error


def _steps(strategy: Strategy, wish: PlanWish) -> tuple[Step, ...]:
    if wish.steps is not None and wish.weights is not None:
        raise InvalidInputError("name either weights or steps, not both")
    steps = _base_steps(strategy, wish)
    return steps if wish.mirror is None else _mirrored(strategy, steps, wish.mirror)


def _base_steps(strategy: Strategy, wish: PlanWish) -> tuple[Step, ...]:
    if wish.steps is not None:
        return tuple(wish.steps)
    if wish.weights is None:
        return default_steps(strategy)
    if strategy is not Strategy.CANARY:
        raise InvalidInputError(
            f"a {strategy} rollout has no weights to choose", next_step="Use the canary strategy."
        )
    if not wish.weights:
        raise InvalidInputError("a canary needs at least one weight")
    return canary_steps(tuple(wish.weights))


def _mirrored(strategy: Strategy, steps: tuple[Step, ...], share: float) -> tuple[Step, ...]:
    if not 0 < share <= 1:
        raise InvalidInputError(f"the mirrored share must be above 0 and at most 1, not {share:g}")
    if strategy is Strategy.CANARY:
        return (Step(weight=0.0, mirror=share), *steps)
    usual = Step(weight=0.0)
    return (
        replace(steps[0], mirror=share, bake_s=usual.bake_s, min_requests=usual.min_requests),
        *steps[1:],
    )


def _laid_over(steps: tuple[Step, ...], wish: PlanWish) -> tuple[Step, ...]:
    """Bake time and least requests of *wish* for every step that is measured; a preview keeps its own."""
    named: dict[str, Any] = {}
    if wish.bake_s is not None:
        named["bake_s"] = wish.bake_s
    if wish.min_requests is not None:
        named["min_requests"] = wish.min_requests
    return tuple(replace(step, **named) if step.measures else step for step in steps)


def _approvals(steps: tuple[Step, ...], approval: bool | Sequence[bool]) -> tuple[Step, ...]:  # noqa: FBT001
    if approval is False:
        return steps
    if approval is True:
        return (*(replace(step, approval=True) for step in steps[:-1]), *steps[-1:])
    if len(approval) != len(steps):
        raise InvalidInputError(f"there are {len(steps)} steps, and {len(approval)} answers about approval")
    return tuple(replace(step, approval=each) for step, each in zip(steps, approval, strict=True))


def _patched(guardrail: Guardrail, patch: Mapping[str, Any]) -> Guardrail:
    unknown = sorted(set(patch) - set(_PATCHABLE))
    if unknown:
        raise InvalidInputError(f"a guardrail has no {unknown[0][:40]!r}; it has {', '.join(_PATCHABLE)}")
    for name, value in patch.items():
        _check_field(guardrail.name, name, value)
    return replace(guardrail, **patch)


def _check_field(guardrail: str, name: str, value: object) -> None:
    if name == "observe_only":
        if not isinstance(value, bool):
            raise InvalidInputError(f"{guardrail}.{name} is true or false")
        return
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    above_zero, high = name == "max_regression", _highest(guardrail, name)
    given = float(str(value)) if number else math.nan
    if not 0 <= given <= high or (above_zero and given == 0):  # not a number is in no range
        low = "above 0 and at most" if above_zero else "from 0 to"
        raise InvalidInputError(f"{guardrail}.{name} must be a number {low} {high:g}, not {str(value)[:40]}")


def _highest(guardrail: str, name: str) -> float:
    if name == "alpha_share":
        return 1.0
    return MAX_FACTOR if isinstance(catalog.get(guardrail), TimeMetric) else MAX_SHARE
