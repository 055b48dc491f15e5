"""Both registries, SQLite and Postgres, keep the same promises."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from control_plane.domain.job import JobState
from control_plane.domain.upload import UploadState
from control_plane.errors import ConflictError, InUseError, NotFoundError, SignalboxError
from control_plane.registry import migrate
from control_plane.registry import session as sessions
from control_plane.registry.tables import Agent, Endpoint
from control_plane.services import (
    declarative,
    endpoints,
    events,
    jobs,
    registration,
    upload_checks,
    uploads,
    versions,
)
from control_plane.services.context import Context
from tests.fakes.registry import SIGNATURE, files, register


@pytest.fixture
def ctx(home: Context) -> Context:
    return home


def at_once(count: int, act: Callable[[int], Any]) -> list[Any]:
    """Run *act* in *count* threads that start together; results, or the errors they raised."""
    barrier = threading.Barrier(count)

    def run(number: int) -> Any:
        barrier.wait()
        try:
            return act(number)
        except SignalboxError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def queue(ctx: Context, subject: str) -> str:
    with sessions.write(ctx.engine) as session:
        return jobs.queue(session, "check", subject=subject, params={"n": 1}, actor="ana").id


def test_migrations_make_exactly_the_tables_of_the_models(ctx: Context) -> None:
    assert migrate.check(ctx.settings.database) == ()
    assert migrate.is_current(ctx.engine)


def test_upgrading_again_and_at_the_same_time_is_harmless(ctx: Context) -> None:
    register(ctx)
    assert at_once(3, lambda _: migrate.upgrade(ctx.settings.database)) == [None] * 3
    assert versions.get(ctx, "digits@1").number == 1


def test_a_registry_of_a_newer_signalbox_is_left_alone(ctx: Context) -> None:
    with sessions.write(ctx.engine) as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    try:
        with pytest.raises(ConflictError, match="newer Signalbox"):
            migrate.upgrade(ctx.settings.database)
        assert not migrate.is_current(ctx.engine)
    finally:
        with sessions.write(ctx.engine) as session:
            session.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": migrate.head()})


def test_a_version_comes_back_as_it_went_in(ctx: Context) -> None:
    ref = register(
        ctx,
        details={"test_accuracy": 0.97, "ünïcode": ["二", None, True]},
        labels=["zero", "one"],
        program_accepted_by="ana",
        program_accepted_at=1700000000.123456,
    )
    found = versions.get(ctx, ref)
    assert (found.signature, found.labels) == (SIGNATURE, ("zero", "one"))
    assert found.details == {"test_accuracy": 0.97, "ünïcode": ["二", None, True]}
    assert found.program_accepted_at == 1700000000.123456
    assert found.files[0].path == "model.bin"


def test_numbers_stay_apart_when_many_register_at_once(ctx: Context) -> None:
    refs = at_once(5, lambda number: register(ctx, content=f"weights {number}".encode()))
    assert sorted(refs) == [f"digits@{number}" for number in range(1, 6)]


def test_numbers_are_never_used_twice(ctx: Context) -> None:
    register(ctx)
    versions.delete(ctx, "digits@1", actor="ana")
    with pytest.raises(NotFoundError):
        versions.model(ctx, "digits")
    assert versions.models(ctx).total == 0
    assert register(ctx) == "digits@2"


def test_search_finds_by_every_field(ctx: Context) -> None:
    register(ctx, actor="Ana Lund")
    register(ctx, "cats", content=b"other")
    versions.set_tag(ctx, "cats@1", "stage", "100%_Ready", actor="bo")
    versions.set_alias(ctx, "digits", "champion", 1, actor="bo")
    digest = versions.get(ctx, "digits@1").digest

    def found(**how: Any) -> list[str]:
        return [view.ref for view in versions.search(ctx, **how).items]

    assert found() == ["cats@1", "digits@1"]
    assert found(q="DIG") == found(q="lund") == found(q=digest[:20]) == found(q=digest[7:17]) == ["digits@1"]
    assert found(q="100%_") == found(q="ready") == found(q="stag") == ["cats@1"]
    assert found(q="%") == found(q="_") == ["cats@1"]
    assert found(q="0%0") == found(q="a\0b") == []
    assert found(alias="champion") == found(model="digits") == ["digits@1"]
    assert found(format="pt2") == []


def test_an_alias_moves_and_says_where_it_was(ctx: Context) -> None:
    register(ctx)
    register(ctx)
    versions.set_alias(ctx, "digits", "stable", 1, actor="ana")
    versions.set_alias(ctx, "digits", "stable", 2, actor="bo")
    versions.set_alias(ctx, "digits", "stable", 2, actor="bo")
    assert versions.model(ctx, "digits").aliases == {"stable": "digits@2"}
    assert versions.get(ctx, "digits@stable").ref == "digits@2"
    moves = [event for event in events.search(ctx).items if event.action == "alias.set"]
    assert moves[0].message == "bo pointed digits@stable at digits@2 (was digits@1)"
    assert len(moves) == 2


def test_two_operators_deploying_at_once_do_not_overwrite_each_other(ctx: Context) -> None:
    register(ctx)
    register(ctx)
    results = at_once(
        2,
        lambda number: endpoints.deploy(
            ctx, "digits", f"digits@{number + 1}", actor=f"op{number}", expected_revision=0
        ),
    )
    refused = [each for each in results if isinstance(each, ConflictError)]
    assert len(refused) == 1
    winner = next(each for each in results if not isinstance(each, ConflictError))
    now = endpoints.get(ctx, "digits")
    assert (now.version_ref, now.revision) == (winner.version_ref, 1)


def test_a_stale_change_is_refused_with_who_and_what(ctx: Context) -> None:
    register(ctx)
    seen = endpoints.deploy(ctx, "digits", "digits@1", actor="ana").revision
    endpoints.scale(ctx, "digits", 3, actor="bo", expected_revision=seen)
    with pytest.raises(ConflictError, match=r"by bo .*scaled digits from 1 to 3") as caught:
        endpoints.stop(ctx, "digits", actor="ana", expected_revision=seen)
    assert caught.value.details["changed_by"] == "bo"
    assert caught.value.details["replicas"] == 3
    assert endpoints.get(ctx, "digits").goal == "running"


def test_a_version_cannot_go_while_it_is_served_and_the_artefact_goes_with_the_last(ctx: Context) -> None:
    register(ctx)
    register(ctx)
    endpoints.deploy(ctx, "digits", "digits@1", actor="ana")
    with pytest.raises(InUseError, match="served by digits") as caught:
        versions.delete(ctx, "digits@1", actor="ana")
    assert caught.value.details["endpoints"] == ["digits"]
    with pytest.raises(InUseError):
        versions.archive(ctx, "digits@1", actor="ana")
    versions.delete(ctx, "digits@2", actor="ana")
    folder = next(ctx.settings.artifacts_dir.glob("sha256/*/*"))
    with sessions.write(ctx.engine) as session:
        session.delete(session.query(Endpoint).one())
    versions.delete(ctx, "digits@1", actor="ana")
    assert not folder.exists()


def test_a_version_with_a_running_agent_stays_and_past_agents_go_with_it(ctx: Context) -> None:
    register(ctx)
    register(ctx)
    endpoints.deploy(ctx, "digits", "digits@2", actor="ana")
    old = versions.get(ctx, "digits@1").id
    with sessions.write(ctx.engine) as session:
        endpoint = session.query(Endpoint).one()
        for agent_id, phase in (("a1", "draining"), ("a2", "failed")):
            session.add(
                Agent(
                    id=agent_id, endpoint_id=endpoint.id, version_id=old, spec={}, phase=phase, timings_s={},
                    created_at=1.0,
                )
            )  # fmt: skip
    with pytest.raises(InUseError, match="agent a1"):
        versions.delete(ctx, "digits@1", actor="ana")
    with sessions.write(ctx.engine) as session:
        session.get_one(Agent, "a1").phase = "stopped"
    versions.delete(ctx, "digits@1", actor="ana")
    assert endpoints.agents(ctx) == ()


def test_two_workers_never_get_the_same_job(ctx: Context) -> None:
    ids = {queue(ctx, f"job {number}") for number in range(3)}
    claimed = [job for job in at_once(6, lambda number: jobs.claim(ctx, number, 1.0)) if job is not None]
    assert {job.id for job in claimed} == ids
    assert len(claimed) == 3


def test_a_job_from_queue_to_end(ctx: Context) -> None:
    job_id = queue(ctx, "digits")
    assert jobs.claim(ctx, 7, 1.5) is not None
    jobs.report(ctx, job_id, "reading", 0.25)
    seen = jobs.get(ctx, job_id)
    assert (seen.state, seen.stage, seen.progress) == (JobState.RUNNING, "reading", 0.25)
    assert seen.time_left_s is not None
    jobs.finish(ctx, job_id, {"version": "digits@1"})
    assert jobs.get(ctx, job_id).result == {"version": "digits@1"}
    assert jobs.search(ctx, state="succeeded").total == 1
    with pytest.raises(ConflictError):
        jobs.finish(ctx, job_id, {})


def test_an_upload_becomes_one_version_even_when_its_job_runs_twice(ctx: Context) -> None:
    upload = uploads.create(ctx, model="digits", files=[("model.bin", 7)], actor="ana")
    with uploads.sink(ctx, upload.id, "model.bin") as sink:
        sink.write(b"weights")
        sink.commit()
    assert uploads.complete(ctx, upload.id, actor="ana").state == UploadState.CHECKING
    given: dict[str, Any] = {
        "format": "torchscript",
        "handler": "tensor",
        "signature": SIGNATURE,
        "actor": "ana",
    }
    folder = uploads.folder(ctx, upload.id)
    for _ in range(2):
        ref = registration.register(ctx, model="digits", files_dir=folder, upload_id=upload.id, **given)
        assert ref == "digits@1"
    upload_checks.registered(ctx, upload.id, "digits@1")
    upload_checks.registered(ctx, upload.id, "digits@1")
    assert uploads.get(ctx, upload.id).version_ref == "digits@1"
    assert not folder.exists()
    assert versions.search(ctx).total == 1


def test_applying_a_file_is_all_or_nothing(ctx: Context) -> None:
    register(ctx)
    good = "deployments:\n  - {endpoint: one, version: digits@1}\n"
    with pytest.raises(NotFoundError, match="line 3"):
        declarative.apply(ctx, good + "  - {endpoint: two, version: digits@9}\n", actor="ana")
    assert endpoints.list_all(ctx) == ()
    assert [change.subject for change in declarative.apply(ctx, good, actor="ana")] == ["one"]
    assert declarative.apply(ctx, good, actor="ana") == ()


def test_every_change_has_its_event_in_the_same_transaction(ctx: Context, tmp_path: Path) -> None:
    def fail_halfway() -> None:
        with sessions.write(ctx.engine) as session:
            events.record(session, at=1.0, actor="a", action="x.y", subject="s", message="m")
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert events.search(ctx).total == 0
    files(tmp_path / "source", model=b"x")
    register(ctx)
    assert [event.action for event in events.search(ctx, subject="digits@1").items] == ["version.registered"]
