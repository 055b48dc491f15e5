"""Uploads: files on their way to becoming a version."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any


class UploadState(StrEnum):
    """An upload's life.

    RECEIVING → CHECKING → (NEEDS_INPUT → CHECKING)* → REGISTERED | REJECTED | CANCELLED
    """

    RECEIVING = "receiving"
    CHECKING = "checking"
    NEEDS_INPUT = "needs input"
    """Waits for a person: acceptance to run the program, or a signature the file does not hold."""
    REGISTERED = "registered"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


FINAL_STATES = frozenset({UploadState.REGISTERED, UploadState.REJECTED, UploadState.CANCELLED})


def declaration_hash(
    *,
    details: Mapping[str, Any],
    labels: Sequence[str],
    handler: str | None,
    architecture: Mapping[str, Any] | None,
    signature: Mapping[str, Any] | None,
) -> str:
    """Hexadecimal SHA-256 of what was said of an upload beside its files; the same words, the same hash."""
    said = [details, labels, handler, architecture, signature]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
