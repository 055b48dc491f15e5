"""What Envoy counts and times, as JSON-ready dicts: of all requests, and finely of those under comparison.

Pure. Requests under comparison are told by the header `x-signalbox-rollout`, which only routes set (a
client's own is removed on arrival): requests for which a tester chose the version do not carry it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from serving_agent.contract.metric_names import COMPARED_BUCKETS_S, DURATION_BUCKETS_S
from serving_agent.contract.wire import ROLLOUT_HEADER

Json = dict[str, Any]

METADATA: Final = "gw"
"""Namespace of our metadata on clusters and routes, and of what `endpoint_of_path` extracts."""
STATS_SCOPE: Final = "gwm"
"""Prefix of the per-request statistics: `gwm.requests`, `gwm.latency_us`, `gwm.ttfb_us`, and of requests
under comparison `gwm.compared`, `gwm.compared_us`, `gwm.compared_ttfb_us` and `gwm.compared_tries`."""
SESSION: Final = "session"
"""Key, in dynamic metadata, of the session that a client named, where evidence is counted by session."""
_TYPE = "type.googleapis.com/"
_WHERE: Final[list[Json]] = [
    {"name": "endpoint", "value_format": f"%METADATA(ROUTE:{METADATA}:endpoint)%"},
    {"name": "version", "value_format": f"%METADATA(CLUSTER:{METADATA}:version)%"},
]
_OUTCOME: Final[list[Json]] = [
    {"name": "code", "value_format": "%RESPONSE_CODE%"},
    {"name": "grpc", "value_format": "%GRPC_STATUS_NUMBER%"},
]
_HOW_IT_ENDED: Final[list[Json]] = [*_OUTCOME, {"name": "flags", "value_format": "%RESPONSE_FLAGS%"}]
"""With Envoy's flags: an answer that was cut off has the status of its beginning."""
_TOTAL_TIME: Final = "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%"
_FIRST_BYTE_TIME: Final = "%COMMON_DURATION(DS_RX_BEG:DS_TX_BEG:us)%"


def stats_config(kept_prefixes: Sequence[str]) -> Json:
    """Return which statistics are kept (those with *kept_prefixes*, ours, and a few of each cluster)."""
    prefixes = (f"{STATS_SCOPE}.", *kept_prefixes)
    patterns = [*({"prefix": prefix} for prefix in prefixes), {"safe_regex": {"regex": _CLUSTER_STATS}}]
    return {
        # the first match wins
        "histogram_bucket_settings": [
            _bucket_settings(f"{STATS_SCOPE}.compared", COMPARED_BUCKETS_S),
            _bucket_settings(f"{STATS_SCOPE}.", DURATION_BUCKETS_S),
        ],
        "stats_matcher": {"inclusion_list": {"patterns": patterns}},
    }


_CLUSTER_STATS: Final = (
    r"cluster\..+\.(membership_(healthy|total)|outlier_detection\.ejections_active|upstream_cx_(active|connect_fail)"
    r"|upstream_rq_(active|timeout|retry|retry_overflow|pending_overflow|[1-5]xx))"
)
"""All 250 statistics of a cluster would cost memory and time."""


def _bucket_settings(prefix: str, bounds_s: Sequence[float]) -> Json:
    return {"match": {"prefix": prefix}, "buckets": [round(bound_s * 1e6, 3) for bound_s in bounds_s]}


def request_loggers() -> list[Json]:
    """Count every request by endpoint, version, HTTP status and gRPC status; time the answered ones."""
    # a client that left before the answer has code 0 and no time of answer
    answered = _all_of(status_from(100), _not_probe())
    return [
        {**_logger(counters=[_counter("requests", _WHERE + _OUTCOME)]), "filter": _not_probe()},
        {**_logger(histograms=_timings("latency_us", "ttfb_us")), "filter": answered},
        {**_logger(counters=[_counter("compared", _WHERE + _HOW_IT_ENDED)]), "filter": _compared()},
        {
            **_logger(histograms=_timings("compared_us", "compared_ttfb_us")),
            "filter": _all_of(status_from(100), _compared()),
        },
    ]


def try_loggers() -> list[Json]:
    """Count every try of a request under comparison at the version it went to, repeated elsewhere or not.

    By the router, not by the cluster's statistics: those also count mirrored copies and testers.
    """
    tries = _counter("compared_tries", _WHERE + _HOW_IT_ENDED)
    return [{**_logger(counters=[tries]), "filter": _compared()}]


def session_logger(path: Path) -> Json:
    """Write a line of JSON to *path* for every request under comparison whose session counts.

    `telemetry.units` reads the lines. A file that cannot be written costs lines, and no request.
    """
    fields = {
        "rollout": f"%REQ({ROLLOUT_HEADER})%",
        "step": f"%METADATA(ROUTE:{METADATA}:step)%",
        "session": f"%DYNAMIC_METADATA({METADATA}:{SESSION})%",
        **{tag["name"]: tag["value_format"] for tag in (*_WHERE, *_HOW_IT_ENDED)},
        "total_us": _TOTAL_TIME,
        "first_byte_us": _FIRST_BYTE_TIME,
    }
    return {
        "name": "envoy.access_loggers.file",
        "filter": _all_of(_compared(), _names_session()),
        "typed_config": {
            "@type": _TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": fields},
        },
    }


def _names_session() -> Json:
    named = {"filter": METADATA, "path": [{"key": SESSION}], "value": {"present_match": True}}
    return {"metadata_filter": {"matcher": named, "match_if_key_not_found": False}}


def _logger(**what: list[Json]) -> Json:
    return {
        "name": "envoy.access_loggers.stats",
        "typed_config": {
            "@type": _TYPE + "envoy.extensions.access_loggers.stats.v3.Config",
            # sharing_name keeps the counters when the listener is updated
            "stats_scope": {"prefix": STATS_SCOPE, "sharing_name": STATS_SCOPE},
            **what,
        },
    }


def _counter(name: str, tags: list[Json]) -> Json:
    return {"stat": {"name": name, "tags": tags}, "value_fixed": 1}


def _timings(total: str, first_byte: str) -> list[Json]:
    return [
        {"stat": {"name": name, "tags": _WHERE}, "unit": "Microseconds", "value_format": value_format}
        for name, value_format in ((total, _TOTAL_TIME), (first_byte, _FIRST_BYTE_TIME))
    ]


def _all_of(*filters: Json) -> Json:
    return {"and_filter": {"filters": list(filters)}}


def _compared() -> Json:
    return {"header_filter": {"header": {"name": ROLLOUT_HEADER, "present_match": True}}}


def _not_probe() -> Json:
    """Leave out health probes of the gateway itself: they are nobody's requests."""
    path = {"name": ":path", "string_match": {"prefix": "/v2/health/"}, "invert_match": True}
    return {"header_filter": {"header": path}}


def status_from(lowest: int) -> Json:
    """Return an access-log filter for answers with status *lowest* or above."""
    value = {"default_value": lowest, "runtime_key": f"signalbox.status_from_{lowest}"}
    return {"status_code_filter": {"comparison": {"op": "GE", "value": value}}}
