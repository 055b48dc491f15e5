"""Increments, bucket arithmetic and lines: what a chart shows of what was counted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.telemetry import series
from control_plane.telemetry.encoding import decode_counts, encode_counts
from control_plane.telemetry.evaluate import Stored, evaluate, quantiles, window
from control_plane.telemetry.live import MAX_POINTS, line_name, step_for
from control_plane.telemetry.samples import Increments, Key, SampleKind, Total
from control_plane.telemetry.series import Series, SeriesKind

BOUNDS = (0.1, 0.2, 0.4)
COUNTER = Key("requests", (), SampleKind.COUNTER)


def stored(t_s: list[float], value: list[float], span_s: float = 2.0, **labels: str) -> Stored:
    times = np.asarray(t_s, np.float64)
    return Stored(labels, (), times, np.full(len(times), span_s), np.asarray(value, np.float64))


def values(of: Series, what: list[Stored], end_s: float = 10.0, step_s: float = 2.0) -> list[float | None]:
    (line,) = evaluate(of, what, window(0.0, end_s, step_s))
    return list(line.values)


RATE = Series("r", "", "", SeriesKind.RATE, "x", ())
GAUGE = Series("g", "", "", SeriesKind.GAUGE, "x", ())
ERRORS = Series("e", "", "", SeriesKind.RATIO, "x", (), codes=("5",))


def test_names_are_unique_and_found() -> None:
    assert len({one.name for one in series.CATALOG}) == len(series.CATALOG)
    assert series.get("latency_p99").quantile == 0.99
    with pytest.raises(KeyError, match="request_rate"):
        series.get("nonsense")


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=30))
def test_increments_add_up_over_restarts(steps: list[tuple[int, bool]]) -> None:
    """After the first reading every event is counted once, and nothing is ever negative."""
    increments = Increments()
    increments.take([Total(COUNTER, 7)], 0.0)
    total, counted = 7, 0.0
    for number, (events, restarts) in enumerate(steps):
        # a restart is seen as such when the new total is lower than the old one
        restarted = restarts and events < total
        total = events if restarted else total + events
        (sample,) = increments.take([Total(COUNTER, total)], float(number + 1))
        assert sample.value >= 0
        counted += sample.value

    assert counted == sum(events for events, _ in steps)


def test_a_first_reading_says_nothing_and_a_new_total_counts_whole() -> None:
    increments = Increments()
    other = Key("requests", (("code", "500"),), SampleKind.COUNTER)

    assert increments.take([Total(COUNTER, 1000)], 1.0) == []
    samples = increments.take([Total(COUNTER, 1001), Total(other, 3)], 3.0)
    assert {sample.key: (sample.value, sample.span_s) for sample in samples} == {
        COUNTER: (1, 2.0),
        other: (3, 2.0),
    }


def test_a_histogram_that_restarted_counts_whole() -> None:
    key = Key("latency", (), SampleKind.HISTOGRAM, BOUNDS)
    increments = Increments()
    increments.take([Total(key, 10, (5, 5, 0, 0))], 0.0)

    # as many as before in sum, but fewer in a bucket: another process counted them
    (sample,) = increments.take([Total(key, 10, (0, 5, 5, 0))], 2.0)
    assert sample.counts == (0, 5, 5, 0)


@given(st.lists(st.lists(st.integers(0, 2**32 - 1), min_size=4, max_size=4), min_size=1, max_size=5))
def test_counts_survive_being_stored(rows: list[list[int]]) -> None:
    assert decode_counts([encode_counts(row) for row in rows], 4).tolist() == rows


def test_empty_buckets_take_no_room() -> None:
    assert encode_counts([0, 0, 0, 0]) == b""
    assert len(encode_counts([1, 0, 0, 0])) == 4


@pytest.mark.parametrize(
    ("counts", "q", "expected"),
    [
        ((10, 0, 0, 0), 0.5, 0.05),
        ((0, 10, 0, 0), 0.5, 0.15),
        ((5, 5, 0, 0), 0.5, 0.1),
        ((5, 5, 0, 0), 0.75, 0.15),
        ((0, 0, 4, 0), 1.0, 0.4),
        ((1, 0, 0, 99), 0.99, 0.4),
    ],
)
def test_quantiles_are_linear_within_a_bucket(counts: tuple[int, ...], q: float, expected: float) -> None:
    (value,) = quantiles(np.array([counts]), BOUNDS, q)

    assert value == pytest.approx(expected)


@given(st.lists(st.floats(0.001, 0.399), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(observed: list[float], q: float) -> None:
    edges = [0.0, *BOUNDS]
    buckets = [next(i for i, bound in enumerate(BOUNDS) if value <= bound) for value in observed]
    counts = [buckets.count(i) for i in range(4)]
    true_bucket = sorted(buckets)[max(0, math.ceil(q * len(observed) - 1e-9) - 1)]

    (value,) = quantiles(np.array([counts]), BOUNDS, q)
    assert edges[true_bucket] - 1e-9 <= value <= edges[true_bucket + 1] + 1e-9


def test_nothing_observed_has_no_quantile() -> None:
    assert np.isnan(quantiles(np.zeros((1, 4), np.int64), BOUNDS, 0.5)).all()


def test_a_rate_is_increments_per_second_covered() -> None:
    assert values(RATE, [stored([2, 4, 6, 8, 10], [2, 4, 6, 8, 10])]) == [1, 2, 3, 4, 5]


def test_rates_of_one_line_add_up() -> None:
    both = [stored([2, 4], [2, 2], code="200"), stored([2, 4], [4, 6], code="500")]

    assert values(RATE, both, end_s=4) == [3, 4]


def test_a_missing_source_is_a_gap_not_a_zero() -> None:
    assert values(RATE, [stored([2, 10], [2, 2])]) == [1, None, None, None, 1]


def test_a_late_sample_covers_the_time_since_the_one_before() -> None:
    late = Stored({}, (), np.array([2.0, 6.5]), np.array([2.0, 4.5]), np.array([2.0, 9.0]))

    assert values(RATE, [late], end_s=8) == [1, 2, 2, 2]


def test_jitter_leaves_no_hole() -> None:
    times = [1.9, 4.05, 6.1, 8.15, 9.9]  # none in (2, 4]

    assert None not in values(GAUGE, [stored(times, [5.0] * 5, span_s=2.1)])


def test_an_error_rate_is_a_share_and_a_gap_without_requests() -> None:
    both = [stored([2, 4, 6], [3, 0, 0], code="200"), stored([2, 4, 6], [1, 0, 5], code="503")]

    assert values(ERRORS, both, end_s=6) == [0.25, None, 1]


def test_gauges_are_means_over_time_and_sums_over_things() -> None:
    both = [stored([1, 2], [10, 20], gpu="0"), stored([1, 2], [1, 1], gpu="1")]

    assert values(GAUGE, both, end_s=2) == [16]


def test_lines_are_grouped_by_label() -> None:
    by_version = Series("r", "", "", SeriesKind.RATE, "x", ("version",))
    lines = evaluate(
        by_version, [stored([2], [2], version="b"), stored([2], [4], version="a")], window(0, 2, 2)
    )

    assert [(line.labels, line.points) for line in lines] == [
        ({"version": "a"}, [(2, 2)]),
        ({"version": "b"}, [(2, 1)]),
    ]


@given(st.integers(60, 7 * 24 * 3600))
def test_no_window_has_more_points_than_a_chart_needs(range_s: int) -> None:
    over = window(1_800_000_000.7 - range_s, 1_800_000_000.7, step_for(range_s))

    assert over.steps <= MAX_POINTS + 1
    assert over.end_s <= 1_800_000_000.7


def test_a_mean_is_one_counter_for_each_other_and_a_gap_without() -> None:
    rows = Series("b", "", "", SeriesKind.MEAN, "x", (), codes=("rows",))
    both = [stored([2, 4, 6], [96, 0, 7], code="rows"), stored([2, 4, 6], [12, 0, 7], code="batches")]

    assert values(rows, both, end_s=6) == [8, None, 1]


def test_a_panel_without_data_says_what_that_means() -> None:
    assert series.get("rejected_rate").empty == "agents rejected no request in this time"
    assert line_name({"endpoint": "digits", "version": "digits@1", "reason": "queue_full"}) == (
        "digits · digits@1 · queue full"
    )
