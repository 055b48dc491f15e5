"""Rollouts on SQLite and Postgres: of those who act at the same moment, one wins and the others are told."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event

from control_plane.domain import rollout as moves
from control_plane.domain.views import RolloutView
from control_plane.errors import ConflictError, SignalboxError, UnavailableError
from control_plane.registry import rollout_moves
from control_plane.registry import rollouts as rows
from control_plane.registry import session as sessions
from control_plane.services import endpoints, freeze_windows, rollouts, webhook_sender, webhooks
from control_plane.services.context import Context
from tests.fakes.rollouts import give_verdict, move, two_versions


@pytest.fixture
def ctx(home: Context) -> Context:
    two_versions(home)
    return home


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """Run *acts* in threads that start together; results, or the errors they raised."""
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return act()
        except SignalboxError as error:
            return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


def begin(ctx: Context, actor: str = "ana", **wish: Any) -> RolloutView:
    return rollouts.start(ctx, "digits", "digits@2", actor=actor, **wish)


def to_baking(ctx: Context) -> RolloutView:
    begin(ctx)
    for change in (moves.started, moves.gates_passed, moves.confirmed):
        view = move(ctx, "digits", lambda rollout, change=change: change(rollout, time.time()))  # type: ignore[misc]
    return view


def test_one_of_many_starts_wins(ctx: Context) -> None:
    results = at_once(*(lambda number=number: begin(ctx, f"op{number}") for number in range(4)))  # type: ignore[misc]
    started = [each for each in results if isinstance(each, RolloutView)]
    refused = [each for each in results if isinstance(each, ConflictError)]
    assert (len(started), len(refused)) == (1, 3)
    assert {each.details["rollout"] for each in refused} == {started[0].id}
    assert rollouts.list_all(ctx).total == 1


def test_superseding_at_once_leaves_one_that_stands(ctx: Context) -> None:
    results = at_once(*(lambda: begin(ctx, supersede=True) for _ in range(3)))
    assert all(isinstance(each, RolloutView) for each in results)
    assert rollouts.counts(ctx) == {"starting": 1, "superseded": 2}
    assert rollouts.of_endpoint(ctx, "digits").state == "starting"


def test_a_start_locks_the_rollout_before_endpoint_and_version_as_the_controller_does(ctx: Context) -> None:
    begin(ctx)
    asked: list[str] = []

    def note(*given: Any) -> None:
        asked.append(given[2])

    event.listen(ctx.engine, "before_cursor_execute", note)
    begin(ctx, supersede=True)
    event.remove(ctx.engine, "before_cursor_execute", note)
    tables = [re.search(r"FROM (rollouts|endpoints|versions)\b", each) for each in asked]
    first = list(dict.fromkeys(found[1] for found in tables if found))
    assert first == ["rollouts", "endpoints", "versions"]


def test_two_clicks_are_one_step(ctx: Context) -> None:
    view = to_baking(ctx)
    give_verdict(ctx, view.id, "PASS")

    def click(actor: str) -> RolloutView:
        return rollouts.act(ctx, view.id, "promote", actor=actor, expected_revision=view.revision)

    results = at_once(lambda: click("ana"), lambda: click("bo"), lambda: click("cy"))
    assert sum(isinstance(each, ConflictError) for each in results) == 2
    assert rollouts.get(ctx, view.id).step == 2


def test_a_deploy_and_a_start_at_once_do_not_mix(ctx: Context) -> None:
    start, deploy = at_once(
        lambda: begin(ctx), lambda: endpoints.deploy(ctx, "digits", "digits@2", actor="bo")
    )
    assert isinstance(start, ConflictError) != isinstance(deploy, ConflictError)


def test_stopping_beside_the_controllers_completion_ends_in_one_of_both(ctx: Context) -> None:
    begin(ctx, weights=[1.0])
    for change in (moves.started, moves.gates_passed, moves.confirmed):
        move(ctx, "digits", lambda rollout, change=change: change(rollout, time.time()))  # type: ignore[misc]
    with sessions.read(ctx.engine) as session:
        seen = rows.value_of(rows.latest(session, "digits"))  # type: ignore[arg-type]

    def complete() -> None:
        """Carry out what was decided by what was seen, as the controller does."""
        with sessions.write(ctx.engine) as session:
            row = rows.locked(session, seen.id)
            assert row is not None
            after = moves.advanced(seen, time.time())
            rollout_moves.record(
                session, row, seen, after, actor="controller", action="rollout.completed", message="done",
                at=time.time(),
            )  # fmt: skip

    results = at_once(lambda: endpoints.stop(ctx, "digits", actor="bo"), complete)
    assert not any(isinstance(each, UnavailableError) for each in results), "they waited for each other"
    view = rollouts.get(ctx, "digits")
    assert view.state in ("aborted", "completed")
    assert (view.warm_until, endpoints.get(ctx, "digits").goal) == (None, "stopped")


def test_events_reports_freezes_and_webhooks_are_found(ctx: Context) -> None:
    webhooks.add(ctx, "http://127.0.0.1:1/hook", actor="ana")
    view = to_baking(ctx)
    assert [each.action for each in rollouts.history(ctx, view.id).items][-1] == "rollout.started"
    assert rollouts.report_data(ctx, view.id)["people"] == ["ana", "controller"]
    now = time.time()
    freeze_windows.add(ctx, actor="ana", starts_at=now - 9, ends_at=now - 4, weekly=True, reason="x")
    freeze_windows.add(ctx, actor="ana", starts_at=now - 9, ends_at=now + 60, reason="y")
    assert rollouts.get(ctx, view.id).holds == ("freeze",)
    assert webhook_sender.deliver_due(ctx, now + 1) == 0
    assert webhooks.list_all(ctx)[0].pending == 4
    webhook_sender.tidy(ctx, now)
    webhooks.remove(ctx, webhooks.list_all(ctx)[0].id, actor="ana")
    assert webhooks.list_all(ctx) == ()
