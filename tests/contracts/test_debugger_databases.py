"""Debugger runs on SQLite and Postgres alike: what is found, and what happens at the same moment."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from control_plane.domain.debugging import DebugRunView, RandomSource, RunSource
from control_plane.domain.job import Lane
from control_plane.errors import NotFoundError
from control_plane.registry import session as sessions
from control_plane.services import debug_folders, debug_records, debugger, jobs, versions
from control_plane.services.context import Context
from serving_agent.contract.inspection import Edit
from tests.fakes.registry import register


@pytest.fixture
def ctx(home: Context) -> Context:
    register(home)
    return home


def start(ctx: Context, name: str = "") -> DebugRunView:
    edit = Edit(point="é", tensor="x", index=(0, None), value=1.5)
    return debugger.start(ctx, "digits@1", RandomSource(), edits=[edit], name=name, actor="ana")


def test_runs_come_back_as_they_were_and_are_found(ctx: Context) -> None:
    run = start(ctx, "mine 50%")
    assert debugger.view(ctx, run.id) == run
    child = debugger.start(ctx, "digits@1", RunSource(run=run.id), actor="bo")
    assert [each.id for each in debugger.get(ctx, run.id).children] == [child.id]
    assert [each.id for each in debugger.get(ctx, child.id).ancestors] == [run.id]
    for q, found in (("50%", [run.id]), ("MINE", [run.id]), ("_", []), ("digits@1", [child.id, run.id])):
        assert [each.id for each in debugger.search(ctx, q=q).items] == found, q
    versions.delete(ctx, "digits@1", actor="ana")
    assert debugger.view(ctx, run.id).a == "digits@1", "a run outlives its version"


def test_what_is_over_goes_and_what_goes_on_stays(ctx: Context) -> None:
    ended, going = start(ctx), start(ctx)
    jobs.cancel(ctx, ended.job_id, actor="ana")
    assert debug_records.inspected(ctx, ended.id, summary="a\0b", size_bytes=7)
    assert debugger.view(ctx, ended.id).summary == "ab"
    assert debug_folders.expire(ctx, time.time() + 1e6) == 1
    assert [each.id for each in debugger.search(ctx).items] == [going.id]
    assert not debug_records.inspected(ctx, ended.id, summary="", size_bytes=0)
    assert debug_folders.make_room(ctx, ctx.settings.debug_total_bytes + 1) is False


def test_a_run_is_claimed_and_deleted_once_at_the_same_moment(ctx: Context) -> None:
    run = start(ctx)

    def claim(number: int) -> bool:
        return jobs.claim(ctx, number, float(number), lane=Lane.DEBUG) is not None

    def delete(_: int) -> bool:
        try:
            debugger.delete(ctx, run.id, actor="ana")
        except NotFoundError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        claims = [pool.submit(claim, number) for number in (1, 2)]
        deletions = [pool.submit(delete, number) for number in (1, 2)]
        claimed = sum(each.result() for each in claims)
        assert sum(each.result() for each in deletions) == 1
    assert claimed <= 1
    with sessions.read(ctx.engine) as session:
        state, requested = session.execute(text("SELECT state, cancel_requested FROM jobs")).one()
    assert bool(requested)
    assert state == ("running" if claimed else "cancelled")
