"""Writes the shards of a conversion one by one and remembers the finished ones."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from control_plane.admission import safetensors_writer
from control_plane.admission.base import WeightsFile
from control_plane.admission.safetensors_writer import Cast
from control_plane.nemo_rl import staging

JOURNAL: Final = "shards.json"
"""Beside the folder of the shards: {"plan": digest, "done": {name: sha256}}."""


@dataclass(frozen=True, slots=True)
class Written:
    """The shards that are there now."""

    digests: dict[str, str]
    """Name → sha256 in hexadecimal."""
    reused: int
    """How many of them an earlier attempt had finished."""
    size_bytes: int


def write(
    files: Sequence[WeightsFile],
    folder: Path,
    *,
    cast: Cast | None,
    progress: Callable[[int], object],
    source: str,
) -> Written:
    """Write *files* and, where they are several, their index into *folder*.

    A shard that an earlier call finished for the same plan, and whose sha256 is still the recorded one, is
    not made again. *progress* is told bytes written; whatever it raises ends the writing between two blocks
    and leaves the finished shards. Raises Refusal, OSError.
    """
    _remove_others(folder, {file.name for file in files})
    journal = _Journal(folder.parent / JOURNAL, plan_digest(files, cast))
    reused = size_bytes = 0
    for file in files:
        target = folder / file.name
        if journal.holds(file.name, target):
            reused += 1
            progress(target.stat().st_size)
        else:
            target.unlink(missing_ok=True)
            journal.note(file.name, _write(file, target, cast, progress, source))
        size_bytes += target.stat().st_size
    if len(files) > 1:
        (folder / safetensors_writer.INDEX).write_bytes(safetensors_writer.index(files, cast))
    return Written(dict(journal.done), reused, size_bytes)


def _remove_others(folder: Path, names: set[str]) -> None:
    """Remove shards of another plan."""
    for path in folder.glob("*.safetensors"):
        if path.name not in names:
            path.unlink()


def plan_digest(files: Sequence[WeightsFile], cast: Cast | None) -> str:
    """Return a sha256 over everything that decides the shards' bytes save the bytes of the sources."""
    digest = hashlib.sha256(repr(sorted(cast.targets.items()) if cast else ()).encode())
    for file in files:
        digest.update(repr((file.name, file.tensors)).encode())
    return digest.hexdigest()


def _write(
    file: WeightsFile, target: Path, cast: Cast | None, progress: Callable[[int], object], source: str
) -> str:
    digest = hashlib.sha256()
    safetensors_writer.write(
        file.tensors, target, cast=cast, progress=progress, observe=digest.update, source=source
    )
    with target.open("rb") as written:
        os.fsync(written.fileno())
    return digest.hexdigest()


class _Journal:
    """Which shards are finished; another plan begins anew."""

    def __init__(self, path: Path, plan: str) -> None:
        self._path = path
        self._plan = plan
        read = _read(path)
        self.done: dict[str, str] = dict(read["done"]) if read.get("plan") == plan else {}

    def holds(self, name: str, target: Path) -> bool:
        return name in self.done and target.is_file() and staging.sha256(target) == self.done[name]

    def note(self, name: str, digest: str) -> None:
        self.done[name] = digest
        part = self._path.with_name(self._path.name + staging.PART)
        part.write_text(json.dumps({"plan": self._plan, "done": self.done}))
        part.replace(self._path)


def _read(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
