"""What went wrong in a model, and where, as the contract tells it."""

from __future__ import annotations

import errno
import os
from typing import Final

from serving_agent.contract.inspection import Failure, NotInspected
from serving_agent.errors import AgentError
from serving_agent.inspection import places
from serving_agent.inspection.edits import EditError
from serving_agent.inspection.points import Trouble
from serving_agent.limits import is_out_of_memory, memory_sentence

LONGEST: Final = 2000
"""Characters of an error's own message."""


def of_error(error: BaseException, trouble: Trouble | None) -> Failure:
    """Return *error* with its place; *trouble*: what the capture knows of it."""
    place = trouble.place if trouble is not None else ""
    return Failure(
        type=type(error).__name__,
        message=(str(error).strip() or "no message")[:LONGEST],
        place=place or _place(error),
        module=trouble.module if trouble is not None else "",
    )


def _place(error: BaseException) -> str:
    """Return the place of the first error of those that *error* was made of, as far as it is anyone's own."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    found = (places.of_traceback(each.__traceback__) for each in reversed(chain))
    return next((place for place in found if place), "")


def not_inspected(error: BaseException, memory_bytes: int | None, *, opening: bool) -> NotInspected:
    """Return why there is nothing to show; opening: whether the artefact was still being opened."""
    if is_out_of_memory(error):
        return NotInspected(code="out_of_memory", message=memory_sentence(memory_bytes))
    if is_out_of_space(error):
        return NotInspected(code="no_space", message="the disk is full")
    if isinstance(error, EditError):
        return NotInspected(code="edit_refused", message=str(error))
    lines = str(error).strip().splitlines() or ["no message"]
    message = lines[0] if isinstance(error, AgentError) else f"{type(error).__name__}: {lines[0]}"
    return NotInspected(code="cannot_open" if opening else "inspection_failed", message=message[:LONGEST])


def is_out_of_space(error: BaseException) -> bool:
    """Whether *error* says that a disk or a quota is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return os.strerror(errno.ENOSPC) in str(error)


def is_of_recording(error: BaseException) -> bool:
    """Whether *error* is of what is recorded, and not of the model: an edit, or a full disk."""
    return isinstance(error, EditError) or (isinstance(error, OSError) and is_out_of_space(error))
