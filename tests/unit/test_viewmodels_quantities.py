"""Numbers in words: units always there, never more figures than they are worth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.ui.viewmodels import quantities as q


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.50 KiB"),
        (35 * 1024**2, "35 MiB"),
        (3.25 * 1024**3, "3.25 GiB"),
    ],
)
def test_size(value: float, words: str) -> None:
    assert q.size(value) == words


@given(st.integers(0, 2**60))
def test_size_is_close_and_short(value: int) -> None:
    number, unit = q.size(value).split(" ")
    exact = value / 1024 ** ("B", "KiB", "MiB", "GiB", "TiB", "PiB").index(unit)
    assert abs(float(number) - exact) <= max(0.005 * exact, 0.5 if unit == "B" else 0.051)
    assert len(number) <= 4


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0432, "43 ms"),
        (0.9999, "1.0 s"),
        (2.31, "2.3 s"),
        (59.97, "1 min"),
        (75, "1 min 15 s"),
        (7300, "2 h 1 min"),
        (3 * 86400, "3 d"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    assert q.duration(seconds) == words


@given(st.floats(0, 1e7))
def test_duration_always_has_a_unit(seconds: float) -> None:
    assert q.duration(seconds).split(" ")[-1] in {"ms", "s", "min", "h", "d"}
    assert "60 s" not in q.duration(seconds).replace("160 s", "")


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (1, "just now"),
        (-3, "just now"),
        (40, "40 s ago"),
        (119, "1 min ago"),
        (7200, "2 h ago"),
        (200000, "2 d ago"),
    ],
)
def test_ago(age: float, words: str) -> None:
    assert q.ago(1_000_000.0 - age, 1_000_000.0) == words


def test_times_are_in_the_viewers_zone_or_labelled_utc() -> None:
    at = 1_700_000_000.0
    assert q.clock(at) == "2023-11-14 22:13:20 UTC"
    assert q.clock(at, "Europe/Berlin") == "2023-11-14 23:13:20"
    assert q.clock(at, "Not/AZone") == "2023-11-14 22:13:20 UTC"
    assert q.short_clock(at, "../etc/passwd") == "22:13 UTC"


def test_no_data_never_looks_like_zero() -> None:
    assert q.rate(None) == q.share(None) == q.milliseconds(None) == "–"
    assert (q.rate(0.0), q.share(0.0)) == ("0.0/s", "0 %")


def test_shares_rates_digests_and_counts() -> None:
    assert (q.share(0.0012), q.share(0.00001), q.share(1.0)) == ("0.12 %", "< 0.01 %", "100 %")
    assert (q.rate(412.4), q.rate(3.26)) == ("412/s", "3.3/s")
    assert q.digest("sha256:" + "ab" * 32) == "sha256:abababababab"
    assert (q.count(1, "agent"), q.count(1200, "version")) == ("1 agent", "1,200 versions")
