from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain import backoff
from control_plane.domain.backoff import Life


def failed(at: float, ready_at: float | None = None) -> Life:
    return Life(ready_at, at, failed=True)


@pytest.mark.parametrize(
    ("failures", "pause_s"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (5, 8), (7, 32), (8, 60), (200, 60)]
)
def test_the_pause_doubles_up_to_a_minute(failures: int, pause_s: float) -> None:
    assert backoff.pause_s(failures) == pause_s


def test_the_first_failure_is_answered_at_once() -> None:
    assert backoff.next_attempt_at([failed(100)], 100) <= 100


def test_two_failures_in_a_row_wait() -> None:
    assert backoff.next_attempt_at([failed(100), failed(90)], 100) == 101


def test_three_failures_in_a_row_are_a_crash_loop() -> None:
    assert not backoff.crash_loop([failed(1), failed(2)], 3)
    assert backoff.crash_loop([failed(1), failed(2), failed(3)], 3)


def test_an_agent_that_stayed_ready_ends_the_series() -> None:
    lives = [failed(1), failed(2), failed(3), Life(4.0, None, failed=False)]
    assert backoff.crash_loop(lives, 63.9)
    assert not backoff.crash_loop(lives, 64.0)


def test_what_failed_after_a_long_life_is_replaced_at_once() -> None:
    lives = [failed(1), failed(2), failed(1000, ready_at=10)]
    assert backoff.next_attempt_at(lives, 1000) <= 1000


def test_an_agent_that_was_told_to_end_is_no_failure() -> None:
    assert backoff.failures([Life(1.0, 2.0, failed=False)], 3) == ()


lives = st.lists(
    st.builds(
        Life,
        ready_at=st.none() | st.floats(0, 1e6),
        ended_at=st.none() | st.floats(0, 1e6),
        failed=st.booleans(),
    ),
    max_size=8,
)


@given(lives, st.floats(0, 1e6))
def test_the_next_attempt_is_never_further_than_a_minute_after_the_last_failure(
    some: list[Life], now: float
) -> None:
    times = backoff.failures(some, now)
    assert list(times) == sorted(times)
    last = times[-1] if times else 0.0
    assert 0 <= backoff.next_attempt_at(some, now) - last <= backoff.LONGEST_PAUSE_S
