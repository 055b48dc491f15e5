"""What other people's error messages say: failed allocations, and paths that are nobody's business. Pure."""

from __future__ import annotations

import re
from typing import Final

OUT_OF_MEMORY_SIGNS: Final = (
    "DefaultCPUAllocator",
    "can't allocate memory",
    "Cannot allocate memory",
    "bad_alloc",
    "Failed to allocate memory",
)
"""What torch, ONNX Runtime and the C++ library write into an error when an allocation fails."""
PATH: Final = re.compile(r"(?:[A-Za-z]:)?(?:[/\\][^\s/\\:'\"<>|]+){2,}")


def says_out_of_memory(text: str) -> bool:
    """Tell whether *text*, an error's own words, is of a failed allocation."""
    return any(sign in text for sign in OUT_OF_MEMORY_SIGNS)


def without_paths(text: str) -> str:
    """Return *text* with every path cut down to its last part."""
    return PATH.sub(lambda match: re.split(r"[/\\]", match.group())[-1], text)
