"""Where runs of the debugger keep what they saw, below `<home>/debug_runs`, and when it goes.

    <run id>/inputs.msgpack      the input's tensors
    <run id>/answer.msgpack      what the client got, of a kept request
    <run id>/{a,b}/run.json      what was seen; values.bin beside it
    <run id>/{a,b}/side.json     written last: the side is whole, or why there is nothing
    <run id>/comparison.json     of A and B
    <run id>/tokens.json         of a causal language model
    <run id>/served.json         of that answer and A's

Runs without a name go when their time is over or when all runs together take too much, the oldest first.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy.orm import Session

from control_plane.config import Settings
from control_plane.domain.served_answer import Answer
from control_plane.domain.views import Reason
from control_plane.errors import GoneError, NoSpaceError, NotFoundError
from control_plane.registry import debug_runs
from control_plane.registry import session as sessions
from control_plane.registry.tables import DebugRun
from control_plane.services.context import Context
from serving_agent.contract.capture import CapturedTensor

INPUTS: Final = "inputs.msgpack"
ANSWER: Final = "answer.msgpack"
SIDE: Final = "side.json"
COMPARISON: Final = "comparison.json"
TOKENS: Final = "tokens.json"
SERVED: Final = "served.json"
ORPHANED_S: Final = 3600.0
"""A folder that no run has for so long is what a crash left behind."""
_NAME: Final = re.compile(r"[0-9a-f]{32}")


class SideState(msgspec.Struct, frozen=True, kw_only=True):
    """How the inspection of one side ended."""

    problem: Reason | None = None


def of_run(settings: Settings, run_id: str) -> Path:
    """The folder of one run. Raises NotFoundError for what is no run's id."""
    if not _NAME.fullmatch(run_id):
        raise NotFoundError(f"There is no debugger run {run_id[:80]!r}")
    return settings.debug_dir / run_id


def write_inputs(
    settings: Settings, run_id: str, tensors: Sequence[CapturedTensor], answer: Answer | None = None
) -> int:
    """Make the run's folder with its inputs, and with the *answer* that a client got for them.

    Returns how many bytes they take. Raises NoSpaceError.
    """
    folder = of_run(settings, run_id)
    content = msgspec.msgpack.encode(tuple(tensors))
    told = msgspec.msgpack.encode(answer) if answer is not None else b""
    try:
        folder.mkdir(mode=0o700, parents=True)
        (folder / INPUTS).write_bytes(content)
        if told:
            (folder / ANSWER).write_bytes(told)
    except OSError as error:
        remove(settings, run_id)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError("The disk is full", next_step="Delete debugger runs or versions.") from error
        raise
    return len(content) + len(told)


def read_answer(settings: Settings, run_id: str) -> Answer | None:
    """What a client got for the run's input; None where that is not known."""
    try:
        return msgspec.msgpack.decode((of_run(settings, run_id) / ANSWER).read_bytes(), type=Answer)
    except (OSError, msgspec.MsgspecError):
        return None


def read_inputs(settings: Settings, run_id: str) -> tuple[CapturedTensor, ...]:
    """The run's input. Raises GoneError."""
    try:
        content = (of_run(settings, run_id) / INPUTS).read_bytes()
        return msgspec.msgpack.decode(content, type=tuple[CapturedTensor, ...])
    except (OSError, msgspec.MsgspecError) as error:
        raise gone(run_id) from error


def gone(run_id: str) -> GoneError:
    """The files of a run are not there."""
    return GoneError(
        f"The files of debugger run {run_id} are gone",
        next_step="Delete it, and run it again on the same input.",
    )


def clear(folder: Path) -> None:
    """Remove all that was found out, but not the input."""
    for name in ("a", "b"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (COMPARISON, TOKENS, SERVED):
        (folder / name).unlink(missing_ok=True)


def size_of(folder: Path) -> int:
    """Bytes of all its files."""
    return sum(_size(Path(base) / name) for base, _, names in os.walk(folder) for name in names)


def remove(settings: Settings, run_id: str) -> None:
    """Remove the run's folder. Idempotent."""
    shutil.rmtree(of_run(settings, run_id), ignore_errors=True)


def expire(ctx: Context, now: float) -> int:
    """Delete runs whose time is over, and folders without a run; how many runs."""
    with sessions.write(ctx.engine) as session:
        rows = debug_runs.expired(session, now)
        over = [row.id for row in rows]
        for row in rows:
            session.delete(row)
    for run_id in over:
        remove(ctx.settings, run_id)
    _remove_orphans(ctx, now)
    return len(over)


def make_room(ctx: Context, needed: int = 0, *, keep: str | None = None) -> bool:
    """Delete the oldest unsaved runs until all of them and *needed* bytes more fit; whether they do.

    Where they would not fit without any of them, all stay. keep: id of a run that stays with those it came
    from.
    """
    with sessions.write(ctx.engine) as session:
        missing = debug_runs.total_bytes(session) + needed - ctx.settings.debug_total_bytes
        going: list[DebugRun] = []
        if missing > 0:
            stays = _chain(session, keep)
            for row in debug_runs.oldest_unsaved(session):
                if missing > 0 and row.id not in stays:
                    going.append(row)
                    missing -= row.size_bytes
        if missing > 0:
            return False
        for row in going:
            session.delete(row)
    for row in going:
        remove(ctx.settings, row.id)
    return True


def _chain(session: Session, run_id: str | None) -> frozenset[str]:
    """Ids of a run and of those it came from."""
    row = debug_runs.find(session, run_id) if run_id else None
    return frozenset(each.id for each in (*debug_runs.ancestors(session, row), row)) if row else frozenset()


def _remove_orphans(ctx: Context, now: float) -> None:
    old = [folder for folder in ctx.settings.debug_dir.glob("*") if now - _changed_at(folder) > ORPHANED_S]
    if not old:
        return
    with sessions.read(ctx.engine) as session:
        known = debug_runs.ids(session)
    for folder in old:
        if folder.name not in known:
            shutil.rmtree(folder, ignore_errors=True)


def _changed_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
