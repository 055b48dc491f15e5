"""Uploads by reference: fetched by a job, from folders, web servers and what fsspec reaches."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]  # ships no types
import pytest

from control_plane.domain.upload import UploadState
from control_plane.domain.views import Reason, UploadView
from control_plane.errors import (
    ConflictError,
    InvalidInputError,
    SignalboxError,
    TooLargeError,
    UnavailableError,
)
from control_plane.jobs import catalog, sources
from control_plane.services import imports, jobs, uploads
from control_plane.services.context import Context
from tests.fakes.registry import open_home


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "run-7"
    (folder / "inner").mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "inner" / "model 1.safetensors").write_bytes(os.urandom(100_000))
    (folder / ".hidden").write_bytes(b"left behind")
    return folder


def context(tmp_path: Path, **settings: Any) -> Context:
    return open_home(tmp_path / "home", **settings)


def fetch(ctx: Context, reference: str | Path, model: str = "m") -> UploadView:
    """Import *reference*, its job run in this process as the worker's child runs it."""
    upload = imports.create(ctx, model=model, reference=str(reference), actor="ana")
    run(ctx)
    return uploads.get(ctx, upload.id)


def run(ctx: Context) -> None:
    job = jobs.claim(ctx, os.getpid(), 1.0)
    while job is not None and job.kind != imports.FETCH:  # checks of what was fetched before
        job = jobs.claim(ctx, os.getpid(), 1.0)
    assert job is not None
    kind = catalog.get(job.kind)
    try:
        jobs.finish(
            ctx, job.id, kind.run(ctx, job, lambda stage, done: jobs.report(ctx, job.id, stage, done))
        )
    except SignalboxError as error:
        reason = Reason(error.code, error.message, error.next_step)
        jobs.fail(ctx, job.id, reason)
        kind.ended(ctx, job.params, reason)


def content(ctx: Context, upload: UploadView) -> dict[str, bytes]:
    top = uploads.folder(ctx, upload.id)
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("config.json", "inner/model 1.safetensors")}


@pytest.mark.parametrize("link", [True, False])
def test_a_folder_is_copied_or_linked(tmp_path: Path, root: Path, link: bool) -> None:
    ctx = context(tmp_path, import_roots=(root.parent,), import_link=link)
    upload = fetch(ctx, root)
    assert (upload.state, upload.reference) == (UploadState.CHECKING, str(root))
    assert content(ctx, upload) == of(root)
    assert all(file.sha256 and file.received_bytes == file.size_bytes for file in upload.files)
    ours = uploads.folder(ctx, upload.id) / "config.json"
    assert ours.samefile(root / "config.json") is link
    uploads.cancel(ctx, upload.id, actor="ana")
    assert of(root)["config.json"] == b"{}"
    ctx.engine.dispose()


def test_one_file_is_enough(tmp_path: Path, root: Path) -> None:
    ctx = context(tmp_path, import_roots=(root,))
    upload = fetch(ctx, root / "config.json")
    assert content(ctx, upload) == {"config.json": b"{}"}
    ctx.engine.dispose()


def test_what_is_not_allowed_says_which_setting_would_allow_it(tmp_path: Path, root: Path) -> None:
    ctx = context(tmp_path, import_roots=(root / "inner",))
    (root / "inner" / "way-out").symlink_to(root)
    for place in (root, root / "inner" / "way-out", root / "inner" / "..", "/etc/passwd"):
        with pytest.raises(InvalidInputError) as caught:
            imports.create(ctx, model="m", reference=str(place), actor="ana")
        assert "SIGNALBOX_IMPORT_ROOTS" in str(caught.value.next_step)
    with pytest.raises(InvalidInputError) as caught:
        imports.create(ctx, model="m", reference="s3://bucket/x", actor="ana")
    assert "SIGNALBOX_IMPORT_URLS" in str(caught.value.next_step)
    for nonsense in ("relative/path", str(root / "inner" / "nobody"), "file:///etc/passwd"):
        with pytest.raises(InvalidInputError):
            imports.create(ctx, model="m", reference=nonsense, actor="ana")
    assert uploads.recent(ctx).total == 0
    ctx.engine.dispose()


