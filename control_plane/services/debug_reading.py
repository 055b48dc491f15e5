"""What the job of a debugger run has left: read from the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeVar

import msgspec

from control_plane.debugging import kept
from control_plane.debugging.kept import NotKeptError
from control_plane.domain.debugging import SIDES, DebugRunView, Side, SideView
from control_plane.errors import ConflictError, NotFoundError
from control_plane.services import debug_folders
from control_plane.services.context import Context
from serving_agent.contract.inspection import InspectedRun

WAIT: Final = "Wait until it is done."
_Kind = TypeVar("_Kind", bound=msgspec.Struct)


def folder(ctx: Context, run_id: str, which: Side) -> Path:
    """The folder of one side."""
    return debug_folders.of_run(ctx.settings, run_id) / which


def side(ctx: Context, seen: DebugRunView, which: Side) -> SideView:
    """One side, as far as it is inspected. Raises GoneError where its record cannot be read."""
    ref = seen.a if which == "a" else seen.b or ""
    found = folder(ctx, seen.id, which)
    state = _read(found / debug_folders.SIDE, debug_folders.SideState)
    if state is None:
        return SideView(side=which, ref=ref, run=None, problem=None)
    run = None if state.problem else _run(found, seen.id)
    return SideView(side=which, ref=ref, run=run, problem=state.problem)


def run_of(ctx: Context, seen: DebugRunView, which: Side) -> InspectedRun:
    """What was seen of one side. Raises NotFoundError, ConflictError where there is nothing."""
    if which not in SIDES or (which == "b" and seen.b is None):
        raise NotFoundError(f"The run has no side {which[:20]!r}")
    found = side(ctx, seen, which)
    if found.run is None:
        why = found.problem.message if found.problem else "it was not inspected"
        raise ConflictError(
            f"There is nothing to see of {found.ref}: {why}", next_step=None if seen.ended else WAIT
        )
    return found.run


def worked_out(ctx: Context, run_id: str, name: str, kind: type[_Kind]) -> _Kind | None:
    """The comparison or the tokens; None where there are none."""
    return _read(debug_folders.of_run(ctx.settings, run_id) / name, kind)


def _run(found: Path, run_id: str) -> InspectedRun:
    try:
        return kept.read_run(found)
    except (OSError, NotKeptError) as error:
        raise debug_folders.gone(run_id) from error


def _read(file: Path, kind: type[_Kind]) -> _Kind | None:
    """The file's content; None where it is not there, or only half."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None
