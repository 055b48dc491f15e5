"""Every series the product shows, each defined once: what it measures, in which unit, out of what. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from serving_agent.contract import metric_names

GATEWAY_REQUESTS: Final = "gateway_requests"
"""Counter {endpoint, version, code}: requests Envoy has answered.

code is the HTTP status, 0 for a client that left, and for gRPC the HTTP status of the same meaning. version
is empty where none was chosen, endpoint where none was named.
"""
GATEWAY_LATENCY: Final = "gateway_latency_seconds"
"""Histogram {endpoint, version}: from the request's first byte in to the answer's last byte out."""
GATEWAY_FIRST_BYTE: Final = "gateway_first_byte_seconds"
"""Histogram {endpoint, version}: from the request's first byte in to the answer's first byte out."""
COMPARED_REQUESTS: Final = "compared_requests"
"""Counter {endpoint, version, code}: of GATEWAY_REQUESTS, those that are evidence of a rollout.

Requests for which a tester chose the version are none. code as there; 502 for an answer cut off half-way.
"""
COMPARED_LATENCY: Final = "compared_latency_seconds"
"""Histogram {endpoint, version}: as GATEWAY_LATENCY, of requests that are evidence, with finer bounds."""
COMPARED_FIRST_BYTE: Final = "compared_first_byte_seconds"
"""Histogram {endpoint, version}: as GATEWAY_FIRST_BYTE, of requests that are evidence, with finer bounds."""
GATEWAY_TRIES: Final = "gateway_tries"
"""Counter {endpoint, version, code}: tries of requests that are evidence, at the version each went to.

code: `failed` (answered 5xx, cut off, or not connected) or `ok`. A failed try that was repeated elsewhere
with success does not show in COMPARED_REQUESTS. Tries that nobody waited for to the end are not counted.
"""
GOOD_TRY: Final = "ok"
FAILED_TRY: Final = "failed"
UNIT_REQUESTS: Final = "unit_requests"
"""Counter {endpoint, version, code}: of COMPARED_REQUESTS, the first of each session in a step of a rollout.

Only of endpoints whose policy says what names a session; requests that name none are not counted.
"""
UNIT_REPEATS: Final = "unit_repeats"
"""Counter {endpoint, version}: the other requests of sessions; they tell "none is new" from "none called"."""
UNIT_LATENCY: Final = "unit_latency_seconds"
"""Histogram {endpoint, version}: as COMPARED_LATENCY, of UNIT_REQUESTS."""
UNIT_FIRST_BYTE: Final = "unit_first_byte_seconds"
"""Histogram {endpoint, version}: as COMPARED_FIRST_BYTE, of UNIT_REQUESTS."""
GATEWAY_READINGS: Final = "gateway_readings"
"""Counter {}: readings of the gateway that say what happened since the one before.

What is not counted in the time of such a reading did not happen; time without one is a gap.
"""
AGENT_CPU: Final = "agent_cpu_percent"
"""Gauge {endpoint, version, agent}: processor time; 100 is one core."""
AGENT_MEMORY: Final = "agent_memory_bytes"
"""Gauge {endpoint, version, agent}: resident memory of the agent's process."""
AGENT_DEVICE_MEMORY: Final = "agent_device_memory_bytes"
"""Gauge {endpoint, version, agent}: memory the agent holds on its GPU."""
AGENT_IN_FLIGHT: Final = metric_names.IN_FLIGHT
AGENT_QUEUE: Final = metric_names.QUEUE_DURATION_SECONDS
AGENT_INFERENCE: Final = metric_names.INFERENCE_DURATION_SECONDS
AGENT_REQUEST: Final = metric_names.REQUEST_DURATION_SECONDS
AGENT_PREDICT: Final = metric_names.PREDICT_DURATION_SECONDS
AGENT_QUEUE_DEPTH: Final = metric_names.QUEUE_DEPTH
AGENT_BATCHES: Final = "agent_batches"
"""Counter {endpoint, version, agent, code}: code `rows` counts rows, `batches` the batches they ran in."""
AGENT_CACHE: Final = "agent_cache_lookups"
"""Counter {endpoint, version, agent, code}: requests looked up in the response cache, `hit` or `miss`."""
AGENT_REJECTED: Final = "agent_rejected"
"""Counter {endpoint, version, agent, reason}: requests answered with an error that is not the model's."""
AGENT_ANSWERS: Final = "agent_answers"
"""Counter {endpoint, version, agent, code}: answers of the model to requests of a rollout, copies included.

code: `answers` for all, `nonfinite` for those of them with a NaN or an infinity in an output.
"""
ALL_ANSWERS: Final = "answers"
NONFINITE_ANSWERS: Final = "nonfinite"
AGENT_OUTPUTS: Final = "agent_outputs"
"""Counter {endpoint, version, agent, code}: rows of those answers; code is their class, or bin of value."""
HOST_CPU: Final = "host_cpu_percent"
"""Gauge {}: processor time of the machine; 100 is all its cores."""
HOST_MEMORY: Final = "host_memory_used_bytes"
GPU_COUNT: Final = "gpu_count"
"""Gauge {}: NVIDIA GPUs that could be read; 0 tells "there is none" from "nothing was measured"."""
GPU_UTILIZATION: Final = "gpu_utilization_percent"
GPU_MEMORY: Final = "gpu_memory_used_bytes"
GPU_TEMPERATURE: Final = "gpu_temperature_celsius"

