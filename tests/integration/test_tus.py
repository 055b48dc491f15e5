"""The tus protocol over real HTTP: what it promises, and what breaks on the way."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.api import pouring
from control_plane.config import Settings
from control_plane.domain.upload import UploadState
from control_plane.errors import NoSpaceError
from control_plane.registry import session as sessions
from control_plane.registry.tables import Upload
from control_plane.services import receiving, tus, upload_rows, uploads
from control_plane.services.context import Context
from tests.fakes import dashboard
from tests.fakes.api_server import serving
from tests.fakes.registry import open_home
from tests.fakes.tus import TYPE, Tus, headers
from tests.fakes.waiting import wait_until

DATA = os.urandom(300_000)


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    context = open_home(tmp_path / "home", max_upload_bytes=50_000_000)
    yield context
    context.engine.dispose()


@pytest.fixture
def port(ctx: Context) -> Iterator[int]:
    with serving(ctx) as port:
        yield port


@pytest.fixture
def client(port: int) -> Iterator[Tus]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False, timeout=30) as api:
        yield Tus(api)


def file_of(ctx: Context, upload_id: str, path: str = "part 0.bin") -> Path:
    return uploads.folder(ctx, upload_id) / path


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["tus-resumable"] == "1.0.0"
    error: dict[str, Any] = answer.json()["error"]
    return error


def slow_patch(port: int, where: str, offset: int, content: bytes, *, declared: int) -> socket.socket:
    """A PATCH that has sent *content* of *declared* bytes and goes no further."""
    raw = socket.create_connection(("127.0.0.1", port))
    lines = [f"PATCH /api/v1{where} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {declared}"]
    lines += [f"{name}: {value}" for name, value in headers(offset).items()]
    raw.sendall("\r\n".join([*lines, "", ""]).encode() + content)
    return raw


def reset(raw: socket.socket) -> None:
    """End the connection as a machine does that went away: RST, no goodbye."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


def being_sent(ctx: Context, upload_id: str) -> None:
    """Wait until the server has opened the file that is being sent."""
    partial = ctx.settings.uploads_dir / upload_id / "partial"
    wait_until(lambda: list(partial.glob("*")), timeout_s=10, what=lambda: "a partial file")


def test_options_say_what_is_spoken(client: Tus, ctx: Context) -> None:
    _, where = client.begin(1)
    answer, of_one = client.api.options("/tus"), client.api.options(where)
    assert (answer.status_code, of_one.status_code) == (204, 204)
    assert of_one.headers["tus-extension"] == answer.headers["tus-extension"]
    assert answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-max-size"] == str(ctx.settings.max_upload_bytes)
    assert set(answer.headers["tus-checksum-algorithm"].split(",")) == {"sha1", "sha256"}
    spoken = {"creation", "creation-with-upload", "termination", "checksum", "expiration"}
    assert set(answer.headers["tus-extension"].split(",")) == spoken


def test_a_file_comes_in_pieces(client: Tus, ctx: Context) -> None:
    upload_id, where = client.begin(len(DATA))
    for start in range(0, len(DATA), 100_000):
        assert client.offset(where) == start
        answer = client.patch(where, start, DATA[start : start + 100_000])
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(start + 100_000))
    assert file_of(ctx, upload_id).read_bytes() == DATA
    shown = client.upload(upload_id)["files"][0]
    assert (shown["received_bytes"], shown["sha256"]) == (len(DATA), hashlib.sha256(DATA).hexdigest())
    assert client.api.post(f"/uploads/{upload_id}/complete").json()["state"] == "checking"
    assert client.offset(where) == len(DATA)


def test_head_tells_all_that_was_declared(client: Tus) -> None:
    upload_id, where = client.begin(10)
    answer = client.head(where)
    assert answer.headers["upload-length"] == "10"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["upload-metadata"].startswith("upload ")
    assert answer.headers["upload-expires"].endswith("GMT")
    assert client.create(upload_id, 10).headers["location"] == f"/api/v1{where}"


def test_bytes_put_off_the_end_at_once(client: Tus, ctx: Context) -> None:
    """Upload-Expires counts from the bytes that the answer is about."""
    upload_id, where = client.begin(10)

    def expires_in_s(answer: httpx.Response) -> float:
        return parsedate_to_datetime(answer.headers["upload-expires"]).timestamp() - time.time()

    def idle_for_an_hour() -> None:
        with sessions.write(ctx.engine) as session:
            session.get_one(Upload, upload_id).updated_at -= 3600

    day_s = upload_rows.IDLE_LIMITS_S[UploadState.RECEIVING]
    idle_for_an_hour()
    assert expires_in_s(client.head(where)) < day_s - 3500
    assert expires_in_s(client.patch(where, 0, b"abc")) > day_s - 60
    assert "upload-expires" not in client.patch(where, 3, b"defghij").headers


