"""Endpoints, jobs, status and predictions through the services."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from control_plane.domain.views import Reason
from control_plane.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from control_plane.registry import session as sessions
from control_plane.registry.endpoints import spec_json, wanted_spec
from control_plane.registry.tables import Agent, Endpoint, Lease
from control_plane.services import catalogs, declarative, endpoints, events, jobs, live, system, versions
from control_plane.services.context import Context
from tests.fakes.registry import open_home, register


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    context = open_home(tmp_path / "home", gateway_port=1)
    yield context
    context.engine.dispose()


def add_agent(ctx: Context, name: str, agent_id: str, phase: str, **changes: Any) -> None:
    """Write an agent as the controller would, for the endpoint's present goal."""
    with sessions.write(ctx.engine) as session:
        row = session.query(Endpoint).filter_by(name=name).one()
        timings = {"import": 1.5, "gateway": 0.2} if phase == "ready" else {"import": 1.5}
        given = {"created_at": time.time(), "timings_s": timings, **changes}
        session.add(
            Agent(
                id=agent_id,
                endpoint_id=row.id,
                version_id=row.version_id,
                spec=spec_json(wanted_spec(row)),
                phase=phase,
                **given,
            )
        )
        if phase == "ready":
            row.serving_version_id = row.version_id


def test_a_new_endpoint_takes_defaults_and_repeating_changes_nothing(ctx: Context) -> None:
    register(ctx)
    first = endpoints.deploy(ctx, "digits", "digits@1", actor="ana")
    assert (first.replicas, first.threads, first.device, first.handler) == (1, 1, "auto", "tensor")
    assert (first.revision, first.health, first.url) == (
        1,
        "starting",
        f"{ctx.settings.gateway_url}/e/digits",
    )
    assert endpoints.deploy(ctx, "digits", "digits@1", actor="bo") == first
    assert [each.actor for each in endpoints.history(ctx, "digits").items] == ["ana"]


def test_none_keeps_a_setting_and_zero_memory_is_the_default(ctx: Context) -> None:
    register(ctx)
    endpoints.deploy(ctx, "digits", "digits@1", actor="ana", replicas=3, memory_bytes=1 << 30)
    kept = endpoints.deploy(ctx, "digits", "digits@1", actor="ana", device="cpu")
    assert (kept.replicas, kept.memory_bytes, kept.device, kept.revision) == (3, 1 << 30, "cpu", 2)
    assert endpoints.deploy(ctx, "digits", "digits@1", actor="ana", memory_bytes=0).memory_bytes is None
    assert "device cpu" in endpoints.history(ctx, "digits").items[1].message


@pytest.mark.parametrize(
    "wish",
    [
        {"replicas": 0},
        {"replicas": 65},
        {"threads": 0},
        {"threads": 4096},
        {"device": "cuda"},
        {"device": "cuda:1; rm"},
        {"memory_bytes": -1},
        {"memory_bytes": 5},
        {"handler": "os:system"},
        {"handler": "text-classification"},
    ],
    ids=str,
)
def test_settings_out_of_bounds_are_refused(ctx: Context, wish: dict[str, Any]) -> None:
    register(ctx)
    with pytest.raises(InvalidInputError) as caught:
        endpoints.deploy(ctx, "digits", "digits@1", actor="ana", **wish)
    assert caught.value.next_step or "from" in str(caught.value)
    assert endpoints.list_all(ctx) == ()


def test_unknown_and_archived_versions_are_refused(ctx: Context) -> None:
    register(ctx)
    versions.archive(ctx, "digits@1", actor="ana")
    with pytest.raises(ConflictError, match="archived"):
        endpoints.deploy(ctx, "digits", "digits@1", actor="ana")
    with pytest.raises(NotFoundError):
        endpoints.deploy(ctx, "digits", "digits@9", actor="ana")
    with pytest.raises(InvalidInputError):
        endpoints.deploy(ctx, "../etc", "digits@1", actor="ana")


def test_the_way_of_an_endpoint(ctx: Context) -> None:
    register(ctx)
    endpoints.deploy(ctx, "digits", "digits@1", actor="ana")
    assert endpoints.scale(ctx, "digits", 3, actor="ana").replicas == 3
    assert endpoints.scale(ctx, "digits", 3, actor="ana").revision == 2
    assert endpoints.restart(ctx, "digits", actor="ana").revision == 3
    assert endpoints.stop(ctx, "digits", actor="ana").health == "stopped"
    with pytest.raises(ConflictError):
        endpoints.restart(ctx, "digits", actor="ana")
    assert endpoints.start(ctx, "digits", actor="ana").goal == "running"
    endpoints.delete(ctx, "digits", actor="ana")
    assert endpoints.get(ctx, "digits").health == "stopping"
    with pytest.raises(ConflictError, match="being deleted"):
        endpoints.scale(ctx, "digits", 1, actor="ana")
    revived = endpoints.deploy(ctx, "digits", "digits@1", actor="ana")
    assert (revived.goal, revived.replicas) == ("running", 1)
    with pytest.raises(NotFoundError):
        endpoints.stop(ctx, "nothing", actor="ana")


