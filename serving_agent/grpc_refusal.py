"""How a gRPC call that failed is answered: status, sentence and trailing metadata."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final

import grpc

from serving_agent.errors import GRPC_STATUS, HTTP_STATUS, AgentError

logger = logging.getLogger(__name__)

Metadata = tuple[tuple[str, str], ...]

PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
"""Trailing metadata that tells a client with a retry policy when to try again (gRFC A6)."""
PUSHBACK_MS: Final = 1000
"""As REST's `Retry-After`: a queue drains and a rollout moves on in that time."""
RETRIED: Final = (429, 503)
"""HTTP-style statuses of requests that may succeed later."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call has no response."""

    http_status: int
    code: grpc.StatusCode
    sentence: str
    error: AgentError | None = None
    """None where the agent itself failed."""

    @property
    def metadata(self) -> Metadata:
        """What to tell besides: when to try again, where that helps."""
        return ((PUSHBACK_KEY, str(PUSHBACK_MS)),) if self.http_status in RETRIED else ()


def refusal_of(error: Exception) -> Refusal:
    """Return how *error* is answered; what is no AgentError is the agent's own failure and logged."""
    if isinstance(error, AgentError):
        code = grpc.StatusCode[GRPC_STATUS[error.code]]
        return Refusal(HTTP_STATUS[error.code], code, str(error), error)
    logger.error("a request could not be answered", exc_info=error)
    return Refusal(500, grpc.StatusCode.INTERNAL, "the agent failed on this request; its log tells more")


async def abort(context: Any, refusal: Refusal, identity: Metadata = ()) -> None:
    """End the call with *refusal* and, besides its own metadata, *identity*; always raises."""
    await context.abort(refusal.code, refusal.sentence, (*identity, *refusal.metadata))
