"""Jobs: progress in words, and what may be done with one."""

from __future__ import annotations

from control_plane.domain.job import FINAL_STATES, JobState
from control_plane.domain.views import JobView
from control_plane.ui.viewmodels import quantities


def progress_words(job: JobView) -> str:
    """ "train digits@2 · 64 % · about 4.0 s left"."""
    if job.state == JobState.QUEUED:
        return "waiting for a free worker"
    parts = [job.stage] if job.stage else []
    if job.state == JobState.RUNNING:
        parts.append(f"{job.progress:.0%}".replace("%", " %"))
        if job.time_left_s is not None:
            parts.append(f"about {quantities.duration(max(1.0, job.time_left_s))} left")
    return " · ".join(parts)


def is_final(job: JobView) -> bool:
    """Whether a job has ended, one way or another."""
    return job.state in FINAL_STATES


def registered_versions(job: JobView) -> tuple[str, ...]:
    """`model@N` references in a job's result, in order."""
    found: list[str] = []
    for value in (job.result or {}).values():
        items = value if isinstance(value, list | tuple) else (value,)
        found += [item for item in items if isinstance(item, str) and "@" in item and " " not in item]
    return tuple(dict.fromkeys(found))
