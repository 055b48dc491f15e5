"""What an agent counts, and how Prometheus gets to see it."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from serving_agent import metrics
from serving_agent.contract import metric_names as names
from serving_agent.contract.options import Cache
from serving_agent.contract.status import CheckStatus
from serving_agent.errors import DeadlineError, ModelError, ModelMemoryError, QueueFullError
from serving_agent.health import Health
from serving_agent.measurements import Histogram, Measurements, StageTimes
from serving_agent.messages import OutputTensor
from serving_agent.metrics import Metrics, cumulative
from serving_agent.response_cache import ResponseCache
from tests.fakes.agents import make_manifest
from tests.fakes.models import SCALAR

MANIFEST = make_manifest(Path("/nowhere"), SCALAR)
OWN = {"model_name": "digits-cnn", "endpoint": "digits", "version": "2"}
SECONDS = st.floats(0, 1e4)
STAGES = st.builds(StageTimes, SECONDS, SECONDS, SECONDS)


@given(st.lists(st.floats(0, 20) | st.sampled_from(names.DURATION_BUCKETS_S), max_size=20))
def test_a_histogram_counts_every_value_in_the_bucket_that_ends_at_or_above_it(values):
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    bounds = [*names.DURATION_BUCKETS_S, float("inf")]
    wanted = [float(sum(value <= bound for value in values)) for bound in bounds]
    assert [count for _, count in cumulative(histogram)] == wanted
    assert [float(bound) for bound, _ in cumulative(histogram)] == bounds
    assert histogram.count == len(values)
    assert histogram.total == pytest.approx(sum(values))


@given(st.lists(st.tuples(st.integers(1, 2000), STAGES), max_size=10))
def test_executions_are_totalled_by_their_rows(executions):
    measured = Measurements()
    for rows, stages in executions:
        measured.executed(rows, stages)
    assert measured.inferred_rows == sum(rows for rows, _ in executions)
    assert measured.rows.count == len(executions)
    assert (measured.last_inference_ms > 0) == bool(executions)
    assert set(measured.batches) == {rows for rows, _ in executions}
    for rows, totals in measured.batches.items():
        own = [stages for other, stages in executions if other == rows]
        assert totals.executions == len(own)
        for stage in ("preprocess_s", "predict_s", "postprocess_s"):
            assert getattr(totals, stage) == pytest.approx(sum(getattr(stages, stage) for stages in own))


def test_a_request_is_observed_in_every_stage():
    measured = Measurements()
    measured.inferred(0.5, StageTimes(1.0, 2.0, 4.0))
    stages = (measured.queue, measured.preprocess, measured.predict, measured.postprocess, measured.inference)
    assert [stage.total for stage in stages] == [0.5, 1.0, 2.0, 4.0, 7.0]
    assert [stage.count for stage in stages] == [1] * 5


def test_requests_that_were_not_run_are_counted_by_reason_and_failed_ones_are_not_among_them():
    measured = Measurements()
    for status, error in (
        (200, None),
        (503, QueueFullError()),
        (504, DeadlineError()),
        (503, QueueFullError()),
    ):
        measured.answer("rest", status, error)
    for error in (ModelError(), ModelMemoryError()):
        measured.answer("grpc", 500, error)
    assert measured.answered == {("rest", 200): 1, ("rest", 503): 2, ("rest", 504): 1, ("grpc", 500): 2}
    assert measured.rejected == {"queue_full": 2, "deadline": 1}


def test_failures_and_cached_answers_are_timed():
    measured = Measurements()
    measured.failed_after(0.5)
    measured.failed_after(1.0)
    measured.cache_hit(0.25)
    assert (measured.failed, measured.failed_s) == (2, 1.5)
    assert (measured.cache_hits, measured.cache_hit_s) == (1, 0.25)
    assert (measured.request.count, measured.request.total) == (1, 0.25)


def exported(measured=None, *, cache=None, depth=0, in_flight=0, check="unknown"):
    health = Health(MANIFEST, lambda: 0.0)
    health.in_flight, health.check = in_flight, CheckStatus(state=check)
    kept = ResponseCache(cache or Cache())
    if kept.is_on:
        kept.put(b"1", (OutputTensor("y", "BYTES", metrics_array(b"x" * 100)),), 0.0)
    collected = Metrics(MANIFEST, health, measured or Measurements(), kept, SimpleNamespace(depth=depth))
    families = text_string_to_metric_families(collected.render().decode())
    return {family.name: family for family in families}


def metrics_array(item):
    import numpy as np

    return np.array([item], dtype=object)


def values(family, *labels):
    """The samples of *family* by *labels*, which they must have beside the agent's own, and no others."""
    found = {}
    for sample in family.samples:
        assert set(sample.labels) == {*OWN, *labels}
        assert {name: sample.labels[name] for name in OWN} == OWN
        found[tuple(sample.labels[label] for label in labels)] = sample.value
    return found


