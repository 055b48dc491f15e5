"""The debugger as people use it: runs of a version, or of two, on one input, and what was seen in them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
from sqlalchemy.orm import Session

from control_plane.debugging import edits as edit_rules
from control_plane.debugging import kept, report
from control_plane.debugging.kept import Array, NotKeptError
from control_plane.debugging.report import Exported
from control_plane.domain import breakpoints
from control_plane.domain.breakpoints import Condition
from control_plane.domain.debugging import (
    DEBUG,
    MAX_NAME_CHARS,
    MAX_VALUES,
    SIDES,
    CaptureView,
    DebugOrder,
    DebugRunDetail,
    DebugRunView,
    DisagreementView,
    InputChoices,
    InputSource,
    RunSource,
    Side,
    ValuesView,
)
from control_plane.domain.divergence import Comparison
from control_plane.domain.job import FINAL_STATES, JobState
from control_plane.domain.served_answer import Served
from control_plane.domain.token_scores import TokenScores
from control_plane.domain.views import Page
from control_plane.errors import ConflictError, InvalidInputError, NoSpaceError, NotFoundError
from control_plane.registry import debug_runs
from control_plane.registry import session as sessions
from control_plane.registry.tables import DebugRun, new_id
from control_plane.services import (
    debug_folders,
    debug_inputs,
    debug_reading,
    debug_records,
    events,
    jobs,
    optimization_subjects,
)
from control_plane.services.context import Context
from control_plane.services.debug_inputs import Resolved
from control_plane.services.paging import offset, query_text
from serving_agent.contract.inspection import Edit, TensorSummary


def choices(ctx: Context, ref: str) -> InputChoices:
    """What *ref*, `model@N` or `model@alias`, can be debugged on. Raises NotFoundError."""
    return debug_inputs.choices(ctx, optimization_subjects.known(ctx, ref))


def captures(ctx: Context, endpoint: str) -> tuple[CaptureView, ...]:
    """Requests that agents of *endpoint* keep, newest first; none where no agent answers.

    Raises NotFoundError.
    """
    return debug_inputs.captures(ctx, endpoint)


def disagreement(ctx: Context, rollout: str, disagreement_id: str) -> DisagreementView:
    """A request of a rollout's gallery and the two versions that answered it. Raises NotFoundError."""
    return debug_inputs.disagreement(ctx, rollout, disagreement_id)


def start(
    ctx: Context,
    ref: str,
    source: InputSource,
    *,
    against: str | None = None,
    edits: Sequence[Edit] = (),
    name: str = "",
    actor: str,
) -> DebugRunView:
    """Queue a run of *ref*, and of *against* beside it, on the input that *source* names.

    The input is read now and kept with the run. A shape that the version does not take is not refused: the
    run shows at which stage it fails. Edits of layers change A alone, those of what goes into the model both
    sides. name: saves the run under it.

    Raises NotFoundError, InvalidInputError naming the input and what was expected, TooLargeError,
    ConflictError for versions that cannot be run, NoSpaceError.
    """
    found = optimization_subjects.workable(ctx, ref)
    other = optimization_subjects.workable(ctx, against).ref if against else None
    resolved = debug_inputs.read(ctx, found, source)
    parent = source.run if isinstance(source, RunSource) else None
    wanted = (found.ref, other)
    return _queue(ctx, wanted, resolved, edit_rules.checked(edits), name=name, parent_id=parent, actor=actor)


def edit(
    ctx: Context, run_id: str, edits: Sequence[Edit] = (), *, name: str = "", actor: str
) -> DebugRunView:
    """Queue a run on the same input with *edits* added to those there were; the first run stays as it is.

    An edit of the same elements takes the place of the earlier one. Without edits it is run again. Raises
    NotFoundError, InvalidInputError for a point, tensor or place that the run does not have, ConflictError
    while the run goes on.
    """
    before = view(ctx, run_id)
    if not before.ended:
        raise ConflictError("The run goes on", next_step=debug_reading.WAIT)
    if edits:
        edit_rules.check_targets(edits, debug_reading.run_of(ctx, before, "a"))
    for ref in filter(None, (before.a, before.b)):
        optimization_subjects.workable(ctx, ref)
    resolved = Resolved(debug_folders.read_inputs(ctx.settings, run_id), before.input)
    added = edit_rules.checked(edit_rules.added(before.edits, edits))
    wanted = (before.a, before.b)
    return _queue(ctx, wanted, resolved, added, name=name, parent_id=before.id, actor=actor)


