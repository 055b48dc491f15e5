"""Whether a request can still be answered in time, by measured batch durations. Pure.

The idea of BentoML's adaptive batching: fit duration = slope · rows + overhead and refuse what would miss its
deadline before it costs anything, instead of working on answers nobody waits for.
"""

from __future__ import annotations

import msgspec

from serving_agent.duration_model import DurationModel


class Backlog(msgspec.Struct, frozen=True):
    """What is ahead of a new request."""

    running_rows: int
    """Rows of the batch in the model; 0 when it is idle."""
    running_for_s: float
    waiting_rows: int
    max_rows: int


def answered_in_s(durations: DurationModel, backlog: Backlog, rows: int) -> float:
    """Return in how many seconds a request of *rows* rows would be answered, were it put last in the queue.

    Waiting rows are taken to run in full batches; the request shares the last one where it fits.
    """
    running_s = (
        max(0.0, durations.predict(backlog.running_rows) - backlog.running_for_s)
        if backlog.running_rows
        else 0.0
    )
    full, rest = divmod(backlog.waiting_rows, backlog.max_rows)
    ahead_s = full * durations.predict(backlog.max_rows)
    if rest and rest + rows > backlog.max_rows:
        return running_s + ahead_s + durations.predict(rest) + durations.predict(rows)
    return running_s + ahead_s + durations.predict(rest + rows)
