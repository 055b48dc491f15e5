"""What of Envoy's per-request statistics is stored, and under which codes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from control_plane.telemetry import series
from control_plane.telemetry.exposition import Source
from control_plane.telemetry.samples import Key, Sample, SampleKind, Total, labels_of

_HTTP_OF_GRPC: Final = {
    "0": "200", "1": "499", "2": "500", "3": "400", "4": "504", "5": "404", "6": "409", "7": "403",
    "8": "429", "9": "400", "10": "409", "11": "400", "12": "501", "13": "500", "14": "503", "15": "500",
    "16": "401",
}  # fmt: skip
"""HTTP status of the same meaning, by gRPC status (google/rpc/code.proto)."""
_UPSTREAM_FAILURES: Final = frozenset({"UF", "UC", "UR", "UT", "UO", "UH", "UPE", "LR", "SI"})
"""Envoy's flags for: not connected, cut off, reset, timed out, no room, no agent, garbled, idle."""
_CUT_OFF: Final = "502"
"""Code of an answer that began well and was cut off by the agent."""

_WHERE: Final = ("endpoint", "version")
_OUTCOME: Final = (*_WHERE, "code", "grpc", "flags")
SOURCES: Final = (
    Source("envoy_gwm_requests", series.GATEWAY_REQUESTS, SampleKind.COUNTER, _OUTCOME),
    Source("envoy_gwm_latency_us", series.GATEWAY_LATENCY, SampleKind.HISTOGRAM, _WHERE, scale=1e-6),
    Source("envoy_gwm_ttfb_us", series.GATEWAY_FIRST_BYTE, SampleKind.HISTOGRAM, _WHERE, scale=1e-6),
    Source("envoy_gwm_compared", series.COMPARED_REQUESTS, SampleKind.COUNTER, _OUTCOME),
    Source("envoy_gwm_compared_us", series.COMPARED_LATENCY, SampleKind.HISTOGRAM, _WHERE, scale=1e-6),
    Source(
        "envoy_gwm_compared_ttfb_us", series.COMPARED_FIRST_BYTE, SampleKind.HISTOGRAM, _WHERE, scale=1e-6
    ),
    Source("envoy_gwm_compared_tries", series.GATEWAY_TRIES, SampleKind.COUNTER, _OUTCOME),
)


def with_codes(totals: Iterable[Total]) -> list[Total]:
    """Give counters the one `code` they are stored under; sum what coincides, drop what says nothing."""
    kept = []
    sums: dict[Key, float] = {}
    for total in totals:
        code_of = _CODES.get(total.key.name)
        if code_of is None:
            kept.append(total)
            continue
        labels = dict(total.key.labels)
        code = code_of(labels)
        if code is not None:
            where = labels_of({**{name: labels[name] for name in _WHERE}, "code": code})
            key = Key(total.key.name, where, SampleKind.COUNTER)
            sums[key] = sums.get(key, 0.0) + total.value
    return [*kept, *(Total(key, value) for key, value in sums.items())]


def _http_code(labels: Mapping[str, str]) -> str:
    """gRPC answers get the HTTP status of the same meaning (theirs is always 200)."""
    return _HTTP_OF_GRPC.get(labels["grpc"], labels["code"])


def final_code(labels: Mapping[str, str]) -> str:
    """Return the code of a request by its `code`, `grpc` (both as text) and Envoy's `flags`."""
    code = _http_code(labels)
    return _CUT_OFF if code.startswith("2") and _failed_upstream(labels) else code


def _try_code(labels: Mapping[str, str]) -> str | None:
    """None: nobody waited for the answer any more, or the request's time was over (the request is a 504)."""
    code = _http_code(labels)
    if code.startswith("5") or _failed_upstream(labels):
        return series.FAILED_TRY
    return None if code == "0" else series.GOOD_TRY


def _failed_upstream(labels: Mapping[str, str]) -> bool:
    return not _UPSTREAM_FAILURES.isdisjoint(labels["flags"].split(","))


_CODES: Final = {
    series.GATEWAY_REQUESTS: _http_code,
    series.COMPARED_REQUESTS: final_code,
    series.GATEWAY_TRIES: _try_code,
}
_ONLY_WHEN_COUNTED: Final = frozenset(
    {series.COMPARED_REQUESTS, series.COMPARED_LATENCY, series.COMPARED_FIRST_BYTE, series.GATEWAY_TRIES}
)
"""A reading in which they do not occur is known to be one without them by GATEWAY_READINGS."""


def of_interest(samples: Sequence[Sample], serving: set[tuple[str, str]]) -> Iterator[Sample]:
    """Leave out versions that are gone (Envoy counts them for ever); one nobody called yet has rate 0."""
    called = set()
    for sample in samples:
        labels = dict(sample.key.labels)
        where = labels["endpoint"], labels["version"]
        called.add(where)
        if sample.value or (where in serving and sample.key.name not in _ONLY_WHEN_COUNTED):
            yield sample
    for endpoint, version in serving - called if samples else ():
        labels = {"endpoint": endpoint, "version": version, "code": "200"}
        yield Sample(
            Key(series.GATEWAY_REQUESTS, labels_of(labels), SampleKind.COUNTER), 0.0, samples[0].span_s
        )
