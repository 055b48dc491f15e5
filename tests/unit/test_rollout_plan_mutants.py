"""Every small lie told to the rollout plan is found out by its tests: one mutant a line of the list."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from control_plane.controller import plan, rollout_plan
from control_plane.errors import SignalboxError
from tests.unit import test_rollout_plan

MUTANTS = (
    ("scene.now < rollout.warm_until", "scene.now > rollout.warm_until"),
    ("if not scene.gateway.live or seen.candidate_spec.version_ref in scene.weights:", "if False:"),
    ("before_traffic = rollout.state not in IN_TRAFFIC", "before_traffic = False"),
    ("RolloutState.FAILED if before_traffic else RolloutState.ROLLED_BACK", "RolloutState.ROLLED_BACK"),
    ("seen.verdict.kind is VerdictKind.FAIL:", "seen.verdict.kind is VerdictKind.NO_DATA:"),
    ("hard is None and seen.verdict is not None", "False"),
    ("_crashed(scene, seen) or _not_ready", "_not_ready"),
    ("or _not_ready(scene, seen) or", "or"),
    (" or _hangs(scene, seen)", ""),
    ("len(failed) >= scene.limits.start_failures", "len(failed) > 100"),
    ("rollout.state is RolloutState.PREFLIGHT and said_no", "False"),
    ("(GatesOutcome.FAILED, GatesOutcome.BROKEN)", "(GatesOutcome.BROKEN,)"),
    ("if waited > rollout.plan.start_deadline_s and", "if False and"),
    ("rollout.plan.start_deadline_s and not _stays(seen):", "rollout.plan.start_deadline_s:"),
    ("if not any(scene.servable(agent) for agent in scene.of(seen.stable_spec)):", "if False:"),
    ("began = seen.rollout.entered_at", "began = seen.rollout.created_at"),
    (" and (rollout.stable in scene.weights or rollout.weight >= 1):", ":"),
    ("scene.now - rollout.entered_at >= step.bake_s", "True"),
    ("longest <= scene.limits.hang_s\n", "longest <= 1e9\n"),
    ("or _longest_busy_s(scene.of(seen.stable_spec)) > scene.limits.hang_s / 4", "or False"),
    ("scene.now - rollout.entered_at > rollout.plan.shift_deadline_s", "False"),
    ("if rollout.holds or not staffing.complete(scene, seen.candidate_spec):", "if False:"),
    ("seen.gates.outcome is not GatesOutcome.PASSED or _stays(seen)", "_stays(seen)"),
    ("if in_force(scene, rollout):", "if True:"),
    ("if _stays(seen) or not _proven(scene, seen):", "if not _proven(scene, seen):"),
    ("if _stays(seen) or not _proven(scene, seen):", "if _stays(seen):"),
    ("bool(seen.rollout.holds) or seen.frozen is not None", "bool(seen.rollout.holds)"),
    ("bool(seen.rollout.holds) or seen.frozen is not None", "seen.frozen is not None"),
    ("rollout.baked_s < step.bake_s or ", ""),
    (" or rollout.step_requests < step.min_requests", ""),
    ("scene.now - seen.verdict.at > scene.limits.verdict_stale_s", "False"),
    ("return seen.verdict.kind is VerdictKind.PASS", "return seen.verdict.kind is not VerdictKind.WAIT"),
    ("return seen.verdict.kind is VerdictKind.PASS", "return seen.verdict.kind is not VerdictKind.NO_DATA"),
    ("if RolloutState.COMPLETED in (decision.after.state, decision.before.state):", "if False:"),
    ("return scene\n    endpoint = replace", "return scene\n    return scene\n    endpoint = replace"),
    ("if not scene.running:", "if False:"),
    ("== (rollout.mirror > 0)", "== True"),
)  # fmt: skip

CHECKS = [
    test
    for name, test in inspect.getmembers(test_rollout_plan, inspect.isfunction)
    if name.startswith("test_")
]


def mutant(old: str, new: str) -> ModuleType:
    source = inspect.getsource(rollout_plan)
    assert old in source, f"the list is out of date: {old!r}"
    module = ModuleType("mutant_of_rollout_plan")
    sys.modules[module.__name__] = module
    exec(compile(source.replace(old, new, 1), module.__name__, "exec"), module.__dict__)
    return module


def survives(check: Callable[..., None]) -> bool:
    """Run a test with each of its parameter sets; False when one of them fails."""
    marks = [mark for mark in getattr(check, "pytestmark", ()) if mark.name == "parametrize"]
    sets = [{}] if not marks else [_named(mark.args[0], values) for mark in marks for values in mark.args[1]]
    try:
        for arguments in sets:
            check(**arguments)
    except (AssertionError, SignalboxError, KeyError, IndexError, TypeError):
        return False
    return True


def _named(names: object, values: object) -> dict[str, object]:
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",")]
    keys = list(names)  # type: ignore[call-overload]
    return dict(zip(keys, values if len(keys) > 1 else (values,), strict=True))  # type: ignore[arg-type]


def test_the_plan_itself_survives() -> None:
    assert all(map(survives, CHECKS))


@pytest.mark.parametrize(("old", "new"), MUTANTS)
def test_mutant_is_killed(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "rollout_plan", mutant(old, new))
    assert not all(map(survives, CHECKS))
