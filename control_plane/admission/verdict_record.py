"""A verdict as it is kept with uploads and versions: plain JSON. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from control_plane.admission.base import Accepted, Verdict

MOST_LEFT_OUT: Final = 200
"""Left-out parts that are kept of a long list."""


def recorded(verdict: Verdict) -> dict[str, Any]:
    """Return {"decision", "code", "left_out"}; of a refusal also where, why, and what to do about it."""
    plain = {"decision": verdict.decision, "code": str(verdict.code)}
    if isinstance(verdict, Accepted):
        return {**plain, "left_out": [asdict(each) for each in verdict.left_out[:MOST_LEFT_OUT]]}
    reason = {"message": verdict.message, "next_step": verdict.next_step}
    return {**plain, "left_out": [], "file": verdict.file, "member": verdict.member, **reason}