def test_a_path_that_makes_no_sense_is_refused_not_an_error(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = context(tmp_path, import_roots=(root,))
    (root / "round").symlink_to(root / "about")
    (root / "about").symlink_to(root / "round")
    for place in (f"{root}/a\0b", f"{root}/round", f"{root}/{'a' * 300}", "/" + "a" * 5000):
        with pytest.raises(InvalidInputError):
            imports.check(ctx.settings, place)

    def refused(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refused)
    with pytest.raises(InvalidInputError, match=r"cannot be read: Permission denied"):
        imports.check(ctx.settings, f"{root}/config.json")
    ctx.engine.dispose()


def test_links_inside_a_folder_are_refused(tmp_path: Path, root: Path) -> None:
    ctx = context(tmp_path, import_roots=(root,))
    (root / "inner" / "secret").symlink_to("/etc/passwd")
    upload = fetch(ctx, root)
    assert upload.state == UploadState.REJECTED
    assert upload.reason is not None
    assert (upload.reason.code, "is a link" in upload.reason.message) == ("fetch-failed", True)
    assert not uploads.folder(ctx, upload.id).exists()
    ctx.engine.dispose()


@pytest.mark.parametrize("link", [True, False])
@pytest.mark.parametrize("swap", ["folder", "file", "other file"])
def test_what_is_swapped_after_it_was_listed_is_not_followed(
    tmp_path: Path, root: Path, link: bool, swap: str
) -> None:
    ctx = context(tmp_path, import_roots=(root,), import_link=link)
    secret = tmp_path / "secret"
    secret.mkdir()
    original = root / "inner" / "model 1.safetensors"
    (secret / original.name).write_bytes(b"s" * original.stat().st_size)
    upload = imports.create(ctx, model="m", reference=str(root), actor="ana")
    job = jobs.claim(ctx, 1, 1.0)
    assert job is not None

    def swapped(stage: str, done: float) -> None:
        if not stage.startswith("fetch inner"):
            return
        original.unlink(missing_ok=True)
        if swap == "folder" and not original.parent.is_symlink():
            original.parent.rmdir()
            original.parent.symlink_to(secret)
        elif swap == "file":
            original.symlink_to(secret / original.name)
        elif swap == "other file":
            os.link(secret / original.name, original)

    with pytest.raises(ConflictError, match=r"model 1\.safetensors' changed while it was fetched"):
        catalog.get(job.kind).run(ctx, job, swapped)
    assert list(content(ctx, upload)) == ["config.json"]
    ctx.engine.dispose()


def test_a_folder_on_the_way_that_became_a_link_is_not_followed(tmp_path: Path, root: Path) -> None:
    source = sources.Folder(root.resolve())
    moved = root.rename(root.with_name("elsewhere"))
    root.symlink_to(moved)
    with pytest.raises(UnavailableError, match="cannot be read"):
        source.files()


def test_a_folder_that_cannot_be_listed_is_said(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refused(path: Any, *given: Any, **named: Any) -> int:
        if path == "inner":
            raise PermissionError(13, "Permission denied", path)
        return real(path, *given, **named)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(UnavailableError, match="Permission denied"):
        sources.Folder(root.resolve()).files()


def test_a_job_that_died_goes_on_with_what_is_missing(tmp_path: Path, root: Path) -> None:
    ctx = context(tmp_path, import_roots=(root,))
    upload = imports.create(ctx, model="m", reference=str(root), actor="ana")
    job = jobs.claim(ctx, 1, 1.0)
    assert job is not None
    stages: list[str] = []

    def die_at_the_second_file(stage: str, done: float) -> None:
        stages.append(stage)
        if stage.startswith("fetch inner"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        catalog.get(job.kind).run(ctx, job, die_at_the_second_file)
    first = uploads.get(ctx, upload.id).files[0]
    assert (first.path, bool(first.sha256)) == ("config.json", True)
    catalog.get(job.kind).run(ctx, job, lambda stage, done: stages.append(stage))
    assert content(ctx, upload) == of(root)
    assert uploads.get(ctx, upload.id).files[0].transfer_id == first.transfer_id
    ctx.engine.dispose()


def test_files_that_change_between_two_attempts_are_not_mixed(tmp_path: Path, root: Path) -> None:
    ctx = context(tmp_path, import_roots=(root,))
    imports.create(ctx, model="m", reference=str(root), actor="ana")
    job = jobs.claim(ctx, 1, 1.0)
    assert job is not None

    def die(stage: str, done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        catalog.get(job.kind).run(ctx, job, die)
    (root / "config.json").write_bytes(b"{ }")
    with pytest.raises(ConflictError, match="changed"):
        catalog.get(job.kind).run(ctx, job, lambda stage, done: None)
    ctx.engine.dispose()


def test_cancelling_ends_the_fetching(tmp_path: Path, root: Path) -> None:
    ctx = context(tmp_path, import_roots=(root,))
    upload = imports.create(ctx, model="m", reference=str(root), actor="ana")
    uploads.cancel(ctx, upload.id, actor="ana")
    assert jobs.search(ctx).items[0].state == "cancelled"
    waiting = imports.create(ctx, model="m", reference=str(root), actor="ana")
    jobs.cancel(ctx, str(waiting.job_id), actor="ana")
    uploads.settle(ctx)
    assert uploads.get(ctx, waiting.id).state == UploadState.CANCELLED
    ctx.engine.dispose()


def test_a_bucket_is_read_through_fsspec(tmp_path: Path, root: Path) -> None:
    ctx = context(tmp_path, import_urls=("memory://bucket/",))
    memory = fsspec.filesystem("memory")
    memory.put(f"{root}/", "/bucket/run-7", recursive=True)
    try:
        upload = fetch(ctx, "memory://bucket/run-7")
        assert (upload.state, content(ctx, upload)) == (UploadState.CHECKING, of(root))
        single = fetch(ctx, "memory://bucket/run-7/config.json")
        assert content(ctx, single) == {"config.json": b"{}"}
        missing = fetch(ctx, "memory://bucket/nobody")
        assert missing.state == UploadState.REJECTED
    finally:
        memory.rm("/bucket", recursive=True)
    ctx.engine.dispose()


def test_what_a_bucket_s_library_raises_is_said_plainly(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore's errors are no OSError."""

    class NoCredentialsError(Exception):
        """As botocore has it."""

    def refused(*_: Any, **__: Any) -> None:
        raise NoCredentialsError("Unable to locate credentials")

    memory = fsspec.filesystem("memory")
    memory.put(f"{root}/", "/bucket/run-7", recursive=True)
    source = sources.Bucket("memory://bucket/run-7")
    try:
        name = source.files()[0].path
        for method in ("open", "find", "info"):
            with monkeypatch.context() as patched:
                patched.setattr(type(memory), method, refused)
                fresh = source if method == "open" else sources.Bucket("memory://bucket/run-7/config.json")
                if method == "find":
                    fresh = sources.Bucket("memory://bucket/run-7")
                with pytest.raises(UnavailableError, match="Unable to locate credentials"):
                    list(fresh.blocks(name))
        with monkeypatch.context() as patched:
            patched.setattr(type(memory), "find", lambda *_, **__: {"/bucket/run-7/a": {"size": None}})
            with pytest.raises(InvalidInputError, match="not known how large"):
                sources.Bucket("memory://bucket/run-7").files()
    finally:
        memory.rm("/bucket", recursive=True)


def test_uploads_by_reference_have_the_limits_of_all_uploads(tmp_path: Path, root: Path) -> None:
    ctx = context(tmp_path, import_roots=(root,), max_upload_bytes=1000)
    upload = fetch(ctx, root)
    assert upload.reason is not None
    assert "at most 1000 are taken" in upload.reason.message
    assert TooLargeError.code == "too_large"
    ctx.engine.dispose()


class Web(BaseHTTPRequestHandler):
    """Serves /models/model.pt; other paths redirect, or say nothing of their size."""

    body = os.urandom(50_000)

    def do_GET(self) -> None:
        moves = {"/models/near": "/models/model.pt", "/models/far": "/private/model.pt"}
        if self.path in moves:
            self.send_response(302)
            self.send_header("Location", moves[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200 if self.path != "/models/nobody" else 404)
        if self.path != "/models/endless":
            self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_web_server_s_file_and_redirects(tmp_path: Path, web: str) -> None:
    ctx = context(tmp_path, import_urls=(f"{web}/models/",))
    for name in ("model.pt", "near"):
        upload = fetch(ctx, f"{web}/models/{name}")
        assert content(ctx, upload) == {name: Web.body}
    for name, words in (("far", "not allowed"), ("nobody", "404"), ("endless", "how large")):
        upload = fetch(ctx, f"{web}/models/{name}")
        assert upload.state == UploadState.REJECTED
        assert upload.reason is not None
        assert words in upload.reason.message
    ctx.engine.dispose()
