"""Requests counted by unit: once a step, whatever the log goes through."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.errors import UnavailableError
from control_plane.telemetry import series
from control_plane.telemetry.samples import Total
from control_plane.telemetry.unit_log import UnitLog
from control_plane.telemetry.units import Units
from serving_agent.contract.metric_names import COMPARED_BUCKETS_S


def line(session: str, *, step: int = 0, version: str | None = "digits@2", **more: Any) -> bytes:
    """One request as the gateway writes it."""
    made = {"code": 200, "endpoint": "digits", "first_byte_us": 900, "flags": "-", "grpc": None}
    where = {"rollout": "r1", "session": session, "step": step, "total_us": 1000, "version": version}
    return json.dumps({**made, **where, **more}).encode()


def requests(totals: list[Total]) -> Counter[tuple[str, str]]:
    """Units by (version, code)."""
    found: Counter[tuple[str, str]] = Counter()
    for total in totals:
        if total.key.name == series.UNIT_REQUESTS:
            labels = dict(total.key.labels)
            found[labels["version"], labels["code"]] += int(total.value)
    return found


def count(*lines: bytes) -> Counter[tuple[str, str]]:
    return requests(Units().count(lines))


# --- counting ---


def test_a_burst_of_errors_counts_once() -> None:
    assert count(*[line("ana", code=500)] * 20, line("bo")) == {
        ("digits@2", "500"): 1,
        ("digits@2", "200"): 1,
    }


def test_the_first_request_of_a_unit_is_the_one_that_counts() -> None:
    assert count(line("ana", version="digits@1"), line("ana", code=500)) == {("digits@1", "200"): 1}


def test_repeats_are_told_from_silence() -> None:
    units = Units()
    first = units.count([line("ana"), line("ana", version="digits@1"), line("ana"), line("bo")])
    assert repeats(first) == {"digits@1": 1, "digits@2": 1}
    assert repeats(units.count([line("bo")])) == {"digits@2": 1}
    assert units.count([line("bo", step=1)])
    assert units.count([line("bo"), b""]) == [], "late ones are neither"


def repeats(totals: list[Total]) -> dict[str, int]:
    return {
        dict(total.key.labels)["version"]: int(total.value)
        for total in totals
        if total.key.name == series.UNIT_REPEATS
    }


def test_a_unit_counts_again_in_the_next_step_and_late_lines_do_not() -> None:
    lines = [line("ana"), line("ana", step=1, code=404), line("ana"), line("bo"), line("ana", step=1)]
    assert count(*lines) == {("digits@2", "200"): 1, ("digits@2", "404"): 1}


def test_a_new_rollout_begins_anew_and_the_one_before_is_over() -> None:
    lines = [line("ana", step=3), line("ana", rollout="r2"), line("bo", step=3), line("ana", rollout="r2")]
    assert count(*lines) == {("digits@2", "200"): 2}


def test_endpoints_do_not_share_units() -> None:
    assert count(line("ana"), line("ana", endpoint="cats"), line("ana")) == {("digits@2", "200"): 2}


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ({"grpc": 14}, "503"),
        ({"grpc": 0}, "200"),
        ({"flags": "UC"}, "502"),
        ({"code": 0, "flags": "DC", "total_us": None}, "0"),
        ({"code": 503, "flags": "UF,URX"}, "503"),
    ],
)
def test_outcomes_have_the_codes_of_all_other_evidence(outcome: dict[str, Any], code: str) -> None:
    assert count(line("ana", **outcome)) == {("digits@2", code): 1}


def test_times_fall_into_the_buckets_of_all_other_evidence() -> None:
    bound_us = round(COMPARED_BUCKETS_S[40] * 1e6)
    units = Units()
    lines = [
        line("a", total_us=bound_us - 1, first_byte_us=bound_us + 2),
        line("b", total_us=10**9, first_byte_us=0),
        line("c", code=0, total_us=17, first_byte_us=None),
    ]
    found = {total.key.name: total for total in units.count(lines)}
    latency, first_byte = found[series.UNIT_LATENCY], found[series.UNIT_FIRST_BYTE]
    assert latency.key.bounds == COMPARED_BUCKETS_S
    assert (latency.value, latency.counts[40], latency.counts[-1]) == (2, 1, 1)
    assert (first_byte.value, first_byte.counts[41], first_byte.counts[0]) == (2, 1, 1)


@pytest.mark.parametrize(
    "bad",
    [b"", b"{", b"null", b"\xff\xfe", line("ana")[:-9], line("ana") + line("bo"), line("ana", version=None),
     line("ana", step="x"), line("ana", code=None), b'{"session": "\xff"}', b"[" * 100_000],
)  # fmt: skip
def test_what_cannot_be_read_counts_nothing(bad: bytes) -> None:
    assert count(bad, line("cleo")) == {("digits@2", "200"): 1}


def test_memory_is_bounded_by_step_and_new_units_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    units = Units(max_units=3)
    found = requests(units.count(line(f"u{n}") for n in range(5)))
    assert found == {("digits@2", "200"): 3}
    assert not requests(units.count([line("u0"), line("u9")]))
    assert len(caplog.records) == 1
    assert "too many sessions in step 1 of rollout r1" in caplog.text
    assert requests(units.count([line("u9", step=1)])) == {("digits@2", "200"): 1}


def test_memory_is_bounded_over_all_endpoints(caplog: pytest.LogCaptureFixture) -> None:
    units = Units(max_in_all=3)
    asked = [("quiet", "a"), ("busy", "a"), ("busy", "b"), ("third", "a"), ("third", "b")]
    assert requests(units.count(line(unit, endpoint=name) for name, unit in asked)).total() == 5
    assert "endpoint quiet: too many sessions" in caplog.text
    again = [line("a", endpoint="quiet"), line("z", endpoint="quiet")]
    assert not requests(units.count(again)), "none counts twice"
    assert requests(units.count([line("a", endpoint="quiet", step=1)])).total() == 1


some_lines = st.lists(
    st.builds(
        line,
        st.sampled_from("abcd"),
        step=st.integers(0, 2),
        version=st.sampled_from(["digits@1", "digits@2", None]),
        code=st.sampled_from([200, 404, 500]),
        rollout=st.sampled_from(["r1", "r2"]),
    )
    | st.sampled_from([b"", b'{"step": 1', b"\xff"]),
    max_size=30,
)


@given(some_lines, st.data())
def test_lines_in_any_split_give_the_same_counts(lines: list[bytes], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(lines)), max_size=5)))
    units = Units()
    parts = [lines[a:b] for a, b in pairwise([0, *cuts, len(lines)])]
    assert sum((requests(units.count(part)) for part in parts), Counter()) == count(*lines)


@given(some_lines)
def test_no_unit_counts_twice_in_a_step(lines: list[bytes]) -> None:
    pairs = {(found["rollout"], found["step"], found["session"]) for found in map(parsed, lines) if found}
    assert count(*lines).total() <= len(pairs)
    assert not count(*lines) or count(*lines, *lines) == count(*lines)


def parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        return dict(json.loads(raw))
    except ValueError:
        return None


# --- the file ---


def append(path: Path, *lines: bytes, end: bytes = b"\n") -> None:
    with path.open("ab") as file:
        file.write(b"\n".join(lines) + end)


def log_at(folder: Path, **more: Any) -> UnitLog:
    return UnitLog(folder / "units.log", lambda: None, **more)


def taken(log: UnitLog) -> list[bytes]:
    return [raw for raw in log.lines() if raw]


def test_a_log_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    assert taken(log) == []
    log.rotate()
    assert taken(log_at(tmp_path / "nowhere")) == []


@given(st.lists(st.binary(min_size=1, max_size=9).filter(lambda raw: b"\n" not in raw)), st.data())
def test_every_whole_line_is_read_once_however_it_was_written(raw: list[bytes], data: st.DataObject) -> None:
    written = b"".join(each + b"\n" for each in raw)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=4)))
    with tempfile.TemporaryDirectory() as folder:
        log = log_at(Path(folder))
        found = []
        for start, end in pairwise([0, *cuts, len(written)]):
            append(Path(folder) / "units.log", written[start:end], end=b"")
            found += taken(log)
    assert found == raw


def test_something_endless_that_is_no_line_is_passed_over(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    append(tmp_path / "units.log", b"x" * 3_000_000)
    append(tmp_path / "units.log", line("ana"))
    assert requests(Units().count(log.lines())).total() == 1
    assert taken(log) == []


def test_a_log_that_somebody_emptied_is_read_from_its_start(tmp_path: Path) -> None:
    log, path = log_at(tmp_path), tmp_path / "units.log"
    append(path, b"a long line", b"and another")
    assert len(taken(log)) == 2
    path.write_bytes(b"new\n")
    assert taken(log) == [b"new"]


def test_rotation_loses_nothing_and_keeps_one_log_before(tmp_path: Path) -> None:
    path, before = tmp_path / "units.log", tmp_path / "units.log.1"
    opened = path.open("ab", buffering=0)

    def reopen() -> None:
        nonlocal opened
        opened.close()
        opened = path.open("ab", buffering=0)

    log = UnitLog(path, reopen, largest_bytes=100)
    found: list[bytes] = []
    for n in range(60):
        opened.write(b"%09d\n" % n)
        found += taken(log)
        if n % 3 == 0:
            opened.write(b"late-%04d\n" % n)  # between reading and renaming
        log.rotate()
    found += taken(log)
    opened.close()

    assert sorted(found) == sorted(
        [b"%09d" % n for n in range(60)] + [b"late-%04d" % n for n in range(0, 60, 3)]
    )
    assert path.stat().st_size <= 120
    assert before.stat().st_mode & 0o777 != 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert {each.name for each in tmp_path.iterdir()} == {"units.log", "units.log.1"}


def test_a_gateway_that_cannot_reopen_is_asked_again_and_read_meanwhile(tmp_path: Path) -> None:
    asked: list[bool] = []
    is_down = False

    def reopen() -> None:
        asked.append(not is_down)
        if is_down:
            raise UnavailableError("the gateway does not answer")

    path = tmp_path / "units.log"
    log = UnitLog(path, reopen, largest_bytes=10)
    append(path, b"first")
    log.rotate()
    assert asked == [True], "whoever rotated last may have been killed"
    append(path, b"second")
    assert taken(log) == [b"first", b"second"]
    is_down = True
    log.rotate()
    append(tmp_path / "units.log.1", b"third")
    assert taken(log) == [b"third"]
    is_down = False
    log.rotate()
    log.rotate()
    assert asked == [True, False, True]


def test_who_starts_anew_knows_who_was_counted_before_and_after_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "units.log"
    log, units = log_at(tmp_path, largest_bytes=10), Units()
    log.rotate()
    append(path, line("ana"), line("bo"))
    assert requests(units.count(log.lines())).total() == 2
    log.rotate()
    append(path, line("cleo"))
    assert requests(units.count(log.lines())).total() == 1

    anew, again = log_at(tmp_path), Units()
    again.count(anew.lines())
    append(path, line("ana"), line("cleo"), line("dan"))
    assert requests(again.count(anew.lines())) == {("digits@2", "200"): 1}
