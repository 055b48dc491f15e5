"""How long batches take, learnt from those that ran, and whether a request can be answered in time."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_agent.batch_queue import BatchQueue
from serving_agent.duration_model import ENOUGH, DurationModel
from serving_agent.shedding import Backlog, answered_in_s

SLOPES = st.floats(1e-6, 1.0)
OVERHEADS = st.floats(0.0, 1.0)
ROWS = st.integers(1, 512)
SECONDS = st.floats(0.0, 100.0)


def fitted(observations):
    model = DurationModel()
    for rows, seconds in observations:
        model.observe(rows, seconds)
    return model


@given(SLOPES, OVERHEADS, st.lists(ROWS, min_size=2, max_size=40), ROWS)
def test_slope_and_overhead_are_recovered_from_exact_durations(slope, overhead, sizes, asked):
    model = fitted((rows, slope * rows + overhead) for rows in (*sizes, 1, 64))
    assert model.predict(asked) == pytest.approx(slope * asked + overhead, rel=1e-5, abs=1e-6)
    assert model.predict(0) == pytest.approx(overhead, rel=1e-5, abs=1e-5)


@given(st.lists(st.tuples(ROWS, SECONDS), min_size=1, max_size=30), st.integers(0, 600), st.integers(0, 600))
def test_predictions_are_never_negative_and_grow_with_the_rows(observations, one, other):
    model = fitted(observations)
    fewer, more = sorted((one, other))
    assert 0.0 <= model.predict(fewer) <= model.predict(more)


@given(ROWS, SECONDS, st.integers(1, 20))
def test_of_one_size_alone_all_time_is_put_on_the_rows(rows, seconds, times):
    model = fitted([(rows, seconds)] * times)
    assert model.predict(rows) == pytest.approx(seconds)
    assert model.predict(2 * rows) == pytest.approx(2 * seconds)
    assert model.predict(0) == 0.0


def test_the_fit_follows_a_model_that_has_become_slower():
    model = fitted([(1, 0.1), (8, 0.8)] * 50)
    for _ in range(250):
        model.observe(1, 1.0)
        model.observe(8, 8.0)
    assert model.predict(4) == pytest.approx(4.0, rel=0.01)


def test_a_fit_is_trusted_after_enough_observations():
    model = DurationModel()
    assert model.predict(5) == 0.0
    trusted = []
    for _ in range(ENOUGH):
        trusted.append(model.is_trusted)
        model.observe(1, 0.1)
    assert trusted == [False] * ENOUGH
    assert model.is_trusted


@dataclass(eq=False)
class Waiting:
    rows: int
    submitted_s: float
    group: str = "a"


def simulated_s(predict, backlog, rows):
    """When the last request of the queue is answered, by running the queue."""
    queue = BatchQueue(backlog.max_rows)
    for place in range(backlog.waiting_rows):
        queue.put(Waiting(1, float(place)))
    last = Waiting(rows, float(backlog.waiting_rows))
    queue.put(last)
    now_s = max(0.0, predict(backlog.running_rows) - backlog.running_for_s) if backlog.running_rows else 0.0
    while batch := queue.take(float("inf")):
        now_s += predict(sum(member.rows for member in batch))
        if last in batch:
            return now_s
    raise AssertionError("the request was lost")


@given(
    SLOPES,
    OVERHEADS,
    st.builds(Backlog, st.integers(0, 16), st.floats(0.0, 5.0), st.integers(0, 40), st.integers(1, 16)),
    st.integers(1, 20),
)
def test_the_estimate_is_what_running_the_queue_takes(slope, overhead, backlog, rows):
    durations = fitted([(1, slope + overhead), (9, 9 * slope + overhead)])
    assert answered_in_s(durations, backlog, rows) == pytest.approx(
        simulated_s(durations.predict, backlog, rows), rel=1e-9, abs=1e-12
    )


@pytest.mark.parametrize(
    ("backlog", "rows", "seconds"),
    [
        (Backlog(0, 0.0, 0, 4), 1, 2.0),
        (Backlog(0, 0.0, 0, 4), 9, 10.0),
        (Backlog(2, 1.0, 0, 4), 1, 2.0 + 2.0),
        (Backlog(2, 9.0, 0, 4), 1, 2.0),
        (Backlog(0, 0.0, 4, 4), 1, 5.0 + 2.0),
        (Backlog(0, 0.0, 5, 4), 3, 5.0 + 5.0),
        (Backlog(0, 0.0, 7, 4), 2, 5.0 + 4.0 + 3.0),
    ],
)
def test_estimates(backlog, rows, seconds):
    durations = fitted([(1, 2.0), (2, 3.0), (4, 5.0)])  # one second for the batch, one for each row
    assert answered_in_s(durations, backlog, rows) == pytest.approx(seconds)
