"""Stored samples as ticks: whole, deterministic, each counted once, and gaps where nothing is known."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.telemetry import series
from control_plane.telemetry.local_store import LocalStore
from control_plane.telemetry.samples import Key, Sample, SampleKind, labels_of
from control_plane.telemetry.ticks import RawTick, read_ticks
from serving_agent.contract.metric_names import COMPARED_BUCKETS_S

T0 = 1_800_000_000  # a multiple of 5
TICK_MS = 5000
BUCKETS = len(COMPARED_BUCKETS_S) + 1


def counter(name: str, value: float, code: str, version: str = "digits@2", **more: str) -> Sample:
    labels = labels_of({"endpoint": "digits", "version": version, "code": code, **more})
    return Sample(Key(name, labels, SampleKind.COUNTER), value, 2.0)


def requests(value: float, code: str = "200", version: str = "digits@2") -> Sample:
    return counter(series.COMPARED_REQUESTS, value, code, version)


def histogram(name: str, bucket: int, count: int, version: str = "digits@2") -> Sample:
    labels = labels_of({"endpoint": "digits", "version": version})
    counts = [0] * BUCKETS
    counts[bucket] = count
    return Sample(Key(name, labels, SampleKind.HISTOGRAM, COMPARED_BUCKETS_S), count, 2.0, tuple(counts))


def reading(span_s: float = 2.0) -> Sample:
    return Sample(Key(series.GATEWAY_READINGS, (), SampleKind.COUNTER), 1.0, span_s)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "metrics.db")


def ticks(store: LocalStore, after_s: float = T0, now_s: float = T0 + 100) -> list[RawTick]:
    return read_ticks(
        store, "digits", "digits@1", "digits@2", round(after_s * 1000), TICK_MS, round(now_s * 1000)
    )


def ends(found: list[RawTick]) -> list[int]:
    return [tick.end_ms // 1000 - T0 for tick in found]


def test_an_empty_store_has_no_ticks(store: LocalStore) -> None:
    assert ticks(store) == []


def test_a_tick_is_whole_once_something_is_newer_than_its_end(store: LocalStore) -> None:
    store.write(T0 + 3, [reading(), requests(4)])
    assert ticks(store) == []
    store.write(T0 + 5, [reading(), requests(1)])
    assert ticks(store) == [], "more may still be taken at its very end"
    store.write(T0 + 5.002, [reading(), requests(7)])

    (tick,) = ticks(store)
    assert (tick.end_ms, tick.span_s) == ((T0 + 5) * 1000, 4.0)
    assert (tick.candidate.requests, tick.stable.requests) == (5, 0)


def test_everything_of_both_versions_is_summed_by_tick(store: LocalStore) -> None:
    answers, outputs = series.AGENT_ANSWERS, series.AGENT_OUTPUTS
    store.write(
        T0 + 2,
        [
            reading(), requests(8), requests(2, "503"), requests(1, "502"), requests(3, "404"),
            requests(90, version="digits@1"), requests(50, version="digits@3"),
            counter(series.GATEWAY_TRIES, 14, "ok"), counter(series.GATEWAY_TRIES, 6, "failed"),
            histogram(series.COMPARED_LATENCY, 40, 14), histogram(series.COMPARED_FIRST_BYTE, 30, 14),
            counter(answers, 9, "answers", agent="a"), counter(answers, 1, "answers", agent="b"),
            counter(answers, 2, "nonfinite", agent="b"), counter(outputs, 7, "cat", agent="a"),
        ],
    )  # fmt: skip
    store.write(T0 + 4, [reading(), requests(1), histogram(series.COMPARED_LATENCY, BUCKETS - 1, 2)])
    store.write(T0 + 6, [reading(), counter(outputs, 3, "dog", agent="a")])

    (tick,) = ticks(store)
    arm = tick.candidate
    assert (arm.requests, arm.errors, arm.tries, arm.failed_tries) == (15, 3, 20, 6)
    assert (arm.answers, arm.nonfinite, arm.outputs) == (10, 2, {"cat": 7})
    assert (arm.latency[40], arm.latency[-1], sum(arm.latency), len(arm.latency)) == (14, 2, 16, BUCKETS)
    assert (arm.first_byte[30], sum(arm.first_byte)) == (14, 14)
    assert tick.latency_bounds_s == COMPARED_BUCKETS_S
    assert (tick.stable.requests, tick.stable.errors, sum(tick.stable.latency)) == (90, 0, 0)
    assert (tick.stable.answers, tick.stable.nonfinite, tick.stable.outputs) == (None, None, None)


def test_by_unit_requests_and_times_are_those_of_units(store: LocalStore) -> None:
    store.write(
        T0 + 2,
        [
            reading(), requests(80), requests(20, "503"), histogram(series.COMPARED_LATENCY, 40, 100),
            counter(series.UNIT_REQUESTS, 7, "200"), counter(series.UNIT_REQUESTS, 1, "503"),
            counter(series.UNIT_REQUESTS, 9, "200", "digits@1"),
            counter(series.UNIT_REPEATS, 92, ""), counter(series.UNIT_REPEATS, 5, "", "digits@1"),
            histogram(series.UNIT_LATENCY, 41, 8), histogram(series.UNIT_FIRST_BYTE, 30, 8),
            counter(series.GATEWAY_TRIES, 100, "ok"), counter(series.AGENT_ANSWERS, 80, "answers", agent="a"),
        ],
    )  # fmt: skip
    store.write(T0 + 6, [reading()])
    asked = (store, "digits", "digits@1", "digits@2", T0 * 1000, TICK_MS, (T0 + 100) * 1000)

    (tick,) = read_ticks(*asked, by_unit=True)
    arm = tick.candidate
    assert (tick.by_unit, arm.requests, arm.errors, tick.stable.requests) == (True, 8, 1, 9)
    assert tick.repeated == 97
    assert (sum(arm.latency), arm.latency[41], arm.first_byte[30]) == (8, 8, 8)
    assert (arm.tries, arm.answers) == (100, 80), "these are counted by request"
    (tick,) = read_ticks(*asked)
    assert (tick.by_unit, tick.candidate.requests, tick.candidate.latency[40]) == (False, 100, 100)
    assert tick.repeated == 0


def test_an_agent_that_answered_nothing_said_so(store: LocalStore) -> None:
    store.write(T0 + 2, [reading(), counter(series.AGENT_ANSWERS, 0, "answers", agent="a")])
    store.write(T0 + 6, [reading()])

    (tick,) = ticks(store)
    assert (tick.candidate.answers, tick.candidate.nonfinite, tick.candidate.outputs) == (0, 0, None)


def test_time_in_which_the_gateway_was_not_read_has_no_tick(store: LocalStore) -> None:
    store.write(T0 + 3, [reading(), requests(1)])
    store.write(T0 + 7, [counter(series.AGENT_ANSWERS, 5, "answers", agent="a")])
    store.write(T0 + 13, [reading(10.0), requests(30)])
    store.write(T0 + 16, [reading()])

    found = ticks(store)
    assert ends(found) == [5, 15]
    assert (found[1].candidate.requests, found[1].span_s) == (30, 10.0)


def test_a_gateway_that_stays_silent_ends_no_tick(store: LocalStore) -> None:
    store.write(T0 + 3, [reading(), requests(1)])
    store.write(T0 + 30, [counter(series.AGENT_ANSWERS, 5, "answers", agent="a")])

    assert ticks(store) == []


@pytest.mark.parametrize(
    ("after_s", "expected"), [(0, [5, 10]), (0.001, [10]), (5, [10]), (5.5, []), (10, [])]
)
def test_only_ticks_that_begin_after_the_cursor_are_read(
    store: LocalStore, after_s: float, expected: list[int]
) -> None:
    for at_s in (2, 4, 6, 8, 11):
        store.write(T0 + at_s, [reading(), requests(1)])

    assert ends(ticks(store, T0 + after_s)) == expected


def test_ticks_that_the_store_has_begun_to_forget_are_left_out(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "metrics.db", raw_s=60)
    for at_s in range(2, 122, 2):
        store.write(T0 + at_s, [reading(), requests(1)])

    found = ticks(store, T0, now_s=T0 + 120)
    assert ends(found)[0] == 65
    assert {tick.candidate.requests for tick in found} <= {2, 3}
    assert sum(tick.candidate.requests for tick in found) == 27  # (60, 115] at every even second


def test_buckets_of_other_bounds_are_not_mixed_in(store: LocalStore) -> None:
    labels = labels_of({"endpoint": "digits", "version": "digits@2"})
    old = Sample(Key(series.COMPARED_LATENCY, labels, SampleKind.HISTOGRAM, (0.1,)), 3, 2.0, (1, 2))
    store.write(T0 + 2, [reading(), old, histogram(series.COMPARED_LATENCY, 1, 4)])
    store.write(T0 + 6, [reading()])

    (tick,) = ticks(store)
    assert sum(tick.candidate.latency) == 4


rounds = st.lists(st.tuples(st.integers(1, 7000), st.integers(0, 9), st.booleans()), min_size=1, max_size=25)


@given(rounds, st.integers(0, 30_000))
@settings(max_examples=25, deadline=None)
def test_however_often_ticks_are_read_every_request_is_counted_once(
    made: list[tuple[int, int, bool]], after_ms: int
) -> None:
    """Reading on from a cursor after every round gives the same ticks as reading them all at the end."""
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder) / "metrics.db")
        now_ms = cursor_ms = T0 * 1000 + after_ms
        one_by_one: list[RawTick] = []
        counted: list[tuple[int, int]] = []
        for pause_ms, count, answered in made:
            now_ms += pause_ms
            store.write(now_ms / 1000, [reading(), requests(count)] if answered else [])
            counted += [(now_ms, count)] if answered else []
            new = ticks(store, cursor_ms / 1000, now_ms / 1000)
            cursor_ms = new[-1].end_ms if new else cursor_ms
            one_by_one += new

        assert one_by_one == ticks(store, T0 + after_ms / 1000, now_ms / 1000)
        first_ms = -(-(T0 * 1000 + after_ms) // TICK_MS) * TICK_MS
        within = [count for t_ms, count in counted if first_ms < t_ms <= cursor_ms]
        assert sum(tick.candidate.requests for tick in one_by_one) == sum(within)
