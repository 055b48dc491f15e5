"""Uploads: bytes to disk, what can go wrong on the way, and what people are asked."""

from __future__ import annotations

import errno
import hashlib
import shutil
import sqlite3
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event

from control_plane.domain.job import JobState
from control_plane.domain.upload import UploadState
from control_plane.domain.views import Reason
from control_plane.errors import (
    ConflictError,
    GoneError,
    InvalidInputError,
    LockedError,
    NoSpaceError,
    NotFoundError,
    TooLargeError,
)
from control_plane.registry import session as sessions
from control_plane.registry.artifacts import ArtifactStore
from control_plane.registry.tables import Upload, UploadedFile
from control_plane.services import (
    comparison,
    events,
    housekeeping,
    jobs,
    receiving,
    registration,
    tus,
    upload_checks,
    uploads,
    versions,
)
from control_plane.services.context import Context
from tests.fakes.registry import SIGNATURE, files, open_home, register

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    context = open_home(tmp_path / "home", disk_floor=0.1)
    yield context
    context.engine.dispose()


def disk(*free: int, total: int = 1000) -> Callable[[Path], Usage]:
    """A disk that has less and less free each time it is asked; the last figure stays."""
    left = list(free)

    def usage(_: Path) -> Usage:
        now = left.pop(0) if len(left) > 1 else left[0]
        return Usage(total, total - now, now)

    return usage


ROOMY = disk(1 << 40, total=1 << 41)


def begin(ctx: Context, *sizes: int) -> str:
    declared = [(f"part {number}.bin", size) for number, size in enumerate(sizes)]
    return uploads.create(ctx, model="digits", files=declared, actor="ana", usage=ROOMY).id


def send(ctx: Context, upload_id: str, path: str, data: bytes) -> None:
    with uploads.sink(ctx, upload_id, path, usage=ROOMY) as sink:
        sink.write(data)
        sink.commit()


def partials(ctx: Context, upload_id: str) -> list[Path]:
    return list((ctx.settings.uploads_dir / upload_id / "partial").glob("*"))


def in_check(ctx: Context) -> str:
    upload_id = begin(ctx, 1)
    send(ctx, upload_id, "part 0.bin", b"x")
    uploads.complete(ctx, upload_id, actor="ana")
    return upload_id


def test_bytes_are_hashed_on_their_way_and_lie_under_their_path(ctx: Context) -> None:
    upload = uploads.create(
        ctx, model="digits", files=[("a/b c/ünï.bin", 6)], actor="ana", usage=ROOMY, details={"epochs": 3}
    )
    with uploads.sink(ctx, upload.id, "a/b c/ünï.bin", usage=ROOMY) as sink:
        for piece in (b"abc", b"", b"def"):
            sink.write(piece)
        received = sink.commit()
    assert received == (6, hashlib.sha256(b"abcdef").hexdigest())
    assert (uploads.folder(ctx, upload.id) / "a" / "b c" / "ünï.bin").read_bytes() == b"abcdef"
    seen = uploads.get(ctx, upload.id)
    assert (seen.received_bytes, seen.files[0].sha256) == (6, received.sha256)
    assert partials(ctx, upload.id) == []


def test_a_cut_file_is_kept_and_can_be_sent_anew(ctx: Context) -> None:
    upload_id = begin(ctx, 6)
    with uploads.sink(ctx, upload_id, "part 0.bin", usage=ROOMY) as sink:
        sink.write(b"abc")
    waiting = uploads.get(ctx, upload_id)
    assert (waiting.state, waiting.received_bytes) == (UploadState.RECEIVING, 3)
    assert [part.read_bytes() for part in partials(ctx, upload_id)] == [b"abc"]
    send(ctx, upload_id, "part 0.bin", b"abcdef")
    send(ctx, upload_id, "part 0.bin", b"ABCDEF")
    assert partials(ctx, upload_id) == []
    assert (uploads.folder(ctx, upload_id) / "part 0.bin").read_bytes() == b"ABCDEF"
    assert uploads.complete(ctx, upload_id, actor="ana").state == UploadState.CHECKING


def test_a_cut_file_goes_on_where_it_stopped(ctx: Context) -> None:
    upload_id = begin(ctx, 6)
    with uploads.sink(ctx, upload_id, "part 0.bin", usage=ROOMY) as sink:
        sink.write(b"abc")
    transfer = tus.begin(ctx, upload_id, "part 0.bin", size_bytes=6)
    assert transfer.offset == 3
    received = tus.receive(ctx, transfer.id, offset=3, usage=ROOMY)
    received.write(b"def")
    assert received.commit() == (6, hashlib.sha256(b"abcdef").hexdigest())


