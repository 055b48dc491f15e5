"""Where optimisation jobs keep what they work on, below `<home>/optimization/work`.

    <id of the job>/spent                 seconds that count against its minutes
    <id of the job>/trials/<n>/artefact   the variant's files
    <id of the job>/trials/<n>/built.json written last, and synced: the artefact is whole

A job that fails or is cancelled takes its folder along. One that succeeds leaves the artefacts of trials that
were measured, to be registered later; `services.housekeeping` removes them after KEPT_S.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from control_plane.config import Settings
from control_plane.errors import InvalidInputError

KEPT_S: Final = 7 * 24 * 3600.0
"""How long artefacts of trials are kept after the last change in their job's folder."""
BUILT: Final = "built.json"
ARTEFACT: Final = "artefact"
_NAME: Final = re.compile(r"[0-9a-f]{32}")


def work(settings: Settings) -> Path:
    """The folder of all jobs' folders."""
    return settings.optimization_dir / "work"


def of_job(settings: Settings, job_id: str) -> Path:
    """The folder of one job."""
    if not _NAME.fullmatch(job_id):
        raise InvalidInputError(f"{job_id[:80]!r} is not the id of a job")
    return work(settings) / job_id


def of_trial(folder: Path, number: int) -> Path:
    """The folder of one trial below its job's."""
    return folder / "trials" / str(number)


def is_built(folder: Path, number: int) -> bool:
    """Whether the trial's artefact is there, whole."""
    return (of_trial(folder, number) / BUILT).is_file()


def remove(settings: Settings, job_id: str) -> None:
    """Remove what a job worked on. Idempotent."""
    shutil.rmtree(of_job(settings, job_id), ignore_errors=True)


def forget(settings: Settings, before: float, *, working: frozenset[str]) -> int:
    """Remove folders that did not change since *before*, except those named *working*; how many."""
    stale = [
        folder
        for folder in work(settings).glob("*")
        if folder.name not in working and _changed_at(folder) < before
    ]
    for folder in stale:
        shutil.rmtree(folder, ignore_errors=True)
    return len(stale)


def _changed_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
