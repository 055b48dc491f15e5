"""The agent's metrics, under the names of `contract.metric_names`; every label's values are bounded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from serving_agent.contract import metric_names
from serving_agent.contract.manifest import Manifest

LABELS = ("model_name", "endpoint", "version")


class Metrics:
    """Counts requests and times inferences of one agent."""

    def __init__(self, manifest: Manifest, in_flight: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._labels = (manifest.model, manifest.endpoint, str(manifest.version))
        self._requests = Counter(
            metric_names.REQUESTS_TOTAL,
            "Answered requests.",
            (*LABELS, "transport", "code"),
            registry=self.registry,
        )
        self._inference = self._histogram(
            metric_names.INFERENCE_DURATION_SECONDS, "Seconds the inference thread worked on a request."
        )
        self._queue = self._histogram(
            metric_names.QUEUE_DURATION_SECONDS, "Seconds a request waited for the inference thread."
        )
        Gauge(metric_names.IN_FLIGHT, "Requests being answered.", LABELS, registry=self.registry).labels(
            *self._labels
        ).set_function(in_flight)
        self._measure_memory()
        self.count = cache(self._child)  # one child per transport and code, looked up once

    def answered(self, transport: str, status: int) -> None:
        """Count one answer with its HTTP-style status."""
        self.count(transport, status).inc()

    def observe(self, queue_s: float, inference_s: float) -> None:
        """Record how long a request waited and how long it ran, in seconds."""
        self._queue.observe(queue_s)
        self._inference.observe(inference_s)

    def render(self) -> bytes:
        """Return the Prometheus text format, version 0.0.4."""
        return generate_latest(self.registry)

    def _child(self, transport: str, status: int) -> Counter:
        return self._requests.labels(*self._labels, transport, str(status))

    def _histogram(self, name: str, about: str) -> Histogram:
        buckets = metric_names.DURATION_BUCKETS_S
        return Histogram(name, about, LABELS, buckets=buckets, registry=self.registry).labels(*self._labels)

    def _measure_memory(self) -> None:
        gauge = Gauge(
            metric_names.MEMORY_USAGE_BYTES, "Memory in use.", (*LABELS, "kind"), registry=self.registry
        )
        gauge.labels(*self._labels, "rss").set_function(resident_bytes)
        gauge.labels(*self._labels, "cuda").set_function(cuda_bytes)


def resident_bytes() -> float:
    """Return the process's resident memory in bytes."""
    import psutil  # only when scraped: it would delay the start

    return float(psutil.Process().memory_info().rss)


def cuda_bytes() -> float:
    """Return the GPU memory torch has reserved on all devices, in bytes; 0 without a GPU in use."""
    torch = sys.modules.get("torch")
    # while torch is being imported by the inference thread its parts may be missing
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not getattr(cuda, "is_initialized", bool)():
        return 0.0
    return float(sum(cuda.memory_reserved(index) for index in range(cuda.device_count())))
