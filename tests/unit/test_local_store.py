"""The metrics store: what was written comes back, ages, and stays bounded."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from control_plane.telemetry import local_store, series
from control_plane.telemetry.live import NOTHING_YET, live_bundle
from control_plane.telemetry.local_store import LocalStore
from control_plane.telemetry.samples import Key, Sample, SampleKind, labels_of
from control_plane.telemetry.series import (
    GATEWAY_LATENCY,
    GATEWAY_REQUESTS,
    GPU_COUNT,
    GPU_UTILIZATION,
    HOST_CPU,
)

NOW = 1_800_000_000.0  # a multiple of 30
BOUNDS = (0.1, 0.2)


def requests(count: float, code: str = "200", version: str = "digits@1") -> Sample:
    labels = labels_of({"endpoint": "digits", "version": version, "code": code})
    return Sample(Key(GATEWAY_REQUESTS, labels, SampleKind.COUNTER), count, 2.0)


def latency(*counts: int) -> Sample:
    labels = labels_of({"endpoint": "digits", "version": "digits@1"})
    return Sample(Key(GATEWAY_LATENCY, labels, SampleKind.HISTOGRAM, BOUNDS), sum(counts), 2.0, counts)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "metrics.db")


def test_no_file_yet_reads_as_empty(store: LocalStore) -> None:
    assert store.query("request_rate", NOW - 60, NOW, 2) == []
    assert store.count(GATEWAY_REQUESTS, NOW - 60, NOW) == 0
    said = {panel["empty"] for panel in live_bundle(store, 60)["panels"]}
    assert said == {NOTHING_YET, *(each.empty for each in series.CATALOG if each.empty)}
    assert not store.path.exists()


def test_counters_come_back_as_rates_and_counts(store: LocalStore) -> None:
    for number in range(1, 4):
        store.write(NOW + 2 * number, [requests(10), requests(2, "503"), requests(4, version="digits@2")])

    lines = store.query("request_rate", NOW, NOW + 6, 2, endpoint="digits")
    assert [(dict(line.labels)["version"], list(line.values)) for line in lines] == [
        ("digits@1", [6, 6, 6]),
        ("digits@2", [2, 2, 2]),
    ]
    assert store.count(GATEWAY_REQUESTS, NOW, NOW + 6, version="digits@1", code="503") == 6
    assert store.count(GATEWAY_REQUESTS, NOW + 2, NOW + 4) == 16
    assert store.query("request_rate", NOW, NOW + 6, 2, endpoint="other") == []


def test_histograms_merge_before_quantiles(store: LocalStore) -> None:
    store.write(NOW + 1, [latency(10, 0, 0)])
    store.write(NOW + 2, [latency(0, 10, 0)])

    (line,) = store.query("latency_p50", NOW, NOW + 2, 2)
    assert line.points == [(NOW + 2, 0.1)]


def test_roll_ups_hold_the_same_sums(store: LocalStore) -> None:
    for number in range(1, 61):
        store.write(NOW + 2 * number, [requests(4), latency(1, 1, 0), Sample(Key(HOST_CPU), number % 2, 2.0)])

    (rate,) = store.query("request_rate", NOW, NOW + 90, 30)
    (median,) = store.query("latency_p50", NOW, NOW + 90, 30)
    (cpu,) = store.query("host_cpu", NOW, NOW + 90, 30)
    assert list(rate.values) == [2, 2, 2]
    assert list(median.values) == [0.1, 0.1, 0.1]
    assert list(cpu.values) == pytest.approx([0.5333, 0.4667, 0.5333], abs=1e-3)


def test_a_restarted_writer_goes_on(store: LocalStore) -> None:
    for number in range(1, 31):
        LocalStore(store.path).write(NOW + 2 * number, [requests(4)])

    (rate,) = store.query("request_rate", NOW, NOW + 60, 30)
    assert list(rate.values) == [2, 2]


def test_the_store_stays_bounded(tmp_path: Path) -> None:
    """Rounds of 10 s for many retention times: rows stop growing, and gone agents are forgotten."""
    store = LocalStore(tmp_path / "metrics.db", raw_s=300, retention_s=1800)
    sizes = []
    for number in range(540):
        agent = labels_of({"agent": f"a{number // 60}"})
        store.write(
            NOW + 10 * number, [requests(1), latency(1, 2, 3), Sample(Key("agent_cpu_percent", agent), 1, 10)]
        )
        sizes.append(rows(store))

    # 30 raw and 60 rolled slots of three things, and a slot of slack
    assert max(sizes) <= 3 * (31 + 61) + 30
    assert max(sizes[360:]) <= max(sizes[:360]) + 3
    assert things(store) <= 2 + 5
    assert store.count(GATEWAY_REQUESTS, NOW, NOW + 5400) <= 61 * 3 + 3


def rows(store: LocalStore) -> int:
    return scalar(store, "SELECT count(*) FROM sample")


def things(store: LocalStore) -> int:
    return scalar(store, "SELECT count(*) FROM measured")


def scalar(store: LocalStore, sql: str) -> int:
    connection = sqlite3.connect(store.path)
    try:
        return int(connection.execute(sql).fetchone()[0])
    finally:
        connection.close()


def test_too_many_different_things_are_dropped_and_logged(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(local_store, "MAX_KEYS", 3)
    for number in range(2):
        store.write(NOW + number, [Sample(Key("x", (("n", str(n)),)), 1.0, 2.0) for n in range(5)])

    assert things(store) == 3
    assert len(caplog.messages) == 1


def test_a_failed_write_leaves_nothing_half_done(store: LocalStore) -> None:
    """A thing first named in the failed transaction is still there for the next one."""
    store.write(NOW, [requests(1)])
    refuse(store, 13)
    with pytest.raises(sqlite3.Error, match="refused"):
        store.write(NOW + 2, [Sample(Key("y"), 13, 2.0)])
    store.write(NOW + 4, [Sample(Key("y"), 14, 2.0)])

    assert store.count("y", NOW, NOW + 10) == 14


def refuse(store: LocalStore, value: int) -> None:
    connection = sqlite3.connect(store.path)
    connection.execute(
        f"CREATE TRIGGER no BEFORE INSERT ON sample WHEN NEW.value = {value}"
        " BEGIN SELECT RAISE(ABORT, 'refused'); END"
    )
    connection.close()


def test_the_bundle_has_every_panel_and_names_what_is_missing(store: LocalStore) -> None:
    for number in range(1, 31):
        zero = Sample(Key(GPU_COUNT), 0, 2.0)
        store.write(NOW + 2 * number, [requests(4), latency(1, 1, 0), zero, Sample(Key(HOST_CPU), 5, 2.0)])

    bundle = live_bundle(store, 60, "digits", now_s=NOW + 60.5)
    panels = {panel["id"]: panel for panel in bundle["panels"]}
    (line,) = panels["request_rate"]["lines"]
    assert line["name"] == "digits · digits@1"
    assert line["y"] == [2.0] * 30
    assert line["x"][-1] == (NOW + 60) * 1000
    assert panels["gpu_utilization"]["empty"] == "no NVIDIA GPU found"
    assert panels["agent_cpu"]["empty"] == NOTHING_YET
    assert panels["host_cpu"]["lines"][0]["name"] == "this machine"
    assert all(panel["empty"] is None or panel["lines"] == [] for panel in panels.values())


def test_a_gpu_is_drawn_when_there_is_one(store: LocalStore) -> None:
    gpu = Key(GPU_UTILIZATION, (("gpu", "0 H200"),))
    store.write(NOW + 2, [Sample(Key(GPU_COUNT), 1, 2.0), Sample(gpu, 40, 2.0)])

    panels = {panel["id"]: panel for panel in live_bundle(store, 60, now_s=NOW + 2)["panels"]}
    assert panels["gpu_utilization"]["lines"][0]["name"] == "0 H200"
    assert panels["gpu_memory"]["empty"] == NOTHING_YET