def get(ctx: Context, run_id: str) -> DebugRunDetail:
    """One run with all that was seen so far. Raises NotFoundError, GoneError where its files are gone."""
    with sessions.read(ctx.engine) as session:
        row = debug_records.found(session, run_id)
        ancestors = tuple(map(debug_records.view, debug_runs.ancestors(session, row)))
        children = tuple(map(debug_records.view, debug_runs.children(session, row.id)))
        seen = debug_records.view(row)
    if seen.state == JobState.SUCCEEDED and not debug_reading.folder(ctx, run_id, "a").is_dir():
        raise debug_folders.gone(run_id)
    return DebugRunDetail(
        view=seen,
        sides=tuple(debug_reading.side(ctx, seen, side) for side in SIDES if side == "a" or seen.b),
        comparison=debug_reading.worked_out(ctx, run_id, debug_folders.COMPARISON, Comparison),
        tokens=debug_reading.worked_out(ctx, run_id, debug_folders.TOKENS, TokenScores),
        served=debug_reading.worked_out(ctx, run_id, debug_folders.SERVED, Served),
        ancestors=ancestors,
        children=children,
    )


def view(ctx: Context, run_id: str) -> DebugRunView:
    """One run as a list shows it: cheap to ask while it goes on. Raises NotFoundError."""
    with sessions.read(ctx.engine) as session:
        return debug_records.view(debug_records.found(session, run_id))


def search(
    ctx: Context,
    *,
    q: str = "",
    saved: bool | None = None,
    page: int = 1,
    page_size: int = 50,
) -> Page[DebugRunView]:
    """Runs newest first. *q* is part of a name, a version or a creator; saved: only those, or the others."""
    start = offset(page, page_size)
    with sessions.read(ctx.engine) as session:
        rows, total = debug_runs.page(session, q=query_text(q), saved=saved, offset=start, limit=page_size)
        return Page(tuple(map(debug_records.view, rows)), total, page, page_size)


def values(
    ctx: Context,
    run_id: str,
    side: Side,
    point: str,
    tensor: int | str = 0,
    *,
    start: Sequence[int] = (),
    stop: Sequence[int] = (),
) -> ValuesView:
    """A part of one kept tensor; the whole of it without bounds, as far as MAX_VALUES elements go.

    point: a `Point.id`, or a stage's name; tensor: its place there, or its name. Bounds are per dimension;
    what is missing or too large is taken as the tensor's own. Raises NotFoundError, ConflictError where the
    elements were not kept.
    """
    found, array = _elements(ctx, run_id, side, point, tensor)
    begin, end, cut = kept.bounds(found.shape, start, stop, MAX_VALUES)
    part = array[tuple(slice(low, high) for low, high in zip(begin, end, strict=True))]
    return ValuesView(
        name=found.name,
        datatype=found.kept_datatype,
        shape=found.shape,
        start=begin,
        stop=end,
        values=part.tolist(),
        truncated=cut,
    )


def first_wrong(
    ctx: Context, run_id: str, side: Side, point: str, tensor: int | str = 0
) -> tuple[int, ...] | None:
    """Where the first NaN or infinity of a kept tensor is; None for none. Raises as `values`."""
    return kept.first_wrong(_elements(ctx, run_id, side, point, tensor)[1])


def _elements(
    ctx: Context, run_id: str, side: Side, point: str, tensor: int | str
) -> tuple[TensorSummary, Array]:
    found = kept.tensor_of(debug_reading.run_of(ctx, view(ctx, run_id), side), point, tensor)
    if found is None:
        raise NotFoundError(f"Side {side} of the run has no tensor {tensor!r} at {point[:200]!r}")
    try:
        return found, kept.elements(debug_reading.folder(ctx, run_id, side), found)
    except NotKeptError as error:
        raise ConflictError(
            f"{found.name} at {point} cannot be shown: {error}", next_step=error.next_step
        ) from error


def find(ctx: Context, run_id: str, side: Side, condition: Condition, *, after: int = -1) -> int | None:
    """Place of the next point behind *after* that meets *condition* (`domain.breakpoints`); None for none.

    Raises NotFoundError, ConflictError where the side has no run.
    """
    seen = debug_reading.run_of(ctx, view(ctx, run_id), side)
    return breakpoints.find(seen.points, condition, after)


