"""Freeze windows: when they freeze what."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from control_plane.domain import freeze
from control_plane.domain.freeze import WEEK_S, Window
from control_plane.errors import InvalidInputError

TIMES = st.integers(0, 4_000_000_000).map(float)
LENGTHS = st.integers(1, int(WEEK_S)).map(float)


def window(start: float, length: float, **changes: object) -> Window:
    given: dict[str, object] = {"id": "w", "endpoint": None, "weekly": False, "reason": "holidays", **changes}
    return Window(starts_at=start, ends_at=start + length, **given)  # type: ignore[arg-type]


@given(TIMES, LENGTHS, TIMES)
def test_a_single_window_freezes_from_its_start_up_to_its_end(
    start: float, length: float, now: float
) -> None:
    frozen = window(start, length).end_at(now)
    assert (frozen is not None) == (start <= now < start + length)
    assert frozen in (None, start + length)


@given(TIMES, LENGTHS, st.integers(0, 500), st.integers(-1, int(WEEK_S)).map(float))
def test_a_weekly_window_comes_again_for_ever_and_never_before(
    start: float, length: float, week: int, after: float
) -> None:
    assume(after < WEEK_S)
    weekly = window(start, length, weekly=True)
    now = start + week * WEEK_S + after
    last_week = week > 0 and length > WEEK_S + after
    inside = last_week if after < 0 else after < length
    end = weekly.end_at(now)
    assert (end is not None) == inside
    if end is not None:
        assert now < end <= now + length


@given(TIMES, LENGTHS, LENGTHS)
def test_the_one_that_lasts_longest_is_told(start: float, one: float, other: float) -> None:
    found = freeze.active([window(start, one, id="a"), window(start, other, id="b")], "digits", start)
    assert found is not None
    assert found.ends_at == start + max(one, other)


def test_a_window_freezes_its_endpoint_or_all() -> None:
    mine = window(0, 10, endpoint="digits")
    assert freeze.active([mine], "digits", 5) is mine
    assert freeze.active([mine], "cats", 5) is None
    assert freeze.active([window(0, 10)], "cats", 5) is not None
    assert freeze.active([], "cats", 5) is None


def test_it_is_told_with_its_end_and_reason() -> None:
    assert freeze.told(window(0, 3600), 60) == "frozen until 1970-01-01 01:00 UTC: holidays"
    assert freeze.told(window(0, 3600, weekly=True), WEEK_S + 60).startswith("frozen until 1970-01-08 01:00")


@pytest.mark.parametrize(
    ("start", "end", "weekly"),
    [
        (10, 10, False), (10, 5, False), (-1, 5, False), (math.nan, 5, False), (0, math.nan, False),
        (0, math.inf, False), (0, WEEK_S + 1, True), (0, 367 * 24 * 3600, False), (1e12, 1e12 + 5, False),
    ],
)  # fmt: skip
def test_windows_that_make_no_sense_are_refused(start: float, end: float, weekly: bool) -> None:
    with pytest.raises(InvalidInputError):
        freeze.check(start, end, weekly=weekly)
    freeze.check(0, WEEK_S, weekly=weekly)
