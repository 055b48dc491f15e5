"""What the collector makes of Envoy's counters before they are stored."""

from __future__ import annotations

from control_plane.telemetry.collector import MeasuredAgent, of_interest, with_http_codes
from control_plane.telemetry.samples import Key, Sample, SampleKind, Total, labels_of
from control_plane.telemetry.series import GATEWAY_REQUESTS


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
