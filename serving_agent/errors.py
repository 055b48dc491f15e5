"""The agent's errors: one tree, a stable code each, and one table per transport.

    AgentError
    ├── ClientError              the request is at fault
    │   ├── InvalidRequestError  invalid_request
    │   ├── NotFoundError        not_found
    │   ├── MethodError          method_not_allowed
    │   └── TooLargeError        too_large
    ├── UnavailableError         try again later
    │   ├── NotReadyError        not_ready
    │   ├── QueueFullError       queue_full
    │   └── OverloadedError      overloaded
    ├── TooManyError             too_many_requests
    ├── DeadlineError            deadline
    ├── ModelError               model_failed
    │   └── ModelMemoryError     model_memory
    └── StartError               start_failed   (never on the wire: the agent ends with it)

Every message is one sentence for the caller: no path, no traceback.
"""

from __future__ import annotations

from typing import ClassVar, Final


class AgentError(Exception):
    """Base of everything the agent answers with; `str(error)` is the sentence."""

    code: ClassVar[str]


class ClientError(AgentError):
    """The request is at fault; sending it again will not help."""


class InvalidRequestError(ClientError):
    """The body breaks the protocol or does not fit the signature."""

    code = "invalid_request"


class NotFoundError(ClientError):
    """No such route, model or version here."""

    code = "not_found"


class MethodError(ClientError):
    """The route exists, but not for this HTTP method."""

    code = "method_not_allowed"

    def __init__(self, sentence: str, allowed: str = "") -> None:
        """*allowed*: the HTTP methods that the route takes, for the `allow` header."""
        super().__init__(sentence)
        self.allowed = allowed


class TooLargeError(ClientError):
    """The body is larger than the agent accepts."""

    code = "too_large"


class UnavailableError(AgentError):
    """The request may succeed later or elsewhere."""


class NotReadyError(UnavailableError):
    """The model is still loading, or failed to."""

    code = "not_ready"


class QueueFullError(UnavailableError):
    """Too many requests wait for the inference thread."""

    code = "queue_full"


class OverloadedError(UnavailableError):
    """The answer would come after its deadline, as far as earlier batches tell."""

    code = "overloaded"


class TooManyError(AgentError):
    """The endpoint's limit of requests at one time is reached."""

    code = "too_many_requests"


class DeadlineError(AgentError):
    """The answer did not come in time."""

    code = "deadline"


class ModelError(AgentError):
    """The model itself failed on a valid request."""

    code = "model_failed"


class ModelMemoryError(ModelError):
    """The model asked for more memory than there is."""

    code = "model_memory"


class StartError(AgentError):
    """The agent cannot serve its manifest; the message is the reason shown to the operator."""

    code = "start_failed"


HTTP_STATUS: Final[dict[str, int]] = {
    "invalid_request": 400,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_large": 413,
    "not_ready": 503,
    "queue_full": 503,
    "overloaded": 503,
    "too_many_requests": 429,
    "deadline": 504,
    "model_failed": 500,
    "model_memory": 500,
    "start_failed": 503,
}
"""Error code → HTTP status."""

GRPC_STATUS: Final[dict[str, str]] = {
    "invalid_request": "INVALID_ARGUMENT",
    "not_found": "NOT_FOUND",
    "method_not_allowed": "UNIMPLEMENTED",
    "too_large": "RESOURCE_EXHAUSTED",
    "not_ready": "UNAVAILABLE",
    "queue_full": "UNAVAILABLE",
    "overloaded": "UNAVAILABLE",
    "too_many_requests": "RESOURCE_EXHAUSTED",
    "deadline": "DEADLINE_EXCEEDED",
    "model_failed": "INTERNAL",
    "model_memory": "INTERNAL",
    "start_failed": "UNAVAILABLE",
}
"""Error code → name of a grpc.StatusCode."""
