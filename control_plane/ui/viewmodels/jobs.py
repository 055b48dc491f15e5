"""Jobs: titles, progress in words, and what may be done with one."""

from __future__ import annotations

from typing import Final

from control_plane.domain.job import FINAL_STATES, JobState, Lane
from control_plane.domain.optimization_orders import AUTOTUNE, OPTIMIZE, REGISTER
from control_plane.domain.profile import PROFILE, PROFILE_LIVE
from control_plane.domain.views import JobView
from control_plane.ui.viewmodels import quantities

_TITLES: Final = {
    AUTOTUNE: "Autotune",
    OPTIMIZE: "Optimise",
    REGISTER: "Register",
    PROFILE: "Profile",
    PROFILE_LIVE: "Profile",
}
_WAITS: Final = {
    Lane.MAIN: "waiting for a free worker",
    Lane.LAB: "waiting: jobs that measure run one at a time",
    Lane.DEBUG: "waiting: runs of the debugger go one at a time",
    Lane.LIVE: "waiting: live agents are profiled one at a time",
}
LAB_KINDS: Final = (AUTOTUNE, OPTIMIZE)
"""Kinds of jobs whose result the optimisation page shows."""
PROFILE_KINDS: Final = (PROFILE, PROFILE_LIVE)
"""Kinds of jobs whose result the profiling page shows."""


def kind_words(kind: str) -> str:
    """A kind's name for people."""
    return _TITLES.get(kind, kind.replace("_", " ").capitalize())


def title(job: JobView) -> str:
    """What a job does to what: "Optimise digits@2 by dynamic-int8", "Check ranker"."""
    return f"{kind_words(job.kind)} {job.subject}"


def parent_ref(job: JobView) -> str:
    """`model@N` that a job of the optimisation lab starts from: its subject reads "model@N by method"."""
    return job.subject.partition(" ")[0]


def progress_words(job: JobView) -> str:
    """ "train digits@2 · 64 % · about 4.0 s left"; of a waiting job its place in the queue."""
    if job.state == JobState.QUEUED:
        return f"{_WAITS[Lane(job.lane)]}{_behind(job.ahead)}"
    parts = [job.stage] if job.stage else []
    if job.state == JobState.RUNNING:
        parts.append(f"{job.progress:.0%}".replace("%", " %"))
        if job.time_left_s is not None:
            parts.append(f"about {quantities.duration(max(1.0, job.time_left_s))} left")
    return " · ".join(parts)


def _behind(ahead: int | None) -> str:
    if ahead is None:
        return ""
    return f" · {quantities.count(ahead, 'job')} before it" if ahead else " · next in the queue"


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
