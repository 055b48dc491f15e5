"""The agent's counts in the shape of Triton's statistics, and what it tells clients of its repository."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_agent import repository
from serving_agent.contract import proto
from serving_agent.errors import InvalidRequestError, MethodError, NotFoundError
from serving_agent.measurements import Measurements, StageTimes
from serving_agent.statistics import model_statistics
from tests.fakes.agents import make_manifest
from tests.fakes.models import SCALAR

MANIFEST = make_manifest(Path("/nowhere"), SCALAR)
NOTHING = {"count": 0, "ns": 0}
SECONDS = st.floats(0, 1e4)
EXECUTIONS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(1, 64), SECONDS, SECONDS), min_size=1, max_size=5),
        st.builds(StageTimes, SECONDS, SECONDS, SECONDS),
    ),
    max_size=8,
)
"""Batches: (rows, queue seconds, total seconds) of each request, and the stages they share."""


def measured(executions):
    measurements = Measurements()
    for requests, stages in executions:
        measurements.executed(sum(rows for rows, _, _ in requests), stages)
        for _, queue_s, total_s in requests:
            measurements.inferred(queue_s, stages)
            measurements.request.observe(total_s)
    return measurements


def only(statistics):
    (model,) = statistics["model_stats"]
    return model


def test_before_the_first_request():
    model = only(model_statistics(MANIFEST, Measurements(), {"rss": 0, "cuda": 0}))
    assert (model["name"], model["version"], model["last_inference"]) == ("digits", "2", 0)
    assert set(map(str, model["inference_stats"].values())) == {str(NOTHING)}
    assert (model["batch_stats"], model["memory_usage"], model["response_stats"]) == ([], [], {})


@given(EXECUTIONS)
def test_rows_batches_and_requests_are_counted_apart(executions):
    model = only(model_statistics(MANIFEST, measured(executions), {}))
    sizes = [sum(rows for rows, _, _ in requests) for requests, _ in executions]
    answered = [(request, stages) for requests, stages in executions for request in requests]
    assert model["inference_count"] == sum(sizes)
    assert model["execution_count"] == len(executions)
    assert (model["last_inference"] > 0) == bool(executions)
    stats = model["inference_stats"]
    for stage, expected_s in {
        "success": sum(total_s for (_, _, total_s), _ in answered),
        "queue": sum(queue_s for (_, queue_s, _), _ in answered),
        "compute_input": sum(stages.preprocess_s for _, stages in answered),
        "compute_infer": sum(stages.predict_s for _, stages in answered),
        "compute_output": sum(stages.postprocess_s for _, stages in answered),
    }.items():
        assert stats[stage]["count"] == len(answered)
        assert stats[stage]["ns"] == pytest.approx(expected_s * 1e9, rel=1e-9, abs=1)
    assert [batch["batch_size"] for batch in model["batch_stats"]] == sorted(set(sizes))
    assert sum(batch["compute_infer"]["count"] for batch in model["batch_stats"]) == len(executions)
    assert sum(batch["compute_infer"]["ns"] for batch in model["batch_stats"]) == pytest.approx(
        sum(stages.predict_s for _, stages in executions) * 1e9, rel=1e-9, abs=len(sizes)
    )


@given(EXECUTIONS, st.integers(0, 2**50), st.integers(0, 9), SECONDS)
def test_the_json_is_the_protobuf(executions, memory, hits, seconds):
    measurements = measured(executions)
    for _ in range(hits):
        measurements.cache_hit(seconds)
    measurements.failed_after(seconds)
    statistics = model_statistics(MANIFEST, measurements, {"rss": float(memory), "cuda": 0.0})
    message = proto.message_class("ModelStatisticsResponse")(**statistics)
    model, (packed,) = only(statistics), message.model_stats
    assert packed.inference_stats.cache_hit.count == hits
    assert packed.inference_stats.success.count == model["inference_stats"]["success"]["count"] >= hits
    assert packed.inference_stats.fail.count == 1
    assert [batch.batch_size for batch in packed.batch_stats] == [
        batch["batch_size"] for batch in model["batch_stats"]
    ]
    assert [(use.type, use.byte_size) for use in packed.memory_usage] == [("CPU", memory)] * (memory > 0)


def test_the_index_lists_the_served_version_alone():
    ready = repository.index(MANIFEST, is_ready=True, reason="ready", ready_only=True)
    assert ready == [{"name": "digits", "version": "2", "state": "READY", "reason": ""}]
    loading = repository.index(MANIFEST, is_ready=False, reason="loading", ready_only=False)
    assert [(model["state"], model["reason"]) for model in loading] == [("UNAVAILABLE", "loading")]
    assert repository.index(MANIFEST, is_ready=False, reason="loading", ready_only=True) == []


@pytest.mark.parametrize(
    ("body", "wanted"),
    [(b"", False), (b" \n", False), (b"{}", False), (b'{"ready": false}', False), (b'{"ready": true}', True)],
)
def test_an_index_request_may_have_a_body(body, wanted):
    assert repository.wants_ready_only(body) is wanted


@pytest.mark.parametrize("body", [b"[]", b'{"ready": 1}', b'{"ready": "true"}', b"{", b"\xff"])
def test_an_index_request_with_another_body_is_refused(body):
    with pytest.raises(InvalidRequestError):
        repository.wants_ready_only(body)


def test_changes_are_refused_with_the_way_to_make_them():
    with pytest.raises(MethodError, match=r"cannot unload 'm' here.*`signalbox deploy digits digits-cnn@N`"):
        repository.refuse_change(MANIFEST, "unload", "m")
    for method in repository.REFUSED_CALLS:
        with pytest.raises(MethodError, match=r"\w+ \w+"):
            repository.refuse_call(method)
    repository.check_region("")
    with pytest.raises(NotFoundError, match="'r'"):
        repository.check_region("r")
