"""Uploads: files on their way to becoming a version."""

from enum import StrEnum


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
