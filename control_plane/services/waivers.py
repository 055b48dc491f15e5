"""Variants that the optimisation lab rejected: nothing serves them unless somebody says why."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy.orm import Session

from control_plane.domain.optimization import REPORT
from control_plane.errors import RejectedError
from control_plane.registry.tables import Version
from control_plane.services import events
from control_plane.services.rollout_plans import reason_given


def check(session: Session, version: Version, waiver: str | None, *, wanted: str, actor: str) -> None:
    """Let *version* pass unless the lab rejected it; with *waiver*, a reason, it passes and that is recorded.

    wanted: what is to be done with it, e.g. `deployed to digits`. Raises RejectedError, and InvalidInputError
    for a reason that is none.
    """
    reason = reason_given(waiver, "waiving a rejection")
    why = rejection(version.lineage)
    if why is None:
        return
    if reason is None:
        raise RejectedError(
            f"{version.ref} was rejected when it was optimised, so it is not {wanted}: {why}",
            next_step="Use another variant; or give a reason as waiver (--waive REASON), which is recorded.",
            version=version.ref,
        )
    events.record(
        session,
        at=time.time(),
        actor=actor,
        action="version.waived",
        subject=version.ref,
        message=f"{actor} waived the rejection of {version.ref}, {wanted}: {reason}",
        reason=reason,
        rejected_for=why,
    )


def rejection(lineage: dict[str, Any]) -> str | None:
    """Why the lab rejected the version with that lineage; None where it did not."""
    decision = (lineage.get(REPORT) or {}).get("decision")
    if not decision or decision.get("accepted"):
        return None
    return "; ".join(decision.get("reasons") or ()) or "no reason is recorded"
