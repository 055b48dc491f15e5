"""Uploads: the way from received bytes to a registered version, and the forms on that way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.domain.upload import UploadState
from control_plane.domain.views import JobView, UploadView
from control_plane.errors import InvalidInputError
from control_plane.ui.viewmodels import quantities, versions
from control_plane.ui.viewmodels.endpoints import Step, StepState
from serving_agent.contract.signature import DATATYPES, Signature, TensorSpec

ACCEPTANCE: Final = "acceptance"
SIGNATURE: Final = "signature"
ARCHITECTURE: Final = "architecture"
_WORDS: Final = ("Received", "Checked", "Accepted", "Tried", "Registered")


def timeline(upload: UploadView, job: JobView | None) -> tuple[Step, ...]:
    """received → checked → accepted → tried → registered, as far as *upload* has come.

    job: the check under way, for its stage. Weights (no program) skip accepted and tried.
    """
    words = _WORDS if upload.program or upload.format is None else ("Received", "Checked", "Registered")
    stage = _stage(upload, job)
    reached = words.index(stage) if stage in words else 1
    states = [_state(upload, i, reached) for i in range(len(words))]
    return tuple(
        Step(word, state, _note(upload, word, state, job), "")
        for word, state in zip(words, states, strict=True)
    )


def _stage(upload: UploadView, job: JobView | None) -> str:
    """The word of the stage that *upload* is in."""
    if upload.state == UploadState.REGISTERED:
        return "Registered"
    if upload.received_bytes < upload.size_bytes or upload.state == UploadState.RECEIVING:
        return "Received"
    if upload.program and upload.program_accepted_by is None and upload.state != UploadState.REJECTED:
        return "Accepted"
    trying = upload.program and job is not None and "try" in job.stage.lower()
    return "Tried" if trying else "Checked"


def _state(upload: UploadView, index: int, reached: int) -> StepState:
    if index != reached:
        return "done" if index < reached else "next"
    if upload.state in {UploadState.REJECTED, UploadState.CANCELLED}:
        return "failed"
    return "done" if upload.state == UploadState.REGISTERED else "now"


def _note(upload: UploadView, word: str, state: StepState, job: JobView | None) -> str:
    notes = {
        "Received": _received(upload, job),
        "Checked": versions.format_words(upload.format) if upload.format and state == "done" else "",
        "Accepted": f"by {upload.program_accepted_by}" if upload.program_accepted_by else "",
        "Registered": upload.version_ref or "",
    }
    running = f"{job.stage} …" if state == "now" and job is not None and job.stage else ""
    if state == "now" and upload.state == UploadState.NEEDS_INPUT:
        running = "waits for you"
    return notes.get(word) or running


def _received(upload: UploadView, job: JobView | None) -> str:
    if not upload.files:
        return f"waits to be fetched from {upload.reference}" if upload.reference else ""
    if upload.received_bytes >= upload.size_bytes:
        return quantities.size(upload.size_bytes)
    left = f", {quantities.duration(job.time_left_s)} left" if job and job.time_left_s is not None else ""
    return f"{quantities.size(upload.received_bytes)} of {quantities.size(upload.size_bytes)}{left}"


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One row of the signature form, as typed."""

    name: str
    datatype: str
    shape: str


def starting_rows(upload: UploadView) -> tuple[TensorRow, ...]:
    """Rows the signature form starts with: the inputs the check could name, or one empty row."""
    known = upload.signature.inputs if upload.signature else ()
    if not known:
        return (TensorRow("input", "FP32", ""),)
    return tuple(TensorRow(spec.name, spec.datatype, _shape_text(spec.shape)) for spec in known)


def _shape_text(shape: Sequence[int]) -> str:
    return ", ".join(str(size) for size in shape)


def parse_shape(text: str) -> tuple[int, ...]:
    """Read "-1, 1, 8, 8" or "[-1,1,8,8]". Raises InvalidInputError."""
    parts = [part.strip() for part in text.strip().strip("[]()").split(",") if part.strip()]
    try:
        shape = tuple(int(part) for part in parts)
    except ValueError as error:
        raise _bad_shape(text) from error
    if not shape or any(size == 0 or size < -1 for size in shape):
        raise _bad_shape(text)
    return shape


def _bad_shape(text: str) -> InvalidInputError:
    return InvalidInputError(
        f"{text!r} is not a shape",
        next_step="Write sizes with commas between, -1 for any size: -1, 1, 8, 8. The first is the batch.",
    )


def declared_signature(inputs: Iterable[TensorRow]) -> Signature:
    """The signature a person gave; outputs are found when the program is tried. Raises InvalidInputError."""
    specs = []
    for row in inputs:
        if row.datatype not in DATATYPES:
            raise InvalidInputError(
                f"{row.datatype!r} is not a datatype", next_step=f"Use one of {', '.join(DATATYPES)}."
            )
        if not row.name.strip():
            raise InvalidInputError("an input has no name", next_step="Name every input as the program does.")
        specs.append(TensorSpec(row.name.strip(), row.datatype, parse_shape(row.shape)))
    try:
        return Signature(tuple(specs), ())
    except ValueError as error:
        raise InvalidInputError(str(error), next_step="Give every input a name of its own.") from error


def split_labels(text: str) -> tuple[str, ...]:
    """Class labels from text: one a line, or with commas between."""
    separator = "\n" if "\n" in text.strip() else ","
    return tuple(label.strip() for label in text.split(separator) if label.strip())