def test_agents_make_the_health_and_only_the_latest_failure_is_shown(ctx: Context) -> None:
    register(ctx)
    endpoints.deploy(ctx, "digits", "digits@1", actor="ana")
    now = time.time()
    for number in range(8):
        add_agent(
            ctx, "digits", f"f{number}", "failed", created_at=now - 100 + number, ended_at=now, reason="boom",
            log_tail=["last line"],
        )  # fmt: skip
    looping = endpoints.get(ctx, "digits")
    assert (looping.health, looping.ready) == ("crash loop", 0)
    assert [agent.id for agent in looping.agents] == ["f7"]
    assert looping.agents[0].log_tail == ("last line",)
    add_agent(ctx, "digits", "good", "ready")
    well = endpoints.get(ctx, "digits")
    assert (well.health, well.ready, well.serving_ref) == ("ready", 1, "digits@1")
    assert [agent.id for agent in well.agents] == ["good", "f7"]
    assert len(endpoints.agents(ctx, endpoint="digits", limit=5)) == 5


def test_listing_takes_as_many_queries_for_twenty_endpoints_as_for_one(ctx: Context) -> None:
    register(ctx)
    counts = []
    for size in (1, 20):
        for number in range(size):
            name = f"e{size}-{number}"
            endpoints.deploy(ctx, name, "digits@1", actor="ana")
            add_agent(ctx, name, name, "ready")
        seen: list[str] = []

        def note(_c: Any, _k: Any, statement: str, *_: Any, seen: list[str] = seen) -> None:
            seen.append(statement)

        event.listen(ctx.engine, "before_cursor_execute", note)
        assert len(endpoints.list_all(ctx)) >= size
        event.remove(ctx.engine, "before_cursor_execute", note)
        counts.append(len(seen))
    assert counts[0] == counts[1]
    assert counts[0] <= 4


def test_logs_are_read_from_their_end_and_only_of_known_agents(ctx: Context) -> None:
    register(ctx)
    endpoints.deploy(ctx, "digits", "digits@1", actor="ana")
    add_agent(ctx, "digits", "a1", "ready")
    folder = ctx.settings.logs_dir / "agents"
    folder.mkdir(parents=True)
    assert endpoints.agent_log(ctx, "a1") == ()
    (folder / "a1.log").write_text("".join(f"line {number} {'x' * 3000}\n" for number in range(2000)))
    tail = endpoints.agent_log(ctx, "a1", lines=3)
    assert [line.split()[1] for line in tail] == ["1997", "1998", "1999"]
    for unknown in ("../a1", "a2", "/etc/passwd"):
        with pytest.raises(NotFoundError):
            endpoints.agent_log(ctx, unknown)
    with pytest.raises(InvalidInputError):
        endpoints.agent_log(ctx, "a1", lines=0)


def test_a_job_that_loses_its_process_runs_again_and_then_fails(ctx: Context) -> None:
    job = jobs.submit(ctx, catalogs.job_kinds()[0], subject="digits", params={}, actor="ana")
    for attempt in range(1, jobs.MAX_ATTEMPTS + 1):
        claimed = jobs.claim(ctx, 1, 2.0)
        assert claimed is not None
        assert claimed.attempt == attempt
        assert jobs.recover_lost(ctx, lambda _pid, _at: True) == ()
        assert [each.id for each in jobs.recover_lost(ctx, lambda _pid, _at: False)] == [job.id]
    lost = jobs.get(ctx, job.id)
    assert lost.state == "failed"
    assert lost.reason is not None
    assert lost.reason.code == "process_died"
    assert jobs.retry(ctx, job.id, actor="bo").state == "queued"


def test_a_running_job_learns_that_it_is_cancelled(ctx: Context) -> None:
    job = jobs.submit(ctx, catalogs.job_kinds()[0], subject="digits", params={}, actor="ana")
    jobs.claim(ctx, 1, 2.0)
    jobs.cancel(ctx, job.id, actor="bo")
    with pytest.raises(jobs.JobCancelled):
        jobs.report(ctx, job.id, "reading", 0.5)
    jobs.cancelled(ctx, job.id)
    assert jobs.cancel(ctx, job.id, actor="bo").state == "cancelled"
    with pytest.raises(InvalidInputError, match="known kinds are"):
        jobs.submit(ctx, "rm -rf", subject="x", params={}, actor="ana")


