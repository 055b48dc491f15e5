"""What the collector makes of Envoy's counters before they are stored."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from control_plane.telemetry import agent_figures, exposition, series
from control_plane.telemetry.collector import MeasuredAgent
from control_plane.telemetry.gateway_figures import of_interest, with_codes
from control_plane.telemetry.samples import Key, Sample, SampleKind, Total, labels_of
from control_plane.telemetry.series import GATEWAY_REQUESTS
from serving_agent.contract import metric_names

WHERE = {"endpoint": "digits", "version": "digits@1"}


def key(**labels: str) -> Key:
    return Key(GATEWAY_REQUESTS, labels_of(labels), SampleKind.COUNTER)


def requests(version: str, value: float) -> Sample:
    return Sample(key(endpoint="digits", version=version, code="200"), value, 2.0)


def test_grpc_answers_have_the_http_status_of_the_same_meaning() -> None:
    where = {"endpoint": "digits", "version": "digits@1"}
    totals = [
        Total(key(**where, code="200", flags="-", grpc=""), 5),
        Total(key(**where, code="200", flags="-", grpc="0"), 3),
        Total(key(**where, code="200", flags="-", grpc="3"), 2),
        Total(key(**where, code="503", flags="-", grpc="14"), 1),
        Total(key(**where, code="0", flags="-", grpc=""), 4),
    ]

    assert {dict(total.key.labels)["code"]: total.value for total in with_codes(totals)} == {
        "200": 8,
        "400": 2,
        "503": 1,
        "0": 4,
    }


@pytest.mark.parametrize(
    ("code", "grpc", "flags", "stored"),
    [
        ("200", "", "-", "200"),
        ("200", "0", "-", "200"),
        ("200", "13", "-", "500"),
        ("200", "", "UPE", "502"),
        ("200", "0", "UC", "502"),
        ("200", "", "DC", "200"),
        ("0", "", "DC", "0"),
        ("503", "", "UF,URX", "503"),
        ("504", "", "UT", "504"),
    ],
)
def test_an_answer_cut_off_by_the_agent_is_an_error(code: str, grpc: str, flags: str, stored: str) -> None:
    labels = labels_of({**WHERE, "code": code, "grpc": grpc, "flags": flags})
    (total,) = with_codes([Total(Key(series.COMPARED_REQUESTS, labels, SampleKind.COUNTER), 3)])

    assert (dict(total.key.labels), total.value) == ({**WHERE, "code": stored}, 3)


def test_tries_are_good_failed_or_not_waited_for() -> None:
    def tries(value: int, code: str, grpc: str, flags: str) -> Total:
        labels = labels_of({**WHERE, "code": code, "grpc": grpc, "flags": flags})
        return Total(Key(series.GATEWAY_TRIES, labels, SampleKind.COUNTER), value)

    totals = [
        tries(1, "200", "", "-"), tries(2, "404", "", "-"), tries(4, "200", "3", "-"),
        tries(10, "503", "", "-"), tries(20, "0", "", "UF"), tries(40, "0", "", "UC"),
        tries(100, "200", "14", "-"), tries(200, "200", "", "UPE"),
        tries(1000, "0", "", "-"),
    ]  # fmt: skip
    assert {dict(total.key.labels)["code"]: total.value for total in with_codes(totals)} == {
        "ok": 7,
        "failed": 370,
    }


def test_evidence_is_stored_only_when_there_is_some() -> None:
    names = (series.COMPARED_REQUESTS, series.GATEWAY_TRIES)
    samples = [
        Sample(Key(name, labels_of({**WHERE, "code": "200"}), SampleKind.COUNTER), value, 2.0)
        for name in names
        for value in (0, 5)
    ]

    kept = list(of_interest([requests("digits@1", 0), *samples], {("digits", "digits@1")}))
    assert [(sample.key.name, sample.value) for sample in kept] == [
        (GATEWAY_REQUESTS, 0),
        *((name, 5) for name in names),
    ]


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
    for name, count in ((metric_names.ANSWERS_TOTAL, 11), (metric_names.NONFINITE_ANSWERS_TOTAL, 2)):
        Counter(name, "about", list(given), registry=registry).labels(**given).inc(count)
    outputs = Counter(metric_names.OUTPUT_CLASS_TOTAL, "about", [*given, "bin"], registry=registry)
    outputs.labels(**given, bin='a "cat", or\\not').inc(6)
    return generate_latest(registry).decode()


def test_every_metric_of_serving_is_read_from_an_agents_text() -> None:
    agent = MeasuredAgent("a1", "digits", "digits@1", 1, "unix:/a")
    reading = exposition.read(_exported(), agent_figures.sources(agent.labels))
    own = {"endpoint": "digits", "version": "digits@1", "agent": "a1"}
    found = {(t.key.name, t.key.labels): t.value for t in reading.totals}
    assert found == {
        (series.AGENT_BATCHES, labels_of({**own, "code": "rows"})): 8,
        (series.AGENT_BATCHES, labels_of({**own, "code": "batches"})): 2,
        (series.AGENT_CACHE, labels_of({**own, "code": "hit"})): 3,
        (series.AGENT_CACHE, labels_of({**own, "code": "miss"})): 9,
        (series.AGENT_REJECTED, labels_of({**own, "reason": "queue_full"})): 4,
        (series.AGENT_ANSWERS, labels_of({**own, "code": "answers"})): 11,
        (series.AGENT_ANSWERS, labels_of({**own, "code": "nonfinite"})): 2,
        (series.AGENT_OUTPUTS, labels_of({**own, "code": 'a "cat", or\\not'})): 6,
        (series.AGENT_PREDICT, labels_of(own)): 1,
        (series.AGENT_REQUEST, labels_of(own)): 1,
    }
    assert {(key.name, value) for key, value in reading.gauges.items()} == {(series.AGENT_QUEUE_DEPTH, 5)}
