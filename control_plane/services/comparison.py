"""Two versions side by side: what the registry knows at once, weights as soon as a job has read them.

What a job found is kept per pair of artefacts, which never change, in `comparisons/` of the home folder.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy.orm import Session

from control_plane.domain.comparison import (
    Comparison,
    Difference,
    Weights,
    WeightsComparison,
    json_changes,
)
from control_plane.domain.job import JobState
from control_plane.domain.views import JobView, VersionDetail
from control_plane.errors import ConflictError, NotFoundError
from control_plane.registry import jobs as job_rows
from control_plane.registry import session as sessions
from control_plane.registry.artifacts import ArtifactStore
from control_plane.registry.tables import Artifact, Job
from control_plane.services import catalogs, jobs, versions
from control_plane.services.context import Context

KIND: Final = "compare"
FOLDER: Final = "comparisons"
MAX_JSON_BYTES: Final = 1024 * 1024
CONFIGS: Final = ("config.json", "generation_config.json", "architecture.json")
"""JSON files of an artefact whose values are compared."""
_COMPARISON: Final = re.compile(r"([0-9a-f]{64})-([0-9a-f]{64})\.json")
_HALF_WRITTEN: Final = re.compile(r"\.[0-9a-f]{32}")
"""Names in the folder."""
_RECENT: Final = 200
"""Comparison jobs that are looked through for one pair."""


def compare(ctx: Context, a: str, b: str) -> Comparison:
    """All that is known of how versions *a* and *b* differ. Raises NotFoundError, InvalidInputError."""
    one, other = versions.get(ctx, a), versions.get(ctx, b)
    return Comparison(
        a=one.ref,
        b=other.ref,
        identical=one.digest == other.digest,
        metadata=_metadata(one, other),
        files=_files(one, other),
        config={name: changes for name in CONFIGS if (changes := _config(ctx, name, one, other))},
        weights=_weights(ctx, one, other),
    )


def start(ctx: Context, a: str, b: str, *, actor: str) -> JobView | None:
    """Have the weights of *a* and *b* compared; None when that is done. A job under way is returned as it is.

    Raises ConflictError where there are no weights to compare.
    """
    one, other = versions.get(ctx, a), versions.get(ctx, b)
    weights = _weights(ctx, one, other)
    if weights.state == "none":
        raise ConflictError(f"There are no weights to compare: {weights.sentence}")
    if weights.state == "ready":
        return None
    params = dict(zip(("a", "b"), _pair(one, other), strict=True))
    with sessions.write(ctx.engine) as session:
        sessions.lock(session, _key(*_pair(one, other)))
        job = _job(session, params)
        if job is None or job.state not in (JobState.QUEUED, JobState.RUNNING):
            subject = f"{one.ref} and {other.ref}"
            job = jobs.queue(session, KIND, subject=subject, params=params, actor=actor)
        return jobs.view(job)


def stored(ctx: Context, digest: str) -> tuple[Path, tuple[str, ...]]:
    """Folder and file names of an artefact. Raises NotFoundError when it is gone."""
    store = ArtifactStore(ctx.settings.artifacts_dir)
    with sessions.read(ctx.engine) as session:
        row = session.get(Artifact, digest)
    if row is None or not store.holds(digest):
        raise NotFoundError(f"Artefact {digest} is gone")
    return store.folder(digest), tuple(file["path"] for file in row.files)


def keep(ctx: Context, a: str, b: str, found: WeightsComparison) -> None:
    """Keep how the weights of artefacts *a* and *b* (digests) differ."""
    path = _path(ctx, *sorted((a, b)))
    path.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    temporary.write_bytes(msgspec.json.encode(_ordered(found, swapped=a > b)))
    temporary.rename(path)


def forget(ctx: Context, before: float) -> int:
    """Remove comparisons of artefacts that are gone, and half-written ones; how many those were.

    before: one that was begun earlier, in seconds since the epoch, and is still half-written, has no writer.
    """
    store = ArtifactStore(ctx.settings.artifacts_dir)
    folder = ctx.settings.root / FOLDER
    stale = [
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if _is_half_written(path, before) or not _is_wanted(path, store)
    ]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def _is_half_written(path: Path, before: float) -> bool:
    try:
        return _HALF_WRITTEN.fullmatch(path.name) is not None and path.stat().st_mtime < before
    except FileNotFoundError:  # its writer has just finished it
        return False


def _is_wanted(path: Path, store: ArtifactStore) -> bool:
    """Whether it is no comparison of ours, or one of artefacts that are there."""
    pair = _COMPARISON.fullmatch(path.name)
    return pair is None or all(store.holds(f"sha256:{digest}") for digest in pair.groups())


# -- what the registry knows --------------------------------------------------------------------------------


def _metadata(a: VersionDetail, b: VersionDetail) -> tuple[Difference, ...]:
    left, right = _known(a), _known(b)
    names = dict.fromkeys((*left, *right))
    return tuple(Difference(name, left.get(name), right.get(name)) for name in names)


def _known(version: VersionDetail) -> dict[str, Any]:
    """What a comparison shows of a version's row, by name: its own facts, then details and lineage."""
    return {
        "format": version.format,
        "handler": version.handler,
        "size_bytes": version.size_bytes,
        "digest": version.digest,
        "parent": version.parent,
        "created_by": version.created_by,
        "created_at": version.created_at,
        "inputs": _sides(version, "inputs"),
        "outputs": _sides(version, "outputs"),
        "labels": len(version.labels),
        "gate_version": version.gate_version,
        "decision": version.decision,
        **{f"details.{name}": value for name, value in version.details.items()},
        **{f"lineage.{name}": value for name, value in version.lineage.items() if _is_plain(value)},
    }