def test_bytes_may_come_with_the_creation(client: Tus, ctx: Context) -> None:
    upload_id = client.declare(5)
    answer = client.create(upload_id, 5, content=b"abc")
    assert (answer.status_code, answer.headers["upload-offset"]) == (201, "3")
    where = answer.headers["location"].removeprefix("/api/v1")
    assert client.patch(where, 3, b"de").status_code == 204
    assert file_of(ctx, upload_id).read_bytes() == b"abcde"


def test_an_empty_file_is_whole_at_once(client: Tus, ctx: Context) -> None:
    upload_id = client.declare(1, 0)
    assert client.create(upload_id, 0, "part 1.bin").headers["upload-offset"] == "0"
    assert file_of(ctx, upload_id, "part 1.bin").read_bytes() == b""
    assert client.upload(upload_id)["files"][1]["sha256"] == hashlib.sha256(b"").hexdigest()


def test_only_the_safe_end_is_gone_on_from(client: Tus) -> None:
    _, where = client.begin(10)
    assert client.patch(where, 0, b"abcd").status_code == 204
    for offset in (0, 3, 5, 10, 11):
        error = refused(
            client.patch(where, offset, b"x" if offset < 10 else b""), 409 if offset < 11 else 413
        )
        assert offset == 11 or error["details"]["offset"] == 4
    assert client.offset(where) == 4
    refused(client.patch(where, 4, b"x" * 7), 413)
    refused(client.patch(where, 4, iter([b"x" * 4, b"x" * 4])), 413)
    assert client.patch(where, client.offset(where), b"").status_code == 204


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_wrong_checksum_changes_nothing(client: Tus, ctx: Context, algorithm: str) -> None:
    upload_id, where = client.begin(6)
    digest = base64.b64encode(hashlib.new(algorithm, b"abc").digest()).decode()
    named = f"{algorithm} {digest}"
    assert client.patch(where, 0, b"abc", Upload_Checksum=named).status_code == 204
    error = refused(client.patch(where, 3, b"abd", Upload_Checksum=named), 460)
    assert error["code"] == "checksum_mismatch"
    assert client.offset(where) == 3
    assert client.patch(where, 3, b"abc", Upload_Checksum=named).status_code == 204
    assert file_of(ctx, upload_id).read_bytes() == b"abcabc"
    assert client.upload(upload_id)["files"][0]["sha256"] == hashlib.sha256(b"abcabc").hexdigest()


def test_the_whole_file_is_compared_at_the_end(client: Tus, ctx: Context) -> None:
    upload_id = client.declare(3)
    made = client.create(upload_id, 3, sha256=hashlib.sha256(b"abc").hexdigest())
    where = made.headers["location"].removeprefix("/api/v1")
    refused(client.patch(where, 0, b"abd"), 460)
    assert client.offset(where) == 0
    assert client.patch(where, 0, b"abc").status_code == 204
    wrong = {"sha256": {"part 0.bin": "0" * 64}}
    answer = client.api.post(f"/uploads/{upload_id}/complete", json=wrong)
    assert (answer.status_code, answer.json()["error"]["details"]["file"]) == (460, "part 0.bin")
    assert not file_of(ctx, upload_id).exists()
    assert client.head(where).status_code == 404
    where = client.create(upload_id, 3).headers["location"].removeprefix("/api/v1")
    assert client.patch(where, 0, b"abc").status_code == 204
    right = {"sha256": {"part 0.bin": hashlib.sha256(b"abc").hexdigest().upper()}}
    assert client.api.post(f"/uploads/{upload_id}/complete", json=right).json()["state"] == "checking"


