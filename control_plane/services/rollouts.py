"""Rollouts: start one, look at it, say what happens next, and read what happened."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from control_plane.domain.names import check_label
from control_plane.domain.rollout import Command, RolloutState, Step
from control_plane.domain.views import DisagreementView, EventView, Page, RolloutView
from control_plane.errors import InvalidInputError, NotFoundError
from control_plane.registry import rollout_history
from control_plane.registry import rollouts as rows
from control_plane.registry import session as sessions
from control_plane.services import (
    events,
    rollout_commands,
    rollout_report,
    rollout_simulation,
    rollout_start,
    rollout_views,
)
from control_plane.services.context import Context
from control_plane.services.paging import offset
from control_plane.services.rollout_plans import GuardrailPatches, PlanWish

MAX_DISAGREEMENTS = 200


def start(
    ctx: Context,
    endpoint: str,
    candidate_ref: str,
    *,
    actor: str,
    strategy: str = "canary",
    weights: Sequence[float] | None = None,
    steps: Sequence[Step] | None = None,
    bake_s: float | None = None,
    min_requests: int | None = None,
    approval: bool | Sequence[bool] = False,
    auto_advance: bool = True,
    mirror: float | None = None,
    guardrails: GuardrailPatches | None = None,
    supersede: bool = False,
    skip_gates: str | None = None,
    break_freeze: str | None = None,
    expected_revision: int | None = None,
    warm_s: float | None = None,
    waiver: str | None = None,
) -> RolloutView:
    """Begin to bring *candidate_ref* (`model@N` or `model@alias`) to the endpoint, beside what it serves.

    strategy: canary, blue-green or shadow; weights: of a canary, in (0, 1], ascending; steps: whole steps in
    their place; bake_s, min_requests: of every measured step; approval: which steps wait for a person;
    mirror: share of requests copied in a first step, or by a shadow rollout; guardrails: changes by name;
    supersede: end a standing rollout for it; skip_gates, break_freeze: why the gates are left out or a freeze
    is broken, both of which a second person approves; expected_revision: the endpoint's revision that the
    caller saw; warm_s: how long the old version stays warm afterwards, in seconds; waiver: why a variant that
    the optimisation lab rejected is a candidate all the same.

    Raises NotFoundError, InvalidInputError for a plan that makes no sense, and ConflictError when the
    endpoint or the version does not allow it: it is stopped, serves it already, has a rollout or is frozen;
    the version is archived, refused, of another signature, or has not been through staging.
    """
    wish = PlanWish(
        strategy=strategy,
        weights=weights,
        steps=steps,
        bake_s=bake_s,
        min_requests=min_requests,
        approval=approval,
        auto_advance=auto_advance,
        mirror=mirror,
        guardrails=guardrails,
        skip_gates=skip_gates,
        break_freeze=break_freeze,
        warm_s=warm_s,
    )
    check_label("endpoint", endpoint)
    started = rollout_start.begin(
        ctx,
        endpoint,
        candidate_ref,
        wish,
        actor=actor,
        supersede=supersede,
        expected_revision=expected_revision,
        waiver=waiver,
    )
    return get(ctx, started)


def act(
    ctx: Context,
    which: str,
    command: str,
    *,
    actor: str,
    reason: str | None = None,
    expected_step: int | None = None,
    expected_revision: int | None = None,
) -> RolloutView:
    """Give a rollout a command: approve, promote, promote-full, hold, resume, abort or rollback.

    which: a rollout's id, or an endpoint's name for its newest rollout. expected_step (from 1) and
    expected_revision: what the caller saw. When the rollout has moved on meanwhile, nothing happens but a
    ConflictError that says where it is and who moved it: a click counts once. Abort and rollback mean the
    same everywhere and are taken whatever was expected.

    Promoting without a fresh PASS needs a reason, and nothing goes on against a FAIL, which rolls back.
    Approving a start without gates needs a second person. A freeze refuses what goes forward. Rolling back is
    never refused while there is something to roll back: past the rollback window, the old version is deployed
    anew, unless the gate refuses it by now.
    """
    done = rollout_commands.carry_out(
        ctx,
        which,
        command_named(command),
        actor=actor,
        reason=reason,
        expected_step=expected_step,
        expected_revision=expected_revision,
    )
    return get(ctx, done)


def extend_bake(
    ctx: Context,
    which: str,
    seconds: float,
    *,
    actor: str,
    expected_step: int | None = None,
    expected_revision: int | None = None,
) -> RolloutView:
    """Let the present step bake *seconds* longer. Raises as `act` does."""
    extended = rollout_commands.extend(
        ctx,
        which,
        seconds,
        actor=actor,
        expected_step=expected_step,
        expected_revision=expected_revision,
    )
    return get(ctx, extended)


def get(ctx: Context, which: str) -> RolloutView:
    """A rollout by its id, or the newest one of an endpoint by its name. Raises NotFoundError."""
    with sessions.read(ctx.engine) as session:
        return rollout_views.views(ctx, session, [rollout_commands.resolve(session, which)])[0]


def of_endpoint(ctx: Context, endpoint: str) -> RolloutView:
    """The newest rollout of the endpoint. Raises NotFoundError when it never had one."""
    with sessions.read(ctx.engine) as session:
        row = rows.latest(session, endpoint)
        if row is None:
            raise NotFoundError(
                f"{endpoint[:80]} has had no rollout",
                next_step=f"Start one: `signalbox rollout start {endpoint[:80]} MODEL@N`.",
            )
        return rollout_views.views(ctx, session, [row])[0]


def list_all(
    ctx: Context,
    *,
    endpoint: str | None = None,
    states: Collection[str] = (),
    page: int = 1,
    page_size: int = 50,
) -> Page[RolloutView]:
    """Rollouts newest first. states: values of RolloutState; empty for all."""
    start_row = offset(page, page_size)
    wanted = [_state(name) for name in states]
    with sessions.read(ctx.engine) as session:
        found, total = rows.page(session, endpoint=endpoint, states=wanted, offset=start_row, limit=page_size)
        return Page(rollout_views.views(ctx, session, found), total, page, page_size)


def counts(ctx: Context) -> dict[str, int]:
    """How many rollouts are in each state that some rollout is in."""
    with sessions.read(ctx.engine) as session:
        return rows.counts(session)


def history(ctx: Context, which: str, *, page: int = 1, page_size: int = 50) -> Page[EventView]:
    """What happened to one rollout, newest first."""
    start_row = offset(page, page_size)
    with sessions.read(ctx.engine) as session:
        row = rollout_commands.resolve(session, which)
        found, total = rollout_history.events(session, row, offset=start_row, limit=page_size)
        return Page(tuple(events.view(each) for each in found), total, page, page_size)


def disagreements(ctx: Context, which: str, *, limit: int = 50) -> tuple[DisagreementView, ...]:
    """Requests that both versions answered differently, the farthest apart first."""
    most = max(1, min(limit, MAX_DISAGREEMENTS))
    with sessions.read(ctx.engine) as session:
        row = rollout_commands.resolve(session, which)
        found = rollout_history.disagreements(session, row.id, limit=most)
        return tuple(rollout_views.disagreement_view(each) for each in found)


def report(ctx: Context, which: str, kind: str = "json") -> str:
    """The rollout's report as text. kind: json or markdown. Raises InvalidInputError for another one."""
    if kind not in ("json", "markdown"):
        raise InvalidInputError(f"a report is json or markdown, not {kind[:40]!r}")
    data = report_data(ctx, which)
    return rollout_report.markdown(data) if kind == "markdown" else msgspec.json.encode(data).decode()


def report_data(ctx: Context, which: str) -> dict[str, Any]:
    """The report as plain JSON: what was asked, who did what when, the evidence, the verdict."""
    with sessions.read(ctx.engine) as session:
        return rollout_report.assemble(ctx, session, rollout_commands.resolve(session, which))


simulate = rollout_simulation.simulate


def command_named(name: str) -> Command:
    """The command called *name*. Raises InvalidInputError, listing those there are."""
    try:
        return Command(name)
    except ValueError as error:
        raise InvalidInputError(
            f"there is no command {name[:40]!r}; known commands are {', '.join(Command)}"
        ) from error


def _state(name: str) -> RolloutState:
    try:
        return RolloutState(name)
    except ValueError as error:
        raise InvalidInputError(
            f"there is no state {name[:40]!r}; known states are {', '.join(RolloutState)}"
        ) from error
