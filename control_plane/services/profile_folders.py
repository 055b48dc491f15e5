"""Where reports of profiles lie, below `<home>/profiles`, and when they go.

    <id>/report.json, trace.json.gz, speedscope.json   a whole report
    <id>.part/                                         one that is being written

Reports go when their time is over, or when all of them together take too much: then the oldest first.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from control_plane.config import Settings
from control_plane.errors import GoneError, NotFoundError
from control_plane.registry import profile_reports
from control_plane.registry import session as sessions
from control_plane.registry.tables import ProfileReport
from control_plane.services.context import Context
from serving_agent.contract.profile import REPORT, SPEEDSCOPE, TRACE, Report

FILES: Final = (REPORT, TRACE, SPEEDSCOPE)
ORPHANED_S: Final = 3600.0
"""A folder that no report has for so long is what a crash left behind."""
_NAME: Final = re.compile(r"[0-9a-f]{32}")


def of_report(settings: Settings, report_id: str) -> Path:
    """The folder of one report. Raises NotFoundError for what is no report's id."""
    if not _NAME.fullmatch(report_id):
        raise NotFoundError(f"There is no profile {report_id[:80]!r}")
    return settings.profiles_dir / report_id


def begin(settings: Settings, report_id: str) -> Path:
    """An empty folder for a report under way; what an earlier start of its job left is gone."""
    part = _part(settings, report_id)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700, parents=True)
    return part


def finish(settings: Settings, report_id: str) -> int:
    """Make the report under way the report; how many bytes its files take."""
    folder = of_report(settings, report_id)
    shutil.rmtree(folder, ignore_errors=True)
    _part(settings, report_id).rename(folder)
    return sum(file.stat().st_size for file in folder.iterdir())


def abandon(settings: Settings, report_id: str) -> None:
    """Remove what is under way. Idempotent."""
    shutil.rmtree(_part(settings, report_id), ignore_errors=True)


def remove(settings: Settings, report_id: str) -> None:
    """Remove all files of a report. Idempotent."""
    abandon(settings, report_id)
    shutil.rmtree(of_report(settings, report_id), ignore_errors=True)


def names(settings: Settings, report_id: str) -> tuple[str, ...]:
    """Names of the report's files that are there."""
    folder = of_report(settings, report_id)
    return tuple(name for name in FILES if (folder / name).is_file())


def file(settings: Settings, report_id: str, name: str) -> Path:
    """One file of a report. Raises NotFoundError where it has none of that name."""
    path = of_report(settings, report_id) / name
    if name not in FILES or not path.is_file():
        raise NotFoundError(f"Profile {report_id} has no {name}: it was not taken")
    return path


def read(settings: Settings, report_id: str) -> Report:
    """The report. Raises GoneError."""
    path = of_report(settings, report_id) / REPORT
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (OSError, msgspec.MsgspecError) as error:
        raise GoneError(
            f"The files of profile {report_id} are gone", next_step="Delete it, and take it again."
        ) from error


@lru_cache(maxsize=8)
def _read(path: Path, changed_ns: int) -> Report:
    del changed_ns  # of another content
    return msgspec.json.decode(path.read_bytes(), type=Report)


def expire(ctx: Context, now: float) -> int:
    """Delete reports whose time is over or for which there is no room, and what crashes left; how many."""
    with sessions.write(ctx.engine) as session:
        over = list(profile_reports.expired(session, now))
        for row in over:
            session.delete(row)
        session.flush()
        crowded = _crowded_out(
            profile_reports.oldest(session),
            profile_reports.total_bytes(session) - ctx.settings.profile_total_bytes,
        )
        for row in crowded:
            session.delete(row)
        gone = [row.id for row in (*over, *crowded)]
    for report_id in gone:
        remove(ctx.settings, report_id)
    _remove_orphans(ctx, now)
    return len(gone)


def _crowded_out(oldest: Iterable[ProfileReport], excess: int) -> list[ProfileReport]:
    """The oldest reports that together take at least *excess* bytes."""
    chosen: list[ProfileReport] = []
    for row in oldest:
        if excess <= 0:
            break
        chosen.append(row)
        excess -= row.size_bytes
    return chosen


def _remove_orphans(ctx: Context, now: float) -> None:
    folder = ctx.settings.profiles_dir
    old = [path for path in folder.glob("*") if now - _changed_at(path) > ORPHANED_S]
    if not old:
        return
    with sessions.read(ctx.engine) as session:
        known = profile_reports.ids(session)
    for path in old:
        if path.name not in known and path.name.removesuffix(".part") not in known:
            shutil.rmtree(path, ignore_errors=True)


def _part(settings: Settings, report_id: str) -> Path:
    folder = of_report(settings, report_id)
    return folder.with_name(f"{folder.name}.part")


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
