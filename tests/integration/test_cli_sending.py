"""What `signalbox push` does when the other side goes away, and when it is interrupted itself."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.cli import push, sending
from control_plane.cli.client import SENDING_TIMEOUT_S, Client
from control_plane.cli.failures import ApiError
from control_plane.cli.output import Output
from control_plane.config import Settings
from control_plane.errors import InvalidInputError, UnavailableError
from tests.fakes import dashboard
from tests.fakes.dashboard import Dashboard
from tests.fakes.registry import open_home

SIZE = 60_000_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = dashboard.settings_for(tmp_path / "home")
    open_home(made.home, web_port=made.web_port).engine.dispose()
    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_bytes(b"{}")
    (folder / "empty").write_bytes(b"")
    (folder / "model.safetensors").write_bytes(os.urandom(SIZE))
    return folder


@pytest.fixture
def alone(settings: Settings) -> Iterator[Client]:
    """A client of a server that the test itself starts and ends."""
    client = Client(settings)
    yield client
    client.close()


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    made = dashboard.settings_for(tmp_path_factory.mktemp("web"))
    open_home(made.home, web_port=made.web_port).engine.dispose()
    with dashboard.running(made) as running:
        yield running


@pytest.fixture
def api(web: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of a server that all tests share, as somebody who has no other uploads there."""
    monkeypatch.setenv("LOGNAME", tmp_path.name)
    client = Client(web.settings)
    yield client
    client.close()


def declared(source: Path) -> dict[str, Any]:
    files = [push._declared(*each) for each in push.files_of(source).items()]
    return {"model": "m", "files": files, "accept_program": False, "details": {"lr": 1e-3}, "labels": ["a"]}


def hashes(source: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in push.files_of(source).items()
    }


def test_a_server_that_is_killed_and_comes_back_gets_the_rest(
    settings: Settings, source: Path, alone: Client
) -> None:
    reached, died = threading.Event(), threading.Event()
    result: dict[str, str] = {}

    def tell(path: str, sent: int) -> None:
        if sent > SIZE // 2 and not died.is_set():
            reached.set()
            died.wait(30)

    with dashboard.running(settings) as web:
        upload = alone.post("/uploads", declared(source))
        thread = threading.Thread(
            target=lambda: result.update(sending.send_all(alone, upload, push.files_of(source), tell))
        )
        thread.start()
        assert reached.wait(30)
        web.process.kill()
        web.process.wait()
        died.set()
    with dashboard.running(settings):
        thread.join(60)
        assert result == hashes(source)
        assert alone.post(f"/uploads/{upload['id']}/complete", {"sha256": result})["state"] == "checking"


