"""Says in words how a process ended. Pure."""

from __future__ import annotations

import signal

_MEANINGS = {
    signal.SIGKILL: "killed by the system's out-of-memory handler or by hand (SIGKILL)",
    signal.SIGSEGV: "crashed inside native code (SIGSEGV)",
    signal.SIGABRT: "aborted inside native code (SIGABRT)",
    signal.SIGBUS: "crashed on a memory access (SIGBUS)",
    signal.SIGFPE: "crashed on an arithmetic error inside native code (SIGFPE)",
    signal.SIGILL: "used an instruction this processor does not have (SIGILL)",
    signal.SIGTERM: "asked to end from outside (SIGTERM)",
    signal.SIGINT: "interrupted by hand (SIGINT)",
    signal.SIGXCPU: "used more processor time than its limit (SIGXCPU)",
}


def in_words(code: int | None) -> str:
    """One sentence for an exit code as `subprocess` gives it: negative means a signal, None unknown."""
    if code is None:
        return "its process is gone; how it ended is not known"
    if code >= 0:
        return f"its process ended by itself with exit code {code}"
    try:
        number = signal.Signals(-code)
    except ValueError:
        return f"killed by signal {-code}"
    return _MEANINGS.get(number, f"killed by {number.name}")
