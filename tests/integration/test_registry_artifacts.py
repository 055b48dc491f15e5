"""The artefact store: one copy, whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from control_plane.errors import InvalidInputError, NotFoundError
from control_plane.registry.artifacts import ArtifactStore, StoredArtifact, digest_of
from tests.fakes.registry import files


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = files(tmp_path / "source", model=b"weights", config=b"{}")
    files(folder / "nested", tokens=b"abc")
    return folder


def test_the_same_content_is_kept_once_whatever_its_source(
    store: ArtifactStore, source: Path, tmp_path: Path
) -> None:
    first = store.ingest(source)
    other = files(tmp_path / "other", config=b"{}", model=b"weights")
    files(other / "nested", tokens=b"abc")
    assert store.ingest(other) == first
    assert list(store.digests()) == [first.digest]
    assert [file.path for file in first.files] == ["config.bin", "model.bin", "nested/tokens.bin"]
    assert first.size_bytes == 12
    assert store.verify(first) == ()


def test_files_are_read_only_and_the_source_stays(store: ArtifactStore, source: Path) -> None:
    folder = store.folder(store.ingest(source).digest)
    assert (folder / "model.bin").stat().st_mode & 0o777 == 0o444
    assert (source / "model.bin").read_bytes() == b"weights"


def test_names_and_places_count_for_the_digest(store: ArtifactStore, tmp_path: Path) -> None:
    first = store.ingest(files(tmp_path / "a", model=b"x"))
    second = store.ingest(files(tmp_path / "b", weights=b"x"))
    assert first.digest != second.digest
    assert digest_of(first.files) == first.digest


def test_a_file_system_without_hard_links_is_copied_to(
    store: ArtifactStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    artifact = store.ingest(source)
    assert store.verify(artifact) == ()
    assert (source / "model.bin").stat().st_nlink == 1


def test_a_file_of_somebody_else_is_copied_in_place_of_the_link(
    store: ArtifactStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chmod = Path.chmod

    def only_ours(self: Path, mode: int) -> None:
        if self.stat().st_nlink > 1:
            raise PermissionError(1, "Operation not permitted")
        chmod(self, mode)

    monkeypatch.setattr(Path, "chmod", only_ours)
    artifact = store.ingest(source)
    assert store.verify(artifact) == ()
    stored = store.folder(artifact.digest) / "model.bin"
    assert (stored.stat().st_nlink, stored.stat().st_mode & 0o777) == (1, 0o444)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.bin").write_bytes(b"weighty"),
        lambda folder: (folder / "model.bin").write_bytes(b"short"),
        lambda folder: (folder / "model.bin").unlink(),
        lambda folder: (folder / "planted.py").write_bytes(b""),
        lambda folder: (folder / "link").symlink_to("/etc/passwd"),
    ],
    ids=["other bytes", "shorter", "missing", "added", "link"],
)
def test_the_right_files_repair_a_damaged_artefact(
    store: ArtifactStore, source: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    again = shutil.copytree(source, tmp_path / "again")
    artifact = store.ingest(source)
    (store.folder(artifact.digest) / "model.bin").chmod(0o644)
    damage(store.folder(artifact.digest))
    assert store.ingest(again) == artifact
    assert store.verify(artifact) == ()
    assert list((tmp_path / "artifacts" / "tmp").iterdir()) == []


def test_a_sound_artefact_stays_as_it_is(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    again = shutil.copytree(source, tmp_path / "again")
    artifact = store.ingest(source)
    before = (store.folder(artifact.digest) / "model.bin").stat().st_ino
    store.ingest(again)
    assert (store.folder(artifact.digest) / "model.bin").stat().st_ino == before


def test_links_and_empty_folders_are_refused(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    (source / "link").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInputError, match="link"):
        store.ingest(source)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InvalidInputError, match="no file"):
        store.ingest(empty)
    assert list(store.digests()) == []
    assert list((tmp_path / "artifacts" / "tmp").iterdir()) == []


def test_verify_finds_changed_missing_and_extra_files(store: ArtifactStore, source: Path) -> None:
    artifact = store.ingest(source)
    folder = store.folder(artifact.digest)
    (folder / "model.bin").chmod(0o644)
    (folder / "model.bin").write_bytes(b"weighty")
    (folder / "config.bin").unlink()
    (folder / "extra.bin").write_bytes(b"")
    assert store.verify(artifact) == (
        "config.bin is missing",
        "model.bin holds other bytes",
        "extra.bin does not belong to it",
    )
    with pytest.raises(NotFoundError):
        store.verify(StoredArtifact("sha256:" + "0" * 64, 0, ()))


@pytest.mark.parametrize(
    "digest", ["", "sha256:../../x", "sha256:" + "0" * 63, "md5:" + "0" * 64, "sha256:" + "G" * 64]
)
def test_only_a_digest_leads_to_a_folder(store: ArtifactStore, digest: str) -> None:
    with pytest.raises(InvalidInputError):
        store.folder(digest)


def test_what_a_crash_left_goes_once_it_is_old(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    artifact = store.ingest(source)
    half = files(tmp_path / "artifacts" / "tmp" / "half", model=b"wei")
    now = time.time()
    assert store.clean(now, 3600) == 0
    assert store.clean(now + 7200, 3600) == 1
    assert not half.exists()
    assert store.holds(artifact.digest)


def test_deleting_twice_is_once(store: ArtifactStore, source: Path) -> None:
    digest = store.ingest(source).digest
    store.delete(digest)
    store.delete(digest)
    assert not store.holds(digest)


def _ingest_often(root: Path, source: Path, start: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    for _ in range(20):
        ArtifactStore(root).ingest(source)


def test_processes_that_race_keep_one_whole_copy(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(3)
    racers = [
        spawn.Process(target=_ingest_often, args=(tmp_path / "artifacts", source, start)) for _ in range(3)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0, 0, 0]
    assert store.verify(store.ingest(source)) == ()
    assert list((tmp_path / "artifacts" / "tmp").iterdir()) == []