def test_malformed_headers_are_refused(client: Tus) -> None:
    upload_id, where = client.begin(4)
    for offset in ("", "-1", "1.0", "abc", "9" * 30, "0, 0"):
        refused(client.patch(where, offset, b"abcd"), 400)
    for checksum in ("sha256", "md5 abcd", "sha256 !!!!"):
        refused(client.patch(where, 0, b"abcd", Upload_Checksum=checksum), 400)
    good = {"Tus-Resumable": "1.0.0", "Upload-Length": "4"}
    for bad in ({"Upload-Metadata": "upload !"}, {"Upload-Length": "-1"}, {"Upload-Defer-Length": "1"}, {}):
        refused(client.api.post("/tus", headers={**good, **bad}), 400)
    refused(client.create(upload_id, 5), 400)
    refused(client.create(upload_id, 4, sha256="abc"), 400)
    refused(client.create(upload_id, 4, "nobody.bin"), 404)
    refused(client.create(upload_id, 60_000_000), 413)
    plain = headers(0, Content_Type="application/json")
    refused(client.api.patch(where, headers=plain, content=b"{}"), 415)
    for version in ({}, {"Tus-Resumable": "0.2.2"}):
        answer = client.api.head(where, headers=version)
        assert (answer.status_code, answer.headers["tus-version"]) == (412, "1.0.0")
    assert client.offset(where) == 0
    for unknown in ("/tus/nobody", "/tus/" + "0" * 32):
        assert client.head(unknown).status_code == 404
    refused(client.patch("/tus/nobody", 0, b"a"), 404)
    assert client.head("/tus/..%2f..%2fx").status_code == 404


def test_clients_without_patch_and_delete_override_the_method(client: Tus, ctx: Context) -> None:
    upload_id, where = client.begin(3)
    override = headers(0, X_HTTP_Method_Override="PATCH")
    assert client.api.post(where, headers=override, content=b"abc").status_code == 204
    assert file_of(ctx, upload_id).read_bytes() == b"abc"
    ending = {"Tus-Resumable": "1.0.0", "X-HTTP-Method-Override": "DELETE"}
    assert client.api.post(where, headers=ending).status_code == 204
    assert client.head(where).status_code == 404
    assert client.api.post(where, headers={"Tus-Resumable": "1.0.0"}).status_code == 405


def test_an_ended_transfer_leaves_nothing_and_can_begin_anew(client: Tus, ctx: Context) -> None:
    upload_id, where = client.begin(4)
    client.patch(where, 0, b"ab")
    assert client.delete(where).status_code == 204
    assert list((ctx.settings.uploads_dir / upload_id / "partial").glob("*")) == []
    assert client.head(where).status_code == 404
    again = client.create(upload_id, 4).headers["location"].removeprefix("/api/v1")
    assert again != where
    assert client.offset(again) == 0


def test_an_expired_upload_is_gone(client: Tus, ctx: Context) -> None:
    upload_id, where = client.begin(4)
    client.patch(where, 0, b"ab")
    with sessions.write(ctx.engine) as session:
        session.get_one(Upload, upload_id).updated_at -= 25 * 3600
    assert uploads.expire(ctx, time.time()) == (upload_id,)
    assert client.head(where).status_code == 410
    assert refused(client.patch(where, 2, b"cd"), 410)["code"] == "gone"
    assert not (ctx.settings.uploads_dir / upload_id).exists()


def test_cancelling_ends_what_is_being_sent(client: Tus, port: int, ctx: Context) -> None:
    upload_id, where = client.begin(10_000_000)
    with slow_patch(port, where, 0, b"x" * 100_000, declared=10_000_000) as raw:
        being_sent(ctx, upload_id)
        assert client.api.delete(f"/uploads/{upload_id}").json()["state"] == "cancelled"
        reset(raw)
    assert client.head(where).status_code == 410
    wait_until(
        lambda: not (ctx.settings.uploads_dir / upload_id).exists(), timeout_s=10, what=lambda: "its folder"
    )


def test_two_senders_of_one_file_do_not_mix(client: Tus, port: int, ctx: Context) -> None:
    upload_id, where = client.begin(len(DATA))
    with slow_patch(port, where, 0, DATA[:1000], declared=len(DATA)) as raw:
        being_sent(ctx, upload_id)
        error = refused(client.patch(where, 0, b"other bytes"), 423)
        assert error["code"] == "locked"
        raw.sendall(DATA[1000:])
        assert raw.recv(64).startswith(b"HTTP/1.1 204")
    assert file_of(ctx, upload_id).read_bytes() == DATA


def test_of_many_patches_at_once_one_is_taken(client: Tus, ctx: Context) -> None:
    upload_id, where = client.begin(len(DATA))
    statuses: list[int] = []

    def send() -> None:
        statuses.append(
            httpx.patch(f"{client.api.base_url}{where[1:]}", headers=headers(0), content=DATA).status_code
        )

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses.count(204) == 1
    assert set(statuses) <= {204, 409, 423}
    assert file_of(ctx, upload_id).read_bytes() == DATA


