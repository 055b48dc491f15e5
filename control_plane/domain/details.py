"""Bounds on free data that people attach: details, labels, tags. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from control_plane.errors import InvalidInputError

MAX_DETAILS_BYTES: Final = 64 * 1024
MAX_LINEAGE_BYTES: Final = 1024 * 1024
MAX_LABELS: Final = 100_000
MAX_LABEL_CHARS: Final = 256
MAX_TAG_VALUE_CHARS: Final = 256
MAX_TAGS: Final = 50
_TAG_KEY: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def check_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return *details* if it is a JSON object of at most 64 KiB with finite numbers.

    Raises InvalidInputError.
    """
    return _check_json("Details", details, MAX_DETAILS_BYTES)


def check_lineage(lineage: Mapping[str, Any]) -> dict[str, Any]:
    """Return *lineage* if it is a JSON object of at most 1 MiB with finite numbers.

    Raises InvalidInputError.
    """
    return _check_json("Lineage", lineage, MAX_LINEAGE_BYTES)


def _check_json(what: str, values: Mapping[str, Any], max_bytes: int) -> dict[str, Any]:
    try:
        text = json.dumps(dict(values), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{what} must be plain JSON with finite numbers: {error}") from error
    if "\\u0000" in text:
        raise InvalidInputError(f"{what} must not hold a NUL character")
    if len(text) > max_bytes:
        raise InvalidInputError(f"{what} must not be longer than {max_bytes} bytes")
    return dict(values)


def check_labels(labels: Sequence[str]) -> list[str]:
    """Return class names *labels* if there are not too many and none is too long.

    Raises InvalidInputError.
    """
    if len(labels) > MAX_LABELS:
        raise InvalidInputError(f"{len(labels)} labels are too many: at most {MAX_LABELS}")
    for label in labels:
        _check_text("label", label, MAX_LABEL_CHARS)
    return list(labels)


def check_tag_key(key: str) -> str:
    """Return *key* if it is usable: 1 to 63 letters, digits, '.', '_' and '-'. Raises InvalidInputError."""
    if not _TAG_KEY.fullmatch(key):
        raise InvalidInputError(
            f"Tag key {key[:80]!r} is not usable",
            next_step="Use 1 to 63 letters, digits, '.', '_' and '-', with a letter or digit at both ends.",
        )
    return key


def check_tag_value(value: str) -> str:
    """Return *value* if it is one line of at most 256 characters, or empty. Raises InvalidInputError."""
    return _check_text("tag value", value, MAX_TAG_VALUE_CHARS)


def _check_text(kind: str, text: str, max_chars: int) -> str:
    if len(text) > max_chars:
        raise InvalidInputError(f"A {kind} is longer than {max_chars} characters: {text[:40]!r}…")
    if not text.isprintable():
        raise InvalidInputError(f"A {kind} holds a control character: {text[:40]!r}")
    return text