def _sides(version: VersionDetail, side: str) -> list[str]:
    specs = getattr(version.signature, side)
    return [f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in specs]


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _files(a: VersionDetail, b: VersionDetail) -> tuple[Difference, ...]:
    left, right = ({file.path: file.sha256 for file in each.files} for each in (a, b))
    return tuple(Difference(path, left.get(path), right.get(path)) for path in sorted({*left, *right}))


def _config(ctx: Context, name: str, a: VersionDetail, b: VersionDetail) -> tuple[Difference, ...]:
    return json_changes(_json(ctx, name, a), _json(ctx, name, b))


def _json(ctx: Context, name: str, version: VersionDetail) -> Any:
    """The artefact's JSON file *name*; None where it has none or it is too large to be a configuration."""
    if not any(file.path == name and file.size_bytes <= MAX_JSON_BYTES for file in version.files):
        return None
    try:
        return json.loads(
            (ArtifactStore(ctx.settings.artifacts_dir).folder(version.digest) / name).read_bytes()
        )
    except (OSError, ValueError, RecursionError):
        return None


# -- weights ------------------------------------------------------------------------------------------------


def _weights(ctx: Context, a: VersionDetail, b: VersionDetail) -> Weights:
    without = [each for each in (a, b) if not _has_weights(each)]
    if without:
        return Weights("none", _why_none(without))
    first, second = _pair(a, b)
    found = _kept(ctx, first, second)
    if found is not None:
        compared = _ordered(found, swapped=a.digest != first)
        sentence = f"Tensors compared: {len(compared.tensors)}"
        return Weights("ready", sentence, None, compared, compared.counts(), compared.max_difference)
    with sessions.read(ctx.engine) as session:
        job = _job(session, {"a": first, "b": second})
        return _unfinished(None if job is None else jobs.view(job))


def _unfinished(job: JobView | None) -> Weights:
    if job is None or job.state in (JobState.SUCCEEDED, JobState.CANCELLED):
        return Weights("missing", "Nobody has had the weights compared yet")
    if job.state == JobState.FAILED:
        why = job.reason.message if job.reason else "no reason given"
        return Weights("failed", f"The comparison failed: {why}", job.id)
    return Weights("running", "The weights are being compared", job.id)


def _has_weights(version: VersionDetail) -> bool:
    return any(file.path.endswith(".safetensors") for file in version.files)


def _why_none(versions_without: Iterable[VersionDetail]) -> str:
    """Programs hide their weights: reading them would mean running them."""
    titles = {each.name: each.title for each in catalogs.formats()}
    said = [f"{each.ref} is {titles.get(each.format, each.format)}" for each in versions_without]
    return f"{' and '.join(said)}: compared by metadata and files only"


def _pair(a: VersionDetail, b: VersionDetail) -> tuple[str, str]:
    first, second = sorted((a.digest, b.digest))
    return first, second


def _job(session: Session, params: Mapping[str, Any]) -> Job | None:
    """The newest comparison of that pair."""
    rows, _ = job_rows.page(session, state=None, kind=KIND, offset=0, limit=_RECENT)
    return next((row for row in rows if row.params == params), None)


def _key(first: str, second: str) -> str:
    return "-".join(digest.removeprefix("sha256:") for digest in (first, second))


def _path(ctx: Context, first: str, second: str) -> Path:
    return ctx.settings.root / FOLDER / f"{_key(first, second)}.json"


def _kept(ctx: Context, first: str, second: str) -> WeightsComparison | None:
    try:
        return msgspec.json.decode(_path(ctx, first, second).read_bytes(), type=WeightsComparison)
    except (OSError, msgspec.DecodeError):
        return None


def _ordered(found: WeightsComparison, *, swapped: bool) -> WeightsComparison:
    if not swapped:
        return found
    turned = tuple(msgspec.structs.replace(each, a=each.b, b=each.a) for each in found.tensors)
    return msgspec.structs.replace(found, tensors=turned)
