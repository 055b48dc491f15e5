"""The queue in front of the model, against a plain list."""

from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from serving_agent.batch_queue import BatchQueue


@dataclass(eq=False)
class Member:
    group: object
    rows: int
    submitted_s: float


def queue_of(*members, max_rows=4, max_delay_s=0.0):
    queue = BatchQueue(max_rows, max_delay_s)
    for member in members:
        queue.put(member)
    return queue


def test_one_group_runs_together_in_order_of_arrival():
    members = [Member("a", 1, time) for time in range(3)]
    assert queue_of(*members).take(9.0) == members


def test_groups_are_never_mixed_and_the_longest_waiting_goes_first():
    members = [Member("a", 1, 0.0), Member("b", 1, 1.0), Member("a", 1, 2.0)]
    queue = queue_of(*members)
    assert queue.take(9.0) == [members[0], members[2]]
    assert queue.take(9.0) == [members[1]]
    assert queue.take(9.0) == []


def test_a_busy_group_does_not_starve_another():
    quiet = Member("b", 1, 4.5)
    busy = [Member("a", 1, float(time)) for time in range(9)]
    queue = queue_of(*busy[:5], quiet, *busy[5:])
    assert [queue.take(9.0) for _ in range(4)] == [busy[:4], busy[4:8], [quiet], busy[8:]]


def test_without_a_group_each_runs_alone():
    members = [Member(None, 1, float(time)) for time in range(2)]
    queue = queue_of(*members, max_delay_s=5.0)
    assert queue.due_s() == 0.0
    assert [queue.take(1.0), queue.take(1.0)] == [[members[0]], [members[1]]]


@pytest.mark.parametrize(
    ("rows", "taken"), [((2, 2, 1), 2), ((3, 2, 1), 1), ((9, 1), 1), ((1, 9), 1), ((4, 1), 1), ((1, 3), 2)]
)
def test_the_cap_counts_rows_and_a_larger_request_runs_alone(rows, taken):
    members = [Member("a", count, float(place)) for place, count in enumerate(rows)]
    queue = queue_of(*members)
    assert queue.take(9.0) == members[:taken]
    assert (len(queue), queue.rows) == (len(rows) - taken, sum(rows[taken:]))


def test_a_batch_waits_for_others_until_it_is_full_or_due():
    queue = queue_of(Member("a", 2, 1.0), max_delay_s=0.5)
    assert queue.due_s() == 1.5
    assert queue.take(1.49) == []
    queue.put(Member("b", 1, 1.2))
    assert queue.due_s() == 1.5
    queue.put(Member("b", 3, 1.3))
    assert queue.due_s() == 1.2, "the second group is full"
    assert [member.group for member in queue.take(1.3)] == ["b", "b"]
    assert len(queue.take(1.5)) == 1
    assert queue.due_s() is None


def test_a_group_whose_oldest_has_gone_waits_for_its_next():
    first, second = Member("a", 1, 1.0), Member("a", 1, 2.0)
    queue = queue_of(first, second, max_delay_s=0.5)
    assert queue.remove(first)
    assert not queue.remove(first)
    assert queue.due_s() == 2.5


class Queue(RuleBasedStateMachine):
    """A queue and a list of the same members, in order of arrival."""

    waiting = Bundle("waiting")

    @initialize(max_rows=st.integers(1, 6), max_delay_s=st.sampled_from([0.0, 1.0, 3.0]))
    def begin(self, max_rows, max_delay_s):
        self.max_rows, self.max_delay_s = max_rows, max_delay_s
        self.queue = BatchQueue(max_rows, max_delay_s)
        self.members: list[Member] = []
        self.now_s = 0.0

    @rule(target=waiting, group=st.sampled_from([None, "a", "b", ("a", 1)]), rows=st.integers(1, 8))
    def put(self, group, rows):
        self.now_s += 0.25
        member = Member(group, rows, self.now_s)
        self.queue.put(member)
        self.members.append(member)
        return member

    @rule(member=consumes(waiting))
    def remove(self, member):
        assert self.queue.remove(member) == (member in self.members)
        self.members = [other for other in self.members if other is not member]

    @rule(seconds=st.sampled_from([0.0, 0.5, 2.0]))
    def take(self, seconds):
        self.now_s += seconds
        wanted = self.due_batch()
        assert self.queue.take(self.now_s) == wanted
        self.members = [member for member in self.members if member not in wanted]

    @rule()
    def drain(self):
        drained = self.queue.drain()
        assert sorted(map(id, drained)) == sorted(map(id, self.members))
        self.members = []

    def groups(self) -> list[list[Member]]:
        named: dict[object, list[Member]] = {}
        for member in self.members:
            named.setdefault(id(member) if member.group is None else member.group, []).append(member)
        return list(named.values())

    def due_s(self, group: list[Member]) -> float:
        full = group[0].group is None or sum(member.rows for member in group) >= self.max_rows
        return group[0].submitted_s + (0.0 if full else self.max_delay_s)

    def due_batch(self) -> list[Member]:
        due = [group for group in self.groups() if self.due_s(group) <= self.now_s]
        if not due:
            return []
        first, *others = min(due, key=lambda group: group[0].submitted_s)
        batch = [first]
        for member in others:
            if sum(taken.rows for taken in batch) + member.rows > self.max_rows:
                break
            batch.append(member)
        return batch

    @invariant()
    def counts(self):
        if not hasattr(self, "queue"):
            return
        assert len(self.queue) == len(self.members)
        assert self.queue.rows == sum(member.rows for member in self.members)
        assert self.queue.due_s() == min(map(self.due_s, self.groups()), default=None)


TestQueue = Queue.TestCase