def test_an_interrupted_push_goes_on_with_the_same_upload(
    source: Path, api: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Output(as_json=False)
    files = push.files_of(source)

    def interrupt(path: str, sent: int) -> None:
        if sent > SIZE // 2:
            raise KeyboardInterrupt

    first = push._upload(api, out, declared(source), None)
    with pytest.raises(KeyboardInterrupt):
        sending.send_all(api, first, files, interrupt)
    again = push._upload(api, out, declared(source), None)
    assert again["id"] == first["id"]
    assert "Going on with upload" in capsys.readouterr().err
    assert push._upload(api, out, declared(source), first["id"])["id"] == first["id"]
    sent: list[int] = []
    assert sending.send_all(api, again, files, lambda path, count: sent.append(count)) == hashes(source)
    os.utime(source / "config.json", ns=(1, 1))
    with pytest.raises(InvalidInputError, match="have changed"):
        push._upload(api, out, declared(source), first["id"])
    assert push._upload(api, out, declared(source), None)["id"] != first["id"]


def test_only_an_upload_that_began_with_the_same_words_is_gone_on_with(source: Path, api: Client) -> None:
    out, body = Output(as_json=False), declared(source)
    others: list[tuple[dict[str, Any], str]] = [
        ({"details": {"lr": 2e-3}}, "other metadata"),
        ({"labels": ["b"]}, "other metadata, labels"),
        ({"handler": "tensor"}, "handler"),
        ({"signature": {"inputs": [push._tensor("x:FP32:-1,4")], "outputs": []}}, "inputs"),
        ({"model": "n"}, "of the model m"),
        ({"accept_program": True}, "--accept-program"),
    ]
    first = push._upload(api, out, body, None)
    for changed, why in others:
        with pytest.raises(InvalidInputError, match=f"cannot be resumed: .*{why}"):
            push._upload(api, out, body | changed, first["id"])
        begun = push._upload(api, out, body | changed, None)
        assert begun["id"] != first["id"]
        assert push._upload(api, out, body | changed, None)["id"] == begun["id"]
    assert push._upload(api, out, body, None)["id"] == first["id"]


def test_nobody_goes_on_with_what_another_began(source: Path, api: Client) -> None:
    out, body = Output(as_json=False), declared(source)
    first = push._upload(api, out, body, None)
    api.actor = "somebody else"
    assert push._upload(api, out, body, None)["id"] != first["id"]
    assert push._upload(api, out, body, first["id"])["id"] == first["id"], "unless it is named"


def test_what_signalbox_fetches_itself_is_not_gone_on_with(source: Path) -> None:
    upload = {"reference": "/data/run"}
    assert "fetches its files itself" in str(push._other(upload, declared(source)))


def test_the_end_of_an_upload_is_said_again_when_its_answer_was_lost(
    tmp_path: Path, api: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    monkeypatch.setattr(sending, "RETRY_WAITS_S", (0.0, 0.0))
    real, waited_s = api.post, list[float]()

    def answer_lost(path: str, body: Any = None, **given: float) -> Any:
        answer = real(path, body, **given)
        if path.endswith("/complete"):
            waited_s.append(given["timeout_s"])
            raise UnavailableError("the answer was lost")
        return answer

    monkeypatch.setattr(api, "post", answer_lost)
    monkeypatch.setattr(push, "_checked", lambda api, out, where: api.get(where))
    monkeypatch.setattr(push, "_outcome", lambda api, upload: upload)
    assert push.send(api, Output(as_json=True), file, declared(file))["state"] == "checking"
    assert waited_s == [SENDING_TIMEOUT_S]


def test_an_upload_whose_end_cannot_be_said_tells_how_to_go_on(
    tmp_path: Path, api: Client, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    monkeypatch.setattr(sending, "RETRY_WAITS_S", (0.0, 0.0))
    real, attempts = api.post, list[str]()

    def unanswered(path: str, body: Any = None, **given: float) -> Any:
        if path.endswith("/complete"):
            attempts.append(path)
            raise UnavailableError("Signalbox does not answer")
        return real(path, body, **given)

    monkeypatch.setattr(api, "post", unanswered)
    with pytest.raises(UnavailableError):
        push.send(api, Output(as_json=False), file, declared(file))
    assert len(attempts) == 3
    assert "--resume" in capsys.readouterr().err


def test_a_refusal_is_not_tried_again(source: Path, api: Client) -> None:
    upload = api.post("/uploads", declared(source))
    api.delete(f"/uploads/{upload['id']}")
    with pytest.raises(ApiError) as caught:
        sending.send_all(api, upload, push.files_of(source), lambda path, sent: None)
    assert caught.value.status == 409


def test_a_server_that_stays_away_is_given_up(
    settings: Settings, source: Path, alone: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "RETRY_WAITS_S", (0.0, 0.0))
    with dashboard.running(settings):
        upload = alone.post("/uploads", declared(source))
    with pytest.raises(UnavailableError):
        sending.send_all(alone, upload, push.files_of(source), lambda path, sent: None)


def test_a_file_that_becomes_shorter_is_said(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    with file.open("rb", buffering=0) as stream:
        outgoing = sending.Outgoing(stream)
        assert b"".join(outgoing.blocks(1)) == b"bc"
        assert b"".join(outgoing.blocks(2)) == b"c"
        assert outgoing.sha256(3) == hashlib.sha256(b"abc").hexdigest()
        with pytest.raises(InvalidInputError, match="shorter"):
            outgoing.sha256(4)