def test_counters_and_gauges():
    measured = Measurements()
    measured.answer("rest", 200)
    measured.answer("rest", 200)
    measured.answer("grpc", 503, QueueFullError())
    families = exported(measured, depth=7, in_flight=3, check="healthy")
    assert values(families["model_requests"], "transport", "code") == {("rest", "200"): 2, ("grpc", "503"): 1}
    assert values(families["model_requests_rejected"], "reason") == {("queue_full",): 1}
    assert values(families[names.QUEUE_DEPTH]) == {(): 7}
    assert values(families[names.IN_FLIGHT]) == {(): 3}
    states = values(families[names.CHECK_STATE], "state")
    assert states == {("unknown",): 0, ("healthy",): 1, ("unhealthy",): 0, ("error",): 0}
    memory = values(families[names.MEMORY_USAGE_BYTES], "kind")
    assert memory[("rss",)] > 1e6
    assert set(memory) == {("rss",), ("cuda",)}


def test_counters_keep_their_documented_names():
    counted = exported(Measurements(), cache=Cache(max_bytes=10_000))
    documented = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
    assert documented <= {
        name for family in counted.values() for name in (family.name, f"{family.name}_total")
    }


def test_the_cache_shows_only_where_it_is_on():
    off = exported()
    assert not any("cache" in name for name in off)
    measured = Measurements()
    measured.cache_hit(0.1)
    measured.cache_misses = 4
    on = exported(measured, cache=Cache(max_bytes=10_000))
    assert values(on["model_cache_hits"]) == {(): 1}
    assert values(on["model_cache_misses"]) == {(): 4}
    assert values(on[names.CACHE_BYTES])[()] > 100


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(SECONDS, STAGES, st.integers(1, 2000)), max_size=8))
def test_exported_histograms_are_cumulative_and_agree_with_their_sums(requests):
    measured = Measurements()
    for queue_s, stages, rows in requests:
        measured.inferred(queue_s, stages)
        measured.executed(rows, stages)
    families = exported(measured)
    for name, wanted in (
        (names.QUEUE_DURATION_SECONDS, [queue_s for queue_s, _, _ in requests]),
        (names.PREPROCESS_DURATION_SECONDS, [stages.preprocess_s for _, stages, _ in requests]),
        (names.PREDICT_DURATION_SECONDS, [stages.predict_s for _, stages, _ in requests]),
        (names.POSTPROCESS_DURATION_SECONDS, [stages.postprocess_s for _, stages, _ in requests]),
        (names.INFERENCE_DURATION_SECONDS, [stages.total_s for _, stages, _ in requests]),
        (names.BATCH_ROWS, [rows for _, _, rows in requests]),
        (names.REQUEST_DURATION_SECONDS, []),
    ):
        samples = families[name].samples
        buckets = [sample for sample in samples if sample.name == f"{name}_bucket"]
        for bucket in buckets:
            bound = float(bucket.labels["le"])
            assert bucket.value == sum(value <= bound for value in wanted)
            assert set(bucket.labels) == {*OWN, "le"}
        assert buckets[-1].labels["le"] == "+Inf"
        (count,) = [sample.value for sample in samples if sample.name == f"{name}_count"]
        (total,) = [sample.value for sample in samples if sample.name == f"{name}_sum"]
        assert (count, total) == (len(wanted), pytest.approx(sum(wanted)))


def test_gpu_memory_is_what_torch_has_reserved_on_all_devices(monkeypatch):
    cuda = SimpleNamespace(
        is_initialized=lambda: True, device_count=lambda: 2, memory_reserved=[5, 7].__getitem__
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert metrics.cuda_bytes() == 12.0
    cuda.is_initialized = lambda: False
    assert metrics.cuda_bytes() == 0.0
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    assert metrics.cuda_bytes() == 0.0
    monkeypatch.delitem(sys.modules, "torch")
    assert metrics.cuda_bytes() == 0.0
