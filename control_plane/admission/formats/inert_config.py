"""Configuration of Hugging Face models that asks for code. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from control_plane.admission.base import Refusal
from control_plane.admission.reasons import ReasonCode

CODE_KEYS: Final = frozenset({"auto_map", "custom_generate", "custom_pipelines", "trust_remote_code"})


def check(value: Any, file: str) -> None:
    """Refuse configuration that asks for code: anywhere in it, also where today's library would not look."""
    for key, held in _entries(value):
        attention = key in ("attn_implementation", "_attn_implementation") and "/" in str(held)
        asks = key in CODE_KEYS and held is not None and held is not False
        if asks or attention:
            raise Refusal(
                ReasonCode.REMOTE_CODE,
                f"{file} asks for code of its own ({key}); code from uploads is never run",
                "Use an architecture that transformers brings itself, and save the model again without "
                "trust_remote_code.",
                file=file,
            )


def _entries(root: Any) -> Iterator[tuple[str, Any]]:
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
