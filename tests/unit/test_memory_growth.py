from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.analysis import memory_growth

MIB = 1024**2


def line(*, start: float = 300, per_s: float = 0.0, seconds: int = 60, rest_after: float = math.inf):
    """MiB at the start, MiB a second until *rest_after* seconds."""
    return [(float(t), (start + per_s * min(t, rest_after)) * MIB) for t in range(seconds)]


def test_a_line_that_keeps_rising_is_a_leak_and_says_from_where_to_where() -> None:
    said = memory_growth.leak([line(per_s=10)], [line()])
    assert said is not None
    assert "grew from 325 to 865 MiB in 59 s" in said


def test_a_slow_one_is_found_when_nothing_warms_up_any_more() -> None:
    assert memory_growth.leak([line(per_s=1)], [line()]) is None
    assert memory_growth.leak([line(per_s=1, seconds=200)], [line()]) is not None


def test_a_response_cache_may_fill() -> None:
    filling = [line(per_s=10)]
    assert memory_growth.leak(filling, [line()], allowance=512 * MIB) is None
    assert memory_growth.leak(filling, [line()], allowance=64 * MIB) is not None


@pytest.mark.parametrize(
    ("candidate", "stable"),
    [
        (line(), line()),
        (line(per_s=1), line()),  # 60 MiB: too little
        (line(per_s=20, rest_after=10), line()),  # a cache that filled
        (line(per_s=10), line(per_s=5)),  # stable grows as well
        (line(per_s=20, seconds=15), line()),  # too short
        (line(start=2000, per_s=10), line()),  # little for its size
    ],
)
def test_what_is_no_leak(candidate, stable) -> None:
    assert memory_growth.leak([candidate], [stable]) is None


def test_one_leaking_agent_is_enough_and_none_is_no_reason() -> None:
    assert memory_growth.leak([line(), line(per_s=10)], []) is not None
    assert memory_growth.leak([], [line()]) is None


@given(st.lists(st.floats(200, 260), min_size=30, max_size=200))
def test_noise_within_the_least_growth_never_is_a_leak(values: list[float]) -> None:
    noisy = [(float(t), value * MIB) for t, value in enumerate(values)]
    assert memory_growth.leak([noisy], []) is None
