"""Which answers an agent keeps during a rollout, and that they are bounded in every direction."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_agent import internal_pages, rollout_recorder, sampling
from serving_agent.capture_ring import KEPT_S, CaptureRing, size_of
from serving_agent.contract.capture import MAX_PAGE_BYTES, SMALL_INPUT_BYTES, Capture, CapturedTensor
from serving_agent.contract.signature import TensorSpec
from serving_agent.dataplane import DataPlane
from serving_agent.datatypes import NUMPY_TYPE
from serving_agent.errors import ModelError
from serving_agent.health import Health
from serving_agent.measurements import Measurements, StageTimes
from serving_agent.messages import InferRequest, OutputTensor, RawData, WireTensor
from serving_agent.rollout_recorder import MAX_ID_CHARS, MAX_INPUT_BYTES, RolloutRecorder
from serving_agent.sampling import Sampler
from serving_agent.work import Answer
from tests.fakes.agents import make_manifest
from tests.fakes.models import SCALAR

X = TensorSpec("x", "FP32", (-1, 2))
IDS = st.lists(st.uuids().map(str), min_size=1, max_size=400, unique=True)


def tensor(size, name="x"):
    return CapturedTensor(name=name, datatype="UINT8", shape=(size,), data=bytes(size))


def capture(*, inputs=0, outputs=0, rollout="r", at=0.0):
    return Capture(
        seq=0,
        request_id="id",
        fingerprint="",
        rollout=rollout,
        at=at,
        inputs=(tensor(inputs),),
        outputs=(tensor(outputs, "y"),),
    )


# sampling


@settings(deadline=None)
@given(IDS, st.integers(1, 50))
def test_at_most_so_many_a_second_and_everything_below_that(ids, most):
    sampler = Sampler(most)
    taken = sum(sampler.takes(each, 7.0) for each in ids)
    assert taken == min(most, len(ids))


@settings(deadline=None)
@given(st.lists(st.tuples(st.uuids().map(str), st.floats(0, 20)), max_size=300), st.integers(1, 9))
def test_no_second_takes_more(requests, most):
    sampler, taken = Sampler(most), Counter()
    for each, at in sorted(requests, key=lambda request: request[1]):
        taken[int(at)] += sampler.takes(each, at)
    assert max(taken.values(), default=0) <= most


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 1000))
def test_what_is_kept_after_halving_is_about_the_bound(offered, most):
    kept = offered / 2 ** sampling.halvings(offered, most)
    assert kept <= most or offered <= most
    assert kept > most / 2 or kept == offered


def test_what_a_busy_agent_keeps_a_quiet_one_keeps_too():
    ids = [f"{number:08x}" for number in range(2000)]
    busy, quiet = Sampler(50), Sampler(50)
    for each in ids:  # one second to learn the rate in
        busy.takes(each, 0.0)
    for each in ids[:100]:
        quiet.takes(each, 0.0)
    by_busy = {each for each in ids if busy.takes(each, 1.0)}
    by_quiet = {each for each in ids[:100] if quiet.takes(each, 1.0)}
    assert 10 <= len(by_busy) <= 50
    assert by_busy & set(ids[:100]) <= by_quiet


def test_after_a_quiet_second_everything_is_taken_again():
    sampler = Sampler(1)
    for number in range(1000):
        sampler.takes(str(number), 0.0)
    assert sampler.takes("late", 5.0)


# the ring


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=40),
    st.integers(1, 10),
    st.integers(0, 200),
)
def test_the_ring_is_bounded_and_keeps_the_newest(sizes, most, most_bytes):
    ring = CaptureRing(100, max_captures=most, max_bytes=most_bytes)
    for inputs, outputs in sizes:
        ring.put(capture(inputs=inputs, outputs=outputs))
        assert ring.size <= most_bytes
    page = ring.page(0, 1000, with_inputs=True)
    numbers = [each.seq for each in page.captures]
    assert numbers == list(range(100, 100 + len(sizes)))[-most:]
    assert sum(map(size_of, page.captures)) == ring.size
    assert not page.more


def test_old_inputs_go_before_any_output():
    ring = CaptureRing(1, max_bytes=100)
    for _ in range(4):
        ring.put(capture(inputs=30, outputs=10))
    held = [
        tuple(each[0].data is not None for each in (one.inputs, one.outputs))
        for one in ring.page(0, 9).captures
    ]
    assert held == [(False, True), (False, True), (True, True), (True, True)]
    assert [one.inputs[0].left_out for one in ring.page(0, 9).captures] == ["dropped", "dropped", "", ""]


@settings(deadline=None)
@given(st.lists(st.sampled_from("ab"), max_size=30), st.integers(1, 7), st.sampled_from(["", "a", "b"]))
def test_page_by_page_every_capture_of_a_rollout_comes_once_in_order(rollouts, limit, wanted):
    ring = CaptureRing(50)
    for rollout in rollouts:
        ring.put(capture(rollout=rollout))
    seen, after, more = [], 0, True
    while more:
        page = ring.page(after, limit, wanted)
        assert len(page.captures) <= limit
        seen += page.captures
        after, more = page.last, page.more
    numbers = [50 + index for index, rollout in enumerate(rollouts) if wanted in ("", rollout)]
    assert [each.seq for each in seen] == numbers
    assert after == (50 + len(rollouts) - 1 if rollouts else 0)


def test_a_number_from_a_later_time_gives_everything():
    ring = CaptureRing(10)
    ring.put(capture())
    assert [each.seq for each in ring.page(10**9, 9).captures] == [10]


def test_large_inputs_come_when_they_are_asked_for():
    ring = CaptureRing(1)
    ring.put(capture(inputs=SMALL_INPUT_BYTES))
    ring.put(capture(inputs=SMALL_INPUT_BYTES + 1))
    small, large = ring.page(0, 9).captures
    assert (small.inputs[0].data is None, large.inputs[0].data is None) == (False, True)
    assert (small.inputs[0].left_out, large.inputs[0].left_out) == ("", "page")
    assert large.inputs[0].shape == (SMALL_INPUT_BYTES + 1,)
    (whole,) = ring.page(1, 1, with_inputs=True).captures
    assert whole.inputs[0].data is not None


def test_a_page_ends_before_it_is_too_large_but_is_never_empty():
    ring = CaptureRing(1)
    for _ in range(3):
        ring.put(capture(inputs=MAX_PAGE_BYTES + 1))
    page = ring.page(0, 9, with_inputs=True)
    assert (len(page.captures), page.last, page.more) == (1, 1, True)


def test_what_is_old_is_forgotten():
    ring = CaptureRing(1)
    for at in (0.0, 10.0):
        ring.put(capture(inputs=5, at=at))
    ring.expire(KEPT_S + 5)
    assert (len(ring), ring.size) == (1, 5)
    ring.expire(2 * KEPT_S)
    assert (len(ring), ring.size) == (0, 0)


# the recorder


def request(**changes):
    fields = {"rollout": "r1", "request_id": "q1", **changes}
    return InferRequest("digits", "", (), **fields)


def y(values):
    return (OutputTensor("y", "FP32", np.array(values, np.float32)),)


async def test_the_inputs_are_kept_as_they_came_though_the_model_overwrites_them():
    recorder = RolloutRecorder(Measurements(), ())
    x = np.ones((1, 2), np.float32)
    record = recorder.begin(request(), {"x": x}, (X,))
    x[:] = 0
    record(y([[3.0]]))
    (kept,) = recorder.page(0, 9, "r1", with_inputs=True).captures
    assert kept.inputs[0].data == np.ones((1, 2), "<f4").tobytes()
    assert kept.outputs[0].data == np.array([3.0], "<f4").tobytes()
    assert (kept.request_id, kept.rollout, kept.error) == ("q1", "r1", "")


async def test_numbers_grow_over_the_lives_of_an_agent():
    seen = []
    for _ in range(2):
        recorder = RolloutRecorder(Measurements(), ())
        recorder.begin(request(), {"x": np.ones((1, 2), np.float32)}, (X,))(y([[1.0]]))
        seen += [each.seq for each in recorder.page(0, 9, "", with_inputs=False).captures]
    assert seen == sorted(seen)


async def test_a_failure_of_the_model_is_kept_and_is_no_answer():
    measured = Measurements()
    recorder = RolloutRecorder(measured, ())
    recorder.begin(request(), {"x": np.ones((1, 2), np.float32)}, (X,))(ModelError("no"))
    (kept,) = recorder.page(0, 9, "r1", with_inputs=False).captures
    assert (kept.error, kept.outputs, measured.answers) == (ModelError.code, (), 0)


@pytest.mark.parametrize(
    "changes",
    [{"request_id": ""}, {"request_id": "x" * (MAX_ID_CHARS + 1)}, {"rollout": "r" * (MAX_ID_CHARS + 1)}],
)
async def test_what_cannot_be_found_again_is_counted_alone(changes):
    measured = Measurements()
    recorder = RolloutRecorder(measured, ())
    recorder.begin(request(**changes), {"x": np.ones((1, 2), np.float32)}, (X,))(y([[np.nan], [2.0]]))
    assert not recorder.page(0, 9, "", with_inputs=False).captures
    assert (measured.answers, measured.nonfinite_answers) == (1, 1)
    assert measured.output_bins == {"nan": 1, "+2^1": 1}


async def test_a_request_goes_on_though_its_inputs_cannot_be_kept(monkeypatch, caplog):
    measured = Measurements()
    recorder = RolloutRecorder(measured, ())

    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(rollout_recorder, "captured", fails)
    recorder.begin(request(), {"x": np.ones((1, 2), np.float32)}, (X,))(y([[1.0]]))
    assert measured.answers == 1
    assert "could not be kept" in caplog.text


async def test_a_client_has_its_answer_though_it_cannot_be_recorded(monkeypatch, caplog):
    manifest = make_manifest(Path("/nowhere"), SCALAR)
    health = Health(manifest, lambda: 0.0)
    health.enter("ready")
    answer = Answer((OutputTensor("y", "FP32", np.ones((1, 1), np.float32)),), 0.0, StageTimes())
    thread = SimpleNamespace(submit=lambda work: (work.record(answer), work.done(answer)))
    plane = DataPlane(manifest, health, thread, Measurements())
    plane.open(SCALAR, shares_batches=True)
    monkeypatch.setattr(plane.recorder, "begin", lambda *_: lambda _: 1 / 0)
    x = WireTensor("x", "FP32", (1, 1), RawData(bytes(4)))
    told = []
    plane.submit(InferRequest("digits", "", (x,), rollout="r1", request_id="q1"), told.append)
    assert told[0].outputs == answer.outputs
    assert "could not be recorded" in caplog.text


@settings(deadline=None)
@given(st.sampled_from(sorted(NUMPY_TYPE)), st.integers(0, 5))
def test_sizes_are_those_of_the_raw_form(datatype, count):
    items = [b"ab"] * count if datatype == "BYTES" else [1] * count
    one = OutputTensor("y", datatype, np.array(items, dtype=NUMPY_TYPE[datatype]))
    (kept,) = rollout_recorder.captured((one,), 10**6)
    assert kept.data is not None
    assert rollout_recorder.raw_bytes(one) == len(kept.data)


def test_what_is_too_large_is_kept_by_its_shape():
    large = OutputTensor("x", "UINT8", np.zeros(MAX_INPUT_BYTES + 1, np.uint8))
    (kept,) = rollout_recorder.captured((large,), MAX_INPUT_BYTES)
    assert (kept.data, kept.shape, kept.left_out) == (None, (MAX_INPUT_BYTES + 1,), "too_large")
    small = OutputTensor("y", "UINT8", np.zeros(1, np.uint8))
    for redacted, why in ((("x",), ["redacted", ""]), (("y",), ["too_large", "redacted"])):
        both = rollout_recorder.captured((large, small), MAX_INPUT_BYTES, redacted)
        assert [each.left_out for each in both] == why


def test_why_data_is_missing_stays_though_more_is_left_out():
    ring = CaptureRing(1, max_bytes=SMALL_INPUT_BYTES + 1)
    redacted = CapturedTensor(name="x", datatype="UINT8", shape=(1,), left_out="redacted")
    large = tensor(SMALL_INPUT_BYTES + 1)
    ring.put(msgspec.structs.replace(capture(), inputs=(redacted, large)))
    (one,) = ring.page(0, 9).captures
    assert [each.left_out for each in one.inputs] == ["redacted", "page"]
    ring.put(capture(inputs=1))
    dropped, _ = ring.page(0, 9).captures
    assert [each.left_out for each in dropped.inputs] == ["redacted", "dropped"]


def test_fingerprints_tell_apart_what_answers_depend_on():
    def of(array, **changes):
        return rollout_recorder.fingerprint(request(**changes), {"x": array})

    ones = np.ones((2, 2), np.float32)
    texts = np.array([b"a", b"bc"], dtype=object)
    different = [
        of(ones), of(ones * 2), of(ones.reshape(4)), of(ones.astype(np.float64)), of(ones, outputs=("y",)),
        of(ones, parameters=(("k", 1),)), of(texts), of(np.array([b"ab", b"c"], dtype=object)),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    assert of(ones) == of(ones.copy(), request_id="another", rollout="another")


# the page


@pytest.mark.parametrize(
    ("headers", "is_forwarded"),
    [
        ({b"host": b"localhost", b"connection": b"close"}, False),
        ({b"x-request-id": b"1"}, True),
        ({b"x-envoy-expected-rq-timeout-ms": b"1"}, True),
        ({b"x-forwarded-proto": b"http"}, True),
    ],
)
def test_forwarded_requests_are_told_by_the_gateways_headers(headers, is_forwarded):
    assert internal_pages.came_through_gateway(headers) is is_forwarded
