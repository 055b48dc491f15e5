"""Endpoints that serve, and rollouts moved as the controller would move them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from control_plane.domain.rollout import Rollout
from control_plane.domain.views import RolloutView
from control_plane.registry import rollout_moves
from control_plane.registry import rollouts as rows
from control_plane.registry import session as sessions
from control_plane.registry.tables import Endpoint
from control_plane.services import endpoints, rollouts
from control_plane.services.context import Context
from tests.fakes.registry import register


def serve(ctx: Context, name: str = "digits", ref: str = "digits@1", **settings: Any) -> None:
    """Deploy *ref* and have it served, as if its agents were ready."""
    endpoints.deploy(ctx, name, ref, actor="ana", **settings)
    serves(ctx, name)


def serves(ctx: Context, name: str) -> None:
    """Have the endpoint serve what it should."""
    with sessions.write(ctx.engine) as session:
        row = session.query(Endpoint).filter_by(name=name).one()
        row.serving_version_id = row.version_id


def two_versions(ctx: Context, name: str = "digits") -> None:
    """digits@1 and digits@2 with one signature; the first one served by *name*."""
    register(ctx)
    register(ctx, content=b"other weights")
    serve(ctx, name)


def move(
    ctx: Context, which: str, change: Callable[[Rollout], Rollout], *, action: str = "rollout.moved"
) -> RolloutView:
    """Apply one of the controller's own transitions."""
    with sessions.write(ctx.engine) as session:
        row = rows.locked(session, rollouts.get(ctx, which).id)
        assert row is not None
        before = rows.value_of(row)
        rollout_moves.record(
            session, row, before, change(before), actor="controller", action=action,
            message=f"moved {before.candidate}", at=time.time(),
            protected_aliases=ctx.settings.protected_aliases,
        )  # fmt: skip
    return rollouts.get(ctx, which)


def give_verdict(
    ctx: Context, which: str, kind: str, sentence: str = "so it is", *, at: float | None = None
) -> None:
    """Write a verdict as the analyst would; at: when it was given, UTC seconds, now unless named."""
    with sessions.write(ctx.engine) as session:
        row = rows.locked(session, rollouts.get(ctx, which).id)
        assert row is not None
        row.verdict = {
            "kind": kind, "code": "undecided", "sentence": sentence, "at": time.time() if at is None else at,
            "readings": [], "eta_s": None,
        }  # fmt: skip