SERVER_ERRORS: Final = ("5",)
CLIENT_ERRORS: Final = ("4", "0")


class SeriesKind(StrEnum):
    """How samples become the points of a line."""

    RATE = "rate"
    """Increments per second."""
    RATIO = "ratio"
    """Share of increments whose `code` starts with one of `codes`, in [0, 1]; a gap without any increment."""
    MEAN = "mean"
    """Increments whose `code` starts with one of `codes`, for each other one: rows a batch; a gap without."""
    QUANTILE = "quantile"
    """The `quantile` of merged histograms; a gap without any observation."""
    GAUGE = "gauge"
    """Mean over the step, summed over what falls into one line."""


@dataclass(frozen=True, slots=True)
class Series:
    """One definition: a line per distinct value of the `group_by` labels."""

    name: str
    title: str
    unit: str
    kind: SeriesKind
    source: str
    group_by: tuple[str, ...] = ("endpoint", "version")
    quantile: float = 0.5
    codes: tuple[str, ...] = ()
    empty: str | None = None
    """What no data at all means, where it means more than that nothing was measured."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a series: ends of steps in seconds since 1970, and as many values; None is a gap."""

    labels: Mapping[str, str]
    t_s: Sequence[float]
    values: Sequence[float | None]

    @property
    def points(self) -> list[tuple[float, float | None]]:
        """Time and value together."""
        return list(zip(self.t_s, self.values, strict=True))


_AGENT: Final = ("endpoint", "version", "agent")


def _quantiles(name: str, title: str, source: str) -> tuple[Series, ...]:
    return tuple(
        Series(
            f"{name}_p{percent}",
            f"{title}, p{percent}",
            "s",
            SeriesKind.QUANTILE,
            source,
            quantile=percent / 100,
        )
        for percent in (50, 90, 99)
    )


CATALOG: Final[tuple[Series, ...]] = (
    Series("request_rate", "Requests", "requests/s", SeriesKind.RATE, GATEWAY_REQUESTS),
    Series("error_rate", "Server errors", "share", SeriesKind.RATIO, GATEWAY_REQUESTS, codes=SERVER_ERRORS),
    Series(
        "client_error_rate", "Client errors", "share", SeriesKind.RATIO, GATEWAY_REQUESTS, codes=CLIENT_ERRORS
    ),
    *_quantiles("latency", "Latency", GATEWAY_LATENCY),
    *_quantiles("first_byte", "Time to first byte", GATEWAY_FIRST_BYTE),
    *_quantiles("queue", "Wait for the model", AGENT_QUEUE),
    *_quantiles("inference", "Inference", AGENT_INFERENCE),
    *_quantiles("agent_request", "Request in the agent", AGENT_REQUEST),
    *_quantiles("predict", "Model", AGENT_PREDICT),
    Series(
        "batch_rows",
        "Batch size (rows)",
        "rows",
        SeriesKind.MEAN,
        AGENT_BATCHES,
        codes=("rows",),
        empty="no batch was run in this time",
    ),
    Series("queue_depth", "Queue depth", "requests", SeriesKind.GAUGE, AGENT_QUEUE_DEPTH),
    Series(
        "cache_hit_ratio",
        "Cache hit ratio",
        "share",
        SeriesKind.RATIO,
        AGENT_CACHE,
        codes=("hit",),
        empty="no response cache was asked in this time; an endpoint's serving options turn it on",
    ),
    Series(
        "rejected_rate",
        "Rejected requests per second by reason",
        "requests/s",
        SeriesKind.RATE,
        AGENT_REJECTED,
        ("endpoint", "version", "reason"),
        empty="agents rejected no request in this time",
    ),
    Series("agent_cpu", "Agent CPU", "%", SeriesKind.GAUGE, AGENT_CPU, _AGENT),
    Series("agent_memory", "Agent memory", "bytes", SeriesKind.GAUGE, AGENT_MEMORY, _AGENT),
    Series("agent_device_memory", "Agent GPU memory", "bytes", SeriesKind.GAUGE, AGENT_DEVICE_MEMORY, _AGENT),
    Series("agent_in_flight", "Requests in flight", "requests", SeriesKind.GAUGE, AGENT_IN_FLIGHT, _AGENT),
    Series("gpu_utilization", "GPU utilisation", "%", SeriesKind.GAUGE, GPU_UTILIZATION, ("gpu",)),
    Series("gpu_memory", "GPU memory", "bytes", SeriesKind.GAUGE, GPU_MEMORY, ("gpu",)),
    Series("gpu_temperature", "GPU temperature", "°C", SeriesKind.GAUGE, GPU_TEMPERATURE, ("gpu",)),
    Series("host_cpu", "Host CPU", "%", SeriesKind.GAUGE, HOST_CPU, ()),
    Series("host_memory", "Host memory", "bytes", SeriesKind.GAUGE, HOST_MEMORY, ()),
)

_BY_NAME: Final = {series.name: series for series in CATALOG}


def get(name: str) -> Series:
    """Return the series called *name*. Raises KeyError, which lists the known ones."""
    if name not in _BY_NAME:
        raise KeyError(f"no series named {name!r}; there are: {', '.join(_BY_NAME)}")
    return _BY_NAME[name]
