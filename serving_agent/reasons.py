"""Why a start failed, as one sentence without paths. Pure."""

from __future__ import annotations

from typing import Final

from serving_agent.error_text import without_paths
from serving_agent.errors import AgentError
from serving_agent.limits import is_out_of_memory, memory_sentence

LONGEST: Final = 300
"""Characters of somebody else's message that are worth showing."""


def reason_of(error: BaseException, memory_bytes: int | None) -> str:
    """Return one sentence for the operator: the agent's own, or type and telling line of any other error."""
    if isinstance(error, AgentError):
        return str(error)
    if is_out_of_memory(error):
        return memory_sentence(memory_bytes)
    line = without_paths(_telling_line(str(error)))[:LONGEST]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _telling_line(message: str) -> str:
    """Return the first line; the last one of a TorchScript traceback, which names the error itself."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if not lines:
        return ""
    return lines[-1] if any(line.startswith("Traceback") for line in lines) else lines[0]
