"""Errors a person can act on.

SignalboxError
├── InvalidInputError      invalid_input     400  a value is malformed or out of range
├── NotFoundError          not_found         404  no such model, version, endpoint, job, ...
├── ConflictError          conflict          409  the thing changed, exists already, or is in another state
│   ├── InUseError         in_use            409  refused because something is served by it
│   └── RejectedError      rejected          409  a variant that the lab rejected, without a waiver
├── GoneError              gone              410  it was there and has ended: an upload that expired
├── TooLargeError          too_large         413  more bytes than a limit allows
├── RefusedError           refused           422  an uploaded file is not let in (reason code in details)
├── LockedError            locked            423  somebody else is writing to it at this moment
├── ChecksumError          checksum_mismatch 460  what arrived is not what was sent
├── UnavailableError       unavailable       503  a part of the system does not answer; try again
└── NoSpaceError           no_space          507  the disk is full or would fall below its floor

Each has a stable `code`, a sentence for the operator (`str(error)`) and, where there is one, a next step.
"""

from __future__ import annotations

from typing import Any, ClassVar


class SignalboxError(Exception):
    """Base of every expected error: what happened and why, and what to do about it."""

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, next_step: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.details = details


class InvalidInputError(SignalboxError):
    """A value is malformed or out of range."""

    code = "invalid_input"
    http_status = 400


class NotFoundError(SignalboxError):
    """The named thing does not exist."""

    code = "not_found"
    http_status = 404


class ConflictError(SignalboxError):
    """The thing exists already, changed meanwhile, or is in a state that does not allow this."""

    code = "conflict"
    http_status = 409


class InUseError(ConflictError):
    """Refused because something is served by it; the message says where."""

    code = "in_use"


class RejectedError(ConflictError):
    """An optimised variant that was measured and rejected is not promoted without a reason given for it."""

    code = "rejected"


class GoneError(SignalboxError):
    """The thing existed and has ended; asking again will not bring it back."""

    code = "gone"
    http_status = 410


class LockedError(SignalboxError):
    """Somebody else is writing to the same thing at this moment."""

    code = "locked"
    http_status = 423


class ChecksumError(SignalboxError):
    """What arrived does not have the checksum that its sender named (status: the tus protocol's own)."""

    code = "checksum_mismatch"
    http_status = 460


class TooLargeError(SignalboxError):
    """More bytes than a limit allows."""

    code = "too_large"
    http_status = 413


class RefusedError(SignalboxError):
    """An uploaded file is not let in: `details` hold `reason` (stable code) and `file`."""

    code = "refused"
    http_status = 422


class UnavailableError(SignalboxError):
    """A part of the system does not answer; the same call may work later."""

    code = "unavailable"
    http_status = 503


class NoSpaceError(SignalboxError):
    """The disk is full, or would fall below the floor kept free."""

    code = "no_space"
    http_status = 507
