"""The gate's kept word on a version. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def decision_of(verdict: Mapping[str, Any] | None) -> str | None:
    """accept, convert, sandbox or refuse; None where no gate has judged."""
    return verdict.get("decision") if verdict else None


def refusal(ref: str, verdict: Mapping[str, Any] | None) -> str | None:
    """Why the gate refuses the version *ref* by its latest word, in one sentence; None where it does not."""
    if verdict is None or decision_of(verdict) != "refuse":
        return None
    why = verdict.get("message") or verdict.get("code")
    return f"{ref} is refused by the gate since it was judged again: {why}"
