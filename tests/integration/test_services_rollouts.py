"""Rollouts through the services: what may begin, who may say what, and what other changes do to one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from control_plane.analysis import catalog
from control_plane.domain import rollout as moves
from control_plane.domain.rollout import Step
from control_plane.domain.views import RolloutView
from control_plane.errors import ConflictError, InvalidInputError, NotFoundError
from control_plane.registry import rollout_history
from control_plane.registry import session as sessions
from control_plane.registry.tables import Lease, RolloutEvidence, Version
from control_plane.registry.tables import Rollout as Row
from control_plane.services import (
    declarative,
    endpoints,
    freeze_windows,
    rollout_policies,
    rollouts,
    versions,
    webhooks,
)
from control_plane.services.context import Context
from control_plane.telemetry.local_store import LocalStore
from control_plane.telemetry.samples import Key, Sample, SampleKind
from serving_agent.contract.signature import Signature, TensorSpec
from tests.fakes.registry import SIGNATURE, open_home, register
from tests.fakes.rollouts import give_verdict, move, serve, serves, two_versions


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    context = open_home(tmp_path / "home", gateway_port=1)
    yield context
    context.engine.dispose()


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Context]:
    """A home where one person may do everything."""
    context = open_home(tmp_path / "home", gateway_port=1, four_eyes=False)
    yield context
    context.engine.dispose()


def begin(ctx: Context, **wish: Any) -> RolloutView:
    two_versions(ctx)
    return rollouts.start(ctx, "digits", "digits@2", actor="ana", **wish)


def baking(ctx: Context, **wish: Any) -> RolloutView:
    """A rollout that bakes at its first step."""
    begin(ctx, **wish)
    for change in (moves.started, moves.gates_passed, moves.confirmed):
        view = move(ctx, "digits", lambda rollout, change=change: change(rollout, time.time()))  # type: ignore[misc]
    return view


def completed(ctx: Context, **wish: Any) -> RolloutView:
    """A rollout whose candidate became stable."""
    baking(ctx, weights=[1.0], **wish)
    return move(ctx, "digits", lambda rollout: moves.advanced(rollout, time.time()))


def actions(ctx: Context) -> list[str]:
    return [event.action for event in rollouts.history(ctx, "digits").items]


# --- starting ---


def test_a_new_rollout_has_everything_filled_in(ctx: Context) -> None:
    view = begin(ctx)
    assert (view.state, view.phase, view.stable_ref, view.candidate_ref) == (
        "starting", "starting", "digits@1", "digits@2",
    )  # fmt: skip
    assert [step.weight for step in view.steps] == [0.05, 0.1, 0.25, 0.5, 0.75, 1.0]
    assert (view.step, view.weight, view.next_weight, view.revision) == (1, 0.0, 0.1, 1)
    assert view.waiting_for == "capacity: no agent of digits@2 could be started yet"
    assert view.preview_url.endswith("/preview/digits")
    assert [gate.name for gate in view.gates] == ["signature"]
    assert "rollback" in view.commands
    assert "promote" not in view.commands
    with sessions.read(ctx.engine) as session:
        assert session.get_one(RolloutEvidence, view.id).cursor_ms > 1.6e12
    assert actions(ctx) == ["rollout.started"]


@pytest.mark.parametrize(
    ("wish", "steps"),
    [
        ({"weights": [0.5]}, [(0.5, 0.0), (1.0, 0.0)]),
        ({"weights": [1.0], "mirror": 0.3}, [(0.0, 0.3), (1.0, 0.0)]),
        ({"strategy": "blue-green"}, [(0.0, 0.0), (1.0, 0.0)]),
        ({"strategy": "shadow", "mirror": 0.5}, [(0.0, 0.5)]),
        ({"steps": [Step(weight=0.2, bake_s=9), Step(weight=1.0)], "bake_s": 7}, [(0.2, 0.0), (1.0, 0.0)]),
    ],
    ids=["canary", "mirrored", "blue-green", "shadow", "steps"],
)
def test_strategies_become_steps(
    ctx: Context, wish: dict[str, Any], steps: list[tuple[float, float]]
) -> None:
    view = begin(ctx, **wish)
    assert [(step.weight, step.mirror) for step in view.steps] == steps
    if "bake_s" in wish:
        assert {step.bake_s for step in view.steps} == {7}


@pytest.mark.parametrize(
    "wish",
    [
        {"strategy": "rolling"},
        {"weights": []},
        {"weights": [0.5, 0.2]},
        {"weights": [float("nan")]},
        {"weights": [0.5], "steps": [Step(weight=1.0)]},
        {"strategy": "blue-green", "weights": [0.5]},
        {"mirror": 0.0},
        {"mirror": 1.5},
        {"bake_s": -1.0},
        {"approval": [True]},
        {"warm_s": -1.0},
        {"skip_gates": " "},
        {"guardrails": {"nonsense": {}}},
        {"guardrails": {"errors": {"colour": 1}}},
        {"guardrails": {"errors": {"tolerance": 2}}},
        {"guardrails": {"errors": {"tolerance": 1.0}}},
        {"guardrails": {"errors": {"max_regression": 0.0}}},
        {"guardrails": {"disagreement": {"max_regression": 0.96}}},
        {"guardrails": {"latency": {"tolerance": 10.1}}},
        {"guardrails": {"latency": {"max_regression": float("nan")}}},
        {"guardrails": {name: {"observe_only": True} for name in catalog.names()}},
        {"guardrails": {"errors": {"observe_only": "yes"}}},
        {"guardrails": {"errors": {"alpha_share": 1.0}, "latency": {"alpha_share": 1.0}}},
    ],
    ids=str,
)
def test_plans_that_make_no_sense_are_refused(ctx: Context, wish: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        begin(ctx, **wish)
    assert rollouts.list_all(ctx).total == 0


def test_guardrails_are_the_catalogue_with_changes(ctx: Context) -> None:
    view = begin(
        ctx, guardrails={"errors": {"tolerance": 0.01, "observe_only": True}, "latency": {"tolerance": 2}}
    )
    plan = rollouts.report_data(ctx, view.id)["plan"]
    errors = next(each for each in plan["guardrails"] if each["name"] == "errors")
    assert (errors["tolerance"], errors["observe_only"]) == (0.01, True)
    assert len(plan["guardrails"]) > 1


def test_approval_is_asked_for_all_steps_but_the_last_or_for_those_named(ctx: Context) -> None:
    assert [step.approval for step in begin(ctx, weights=[0.5], approval=True).steps] == [True, False]
    named = rollouts.start(
        ctx,
        "digits",
        "digits@2",
        actor="ana",
        supersede=True,
        weights=[0.1, 0.5],
        approval=[False, True, False],
    )
    assert [step.approval for step in named.steps] == [False, True, False]


def test_what_cannot_begin_says_why_and_what_to_do(ctx: Context) -> None:
    with pytest.raises(NotFoundError):
        rollouts.start(ctx, "nobody", "digits@1", actor="ana")
    register(ctx)
    register(ctx, content=b"other")
    endpoints.deploy(ctx, "digits", "digits@1", actor="ana")

    def refused(match: str, ref: str = "digits@2", **wish: Any) -> None:
        with pytest.raises(ConflictError, match=match) as caught:
            rollouts.start(ctx, "digits", ref, actor="ana", **wish)
        assert caught.value.next_step

    refused("serves nothing yet")
    serves(ctx, "digits")
    refused("serves digits@1 already", "digits@1")
    refused("was changed meanwhile", expected_revision=7)
    with pytest.raises(NotFoundError):
        rollouts.start(ctx, "digits", "digits@9", actor="ana")
    endpoints.stop(ctx, "digits", actor="ana")
    refused("is stopped")
    endpoints.deploy(ctx, "digits", "digits@2", actor="ana")
    refused("still changing", "digits@1")
    serves(ctx, "digits")
    versions.archive(ctx, "digits@1", actor="ana")
    refused("archived", "digits@1")


def test_another_signature_is_refused_and_named(ctx: Context) -> None:
    register(ctx)
    changed = Signature(
        (TensorSpec("picture", "FP32", (-1, 1, 8, 8)),), (TensorSpec("logits", "FP64", (-1, 10)),)
    )
    register(ctx, content=b"other", signature=changed)
    serve(ctx)
    with pytest.raises(ConflictError, match="another signature") as caught:
        rollouts.start(ctx, "digits", "digits@2", actor="ana")
    assert caught.value.details["differences"] == [
        "input image is gone",
        "input picture is new",
        "output logits: FP32[-1,10] became FP64[-1,10]",
    ]
    assert changed != SIGNATURE


def test_staging_comes_first_where_it_is_asked_for(ctx: Context) -> None:
    two_versions(ctx)
    serve(ctx, "staging")
    rollout_policies.put(ctx, "digits", {"staging_endpoint": "staging"}, actor="ana")
    with pytest.raises(ConflictError, match="has not completed a rollout at staging"):
        rollouts.start(ctx, "digits", "digits@2", actor="ana")
    rollouts.start(ctx, "staging", "digits@2", actor="ana", weights=[1.0])
    for change in (moves.started, moves.gates_passed, moves.confirmed, moves.advanced):
        move(ctx, "staging", lambda rollout, change=change: change(rollout, time.time()))  # type: ignore[misc]
    rollouts.act(ctx, "staging", "rollback", actor="ana")
    move(ctx, "staging", lambda rollout: moves.ended(rollout, time.time()))
    with pytest.raises(ConflictError, match="has not completed a rollout at staging"):
        rollouts.start(ctx, "digits", "digits@2", actor="ana")


def to_completion(ctx: Context, endpoint: str, **wish: Any) -> None:
    """A rollout of digits@2 at *endpoint* that completed."""
    serves(ctx, endpoint)
    rollouts.start(ctx, endpoint, "digits@2", actor="ana", **wish)
    for change in (moves.started, moves.gates_passed, moves.confirmed, moves.advanced):
        move(ctx, endpoint, lambda rollout, change=change: change(rollout, time.time()))  # type: ignore[misc]


def test_neither_a_shadow_nor_what_was_rolled_back_later_counts_as_staged(ctx: Context) -> None:
    two_versions(ctx)
    serve(ctx, "staging")
    rollout_policies.put(ctx, "digits", {"staging_endpoint": "staging"}, actor="ana")
    to_completion(ctx, "staging", strategy="shadow")
    with pytest.raises(ConflictError, match="has not completed"):
        rollouts.start(ctx, "digits", "digits@2", actor="ana")
    to_completion(ctx, "staging", weights=[1.0], warm_s=0)
    rollouts.act(ctx, "staging", "rollback", actor="ana")
    with pytest.raises(ConflictError, match="has not completed"):
        rollouts.start(ctx, "digits", "digits@2", actor="ana")
    to_completion(ctx, "staging", weights=[1.0], warm_s=0)
    assert rollouts.start(ctx, "digits", "digits@2", actor="ana").state == "starting"


def test_one_stands_at_a_time_unless_it_is_superseded(ctx: Context) -> None:
    first = baking(ctx)
    register(ctx, content=b"third")
    with pytest.raises(ConflictError, match=r"digits@2 .* baking at step 1 of 6 \(5%\)") as caught:
        rollouts.start(ctx, "digits", "digits@3", actor="bo")
    assert caught.value.details["rollout"] == first.id
    assert "--supersede" in str(caught.value.next_step)
    second = rollouts.start(ctx, "digits", "digits@3", actor="bo", supersede=True)
    assert (second.stable_ref, second.state) == ("digits@1", "starting")
    old = rollouts.get(ctx, first.id)
    assert (old.state, old.weight, old.warm_until, old.reason) == (
        "superseded", 0.0, None, "superseded by the rollout of digits@3",
    )  # fmt: skip
    assert old.ended_at is not None
    assert old.commands == ()
    assert rollouts.of_endpoint(ctx, "digits").id == second.id


def test_a_new_one_closes_the_rollback_window_of_the_one_before(ctx: Context) -> None:
    first = completed(ctx)
    assert first.warm_until is not None
    serves(ctx, "digits")
    second = rollouts.start(ctx, "digits", "digits@1", actor="ana")
    assert rollouts.get(ctx, first.id).warm_until is None
    started = rollouts.history(ctx, second.id).items[-1]
    assert "rolling back the one before needs new agents" in started.message
    assert rollouts.history(ctx, first.id).items[0].action == "rollout.window_closed"


# --- second persons and freezes ---


def test_leaving_out_gates_needs_a_second_person(ctx: Context) -> None:
    view = begin(ctx, skip_gates="checked by hand")
    assert (view.state, view.waiting_for) == ("awaiting_waiver", "a second person: ana started it")
    for same in ("ana", " Ana "):
        with pytest.raises(ConflictError, match="second person"):
            rollouts.act(ctx, view.id, "approve", actor=same)
    assert rollouts.act(ctx, view.id, "approve", actor="bo").state == "starting"
    assert "bo approved" in rollouts.history(ctx, view.id).items[0].message


def test_one_person_is_enough_where_the_settings_say_so(lone: Context) -> None:
    view = begin(lone, skip_gates="checked by hand")
    assert (view.state, view.skip_gates) == ("starting", "checked by hand")


def test_a_freeze_refuses_starts_and_what_goes_forward_but_no_way_back(ctx: Context) -> None:
    view = baking(ctx)
    give_verdict(ctx, "digits", "PASS")
    now = time.time()
    window = freeze_windows.add(ctx, actor="cy", starts_at=now - 5, ends_at=now + 600, reason="holidays")
    seen = rollouts.get(ctx, view.id)
    assert (seen.state, seen.phase, seen.holds) == ("held", "baking", ("freeze",))
    assert "holidays" in (seen.frozen or "")
    assert {"promote", "promote-full"}.isdisjoint(seen.commands)
    with pytest.raises(ConflictError, match="frozen until"):
        rollouts.act(ctx, view.id, "promote", actor="ana")
    assert rollouts.act(ctx, view.id, "rollback", actor="ana").state == "rolling_back"
    move(ctx, "digits", lambda rollout: moves.ended(rollout, time.time()))
    with pytest.raises(ConflictError, match="holidays"):
        rollouts.start(ctx, "digits", "digits@2", actor="ana")
    broken = rollouts.start(ctx, "digits", "digits@2", actor="ana", break_freeze="security fix")
    assert (broken.state, broken.frozen) == ("awaiting_waiver", None)
    assert rollouts.act(ctx, broken.id, "approve", actor="bo").state == "starting"
    freeze_windows.remove(ctx, window.id, actor="cy")
    assert freeze_windows.list_all(ctx) == ()


def test_promoting_without_a_pass_of_now_needs_a_reason(ctx: Context) -> None:
    view = baking(ctx)
    with pytest.raises(ConflictError, match="needs a reason"):
        rollouts.act(ctx, view.id, "promote", actor="ana")
    assert rollouts.act(ctx, view.id, "promote", actor="ana", reason="quiet night").step == 2
    assert "quiet night" in rollouts.history(ctx, view.id).items[0].message
    move(ctx, view.id, lambda rollout: moves.confirmed(rollout, time.time()))
    give_verdict(ctx, view.id, "PASS", at=time.time() - ctx.settings.rollout_stale_s - 1)
    with pytest.raises(ConflictError, match="is too old, so promote needs a reason"):
        rollouts.act(ctx, view.id, "promote", actor="ana")


@pytest.mark.parametrize("age_s", [0.0, 3600.0])
def test_nobody_promotes_against_a_fail_which_rolls_back(ctx: Context, age_s: float) -> None:
    view = baking(ctx)
    give_verdict(ctx, view.id, "FAIL", "errors: 5 % against 0 %", at=time.time() - age_s)
    for command in ("promote", "promote-full"):
        with pytest.raises(ConflictError, match=r"FAIL, which rolls it back: errors: 5 % against 0 %"):
            rollouts.act(ctx, view.id, command, actor="bo", reason="I know better")
    seen = rollouts.get(ctx, view.id)
    assert (seen.step, {"promote", "promote-full", "approve"} & set(seen.commands)) == (1, set())


def test_a_pass_and_a_preview_need_no_reason(ctx: Context) -> None:
    view = baking(ctx)
    give_verdict(ctx, view.id, "PASS")
    assert rollouts.act(ctx, view.id, "promote", actor="ana").step == 2
    rollouts.start(ctx, "digits", "digits@2", actor="ana", supersede=True, strategy="blue-green")
    for change in (moves.started, moves.gates_passed, moves.confirmed):
        move(ctx, "digits", lambda rollout, change=change: change(rollout, time.time()))  # type: ignore[misc]
    assert rollouts.act(ctx, "digits", "promote", actor="ana").weight == 1.0


# --- commands ---


def test_a_click_counts_once_and_a_stale_one_says_who_was_faster(ctx: Context) -> None:
    view = baking(ctx)
    give_verdict(ctx, view.id, "PASS")
    seen = {"expected_step": view.step, "expected_revision": view.revision}
    rollouts.act(ctx, view.id, "promote", actor="bo", **seen)
    for expected in (seen, {"expected_step": 1}, {"expected_revision": view.revision}):
        with pytest.raises(ConflictError, match=r"step 2 of 6.*moved by bo") as caught:
            rollouts.act(ctx, view.id, "promote", actor="ana", **expected)
        assert (caught.value.details["step"], caught.value.details["moved_by"]) == (2, "bo")
    assert rollouts.get(ctx, view.id).step == 2


def test_rolling_back_does_not_depend_on_what_was_seen_and_repeats_harmlessly(ctx: Context) -> None:
    view = baking(ctx)
    back = rollouts.act(ctx, view.id, "rollback", actor="ana", expected_step=5, expected_revision=1)
    assert (back.state, back.weight, back.reason) == ("rolling_back", 0.0, "asked for: rollback")
    assert rollouts.act(ctx, view.id, "rollback", actor="bo").revision == back.revision


def test_holding_stops_what_goes_forward_until_it_is_resumed(ctx: Context) -> None:
    view = baking(ctx)
    held = rollouts.act(ctx, view.id, "hold", actor="ana", reason="lunch")
    assert (held.state, held.phase, held.holds) == ("held", "baking", ("operator",))
    with pytest.raises(ConflictError, match="resume it first"):
        rollouts.act(ctx, view.id, "promote", actor="ana", reason="now")
    assert rollouts.act(ctx, view.id, "resume", actor="ana").state == "baking"
    assert actions(ctx)[:2] == ["rollout.resumed", "rollout.held"]


def test_unknown_commands_and_rollouts(ctx: Context) -> None:
    view = begin(ctx)
    with pytest.raises(InvalidInputError, match="known commands"):
        rollouts.act(ctx, view.id, "explode", actor="ana")
    with pytest.raises(NotFoundError):
        rollouts.act(ctx, "nobody", "hold", actor="ana")
    with pytest.raises(ConflictError, match="means nothing now"):
        rollouts.act(ctx, view.id, "promote", actor="ana", reason="x")
    with pytest.raises(InvalidInputError, match="known states"):
        rollouts.list_all(ctx, states=["happy"])


def test_a_step_can_bake_longer(ctx: Context) -> None:
    view = baking(ctx, weights=[0.5])
    longer = rollouts.extend_bake(ctx, view.id, 60, actor="ana", expected_revision=view.revision)
    assert [step.bake_s for step in longer.steps] == [360, 300]
    assert longer.bake_left_s == 360
    with pytest.raises(ConflictError, match="moved on"):
        rollouts.extend_bake(ctx, view.id, 60, actor="bo", expected_revision=view.revision)
    with pytest.raises(InvalidInputError):
        rollouts.extend_bake(ctx, view.id, 1e9, actor="ana")
    rollouts.act(ctx, view.id, "abort", actor="ana")
    with pytest.raises(ConflictError, match="a longer bake means nothing now"):
        rollouts.extend_bake(ctx, view.id, 60, actor="ana")


# --- ways back after completion ---


def test_inside_the_window_rolling_back_flips_back_at_once(ctx: Context) -> None:
    versions.set_alias(ctx, register(ctx).partition("@")[0], "champion", 1, actor="ana")
    register(ctx, content=b"other")
    serve(ctx)
    rollouts.start(ctx, "digits", "digits@2", actor="ana", weights=[1.0])
    for change in (moves.started, moves.gates_passed, moves.confirmed, moves.advanced):
        move(ctx, "digits", lambda rollout, change=change: change(rollout, time.time()))  # type: ignore[misc]
    assert versions.get(ctx, "digits@champion").number == 2
    back = rollouts.act(ctx, "digits", "rollback", actor="ana", reason="customers call")
    assert (back.state, back.reason) == ("rolling_back", "customers call")
    assert endpoints.get(ctx, "digits").version_ref == "digits@1"
    assert versions.get(ctx, "digits@champion").number == 1


def test_after_the_window_the_old_version_is_deployed_anew(ctx: Context) -> None:
    versions.set_alias(ctx, register(ctx).partition("@")[0], "champion", 1, actor="ana")
    register(ctx, content=b"other")
    serve(ctx)
    rollouts.start(ctx, "digits", "digits@2", actor="ana", weights=[1.0], warm_s=0)
    for change in (moves.started, moves.gates_passed, moves.confirmed, moves.advanced):
        view = move(ctx, "digits", lambda rollout, change=change: change(rollout, time.time()))  # type: ignore[misc]
    assert view.commands == ("rollback",)
    done = rollouts.act(ctx, "digits", "rollback", actor="bo")
    assert (done.state, done.commands) == ("completed", ())
    assert endpoints.get(ctx, "digits").version_ref == "digits@1"
    assert versions.get(ctx, "digits@champion").number == 1
    assert "no longer warm" in rollouts.history(ctx, "digits").items[0].message
    assert (done.code, "bo rolled digits back to digits@1" in done.sentence) == ("rolled-back-cold", True)
    with pytest.raises(ConflictError):
        rollouts.act(ctx, "digits", "rollback", actor="bo")


def test_a_late_way_back_is_announced_and_restores_what_was_archived(ctx: Context) -> None:
    completed(ctx, warm_s=0)
    serves(ctx, "digits")
    versions.archive(ctx, "digits@1", actor="ana")
    hook = webhooks.add(ctx, "http://127.0.0.1:1/hook", actor="ana").webhook
    rollouts.act(ctx, "digits", "rollback", actor="bo")
    assert endpoints.get(ctx, "digits").version_ref == "digits@1"
    assert versions.get(ctx, "digits@1").archived_at is None
    assert "which was archived" in rollouts.history(ctx, "digits").items[0].message
    assert [each.type for each in webhooks.deliveries(ctx, hook.id)] == ["rollout.rollback_requested"]


def test_a_late_way_back_to_what_the_gate_refuses_says_what_to_do(ctx: Context) -> None:
    completed(ctx, warm_s=0)
    with sessions.write(ctx.engine) as session:
        session.query(Version).filter_by(number=1).one().verdict = {
            "decision": "refuse",
            "message": "it is harmful",
        }
    with pytest.raises(ConflictError, match=r"cannot be rolled back to digits@1.*it is harmful") as caught:
        rollouts.act(ctx, "digits", "rollback", actor="bo")
    assert "signalbox deploy digits" in str(caught.value.next_step)
    assert endpoints.get(ctx, "digits").version_ref == "digits@2"


# --- other changes of the endpoint ---


def test_what_an_endpoint_may_do_while_a_rollout_stands(ctx: Context) -> None:
    view = baking(ctx)
    register(ctx, content=b"third")
    for change in (
        lambda: endpoints.deploy(ctx, "digits", "digits@3", actor="bo"),
        lambda: endpoints.deploy(ctx, "digits", "digits@1", actor="bo", device="cpu"),
        lambda: endpoints.restart(ctx, "digits", actor="bo"),
    ):
        with pytest.raises(ConflictError, match="has to wait") as caught:
            change()
        assert caught.value.details["rollout"] == view.id
        assert "--supersede" in str(caught.value.next_step)
    assert endpoints.scale(ctx, "digits", 3, actor="bo").replicas == 3
    assert endpoints.deploy(ctx, "digits", "digits@1", actor="bo", replicas=2).replicas == 2
    assert rollouts.get(ctx, view.id).state == "baking"


def test_while_it_rolls_back_nobody_is_told_to_abort_it(ctx: Context) -> None:
    baking(ctx)
    back = rollouts.act(ctx, "digits", "rollback", actor="ana")
    assert back.sentence == "waits until digits@1 answers every request of digits again: asked for: rollback"
    with pytest.raises(ConflictError, match=r"rolling back, and waits until .*digits@1") as caught:
        endpoints.deploy(ctx, "digits", "digits@2", actor="bo")
    assert "abort" not in str(caught.value.next_step)
    assert "signalbox rollout start digits MODEL@N --supersede" in str(caught.value.next_step)


@pytest.mark.parametrize("way", ["stop", "delete", "declare"])
def test_stopping_or_deleting_ends_the_rollout_with_it(ctx: Context, way: str) -> None:
    view = baking(ctx)
    if way == "stop":
        endpoints.stop(ctx, "digits", actor="bo")
    elif way == "delete":
        endpoints.delete(ctx, "digits", actor="bo")
    else:
        document = "deployments:\n  - {endpoint: digits, version: digits@1, state: stopped}\n"
        declarative.apply(ctx, document, actor="bo", dry_run=True)
        assert rollouts.get(ctx, view.id).state == "baking"
        declarative.apply(ctx, document, actor="bo")
    ended = rollouts.get(ctx, view.id)
    assert (ended.state, ended.weight, ended.warm_until) == ("aborted", 0.0, None)
    assert "bo" in ended.reason
    assert rollouts.history(ctx, view.id).items[0].action == "rollout.aborted"


def test_deploying_something_else_closes_the_window(ctx: Context) -> None:
    view = completed(ctx)
    endpoints.deploy(ctx, "digits", "digits@1", actor="bo")
    seen = rollouts.get(ctx, view.id)
    assert (seen.warm_until, seen.commands) == (None, ())


def test_versions_of_rollouts_stay(ctx: Context) -> None:
    begin(ctx)
    with pytest.raises(ConflictError, match="rollout"):
        versions.archive(ctx, "digits@2", actor="ana")
    rollouts.act(ctx, "digits", "abort", actor="ana")
    move(ctx, "digits", lambda rollout: moves.ended(rollout, time.time()))
    versions.archive(ctx, "digits@2", actor="ana")
    with pytest.raises(ConflictError, match="record of a rollout") as caught:
        versions.delete(ctx, "digits@2", actor="ana")
    assert "Archive" in str(caught.value.next_step)


# --- looking ---


def test_lists_counts_and_pages(ctx: Context) -> None:
    first = baking(ctx)
    rollouts.start(ctx, "digits", "digits@2", actor="bo", supersede=True)
    page = rollouts.list_all(ctx, endpoint="digits", page_size=1, page=2)
    assert (page.total, [view.id for view in page.items]) == (2, [first.id])
    assert rollouts.list_all(ctx, states=["starting"]).total == 1
    assert rollouts.list_all(ctx, endpoint="cats").items == ()
    assert rollouts.counts(ctx) == {"starting": 1, "superseded": 1}
    with pytest.raises(NotFoundError):
        rollouts.of_endpoint(ctx, "cats")


def test_a_list_takes_as_many_queries_as_one(ctx: Context) -> None:
    asked: list[str] = []
    event.listen(ctx.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    completed(ctx)
    serves(ctx, "digits")

    def queries() -> int:
        asked.clear()
        rollouts.list_all(ctx)
        return len(asked)

    alone = queries()
    for ref in ("digits@1", "digits@1"):
        rollouts.start(ctx, "digits", ref, actor="ana", supersede=True)
    for name in ("cats", "dogs", "cows"):
        serve(ctx, name)
        rollouts.start(ctx, name, "digits@2", actor="ana")
    assert queries() <= alone + 4
    assert rollouts.list_all(ctx).total == 6


def test_the_observed_weight_is_what_the_gateway_counted(ctx: Context) -> None:
    baking(ctx)
    assert rollouts.get(ctx, "digits").observed_weight is None
    store, now = LocalStore(ctx.settings.metrics_path), time.time()

    def sample(version: str, value: float) -> Sample:
        labels = (("code", "200"), ("endpoint", "digits"), ("version", version))
        return Sample(Key("gateway_requests", labels, SampleKind.COUNTER), value, 2.0)

    store.write(now - 300, [sample("digits@2", 1000)])
    store.write(now - 3, [sample("digits@1", 90), sample("digits@2", 10)])
    assert rollouts.get(ctx, "digits").observed_weight == pytest.approx(0.1)


def test_a_metrics_file_that_is_broken_breaks_no_answer(ctx: Context) -> None:
    view = baking(ctx)
    ctx.settings.metrics_path.parent.mkdir(parents=True, exist_ok=True)
    ctx.settings.metrics_path.write_bytes(b"no database at all" * 300)
    assert rollouts.get(ctx, view.id).observed_weight is None
    assert rollouts.act(ctx, view.id, "rollback", actor="ana").state == "rolling_back"
    assert rollouts.simulate(ctx, "digits", rate=50.0)["origin"]["rate"] == "given"
    with pytest.raises(InvalidInputError, match="nothing is known of the rate"):
        rollouts.simulate(ctx, "digits")


def test_a_clock_that_was_set_back_hides_no_standing_rollout(ctx: Context) -> None:
    first = begin(ctx)
    second = rollouts.start(ctx, "digits", "digits@2", actor="ana", supersede=True)
    with sessions.write(ctx.engine) as session:
        session.get_one(Row, first.id).created_at += 3600
    assert rollouts.of_endpoint(ctx, "digits").id == second.id
    with sessions.write(ctx.engine) as session:
        assert rollout_history.newest_ids(session, ["digits"]) == {second.id}
    with pytest.raises(ConflictError) as caught:
        rollouts.start(ctx, "digits", "digits@2", actor="bo")
    assert caught.value.details["rollout"] == second.id
    for change in (moves.started, moves.gates_passed):
        move(ctx, second.id, lambda rollout, change=change: change(rollout, time.time()))  # type: ignore[misc]
    rollouts.act(ctx, "digits", "rollback", actor="bo")
    assert move(ctx, second.id, lambda rollout: moves.ended(rollout, time.time())).warm_until is not None
    assert rollouts.of_endpoint(ctx, "digits").id == second.id, "it keeps a version warm"


def test_a_controller_that_is_gone_shows(ctx: Context) -> None:
    begin(ctx)
    assert rollouts.get(ctx, "digits").controller_age_s is not None
    with sessions.write(ctx.engine) as session:
        session.add(Lease(name="controller", holder="x", token=1, expires_at=time.time() + 60))
    assert rollouts.get(ctx, "digits").controller_age_s is None


def test_the_report_tells_the_whole_story(ctx: Context) -> None:
    view = baking(ctx, weights=[0.5], skip_gates=None)
    give_verdict(ctx, view.id, "PASS", "all | safe")
    rollouts.act(ctx, view.id, "promote", actor="bo")
    move(ctx, view.id, lambda rollout: moves.confirmed(rollout, time.time()))
    move(ctx, view.id, lambda rollout: moves.advanced(rollout, time.time()))
    data = rollouts.report_data(ctx, view.id)
    assert data["people"] == ["ana", "bo", "controller"]
    assert [(each["step"], each["weight"]) for each in data["steps"]] == [(1, 0.5), (2, 1.0)]
    assert all(each["left_at"] >= each["entered_at"] for each in data["steps"])
    assert data["timeline"][0]["action"] == "rollout.started"
    assert data["evidence"]["cursor_ms"] > 0
    text = rollouts.report(ctx, view.id, "markdown")
    assert text.startswith("# Rollout of digits@2 to digits\n")
    assert "all \\| safe" in text
    assert '"timeline"' in rollouts.report(ctx, view.id)
    with pytest.raises(InvalidInputError):
        rollouts.report(ctx, view.id, "pdf")


def test_every_transition_is_announced_once(ctx: Context) -> None:
    hook = webhooks.add(ctx, "http://127.0.0.1:1/hook", actor="ana", endpoint="digits").webhook
    other = webhooks.add(ctx, "http://127.0.0.1:1/hook", actor="ana", endpoint="cats").webhook
    view = baking(ctx)
    rollouts.act(ctx, view.id, "hold", actor="ana")
    rollouts.act(ctx, view.id, "rollback", actor="ana")
    assert len(webhooks.deliveries(ctx, hook.id)) == 5
    assert webhooks.deliveries(ctx, other.id) == ()


# --- policies ---


def test_a_policy_is_set_whole_and_changed_in_part(ctx: Context) -> None:
    two_versions(ctx)
    assert rollout_policies.get(ctx, "digits").tester_header is False
    wanted = {"tester_header": True, "sticky": {"kind": "cookie", "name": "sid"}, "warm_s": 60.0}
    rollout_policies.put(ctx, "digits", wanted, actor="ana")
    rollout_policies.put(ctx, "digits", wanted, actor="bo")
    changed = rollout_policies.change(ctx, "digits", {"sticky": None, "golden_margin": 0.1}, actor="bo")
    assert (changed.tester_header, changed.sticky, changed.golden_margin) == (True, None, 0.1)
    set_by = [e.actor for e in endpoints.history(ctx, "digits").items if "policy" in e.action]
    assert set_by == ["bo", "ana"]
    assert rollouts.start(ctx, "digits", "digits@2", actor="ana").tester_header
    assert rollouts.report_data(ctx, "digits")["plan"]["warm_s"] == 60.0


@pytest.mark.parametrize(
    ("policy", "error"),
    [
        ({"colour": 1}, InvalidInputError),
        ({"warm_s": -1.0}, InvalidInputError),
        ({"golden_margin": 1.0}, InvalidInputError),
        ({"sticky": {"kind": "header", "name": "a b"}}, InvalidInputError),
        ({"sticky": {"kind": "query", "name": "a"}}, InvalidInputError),
        ({"staging_endpoint": "digits"}, InvalidInputError),
        ({"staging_endpoint": "nobody"}, NotFoundError),
        ({"golden_set": "sha256:00"}, NotFoundError),
    ],
    ids=str,
)
def test_policies_that_make_no_sense_are_refused(
    ctx: Context, policy: dict[str, Any], error: type[Exception]
) -> None:
    two_versions(ctx)
    with pytest.raises(error):
        rollout_policies.put(ctx, "digits", policy, actor="ana")


def test_replacing_dataclasses_keeps_the_plan(ctx: Context) -> None:
    view = begin(ctx, weights=[0.5])
    moved = move(ctx, view.id, lambda rollout: replace(rollout, revision=rollout.revision + 1))
    assert moved.steps == view.steps