@pytest.mark.parametrize(("data", "error"), [(b"1234567", TooLargeError), (b"12345", InvalidInputError)])
def test_too_many_and_too_few_bytes_are_refused(ctx: Context, data: bytes, error: type[Exception]) -> None:
    upload_id = begin(ctx, 6)
    with pytest.raises(error):
        send(ctx, upload_id, "part 0.bin", data)
    assert not (uploads.folder(ctx, upload_id) / "part 0.bin").exists()


def test_the_disk_floor_is_checked_before_a_byte_is_taken(ctx: Context) -> None:
    with pytest.raises(NoSpaceError, match="must stay free") as caught:
        uploads.create(ctx, model="digits", files=[("a", 60)], actor="ana", usage=disk(150))
    assert caught.value.details == {"free_bytes": 150, "needed_bytes": 60}
    upload = uploads.create(ctx, model="digits", files=[("a", 60)], actor="ana", usage=disk(160))
    with pytest.raises(NoSpaceError):
        uploads.sink(ctx, upload.id, "a", usage=disk(150))
    assert uploads.get(ctx, upload.id).received_bytes == 0


def test_the_disk_floor_is_checked_while_bytes_come(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "CHECK_EVERY_BYTES", 10)
    upload_id = begin(ctx, 50)
    sink = uploads.sink(ctx, upload_id, "part 0.bin", usage=disk(900, 120))
    sink.write(b"x" * 10)
    with pytest.raises(NoSpaceError), sink:
        sink.write(b"x" * 10)
    waiting = uploads.get(ctx, upload_id)
    assert (waiting.state, waiting.received_bytes) == (UploadState.RECEIVING, 10)