def save(ctx: Context, run_id: str, name: str, *, actor: str) -> DebugRunView:
    """Give a run a name, which keeps it longer; an empty name takes it away again. Idempotent.

    Raises NotFoundError, InvalidInputError.
    """
    checked = _checked_name(name)
    with sessions.write(ctx.engine) as session:
        row = debug_records.found(session, run_id, lock=True)
        if row.name != checked:
            was_saved, row.name = bool(row.name), checked
            if was_saved != bool(checked):
                row.expires_at = debug_records.expires_at(ctx, row.created_at, saved=bool(checked))
            did = f"named debugger run {row.id} of {row.a} {checked!r}" if checked else f"unnamed {row.id}"
            _record(session, actor, "debug_run.named", row, did)
        return debug_records.view(row)


def delete(ctx: Context, run_id: str, *, actor: str) -> None:
    """Delete a run and its files; one that goes on is cancelled. Runs that came from it stay.

    Raises NotFoundError.
    """
    with sessions.write(ctx.engine) as session:
        row = debug_records.found(session, run_id, lock=True)
        session.refresh(row.job, with_for_update=True)  # somebody may just have begun to work on it
        if row.job.state not in FINAL_STATES:
            jobs.request_cancel(session, row.job, actor=actor)
        _record(session, actor, "debug_run.deleted", row, f"deleted debugger run {row.id} of {row.a}")
        session.delete(row)
    debug_folders.remove(ctx.settings, run_id)


def export_json(ctx: Context, run_id: str) -> bytes:
    """All that was seen as one JSON document (`debugging.report.Exported`); no elements.

    Raises as `get`, ConflictError while it goes on.
    """
    return msgspec.json.encode(_exported(ctx, run_id))


def export_html(ctx: Context, run_id: str) -> str:
    """The run as one self-contained page: no script, no reference to anything outside. Raises as `get`."""
    return report.html(_exported(ctx, run_id))


def _exported(ctx: Context, run_id: str) -> Exported:
    detail = get(ctx, run_id)
    if not detail.view.ended:
        raise ConflictError("The run goes on", next_step=debug_reading.WAIT)
    return Exported(detail=detail, exported_at=time.time())


def _queue(
    ctx: Context,
    refs: tuple[str, str | None],
    given: Resolved,
    edits: tuple[Edit, ...],
    *,
    name: str,
    parent_id: str | None,
    actor: str,
) -> DebugRunView:
    checked, run_id, now = _checked_name(name), new_id(), time.time()
    if not debug_folders.make_room(ctx, ctx.settings.debug_run_bytes, keep=parent_id):
        raise NoSpaceError(
            f"Debugger runs take all of their {ctx.settings.debug_total_bytes // 1024**2} MiB",
            next_step="Delete runs, or raise SIGNALBOX_DEBUG_TOTAL_BYTES.",
        )
    size = debug_folders.write_inputs(ctx.settings, run_id, given.tensors, None if edits else given.answer)
    a, b = refs
    subject = f"{a} against {b}" if b else a
    try:
        with sessions.write(ctx.engine) as session:
            params = msgspec.to_builtins(DebugOrder(run_id=run_id))
            job = jobs.queue(session, DEBUG, subject=subject, params=params, actor=actor)
            row = DebugRun(
                id=run_id,
                name=checked,
                job_id=job.id,
                job=job,
                a=a,
                b=b,
                input=given.title.replace("\0", "")[:200],
                inputs=msgspec.to_builtins(debug_inputs.views(given.tensors)),
                edits=msgspec.to_builtins(edits),
                parent_id=parent_id,
                size_bytes=size,
                summary="",
                created_by=actor,
                created_at=now,
                expires_at=debug_records.expires_at(ctx, now, saved=bool(checked)),
            )
            session.add(row)
            session.flush()
            _record(session, actor, "debug_run.started", row, f"debugs {subject} on {row.input}")
            return debug_records.view(row)
    except BaseException:
        debug_folders.remove(ctx.settings, run_id)
        raise


def _checked_name(name: str) -> str:
    checked = name.strip()
    if len(checked) > MAX_NAME_CHARS or not checked.isprintable():
        raise InvalidInputError(f"a run's name has at most {MAX_NAME_CHARS} printable characters")
    return checked


def _record(session: Session, actor: str, action: str, row: DebugRun, did: str) -> None:
    events.record(
        session,
        at=time.time(),
        actor=actor,
        action=action,
        subject=f"debug_run/{row.id}",
        message=f"{actor} {did}",
        a=row.a,
        b=row.b,
    )
