"""What of an agent's metrics is stored. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from control_plane.telemetry import series
from control_plane.telemetry.exposition import Reading, Source
from control_plane.telemetry.samples import Key, Sample, SampleKind, labels_of
from serving_agent.contract import metric_names


def sources(where: Mapping[str, str]) -> tuple[Source, ...]:
    """Return what is read of an agent whose samples get the labels *where*."""
    histograms = (
        (metric_names.QUEUE_DURATION_SECONDS, series.AGENT_QUEUE),
        (metric_names.INFERENCE_DURATION_SECONDS, series.AGENT_INFERENCE),
        (metric_names.REQUEST_DURATION_SECONDS, series.AGENT_REQUEST),
        (metric_names.PREDICT_DURATION_SECONDS, series.AGENT_PREDICT),
    )
    gauges: tuple[tuple[str, str, tuple[str, ...]], ...] = (
        (metric_names.IN_FLIGHT, series.AGENT_IN_FLIGHT, ()),
        (metric_names.QUEUE_DEPTH, series.AGENT_QUEUE_DEPTH, ()),
        (metric_names.MEMORY_USAGE_BYTES, _ANY_MEMORY, ("kind",)),
    )
    return (
        *(Source(name, stored, SampleKind.HISTOGRAM, (), added=where) for name, stored in histograms),
        *(Source(name, stored, SampleKind.GAUGE, labels, added=where) for name, stored, labels in gauges),
        *_counters(where),
    )


def _counters(where: Mapping[str, str]) -> Iterator[Source]:
    """Counters; those that only mean something together are stored as one, told apart by `code`."""
    pairs = (
        (f"{metric_names.BATCH_ROWS}_sum", series.AGENT_BATCHES, "rows"),
        (f"{metric_names.BATCH_ROWS}_count", series.AGENT_BATCHES, "batches"),
        (_family(metric_names.CACHE_HITS_TOTAL), series.AGENT_CACHE, "hit"),
        (_family(metric_names.CACHE_MISSES_TOTAL), series.AGENT_CACHE, "miss"),
        (_family(metric_names.ANSWERS_TOTAL), series.AGENT_ANSWERS, series.ALL_ANSWERS),
        (_family(metric_names.NONFINITE_ANSWERS_TOTAL), series.AGENT_ANSWERS, series.NONFINITE_ANSWERS),
    )
    for exported, stored, code in pairs:
        yield Source(exported, stored, SampleKind.COUNTER, (), added={**where, "code": code})
    rejected = _family(metric_names.REJECTED_TOTAL)
    yield Source(rejected, series.AGENT_REJECTED, SampleKind.COUNTER, ("reason",), added=where)
    outputs = _family(metric_names.OUTPUT_CLASS_TOTAL)
    bins = {"bin": "code"}
    yield Source(outputs, series.AGENT_OUTPUTS, SampleKind.COUNTER, ("bin",), added=where, renamed=bins)


def _family(total: str) -> str:
    return total.removesuffix("_total")


_ANY_MEMORY: Final = "memory"
"""Memory of every kind, of which only the device's is kept: resident memory is measured from outside."""


def of_interest(samples: list[Sample]) -> Iterator[Sample]:
    """Leave out classes that were not answered meanwhile: there may be many."""
    return (sample for sample in samples if sample.value or sample.key.name != series.AGENT_OUTPUTS)


def gauges(reading: Reading, span_s: float) -> Iterator[Sample]:
    """Return the gauges of *reading* as samples that speak for *span_s* seconds."""
    for key, value in reading.gauges.items():
        labels = dict(key.labels)
        if key.name != _ANY_MEMORY:
            yield Sample(key, value, span_s)
        elif labels.pop("kind") == "cuda":
            yield Sample(Key(series.AGENT_DEVICE_MEMORY, labels_of(labels)), value, span_s)