def test_a_reset_connection_lets_go_at_once_and_keeps_what_came(client: Tus, port: int, ctx: Context) -> None:
    upload_id, where = client.begin(len(DATA))
    raw = slow_patch(port, where, 0, DATA[:123_456], declared=len(DATA))
    being_sent(ctx, upload_id)
    wait_until(
        lambda: receive_queue_is_empty(raw, port), timeout_s=5, what=lambda: "the server to have read it all"
    )
    reset(raw)
    assert client.offset(where) == 123_456
    assert client.patch(where, 123_456, DATA[123_456:]).status_code == 204
    assert file_of(ctx, upload_id).read_bytes() == DATA


def receive_queue_is_empty(raw: socket.socket, port: int) -> bool:
    """Whether the server has read all that *raw* sent, by /proc/net/tcp."""
    mine = f"{raw.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{port:04X}") and fields[2].endswith(f":{mine}"):
            return fields[4].split(":")[1] == "00000000"
    return False


def test_a_silent_sender_gives_way(
    client: Tus, port: int, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pouring, "SILENT_S", 0.2)
    upload_id, where = client.begin(len(DATA))
    with slow_patch(port, where, 0, DATA[:5000], declared=len(DATA)) as raw:
        being_sent(ctx, upload_id)
        refused(client.patch(where, 0, DATA), 409)  # what the silent one sent was kept
        assert client.offset(where) == 5000
        assert client.patch(where, 5000, DATA[5000:]).status_code == 204
        assert raw.recv(64).startswith(b"HTTP/1.1 400")
    assert file_of(ctx, upload_id).read_bytes() == DATA


def test_a_body_that_stalls_is_ended(
    client: Tus, port: int, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pouring, "STALL_S", 0.2)
    _, where = client.begin(len(DATA))
    with slow_patch(port, where, 0, DATA[:7000], declared=len(DATA)) as raw:
        assert raw.recv(64).startswith(b"HTTP/1.1 400")
    assert client.offset(where) == 7000


def test_offsets_show_while_bytes_come(
    client: Tus, port: int, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pouring, "BUFFER_BYTES", 1000)
    monkeypatch.setattr(pouring, "CHECKPOINT_BYTES", 2000)
    upload_id, where = client.begin(len(DATA))
    with slow_patch(port, where, 0, DATA[:50_000], declared=len(DATA)) as raw:

        def told_after_a_few_more() -> bool:
            raw.sendall(b"x" * 1000)
            return bool(client.upload(upload_id)["received_bytes"] >= 2000)

        wait_until(told_after_a_few_more, timeout_s=10, what=lambda: "an offset")
        reset(raw)
    assert client.offset(where) <= 100_000