def test_status_counts_and_says_what_needs_attention(ctx: Context) -> None:
    register(ctx)
    endpoints.deploy(ctx, "digits", "digits@1", actor="ana", replicas=2)
    job = jobs.submit(ctx, catalogs.job_kinds()[0], subject="cats", params={}, actor="ana")
    jobs.claim(ctx, 1, 2.0)
    jobs.fail(ctx, job.id, Reason("x", "it broke"))
    for number in range(3):
        add_agent(ctx, "digits", f"f{number}", "failed", ended_at=time.time(), reason="boom")
    seen = system.status(ctx)
    assert (seen.models, seen.versions, seen.endpoints, seen.agents_wanted, seen.agents_ready) == (
        1,
        1,
        1,
        2,
        0,
    )
    assert (seen.controller, seen.gateway) == ("not running", "not answering")
    assert {each.kind for each in seen.attention} == {"controller", "gateway", "endpoint", "job"}
    with sessions.write(ctx.engine) as session:
        session.add(Lease(name="controller", holder="me", token=1, expires_at=time.time() + 60))
    assert system.status(ctx).controller == "leading"


def test_health_says_when_the_registry_is_gone_or_old(ctx: Context, tmp_path: Path) -> None:
    assert system.health(ctx) == {"status": "ok", "registry": "ok"}
    from control_plane.services.context import open_context

    empty = open_context(ctx.settings.model_copy(update={"database_url": f"sqlite:///{tmp_path}/none.db"}))
    assert "migrate" in system.health(empty)["registry"]
    empty.engine.dispose()
    nowhere = open_context(
        ctx.settings.model_copy(
            update={"database_url": "postgresql+psycopg://x@127.0.0.1:1/x?connect_timeout=1"}
        )
    )
    assert system.health(nowhere)["status"] == "degraded"
    nowhere.engine.dispose()


def test_the_live_bundle_is_made_once_for_many(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def made(*_: object) -> dict[str, int]:
        calls.append(1)
        return {"n": len(calls)}

    monkeypatch.setattr(live, "live_bundle", made)
    assert {live.bundle(ctx, range_s=900) for _ in range(5)} == {b'{"n":1}'}
    assert live.bundle(ctx, range_s=900, endpoint="digits") == b'{"n":2}'
    for bad in (0, 10**9):
        with pytest.raises(InvalidInputError):
            live.bundle(ctx, range_s=bad)


def test_a_deployments_file_is_applied_whole_tried_dry_and_applied_twice(ctx: Context) -> None:
    register(ctx)
    register(ctx)
    text = (
        "models:\n  digits:\n    device: cpu\n    aliases: {stable: 2}\n"
        "deployments:\n  - {endpoint: main, version: digits@stable, replicas: 2}\n"
        "  - {endpoint: spare, version: digits@1, state: stopped}\n"
    )
    planned = declarative.plan_changes(ctx, text)
    assert (endpoints.list_all(ctx), versions.model(ctx, "digits").aliases) == ((), {})
    assert declarative.apply(ctx, text, actor="ana") == planned
    main, spare = endpoints.list_all(ctx)
    assert (main.version_ref, main.replicas, main.device) == ("digits@2", 2, "cpu")
    assert spare.goal == "stopped"
    before = events.search(ctx).total
    assert declarative.apply(ctx, text, actor="ana") == ()
    assert events.search(ctx).total == before
    moved = declarative.apply(ctx, text.replace("stable: 2", "stable: 1"), actor="bo")
    assert [change.subject for change in moved] == ["digits@stable", "main"]


def test_a_deployments_file_cannot_move_a_protected_alias(ctx: Context) -> None:
    register(ctx)
    register(ctx)
    text = "models:\n  digits:\n    aliases: {champion: 1}\n"
    assert len(declarative.apply(ctx, text, actor="ana")) == 1
    with pytest.raises(ConflictError, match=r"line 3.*champion is protected"):
        declarative.plan_changes(ctx, text.replace("champion: 1", "champion: 2"))
    assert versions.model(ctx, "digits").aliases == {"champion": "digits@1"}


class _Gateway(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        known = self.path == "/e/digits/predict"
        body = b'{"predictions": [3]}' if known else b"<html>"
        self.send_response(200 if known else 404)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-signalbox-version", "digits@1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def gateway() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Gateway)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_predictions_come_through_the_gateway_and_a_no_is_an_answer(ctx: Context, gateway: int) -> None:
    from control_plane.services import gateway_client

    gateway_client._client.cache_clear()
    reachable = Context(ctx.settings.model_copy(update={"gateway_port": gateway}), ctx.engine)
    answer = endpoints.predict(reachable, "digits", {"input": [1, 2]})
    assert (answer.status, answer.body, answer.version_ref) == (200, {"predictions": [3]}, "digits@1")
    assert answer.latency_ms > 0
    assert endpoints.predict(reachable, "other", {"input": 1}).body == {"error": "<html>"}
    with pytest.raises(InvalidInputError):
        endpoints.predict(reachable, "digits", {"input": float("nan")})
    with pytest.raises(InvalidInputError):
        endpoints.predict(reachable, "../status", {"input": 1})
    with pytest.raises(UnavailableError):
        endpoints.predict(ctx, "digits", {"input": 1})
    gateway_client._client().close()
    gateway_client._client.cache_clear()
