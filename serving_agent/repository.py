"""What an agent answers to clients that take it for a whole Triton server. Pure.

Protocol: Triton's model repository, shared memory, trace and logging extensions. An agent serves the one
version that the control plane gave it, so it lists that version and refuses to change it.
"""

from __future__ import annotations

from typing import Final, Literal, NoReturn

from serving_agent import json_body
from serving_agent.contract.manifest import Manifest
from serving_agent.errors import InvalidRequestError, MethodError, NotFoundError

Change = Literal["load", "unload"]

REFUSED_CALLS: Final = {
    "SystemSharedMemoryRegister": "shared memory is not supported; send tensors in the request",
    "CudaSharedMemoryRegister": "CUDA shared memory is not supported; send tensors in the request",
    "TraceSetting": "traces are not set by clients; the control plane tells agents where traces go",
    "LogSettings": "logging is not set by clients; the control plane keeps the agents' logs",
}
"""gRPC method → why the agent does not answer it."""


def index(manifest: Manifest, *, is_ready: bool, reason: str, ready_only: bool) -> list[dict[str, str]]:
    """Return the repository's content: the served version, or nothing if *ready_only* and it is not ready.

    reason: why the model is not ready, e.g. the agent's phase; not shown when it is.
    """
    if ready_only and not is_ready:
        return []
    state, why = ("READY", "") if is_ready else ("UNAVAILABLE", reason)
    return [{"name": manifest.endpoint, "version": str(manifest.version), "state": state, "reason": why}]


def wants_ready_only(body: bytes) -> bool:
    """Return `ready` of a REST index request's body; an empty body asks for all.

    Raises InvalidRequestError.
    """
    ready = json_body.parse(body).get("ready", False) if body.strip() else False
    if not isinstance(ready, bool):
        raise InvalidRequestError("'ready' must be true or false")
    return ready


def refuse_change(manifest: Manifest, change: Change, model: str) -> NoReturn:
    """Refuse to load or unload *model*: always raises MethodError, saying how versions are changed."""
    raise MethodError(
        f"cannot {change} {model!r} here: the control plane owns the versions; "
        f"to serve another one, run `signalbox deploy {manifest.endpoint} {manifest.model}@N`"
    )


def refuse_call(method: str) -> NoReturn:
    """Refuse the gRPC *method*, one of REFUSED_CALLS: always raises MethodError."""
    raise MethodError(REFUSED_CALLS[method])


def check_region(name: str) -> None:
    """Check a question about the shared-memory region *name*, empty for all of them: there are none.

    Raises NotFoundError for a name.
    """
    if name:
        raise NotFoundError(f"no shared-memory region {name!r} is registered: this agent takes none")
