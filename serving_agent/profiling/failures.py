"""What went wrong while a version was profiled, in one sentence. Pure."""

from __future__ import annotations

import errno

from serving_agent import limits
from serving_agent.contract.profile import NotProfiled
from serving_agent.errors import InvalidRequestError, StartError


class TooLargeTraceError(Exception):
    """One request makes more events than can be read."""


def failure(error: BaseException) -> NotProfiled:
    """Return *error* as one sentence and a code."""
    if limits.is_out_of_memory(error):
        return NotProfiled(code="out_of_memory", message="it needs more memory than it may use")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NotProfiled(code="no_space", message="the disk is full")
    if isinstance(error, StartError):
        return NotProfiled(code="cannot_open", message=str(error))
    if isinstance(error, InvalidRequestError):
        return NotProfiled(code="does_not_run", message=str(error))
    if isinstance(error, TooLargeTraceError):
        return NotProfiled(code="profiling_failed", message=str(error))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    sentence = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:500]
    return NotProfiled(code="does_not_run", message=sentence)
