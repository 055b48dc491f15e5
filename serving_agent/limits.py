"""The memory limit of the process, and how running into it is recognised."""

from __future__ import annotations

import logging
from typing import Final

from serving_agent.error_text import says_out_of_memory

logger = logging.getLogger(__name__)

MIB: Final = 1024 * 1024


def limit_memory(memory_bytes: int | None) -> None:
    """Bound the process's private writable memory (RLIMIT_DATA, see setrlimit(2)); None leaves it unbounded.

    Windows has no such limit; there the setting is logged and ignored.
    """
    if memory_bytes is None:
        return
    try:
        import resource
    except ImportError:
        logger.warning("this platform has no RLIMIT_DATA: the memory limit is not enforced")
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def lift() -> None:
    """Take the bound back: a process that ends because of it must be able to say so."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether *error* is a failed allocation, in Python, on the CPU or on a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ in ("OutOfMemoryError", "_ArrayMemoryError"):
        return True
    return isinstance(error, RuntimeError) and says_out_of_memory(str(error))


def memory_sentence(memory_bytes: int | None) -> str:
    """Return what to tell about a failed allocation."""
    if memory_bytes is None:
        return "the model needs more memory than this machine has free"
    return f"the model needs more memory than the limit of {memory_bytes // MIB} MiB"
