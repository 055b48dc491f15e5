"""Errors of the command line alone: what the server answered, and what was waited for in vain."""

from __future__ import annotations

from typing import Any


class CommandError(Exception):
    """What happened and why, what to do about it, and its stable code."""

    def __init__(self, code: str, message: str, *, next_step: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.next_step = next_step
        self.details = details


class ApiError(CommandError):
    """The error that a server answered with, in its own words; `status` is the HTTP status."""

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        message = error.get("message") or f"the server answered {status}"
        super().__init__(str(error.get("code", "error")), message, next_step=error.get("next_step"))
        self.details = dict(error.get("details") or {})
        self.status = status


class FailedError(CommandError):
    """What was waited for came to nothing."""

    def __init__(self, message: str, *, next_step: str | None = None, **details: Any) -> None:
        super().__init__("failed", message, next_step=next_step, **details)
