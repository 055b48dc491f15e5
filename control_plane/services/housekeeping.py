"""What is left behind, by crashes and by time, and may go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from control_plane.registry import jobs as job_rows
from control_plane.registry import session as sessions
from control_plane.registry import versions
from control_plane.registry.artifacts import ArtifactStore
from control_plane.services import (
    comparison,
    debug_folders,
    optimization_folders,
    profile_folders,
    registration,
    uploads,
)
from control_plane.services.context import Context

TEMPORARY_KEPT_S: Final = 24 * 3600.0
"""What is still being written after this long is not: its writer died."""


@dataclass(frozen=True, slots=True)
class Tidied:
    """What was removed: uploads that waited too long, half-written artefacts, artefacts without a version,
    comparisons (how many) of artefacts that are gone."""

    uploads: tuple[str, ...]
    temporary_folders: int
    artifacts: tuple[str, ...]
    comparisons: int
    trials: int
    """Folders of optimisation jobs whose variants nobody registered in time."""
    debug_runs: int = 0
    """Runs of the debugger whose time is over."""
    profiles: int = 0
    """Reports whose time is over, or for which there is no room."""


def tidy(ctx: Context, now: float) -> Tidied:
    """Remove what nothing needs any more. Safe at any time, beside any other call."""
    store = ArtifactStore(ctx.settings.artifacts_dir)
    return Tidied(
        uploads=uploads.expire(ctx, now),
        temporary_folders=store.clean(now, TEMPORARY_KEPT_S),
        artifacts=tuple(
            digest for digest in _unnamed(ctx, store) if registration.remove_unnamed(ctx, digest)
        ),
        comparisons=comparison.forget(ctx, now - TEMPORARY_KEPT_S),
        trials=optimization_folders.forget(
            ctx.settings, now - optimization_folders.KEPT_S, working=_working(ctx)
        ),
        debug_runs=debug_folders.expire(ctx, now),
        profiles=profile_folders.expire(ctx, now),
    )


def _working(ctx: Context) -> frozenset[str]:
    """Ids of jobs that may still need their folder."""
    with sessions.read(ctx.engine) as session:
        return job_rows.unfinished(session)


def _unnamed(ctx: Context, store: ArtifactStore) -> list[str]:
    with sessions.read(ctx.engine) as session:
        return [digest for digest in store.digests() if not versions.digest_is_named(session, digest)]
