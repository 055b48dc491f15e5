"""The agent's metrics in Prometheus form, under the names of `contract.metric_names`; labels are bounded."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from serving_agent.contract import metric_names as names
from serving_agent.contract.manifest import Manifest
from serving_agent.contract.status import CheckState
from serving_agent.health import Health
from serving_agent.measurements import Histogram, Measurements
from serving_agent.response_cache import ResponseCache

if TYPE_CHECKING:
    from serving_agent.inference_thread import InferenceThread

LABELS: Final = ("model_name", "endpoint", "version")
Values = Iterable[tuple[tuple[str, ...], float]]
"""Values of the labels beyond LABELS, and the metric's value."""


class Metrics(Collector):
    """What one agent exports, put together when it is scraped."""

    def __init__(
        self,
        manifest: Manifest,
        health: Health,
        measurements: Measurements,
        cache: ResponseCache,
        thread: InferenceThread,
    ) -> None:
        self._labels = (manifest.model, manifest.endpoint, str(manifest.version))
        self._health = health
        self._measured = measurements
        self._cache = cache
        self._thread = thread
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def render(self) -> bytes:
        """Return the Prometheus text format, version 0.0.4."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Return nothing: the names are known once collected."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return every metric family."""
        yield from self._counters()
        yield from self._histograms()
        yield from self._gauges()

    def _counters(self) -> Iterator[Metric]:
        measured = self._measured
        answered = [
            ((transport, str(status)), count) for (transport, status), count in measured.answered.items()
        ]
        yield self._counter(names.REQUESTS_TOTAL, "Answered requests.", ("transport", "code"), answered)
        rejected = [((reason,), count) for reason, count in measured.rejected.items()]
        about = "Requests answered with an error that is not the model's."
        yield self._counter(names.REJECTED_TOTAL, about, ("reason",), rejected)
        yield from self._rollout_counters()
        if self._cache.is_on:
            hits, misses = [((), measured.cache_hits)], [((), measured.cache_misses)]
            yield self._counter(names.CACHE_HITS_TOTAL, "Requests answered from the cache.", (), hits)
            yield self._counter(names.CACHE_MISSES_TOTAL, "Requests the cache did not hold.", (), misses)

    def _rollout_counters(self) -> Iterator[Metric]:
        measured = self._measured
        about = "Answers of the model to requests of a rollout."
        yield self._counter(names.ANSWERS_TOTAL, about, (), [((), measured.answers)])
        about = "Of those, answers with a NaN or an infinity."
        yield self._counter(names.NONFINITE_ANSWERS_TOTAL, about, (), [((), measured.nonfinite_answers)])
        bins = [((name,), count) for name, count in measured.output_bins.items()]
        about = "Rows of those by predicted class or value."
        yield self._counter(names.OUTPUT_CLASS_TOTAL, about, ("bin",), bins)

    def _histograms(self) -> Iterator[Metric]:
        measured = self._measured
        for name, about, histogram in (
            (names.REQUEST_DURATION_SECONDS, "Seconds from arrival to answer.", measured.request),
            (names.QUEUE_DURATION_SECONDS, "Seconds waited for the inference thread.", measured.queue),
            (names.INFERENCE_DURATION_SECONDS, "Seconds on the inference thread.", measured.inference),
            (names.PREPROCESS_DURATION_SECONDS, "Seconds in preprocess.", measured.preprocess),
            (names.PREDICT_DURATION_SECONDS, "Seconds in the model.", measured.predict),
            (names.POSTPROCESS_DURATION_SECONDS, "Seconds in postprocess.", measured.postprocess),
            (names.BATCH_ROWS, "Rows of each executed batch.", measured.rows),
        ):
            family = HistogramMetricFamily(name, about, labels=LABELS)
            family.add_metric(self._labels, cumulative(histogram), histogram.total)
            yield family

    def _gauges(self) -> Iterator[Metric]:
        yield self._gauge(names.IN_FLIGHT, "Requests being answered.", (), [((), self._health.in_flight)])
        yield self._gauge(names.QUEUE_DEPTH, "Requests that wait.", (), [((), self._thread.depth)])
        memory = [(("rss",), resident_bytes()), (("cuda",), cuda_bytes())]
        yield self._gauge(names.MEMORY_USAGE_BYTES, "Memory in use.", ("kind",), memory)
        states = [((state,), float(state == self._health.check.state)) for state in get_args(CheckState)]
        yield self._gauge(names.CHECK_STATE, "The health checker's state.", ("state",), states)
        if self._cache.is_on:
            yield self._gauge(names.CACHE_BYTES, "Memory of cached answers.", (), [((), self._cache.size)])

    def _counter(self, name: str, about: str, labels: tuple[str, ...], values: Values) -> Metric:
        family = CounterMetricFamily(name, about, labels=(*LABELS, *labels))
        for key, value in values:
            family.add_metric((*self._labels, *key), value)
        return family

    def _gauge(self, name: str, about: str, labels: tuple[str, ...], values: Values) -> Metric:
        family = GaugeMetricFamily(name, about, labels=(*LABELS, *labels))
        for key, value in values:
            family.add_metric((*self._labels, *key), value)
        return family


def cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    """Return a histogram's buckets as Prometheus has them: each bound with all observations up to it."""
    buckets: list[tuple[str, float]] = []
    count = 0
    for bound, observed in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        count += observed
        buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), float(count)))
    return buckets


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