def test_the_disk_floor_holds_before_and_while_bytes_come(
    client: Tus, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = threading.Event()

    def require(self: receiving.DiskFloor, size_bytes: int) -> None:
        if full.is_set():
            raise NoSpaceError("it would fall below its floor")

    monkeypatch.setattr(receiving.DiskFloor, "require", require)
    monkeypatch.setattr(receiving, "CHECK_EVERY_BYTES", 1000)
    monkeypatch.setattr(pouring, "BUFFER_BYTES", 1000)
    _, where = client.begin(len(DATA))

    def chunks() -> Iterator[bytes]:
        yield DATA[:50_000]
        wait_until(full_soon, timeout_s=10, what=lambda: "the first bytes")
        yield DATA[50_000:]

    def full_soon() -> bool:
        if any(part.stat().st_size for part in ctx.settings.uploads_dir.glob("*/partial/*")):
            full.set()
        return full.is_set()

    refused(client.patch(where, 0, chunks()), 507)
    kept = client.offset(where)
    assert 0 < kept <= 50_000, kept
    refused(client.patch(where, kept, DATA[kept:]), 507)
    assert (
        client.api.post(
            "/uploads", json={"model": "m", "files": [{"path": "a", "size_bytes": 1}]}
        ).status_code
        == 507
    )
    full.clear()
    assert client.patch(where, kept, DATA[kept:]).status_code == 204


def test_one_user_has_a_quota(tmp_path: Path) -> None:
    ctx = open_home(tmp_path / "small", upload_quota_bytes=100)
    first = uploads.create(ctx, model="m", files=[("a", 60)], actor="ana")
    from control_plane.errors import TooLargeError

    with pytest.raises(TooLargeError, match="ana has 60 bytes") as caught:
        uploads.create(ctx, model="m", files=[("a", 41)], actor="ana")
    assert "SIGNALBOX_UPLOAD_QUOTA_BYTES" in str(caught.value.next_step)
    uploads.create(ctx, model="m", files=[("a", 41)], actor="bo")
    uploads.cancel(ctx, first.id, actor="ana")
    uploads.create(ctx, model="m", files=[("a", 100)], actor="ana")
    ctx.engine.dispose()


def test_a_file_longer_than_its_offset_is_cut_and_a_lost_one_begins_anew(client: Tus, ctx: Context) -> None:
    upload_id, where = client.begin(6)
    client.patch(where, 0, b"abc")
    part = ctx.settings.uploads_dir / upload_id / "partial" / where.rsplit("/", 1)[1]
    with part.open("ab") as file:
        file.write(b"what a killed process had written and not recorded")
    assert client.offset(where) == 3
    assert client.patch(where, 3, b"d").status_code == 204
    assert part.read_bytes() == b"abcd"
    part.unlink()
    assert client.offset(where) == 0
    refused(client.patch(where, 4, b"ef"), 409)
    assert client.patch(where, 0, b"abcdef").status_code == 204
    assert client.upload(upload_id)["files"][0]["sha256"] == hashlib.sha256(b"abcdef").hexdigest()


def test_a_crash_after_the_last_byte_is_made_good_by_completing(client: Tus, ctx: Context) -> None:
    upload_id, where = client.begin(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tus, "_finish", crash)
        address = f"{client.api.base_url}{where[1:]}"
        assert httpx.patch(address, headers=headers(0), content=b"abc").status_code == 500
    assert client.offset(where) == 3
    assert not file_of(ctx, upload_id).exists()
    assert client.api.post(f"/uploads/{upload_id}/complete").json()["state"] == "checking"
    assert file_of(ctx, upload_id).read_bytes() == b"abc"


def crash(*_: object) -> None:
    raise RuntimeError("killed")


def test_a_killed_web_process_loses_no_recorded_byte(tmp_path: Path) -> None:
    settings = dashboard.settings_for(tmp_path / "home")
    open_home(settings.home, web_port=settings.web_port).engine.dispose()
    size = 200_000_000
    block = os.urandom(1_000_000)
    with dashboard.running(settings) as web, api_of(settings) as api:
        client = Tus(api)
        upload_id, where = client.begin(size)
        raw = slow_patch(settings.web_port, where, 0, b"", declared=size)
        sender = threading.Thread(target=send_until_cut, args=(raw, block, size))
        sender.start()
        wait_until(
            lambda: client.upload(upload_id)["received_bytes"] > 0, timeout_s=30, what=lambda: "an offset"
        )
        os.kill(web.process.pid, signal.SIGKILL)
        web.process.wait()
        sender.join(30)
    part = settings.uploads_dir / upload_id / "partial" / where.rsplit("/", 1)[1]
    with dashboard.running(settings), api_of(settings) as api:
        client = Tus(api)
        offset = client.offset(where)
        assert 0 < offset <= part.stat().st_size
        whole = block * (size // len(block))
        assert client.patch(where, offset, whole[offset:]).status_code == 204
        shown = client.upload(upload_id)["files"][0]
    assert shown["sha256"] == hashlib.sha256(whole).hexdigest()
    assert (settings.uploads_dir / upload_id / "files" / "part 0.bin").read_bytes() == whole


def api_of(settings: Settings) -> httpx.Client:
    return httpx.Client(base_url=f"{settings.web_url}/api/v1", trust_env=False, timeout=60)


def send_until_cut(raw: socket.socket, block: bytes, size: int) -> None:
    """Send *size* bytes, or as many as the other side takes before it dies."""
    with raw:
        try:
            for _ in range(size // len(block)):
                raw.sendall(block)
        except OSError:
            return


def test_the_whole_upload_is_stored_once(ctx: Context) -> None:
    from tests.fakes.registry import register

    first, second = register(ctx, content=b"same"), register(ctx, content=b"same")
    assert first != second
    assert len(list(ctx.settings.artifacts_dir.glob("sha256/*/*"))) == 1


def test_type_of_bodies_is_the_protocol_s_own() -> None:
    assert TYPE == "application/offset+octet-stream"
