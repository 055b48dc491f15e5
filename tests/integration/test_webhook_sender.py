"""Webhooks are told over real HTTP: signed, at least once, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from control_plane.domain import webhook as messages
from control_plane.errors import ConflictError, InvalidInputError, NotFoundError
from control_plane.services import rollouts, webhook_sender, webhooks
from control_plane.services.context import Context
from tests.fakes.registry import open_home
from tests.fakes.rollouts import two_versions


@dataclass
class Receiver:
    """What a receiver got, and the status it answers with."""

    status: int = 204
    stalls: Event | None = None
    """Until when an answer's headers drip, a byte at a time."""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, content))
            if receiver.stalls is not None:
                self._drip(receiver.stalls)
                return
            self.send_response(receiver.status)
            if receiver.status == 302:
                self.send_header("location", receiver.url)
            self.send_header("content-length", "0")
            self.end_headers()

        def _drip(self, until: Event) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not until.wait(0.05):
                    self.wfile.write(b"x")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    context = open_home(tmp_path / "home", gateway_port=1)
    two_versions(context)
    yield context
    context.engine.dispose()


def begin(ctx: Context) -> str:
    return rollouts.start(ctx, "digits", "digits@2", actor="ana").id


def test_a_transition_arrives_once_and_is_signed(ctx: Context, receiver: Receiver) -> None:
    added = webhooks.add(ctx, receiver.url, actor="ana")
    rollout = begin(ctx)
    rollouts.act(ctx, rollout, "hold", actor="ana")
    rollouts.act(ctx, rollout, "abort", actor="bo", reason="wrong one")
    now = time.time() + 1
    assert webhook_sender.deliver_due(ctx, now) == 2
    assert webhook_sender.deliver_due(ctx, now) == 0
    for headers, content in receiver.got:
        assert headers["content-type"] == "application/json"
        stamp, message = headers["webhook-timestamp"], headers["webhook-id"]
        assert stamp == str(int(now))
        assert headers["webhook-signature"] == messages.signature(added.secret, message, stamp, content)
    assert b'"type":"rollout.aborted"' in receiver.got[1][1]
    assert b"wrong one" in receiver.got[1][1]
    seen = webhooks.deliveries(ctx, added.webhook.id)
    assert [(each.type, each.state, each.attempts) for each in seen] == [
        ("rollout.aborted", "delivered", 1),
        ("rollout.started", "delivered", 1),
    ]
    webhook_sender.tidy(ctx, now + webhook_sender.KEPT_S + 60)
    assert webhooks.deliveries(ctx, added.webhook.id) == ()


@pytest.mark.parametrize("status", [500, 404, 302])
def test_what_fails_is_tried_again_with_the_same_id(ctx: Context, receiver: Receiver, status: int) -> None:
    added = webhooks.add(ctx, receiver.url, actor="ana")
    receiver.status = status
    rollout = begin(ctx)
    rollouts.act(ctx, rollout, "abort", actor="ana")
    now = time.time() + 1
    assert webhook_sender.deliver_due(ctx, now) == 0
    assert len(receiver.got) == 1, "those behind wait, and redirects are not followed"
    assert webhook_sender.deliver_due(ctx, now + 1) == 0
    assert len(receiver.got) == 1
    listed = webhooks.list_all(ctx)[0]
    assert (listed.pending, listed.last_error) == (2, f"answered {status}")
    receiver.status = 200
    assert webhook_sender.deliver_due(ctx, now + 10) == 2
    assert receiver.got[0][0]["webhook-id"] == receiver.got[1][0]["webhook-id"]
    assert webhooks.deliveries(ctx, added.webhook.id)[-1].attempts == 2


def test_nobody_there_is_given_up_after_a_day(ctx: Context) -> None:
    with receiving() as gone:
        added = webhooks.add(ctx, gone.url, actor="ana", endpoint="digits")
    begin(ctx)
    now = time.time() + 1
    assert webhook_sender.deliver_due(ctx, now) == 0
    assert webhooks.list_all(ctx)[0].pending == 1
    webhook_sender.deliver_due(ctx, now + messages.GIVE_UP_S)
    seen = webhooks.deliveries(ctx, added.webhook.id)
    assert [(each.state, each.attempts) for each in seen] == [("given_up", 2)]
    assert "Connect" in (seen[0].last_error or "")
    assert webhooks.list_all(ctx)[0].given_up == 1


def test_one_receiver_that_fails_does_not_hold_up_another(ctx: Context, receiver: Receiver) -> None:
    with receiving() as gone:
        webhooks.add(ctx, gone.url, actor="ana")
    webhooks.add(ctx, receiver.url, actor="ana")
    begin(ctx)
    assert webhook_sender.deliver_due(ctx, time.time() + 1) == 1


def test_a_receiver_that_drips_is_cut_off_and_delays_nobody(
    ctx: Context, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_sender, "TIMEOUT_S", 0.5)
    over = Event()
    with receiving() as slow:
        slow.stalls = over
        added = webhooks.add(ctx, slow.url, actor="ana")
        webhooks.add(ctx, receiver.url, actor="ana")
        begin(ctx)
        began = time.monotonic()
        arrived = webhook_sender.deliver_due(ctx, time.time() + 1)
        took_s = time.monotonic() - began
        over.set()
    assert (arrived, len(receiver.got)) == (1, 1)
    assert took_s < 20, "what it drips for a minute is not waited for"
    assert "within 0.5 s" in (webhooks.deliveries(ctx, added.webhook.id)[0].last_error or "")


def test_one_receivers_backlog_leaves_room_for_others(
    ctx: Context, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_sender, "MOST_A_ROUND", 2)
    busy = webhooks.add(ctx, receiver.url, actor="ana", endpoint="digits").webhook
    rollout = begin(ctx)
    rollouts.act(ctx, rollout, "abort", actor="ana")
    webhooks.add(ctx, receiver.url, actor="ana")
    for _ in range(2):
        rollout = rollouts.start(ctx, "digits", "digits@2", actor="ana", supersede=True).id
    waiting = webhooks.list_all(ctx)
    assert [each.pending for each in waiting] == [6, 4]
    assert webhook_sender.deliver_due(ctx, time.time() + 1) == 4
    assert [each.pending for each in webhooks.list_all(ctx)] == [4, 2]
    states = [each.state for each in webhooks.deliveries(ctx, busy.id)]
    assert states == ["pending"] * 4 + ["delivered"] * 2, "the oldest first"


def test_the_secret_is_shown_once_and_removal_takes_what_is_pending(ctx: Context, receiver: Receiver) -> None:
    added = webhooks.add(ctx, receiver.url, actor="ana")
    assert added.secret.startswith("whsec_")
    assert not any("secret" in name for name in type(webhooks.list_all(ctx)[0]).__slots__)
    begin(ctx)
    webhooks.remove(ctx, added.webhook.id, actor="bo")
    assert webhooks.list_all(ctx) == ()
    assert webhook_sender.deliver_due(ctx, time.time() + 1) == 0
    with pytest.raises(NotFoundError):
        webhooks.remove(ctx, added.webhook.id, actor="bo")
    with pytest.raises(NotFoundError):
        webhooks.deliveries(ctx, added.webhook.id)


def test_bad_addresses_and_too_many_are_refused(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError):
        webhooks.add(ctx, "ftp://example.org", actor="ana")
    monkeypatch.setattr(webhooks, "MAX_WEBHOOKS", 1)
    webhooks.add(ctx, "http://127.0.0.1:1/", actor="ana")
    with pytest.raises(ConflictError):
        webhooks.add(ctx, "http://127.0.0.1:1/", actor="ana")
