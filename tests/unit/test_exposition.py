"""What is read out of Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from control_plane.telemetry.exposition import Source, read
from control_plane.telemetry.samples import Key, SampleKind

ENVOY = """\
# TYPE envoy_gwm_requests counter
envoy_gwm_requests{endpoint="digits",version="digits@2",code="200",grpc=""} 13
envoy_gwm_requests{endpoint="digits",version="digits@2",code="200",grpc="0"} 4
envoy_gwm_requests{endpoint="",version="",code="404",grpc=""} 1
# TYPE envoy_gwm_latency_us histogram
envoy_gwm_latency_us_bucket{endpoint="digits",version="digits@2",le="500"} 2
envoy_gwm_latency_us_bucket{endpoint="digits",version="digits@2",le="1000"} 5
envoy_gwm_latency_us_bucket{endpoint="digits",version="digits@2",le="+Inf"} 6
envoy_gwm_latency_us_sum{endpoint="digits",version="digits@2"} 5000
envoy_gwm_latency_us_count{endpoint="digits",version="digits@2"} 6
"""


def test_counters_are_summed_over_labels_not_asked_for() -> None:
    source = Source("envoy_gwm_requests", "requests", SampleKind.COUNTER, ("endpoint", "version"))

    totals = {total.key.labels: total.value for total in read(ENVOY, [source]).totals}
    assert totals == {
        (("endpoint", "digits"), ("version", "digits@2")): 17,
        (("endpoint", ""), ("version", "")): 1,
    }


def test_a_histogram_becomes_single_counts_in_seconds() -> None:
    source = Source("envoy_gwm_latency_us", "latency", SampleKind.HISTOGRAM, ("endpoint",), scale=1e-6)

    (total,) = read(ENVOY, [source]).totals
    assert total.key == Key("latency", (("endpoint", "digits"),), SampleKind.HISTOGRAM, (0.0005, 0.001))
    assert (total.value, total.counts) == (6, (2, 3, 1))


def test_what_agents_export_is_read() -> None:
    registry = CollectorRegistry()
    Counter("hits", "h", ["code"], registry=registry).labels("200").inc(3)
    Gauge("busy", "b", ["kind"], registry=registry).labels("x").set(2.5)
    Histogram("took_seconds", "t", buckets=(0.1, 1.0), registry=registry).observe(0.5)
    sources = [
        Source("hits", "hits", SampleKind.COUNTER, (), added={"agent": "a"}),
        Source("busy", "busy", SampleKind.GAUGE, ("kind",)),
        Source("took_seconds", "took", SampleKind.HISTOGRAM, ()),
    ]

    reading = read(generate_latest(registry).decode(), sources)
    assert {total.key.name: (total.value, total.counts) for total in reading.totals} == {
        "hits": (3, ()),
        "took": (1, (0, 1, 0)),
    }
    assert reading.gauges == {Key("busy", (("kind", "x"),)): 2.5}
    assert reading.totals[0].key.labels == (("agent", "a"),)


def test_unknown_names_are_left_alone() -> None:
    assert read("whatever 3\n", []).totals == []


def test_sum_and_count_of_a_histogram_are_counters_of_their_own() -> None:
    registry = CollectorRegistry()
    rows = Histogram("model_batch_rows", "about", buckets=(1, 8), registry=registry)
    for size in (1, 8, 3):
        rows.observe(size)
    sources = [
        Source("model_batch_rows_sum", "batches", SampleKind.COUNTER, (), added={"code": "rows"}),
        Source("model_batch_rows_count", "batches", SampleKind.COUNTER, (), added={"code": "batches"}),
        Source("model_batch_rows", "rows", SampleKind.HISTOGRAM, ()),
    ]

    totals = read(generate_latest(registry).decode(), sources).totals
    assert {(t.key.name, t.key.labels): t.value for t in totals} == {
        ("batches", (("code", "rows"),)): 12,
        ("batches", (("code", "batches"),)): 3,
        ("rows", ()): 3,
    }
