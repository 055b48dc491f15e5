"""What an agent keeps of the answers it gives during a rollout: the body of `GET /internal/captures`.

Stable and candidate each keep their own answer to a request that was copied; `control_plane.domain.pairs`
brings the two together. Bytes are base64 in JSON.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

ROUTE: Final = "/internal/captures"
"""On an agent's own REST address; what comes through the gateway is answered 404."""
DEFAULT_LIMIT: Final = 512
"""Captures of one page where nothing else is asked for."""
MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
"""Tensor data of one page, in bytes, unless its first capture alone holds more."""
SAMPLES_ROUTE: Final = "/internal/samples"
"""The same of requests that the endpoint's option `sampling` keeps for the debugger."""
SMALL_INPUT_BYTES: Final = 4 * 1024
"""Inputs whose data is larger come without it, unless it is asked for with `inputs=all`."""

LeftOut = Literal["", "redacted", "too_large", "dropped", "page"]
"""Why there is no data: its name is in `sampling.redact`; it was too large to keep; it was dropped for newer
captures; it is left out of this page alone. Empty where there is data, and from agents that do not say."""
Decides = Literal["", "class", "token"]
"""What a row comes down to: nothing, its class, or the likeliest token at its last position."""


class CapturedTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | None = None
    """In the protocol's raw form; None where there is none: `left_out` says why."""
    left_out: LeftOut = ""


class Capture(msgspec.Struct, frozen=True, kw_only=True):
    """One answer given to a request of a rollout."""

    seq: int
    """Grows from capture to capture of one route, also across restarts of the agent."""
    request_id: str
    """`x-request-id`: the same on a request and on its copy."""
    fingerprint: str
    """Of inputs, wanted outputs and parameters: tells apart requests of one id, as on a stream."""
    rollout: str
    """Empty for a sample."""
    at: float
    """When the answer was there, in seconds since the epoch."""
    inputs: tuple[CapturedTensor, ...] = ()
    outputs: tuple[CapturedTensor, ...] = ()
    """What the client got, in its order; empty where the model failed."""
    nonfinite: bool = False
    """Whether a floating-point output holds NaN or an infinity."""
    decides: Decides = ""
    decisions: tuple[str, ...] = ()
    """What each row comes down to, in order; empty where it comes down to nothing, or has too many rows."""
    error: str = ""
    """Code of the error the request ended with at the model; empty where it was answered."""


class CapturePage(msgspec.Struct, frozen=True, kw_only=True):
    """The captures after a sequence number, oldest first."""

    captures: tuple[Capture, ...]
    last: int
    """What to ask for captures after, next time."""
    more: bool = False
    """Whether the agent has more of them already."""
