"""Exit codes of `signalbox`: stable, listed in docs/reference/cli.md."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a script can tell from how a command ended."""

    OK = 0
    FAILED = 1
    """The operation was carried out and failed, or the server had an error."""
    USAGE = 2
    """The command line, a file or a value is malformed."""
    NOT_FOUND = 3
    """No such model, version, endpoint, agent or job."""
    REFUSED = 4
    """Refused: a conflict, something in use, an upload that is not let in."""
    UNREACHABLE = 5
    """Signalbox or its gateway does not answer."""
    INTERRUPTED = 130
    """Ended by Ctrl-C."""


_BY_STATUS = {
    400: ExitCode.USAGE,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.REFUSED,
    422: ExitCode.REFUSED,
    502: ExitCode.UNREACHABLE,
    503: ExitCode.UNREACHABLE,
    504: ExitCode.UNREACHABLE,
}


def of_status(status: int) -> ExitCode:
    """The exit code for an HTTP error status."""
    return _BY_STATUS.get(status, ExitCode.FAILED)
