"""What the collector makes of Envoy's counters before they are stored."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from control_plane.telemetry import exposition, series
from control_plane.telemetry.collector import MeasuredAgent, _agent_sources, of_interest, with_http_codes
from control_plane.telemetry.samples import Key, Sample, SampleKind, Total, labels_of
from control_plane.telemetry.series import GATEWAY_REQUESTS
from serving_agent.contract import metric_names


def key(**labels: str) -> Key:
    return Key(GATEWAY_REQUESTS, labels_of(labels), SampleKind.COUNTER)


def requests(version: str, value: float) -> Sample:
    return Sample(key(endpoint="digits", version=version, code="200"), value, 2.0)


def test_grpc_answers_have_the_http_status_of_the_same_meaning() -> None:
    where = {"endpoint": "digits", "version": "digits@1"}
    totals = [
        Total(key(**where, code="200", grpc=""), 5),
        Total(key(**where, code="200", grpc="0"), 3),
        Total(key(**where, code="200", grpc="3"), 2),
        Total(key(**where, code="503", grpc="14"), 1),
        Total(key(**where, code="0", grpc=""), 4),
    ]

    assert {dict(total.key.labels)["code"]: total.value for total in with_http_codes(totals)} == {
        "200": 8,
        "400": 2,
        "503": 1,
        "0": 4,
    }


def test_versions_that_are_gone_fade_and_new_ones_start_at_zero() -> None:
    samples = [requests("digits@1", 0), requests("digits@2", 0), requests("digits@3", 7)]
    serving = {("digits", "digits@2"), ("digits", "digits@4")}

    kept = {dict(sample.key.labels)["version"]: sample.value for sample in of_interest(samples, serving)}
    assert kept == {"digits@2": 0, "digits@3": 7, "digits@4": 0}


def test_an_agent_is_labelled_by_what_it_serves() -> None:
    agent = MeasuredAgent("a1", "digits", "digits@1", 1, "unix:/a")

    assert agent.labels == {"endpoint": "digits", "version": "digits@1", "agent": "a1"}


def _exported() -> str:
    """What an agent with a little traffic exports, under the names of the contract."""
    registry = CollectorRegistry()
    given = {"model_name": "m", "endpoint": "digits", "version": "1"}
    for name in (metric_names.PREDICT_DURATION_SECONDS, metric_names.REQUEST_DURATION_SECONDS):
        Histogram(name, "about", list(given), registry=registry).labels(**given).observe(0.2)
    rows = Histogram(metric_names.BATCH_ROWS, "about", list(given), buckets=(1, 8), registry=registry)
    for size in (1, 7):
        rows.labels(**given).observe(size)
    Counter(metric_names.CACHE_HITS_TOTAL, "about", list(given), registry=registry).labels(**given).inc(3)
    Counter(metric_names.CACHE_MISSES_TOTAL, "about", list(given), registry=registry).labels(**given).inc(9)
    Gauge(metric_names.QUEUE_DEPTH, "about", list(given), registry=registry).labels(**given).set(5)
    rejected = Counter(metric_names.REJECTED_TOTAL, "about", [*given, "reason"], registry=registry)
    rejected.labels(**given, reason="queue_full").inc(4)
    return generate_latest(registry).decode()


def test_every_metric_of_serving_is_read_from_an_agents_text() -> None:
    agent = MeasuredAgent("a1", "digits", "digits@1", 1, "unix:/a")
    reading = exposition.read(_exported(), _agent_sources(agent))
    own = {"endpoint": "digits", "version": "digits@1", "agent": "a1"}
    found = {(t.key.name, t.key.labels): t.value for t in reading.totals}
    assert found == {
        (series.AGENT_BATCHES, labels_of({**own, "code": "rows"})): 8,
        (series.AGENT_BATCHES, labels_of({**own, "code": "batches"})): 2,
        (series.AGENT_CACHE, labels_of({**own, "code": "hit"})): 3,
        (series.AGENT_CACHE, labels_of({**own, "code": "miss"})): 9,
        (series.AGENT_REJECTED, labels_of({**own, "reason": "queue_full"})): 4,
        (series.AGENT_PREDICT, labels_of(own)): 1,
        (series.AGENT_REQUEST, labels_of(own)): 1,
    }
    assert {(key.name, value) for key, value in reading.gauges.items()} == {(series.AGENT_QUEUE_DEPTH, 5)}
