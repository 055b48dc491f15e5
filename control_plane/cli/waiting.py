"""Waiting for what the server works on, and saying how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from control_plane.cli.client import Client, Json, part
from control_plane.cli.failures import FailedError
from control_plane.cli.output import Output, timings
from control_plane.ui.viewmodels.serving_options import effect_words
from serving_agent.contract.status import OptionsEffect

POLL_S: Final = 0.2
FINAL_JOB_STATES: Final = frozenset({"succeeded", "failed", "cancelled"})
TIMINGS_PATIENCE_S: Final = 3.0
"""How long a ready endpoint is asked for the last of its timings."""


def for_job(api: Client, out: Output, job_id: str) -> Json:
    """Return the job once it has succeeded. Raises FailedError with its reason."""
    with out.progress.status("queued") as status:
        for job in _polled(api, f"/jobs/{part(job_id)}", timeout_s=None):
            if job["state"] in FINAL_JOB_STATES:
                break
            status.update(f"{job['stage'] or job['state']} {job['progress']:.0%}")
    if job["state"] == "succeeded":
        return job
    reason = job["reason"] or {"message": f"the job was {job['state']}"}
    raise FailedError(reason["message"], next_step=reason.get("next_step"), job=job_id)


def for_endpoint(api: Client, out: Output, goal: Json, *, known: frozenset[str], timeout_s: float) -> Json:
    """Return the endpoint once it serves its goal with all replicas.

    goal: the endpoint as the server answered the change; known: ids of agents there were before it.
    Raises FailedError with reason and last log lines when a start fails, and after *timeout_s*.
    """
    said: dict[str, str] = {}
    for view in _polled(api, f"/endpoints/{part(goal['name'])}", timeout_s=timeout_s):
        _say_phases(out, view, said, known)
        failed = _failure(view, known)
        if failed is not None:
            raise _failed_start(view, failed)
        if _reached(view, goal):
            return _with_timings(api, view)
    raise FailedError(
        f"{goal['name']} was not ready within {timeout_s:g} s: {view['sentence']}",
        next_step=f"The controller keeps trying; see `signalbox logs {goal['name']}`.",
    )


def breakdowns(view: Json) -> list[str]:
    """One line per ready agent: where the time from its creation to its first request went."""
    return [
        f"agent {agent['id']}: {timings(agent['timings_s'])}"
        for agent in reversed(view["agents"])
        if agent["phase"] == "ready" and agent["version_ref"] == view["version_ref"]
    ]


def effects(view: Json) -> list[str]:
    """One line per ready agent whose execution options were measured: what they change."""
    return [
        f"agent {agent['id']}: {effect_words(msgspec.convert(agent['effect'], OptionsEffect))}"
        for agent in reversed(view["agents"])
        if agent["phase"] == "ready" and agent["effect"]
    ]


def _polled(api: Client, path: str, *, timeout_s: float | None) -> Iterator[Json]:
    """Look again and again; stops only after *timeout_s*, and looks at least once."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        yield api.get(path)
        if deadline is not None and time.monotonic() > deadline:
            return
        time.sleep(POLL_S)  # another process works; REST has no event for it


def _reached(view: Json, goal: Json) -> bool:
    newer = view["revision"] > goal["revision"]
    serves = view["serving_ref"] == view["version_ref"] and view["health"] == "ready"
    return bool(serves and (newer or view["ready"] >= goal["replicas"]))


def _with_timings(api: Client, view: Json) -> Json:
    """The same endpoint once its agents' last stage is measured too."""
    for later in _polled(api, f"/endpoints/{part(view['name'])}", timeout_s=TIMINGS_PATIENCE_S):
        ready = [agent for agent in later["agents"] if agent["phase"] == "ready"]
        if all("gateway" in agent["timings_s"] for agent in ready):
            break
    return later


def _say_phases(out: Output, view: Json, said: dict[str, str], known: frozenset[str]) -> None:
    for agent in reversed(view["agents"]):
        if agent["id"] not in known and said.get(agent["id"]) != agent["phase"]:
            said[agent["id"]] = agent["phase"]
            out.note(f"agent {agent['id']}: {agent['phase']}")


def _failure(view: Json, known: frozenset[str]) -> Json | None:
    failed = (a for a in view["agents"] if a["phase"] == "failed" and a["id"] not in known)
    return next((a for a in failed if a["version_ref"] == view["version_ref"]), None)


def _failed_start(view: Json, agent: Json) -> FailedError:
    log: list[Any] = agent["log_tail"] or []
    lines = "".join(f"\n  {line}" for line in log)
    serving = view["serving_ref"]
    goes_on = f" {serving} goes on serving." if serving and serving != view["version_ref"] else ""
    return FailedError(
        f"agent {agent['id']} with {agent['version_ref']} failed: {agent['reason']}"
        + (f"\nlast lines of its log:{lines}" if log else ""),
        next_step=f"The controller tries again with growing pauses.{goes_on}",
        agent=agent["id"],
        reason=agent["reason"],
        log_tail=log,
    )