def test_a_disk_that_is_full_says_so_and_what_was_safe_stays(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    upload_id = begin(ctx, 6)
    with uploads.sink(ctx, upload_id, "part 0.bin", usage=ROOMY) as sink:
        sink.write(b"abc")
        monkeypatch.setattr(receiving.PartFile, "write", full)
        with pytest.raises(NoSpaceError, match="disk is full"):
            sink.write(b"def")
    assert uploads.get(ctx, upload_id).received_bytes == 3


class Crashed(Exception):  # noqa: N818  stands for the end of a process
    """The process ended here."""


def test_a_file_that_was_put_in_its_place_just_before_a_crash_is_taken(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = receiving.PartFile.place

    def place_and_crash(self: receiving.PartFile, target: Path) -> None:
        place(self, target)
        raise Crashed

    upload_id = begin(ctx, 6)
    with monkeypatch.context() as crashing:
        crashing.setattr(receiving.PartFile, "place", place_and_crash)
        with pytest.raises(Crashed):
            send(ctx, upload_id, "part 0.bin", b"abcdef")
    (file,) = uploads.get(ctx, upload_id).files
    assert (file.received_bytes, file.sha256, file.transfer_id is None) == (6, None, False)
    assert tus.find(ctx, str(file.transfer_id)).offset == 6
    assert uploads.complete(ctx, upload_id, actor="ana").state == UploadState.CHECKING
    assert uploads.get(ctx, upload_id).files[0].sha256 == hashlib.sha256(b"abcdef").hexdigest()
    assert (uploads.folder(ctx, upload_id) / "part 0.bin").read_bytes() == b"abcdef"
    assert partials(ctx, upload_id) == []


def test_ending_a_transfer_leaves_what_others_send_anew_meanwhile(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = receiving.PartFile.remove

    def remove_slowly(self: receiving.PartFile) -> None:
        remove(self)
        monkeypatch.setattr(receiving.PartFile, "remove", remove)
        send(ctx, upload_id, "part 0.bin", b"new!")

    upload_id = begin(ctx, 4)
    send(ctx, upload_id, "part 0.bin", b"old!")
    monkeypatch.setattr(receiving.PartFile, "remove", remove_slowly)
    tus.terminate(ctx, str(uploads.get(ctx, upload_id).files[0].transfer_id))
    assert uploads.get(ctx, upload_id).files[0].sha256 == hashlib.sha256(b"new!").hexdigest()
    assert (uploads.folder(ctx, upload_id) / "part 0.bin").read_bytes() == b"new!"


def test_ending_a_transfer_removes_its_whole_file(ctx: Context) -> None:
    upload_id = begin(ctx, 4)
    send(ctx, upload_id, "part 0.bin", b"old!")
    tus.terminate(ctx, str(uploads.get(ctx, upload_id).files[0].transfer_id))
    assert not (uploads.folder(ctx, upload_id) / "part 0.bin").exists()
    assert partials(ctx, upload_id) == []


def test_sending_one_file_reads_no_rows_of_the_others(ctx: Context) -> None:
    upload_id = begin(ctx, *[1] * 30)
    loaded: list[str] = []

    def note(file: UploadedFile, _: object) -> None:
        loaded.append(file.path)

    event.listen(UploadedFile, "load", note)
    try:
        transfer = tus.begin(ctx, upload_id, "part 7.bin", size_bytes=1)
        received = tus.receive(ctx, transfer.id, offset=0, usage=ROOMY)
        received.write(b"x")
        received.commit()
        tus.terminate(ctx, transfer.id)
    finally:
        event.remove(UploadedFile, "load", note)
    assert set(loaded) == {"part 7.bin"}


def test_what_cannot_be_is_refused_at_once(ctx: Context) -> None:
    def create(**changes: object) -> None:
        given = {"model": "digits", "files": [("a", 1)], "actor": "ana", "usage": ROOMY, **changes}
        uploads.create(ctx, **given)  # type: ignore[arg-type]

    for bad in ({"model": "../x"}, {"files": []}, {"files": [("../a", 1)]}, {"files": [("a", -1)]}):
        with pytest.raises(InvalidInputError):
            create(**bad)
    with pytest.raises(InvalidInputError, match="empty"):
        create(files=[("a", 0)])
    with pytest.raises(InvalidInputError, match="no handler"):
        create(handler="os:system")
    with pytest.raises(TooLargeError):
        create(files=[("a", 1 << 50)])
    assert uploads.recent(ctx).total == 0


def test_only_declared_files_of_a_receiving_upload_are_taken(ctx: Context) -> None:
    upload_id = begin(ctx, 1)
    for path in ("other.bin", "../part 0.bin", "/etc/passwd", "part 0.bin/../part 0.bin"):
        with pytest.raises(NotFoundError):
            uploads.sink(ctx, upload_id, path)
    for unknown in ("0" * 32, "../" + upload_id, ""):
        with pytest.raises(NotFoundError):
            uploads.sink(ctx, unknown, "part 0.bin")
    uploads.cancel(ctx, upload_id, actor="ana")
    with pytest.raises(ConflictError):
        uploads.sink(ctx, upload_id, "part 0.bin")


def test_completing_names_what_is_missing_and_is_idempotent(ctx: Context) -> None:
    upload_id = begin(ctx, 1, 1)
    send(ctx, upload_id, "part 0.bin", b"x")
    with pytest.raises(ConflictError, match=r"part 1\.bin") as caught:
        uploads.complete(ctx, upload_id, actor="ana")
    assert caught.value.details["missing"] == ["part 1.bin"]
    send(ctx, upload_id, "part 1.bin", b"x")
    first = uploads.complete(ctx, upload_id, actor="ana")
    assert uploads.complete(ctx, upload_id, actor="ana").job_id == first.job_id
    assert jobs.search(ctx, kind="check").total == 1


def test_acceptance_is_recorded_with_who_and_when(ctx: Context) -> None:
    upload_id = in_check(ctx)
    upload_checks.ask(ctx, upload_id, {"format": "torchscript", "program": True}, ["acceptance", "signature"])
    waiting = uploads.get(ctx, upload_id)
    assert (waiting.state, waiting.needs, waiting.program) == (
        UploadState.NEEDS_INPUT, ("acceptance", "signature"), True,
    )  # fmt: skip
    before = time.time()
    half = uploads.answer(ctx, upload_id, actor="bo", accept_program=True)
    assert (half.state, half.needs) == (UploadState.NEEDS_INPUT, ("signature",))
    whole = uploads.answer(ctx, upload_id, actor="bo", signature=SIGNATURE, labels=["zero"])
    assert (whole.state, whole.program_accepted_by) == (UploadState.CHECKING, "bo")
    given = upload_checks.declared(ctx, upload_id)
    assert given.program_accepted_at is not None
    assert before <= given.program_accepted_at <= time.time()
    assert (given.signature, given.labels) == (SIGNATURE, ("zero",))
    assert "upload.program_accepted" in [event.action for event in events.search(ctx, actor="bo").items]


def test_a_rejected_upload_says_why_and_keeps_no_file(ctx: Context) -> None:
    upload_id = in_check(ctx)
    reason = Reason("full_module_pickle", "It is a pickled module", "Save a state dict", "part 0.bin")
    upload_checks.reject(ctx, upload_id, reason)
    upload_checks.reject(ctx, upload_id, reason)
    assert uploads.get(ctx, upload_id).reason == reason
    assert not uploads.folder(ctx, upload_id).exists()
    with pytest.raises(ConflictError):
        uploads.cancel(ctx, upload_id, actor="ana")


def test_cancelling_ends_the_job_too(ctx: Context) -> None:
    upload_id = in_check(ctx)
    uploads.cancel(ctx, upload_id, actor="bo")
    assert uploads.cancel(ctx, upload_id, actor="bo").state == UploadState.CANCELLED
    assert jobs.search(ctx).items[0].state == JobState.CANCELLED
    folder = files(ctx.settings.root / "late", model=b"x")
    with pytest.raises(ConflictError, match="cancelled"):
        registration.register(
            ctx, model="digits", files_dir=folder, format="torchscript", handler="tensor",
            signature=SIGNATURE, actor="ana", upload_id=upload_id,
        )  # fmt: skip
    assert versions.search(ctx).total == 0


def test_idle_uploads_expire_and_others_stay(ctx: Context) -> None:
    idle, busy = begin(ctx, 1), begin(ctx, 1)
    with sessions.write(ctx.engine) as session:
        session.get_one(Upload, idle).updated_at -= 25 * 3600
    assert uploads.expire(ctx, time.time()) == (idle,)
    assert uploads.get(ctx, idle).state == UploadState.CANCELLED
    assert uploads.get(ctx, busy).state == UploadState.RECEIVING


def test_an_upload_whose_job_waits_for_its_turn_is_not_idle(ctx: Context) -> None:
    upload_id = begin(ctx, 1)
    job = jobs.submit(ctx, "example", subject="digits", params={}, actor="ana")
    with sessions.write(ctx.engine) as session:
        row = session.get_one(Upload, upload_id)
        row.job_id, row.updated_at = job.id, row.updated_at - 25 * 3600
    assert uploads.expire(ctx, time.time()) == ()
    assert jobs.claim(ctx, 1, 1.0)
    assert uploads.expire(ctx, time.time()) == ()
    jobs.finish(ctx, job.id, {})
    assert uploads.expire(ctx, time.time()) == (upload_id,)


def test_tidying_removes_only_what_nothing_names(ctx: Context) -> None:
    register(ctx)
    kept = versions.get(ctx, "digits@1").digest
    store = ArtifactStore(ctx.settings.artifacts_dir)
    orphan = store.ingest(files(ctx.settings.root / "orphan", model=b"nobody's")).digest
    tidied = housekeeping.tidy(ctx, time.time())
    assert tidied.artifacts == (orphan,)
    assert list(store.digests()) == [kept]


def test_tidying_passes_over_names_that_are_not_ours(ctx: Context) -> None:
    register(ctx)
    names = [
        ctx.settings.artifacts_dir / "sha256" / "ab" / ".nfs0001",
        ctx.settings.root / comparison.FOLDER / "notes.json",
    ]
    for name in names:
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_bytes(b"")
    tidied = housekeeping.tidy(ctx, time.time())
    assert (tidied.artifacts, tidied.comparisons) == ((), 0)
    assert all(name.exists() for name in names)


def test_a_comparison_that_a_crash_left_half_written_goes_once_it_is_old(ctx: Context) -> None:
    half = ctx.settings.root / comparison.FOLDER / f".{'0' * 32}"
    half.parent.mkdir()
    half.write_bytes(b"{")
    now = time.time()
    assert housekeeping.tidy(ctx, now).comparisons == 0
    assert housekeeping.tidy(ctx, now + housekeeping.TEMPORARY_KEPT_S + 60).comparisons == 1
    assert not half.exists()


def test_large_files_are_removed_when_others_may_write_again(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = register(ctx)
    removed: list[Path] = []

    def remove_while_another_writes(folder: Path, ignore_errors: bool = False) -> None:
        with closing(sqlite3.connect(str(ctx.engine.url.database), timeout=0)) as another:
            another.execute("BEGIN IMMEDIATE")
        removed.append(folder)
        rmtree(folder, ignore_errors)

    rmtree = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", remove_while_another_writes)
    versions.delete(ctx, ref, actor="ana")
    assert [folder.exists() for folder in removed] == [False]


def test_an_artefact_deleted_while_it_is_registered_is_stored_again(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest, deletions = ArtifactStore.ingest, []

    def ingest_then_lose(self: ArtifactStore, source: Path) -> object:
        artifact = ingest(self, source)
        if not deletions:
            deletions.append(registration.remove_unnamed(ctx, artifact.digest))
        return artifact

    monkeypatch.setattr(ArtifactStore, "ingest", ingest_then_lose)
    ref = register(ctx)
    assert deletions == [True]
    assert ArtifactStore(ctx.settings.artifacts_dir).holds(versions.get(ctx, ref).digest)


def test_bytes_cannot_be_swapped_once_the_upload_is_complete(ctx: Context) -> None:
    upload = uploads.create(ctx, model="m", files=[("model.pt", 3)], actor="ana")
    first = uploads.sink(ctx, upload.id, "model.pt")
    with pytest.raises(LockedError):
        uploads.sink(ctx, upload.id, "model.pt")
    first.write(b"AAA")
    first.commit()
    uploads.complete(ctx, upload.id, actor="ana")
    with pytest.raises(ConflictError):
        uploads.sink(ctx, upload.id, "model.pt")
    assert (uploads.folder(ctx, upload.id) / "model.pt").read_bytes() == b"AAA"


def test_bytes_that_come_after_the_upload_was_completed_otherwise_change_nothing(ctx: Context) -> None:
    upload = uploads.create(ctx, model="m", files=[("model.pt", 3)], actor="ana")
    late = uploads.sink(ctx, upload.id, "model.pt")
    late.write(b"EVL")
    with sessions.write(ctx.engine) as session:
        session.get_one(Upload, upload.id).state = UploadState.CHECKING
    with pytest.raises(GoneError):
        late.commit()
    assert not (uploads.folder(ctx, upload.id) / "model.pt").exists()


def test_upload_whose_check_was_cancelled_in_the_queue_ends_too(ctx: Context) -> None:
    upload = uploads.create(ctx, model="m", files=[("model.pt", 1)], actor="ana")
    with uploads.sink(ctx, upload.id, "model.pt") as sink:
        sink.write(b"A")
        sink.commit()
    waiting = uploads.complete(ctx, upload.id, actor="ana")
    uploads.settle(ctx)
    assert uploads.get(ctx, upload.id).state == "checking"
    jobs.cancel(ctx, str(waiting.job_id), actor="ben")
    uploads.settle(ctx)
    assert uploads.get(ctx, upload.id).state == "cancelled"
    assert not uploads.folder(ctx, upload.id).exists()


def test_upload_whose_check_died_too_often_says_so(ctx: Context) -> None:
    upload = uploads.create(ctx, model="m", files=[("model.pt", 1)], actor="ana")
    with uploads.sink(ctx, upload.id, "model.pt") as sink:
        sink.write(b"A")
        sink.commit()
    uploads.complete(ctx, upload.id, actor="ana")
    for _ in range(jobs.MAX_ATTEMPTS):
        assert jobs.claim(ctx, 1, 1.0)
        jobs.recover_lost(ctx, lambda pid, started: False)
    uploads.settle(ctx)
    done = uploads.get(ctx, upload.id)
    assert (done.state, done.reason.code if done.reason else "") == ("rejected", "check-failed")


def test_processes_that_we_end_ourselves_cost_a_job_no_attempt(ctx: Context) -> None:
    job = jobs.submit(ctx, "example", subject="digits", params={}, actor="ana")
    for _ in range(jobs.MAX_ATTEMPTS + 2):
        assert jobs.claim(ctx, 1, 1.0)
        jobs.recover_lost(ctx, lambda pid, started: False, counted=False)
    assert (jobs.get(ctx, job.id).state, jobs.get(ctx, job.id).attempt) == ("queued", 0)


def test_a_check_is_not_submitted_by_hand(ctx: Context) -> None:
    with pytest.raises(InvalidInputError, match="example"):
        jobs.submit(ctx, "check", subject="x", params={}, actor="ana")
