"""Which requests run next, together: the queue in front of the model. Pure: the caller brings the time.

Requests of one group (same inner shapes and parameters) may share a batch. The group whose oldest request has
waited longest goes first; inside a group order of arrival is kept. A batch leaves when it is full or its
oldest request has waited `max_delay_s`; with no delay that is at once: batches form while the model is busy.

Clients that wait for an answer before they ask again come back together after a shared batch. The first of
them would run alone and the others after it, every time. So the queue can be told to expect as many rows
again for a moment, and holds what is fewer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """What the queue has to know of a request."""

    @property
    def group(self) -> Hashable:
        """Requests of equal groups may run together; None runs alone."""

    @property
    def rows(self) -> int:
        """Rows the request brings to a batch, at least 1."""

    @property
    def submitted_s(self) -> float:
        """When it was put, on the clock of the caller."""


Q = TypeVar("Q", bound=Queued)


@dataclass(slots=True)
class _Group(Generic[Q]):
    members: deque[Q] = field(default_factory=deque)
    rows: int = 0


class BatchQueue(Generic[Q]):
    """Waiting requests by group."""

    def __init__(self, max_rows: int, max_delay_s: float = 0.0) -> None:
        self._max_rows = max_rows
        self._max_delay_s = max_delay_s
        self._groups: dict[Hashable, _Group[Q]] = {}
        self._count = 0
        self._rows = 0
        self._expected_rows = 0
        self._expected_until_s = 0.0

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> int:
        """Rows of all waiting requests."""
        return self._rows

    def put(self, member: Q) -> None:
        """Append *member* to its group."""
        group = self._groups.setdefault(_key(member), _Group())
        group.members.append(member)
        self._count_in(group, member, 1)

    def expect(self, rows: int, until_s: float) -> None:
        """Hold batches of fewer than *rows* rows until *until_s*."""
        self._expected_rows = min(rows, self._max_rows)
        self._expected_until_s = until_s

    def remove(self, member: Q) -> bool:
        """Take *member* out wherever it waits; tell whether it was there."""
        group = self._groups.get(_key(member))
        if group is None or member not in group.members:
            return False
        group.members.remove(member)
        self._count_in(group, member, -1)
        return True

    def due_s(self) -> float | None:
        """Return the time from which `take` has a batch; None where nothing waits."""
        return min(map(self._due_s, self._groups.values()), default=None)

    def take(self, now_s: float) -> list[Q]:
        """Return the batch that is due at *now_s*; empty where none is."""
        due = [group for group in self._groups.values() if self._due_s(group) <= now_s]
        if not due:
            return []
        return self._fill(min(due, key=lambda group: group.members[0].submitted_s))

    def drain(self) -> list[Q]:
        """Take out everything that waits, in no particular order."""
        members = [member for group in self._groups.values() for member in group.members]
        self._groups.clear()
        self._count = self._rows = 0
        return members

    def _fill(self, group: _Group[Q]) -> list[Q]:
        """Take the longest prefix of *group* within the cap; its first member always, however large."""
        batch: list[Q] = []
        rows = 0
        while group.members and (not batch or rows + group.members[0].rows <= self._max_rows):
            member = group.members.popleft()
            rows += member.rows
            batch.append(member)
            self._count_in(group, member, -1)
        return batch

    def _due_s(self, group: _Group[Q]) -> float:
        oldest = group.members[0]
        if oldest.group is None or group.rows >= self._max_rows:
            return oldest.submitted_s
        due_s = oldest.submitted_s + self._max_delay_s
        return due_s if group.rows >= self._expected_rows else max(due_s, self._expected_until_s)

    def _count_in(self, group: _Group[Q], member: Q, sign: int) -> None:
        group.rows += sign * member.rows
        self._rows += sign * member.rows
        self._count += sign
        if not group.members:
            self._groups.pop(_key(member), None)


def _key(member: Queued) -> Hashable:
    return ("alone", id(member)) if member.group is None else ("group", member.group)
