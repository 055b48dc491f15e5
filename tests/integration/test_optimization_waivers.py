"""A variant that the lab rejected is promoted by nobody who does not say why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.domain import rollout as moves
from control_plane.errors import ConflictError, InvalidInputError, RejectedError
from control_plane.services import declarative, endpoints, events, rejudging, rollouts, versions
from control_plane.services.context import Context
from tests.fakes import lab
from tests.fakes.registry import open_home, register
from tests.fakes.rollouts import move, serve

WHY = "only for the demo"


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    """digits@1 is served by digits; digits@2 is a rejected variant of it, digits@3 an accepted one."""
    context = open_home(tmp_path / "home", gateway_port=1, four_eyes=False)
    register(context)
    for number, accepted in enumerate((False, True)):
        lineage = lab.lineage(accepted=accepted)
        register(context, content=b"variant %d" % number, parent_ref="digits@1", lineage=lineage)
    serve(context)
    yield context
    context.engine.dispose()


def deploy(ctx: Context, ref: str, **how: Any) -> Any:
    return endpoints.deploy(ctx, "digits", ref, actor="ana", **how)


def deploy_anew(ctx: Context, ref: str, **how: Any) -> Any:
    return endpoints.deploy(ctx, "other", ref, actor="ana", **how)


def roll_out(ctx: Context, ref: str, **how: Any) -> Any:
    return rollouts.start(ctx, "digits", ref, actor="ana", **how)


def alias(ctx: Context, ref: str, **how: Any) -> Any:
    return versions.set_alias(ctx, "digits", "champion", int(ref[-1]), actor="ana", **how)


WAYS = (deploy, deploy_anew, roll_out, alias)


@pytest.mark.parametrize("promote", WAYS, ids=lambda way: way.__name__)
def test_a_rejected_variant_needs_a_reason_and_the_reason_is_kept(
    ctx: Context, promote: Callable[..., Any]
) -> None:
    with pytest.raises(RejectedError, match=r"digits@2 was rejected.*3 of 60 rows") as caught:
        promote(ctx, "digits@2")
    assert "--waive" in str(caught.value.next_step)
    assert not events.search(ctx, q="version.waived").items
    with pytest.raises(InvalidInputError, match="waiving a rejection needs a reason"):
        promote(ctx, "digits@2", waiver="  ")
    promote(ctx, "digits@2", waiver=WHY)
    (waived,) = events.search(ctx, q="version.waived", subject="digits@2").items
    assert (waived.actor, waived.details["reason"]) == ("ana", WHY)
    assert "3 of 60 rows" in waived.details["rejected_for"]


@pytest.mark.parametrize("promote", WAYS, ids=lambda way: way.__name__)
def test_an_accepted_variant_needs_none(ctx: Context, promote: Callable[..., Any]) -> None:
    promote(ctx, "digits@3")
    assert not events.search(ctx, q="version.waived").items


def test_files_of_deployments_cannot_smuggle_it_in(ctx: Context) -> None:
    wanted = "deployments:\n  - endpoint: digits\n    version: digits@2\n"
    with pytest.raises(ConflictError, match="digits@2 was rejected"):
        declarative.apply(ctx, wanted, actor="ana")
    aliases = "models:\n  digits:\n    aliases:\n      champion: 2\n"
    with pytest.raises(ConflictError, match="digits@2 was rejected"):
        declarative.apply(ctx, aliases, actor="ana")


def test_other_changes_of_what_is_served_and_the_way_back_need_no_reason(ctx: Context) -> None:
    deploy(ctx, "digits@2", waiver=WHY)
    assert deploy(ctx, "digits@2", replicas=2).replicas == 2
    assert endpoints.restart(ctx, "digits", actor="ana").version_ref == "digits@2"


def test_rolling_back_to_it_is_never_refused(ctx: Context) -> None:
    deploy(ctx, "digits@2", waiver=WHY)
    serve(ctx, ref="digits@2")
    begun = roll_out(ctx, "digits@3", warm_s=0.0, weights=[1.0])
    steps = (moves.started, moves.gates_passed, moves.confirmed)
    for change in steps:
        move(ctx, begun.id, lambda rollout, change=change: change(rollout, 0.0))  # type: ignore[misc]
    rollouts.act(ctx, begun.id, "rollback", actor="ana")
    assert rollouts.get(ctx, begun.id).phase in {"rolling_back", "rolled_back"}


def test_a_variant_made_here_is_judged_by_no_gate(ctx: Context) -> None:
    with pytest.raises(ConflictError, match="made here, from digits@1"):
        rejudging.queue(ctx, ref="digits@3", actor="ana")
    job = rejudging.queue(ctx, every=True, actor="ana")
    assert rejudging.wanted(ctx, {"every": True}) == ()
    assert job.kind == rejudging.KIND
