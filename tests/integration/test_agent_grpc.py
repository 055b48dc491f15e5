"""A really started agent's gRPC face: streams, refusals, Triton's extensions, compression."""

import signal
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress

import grpc
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from torch import nn
from tritonclient import grpc as triton

from serving_agent.contract import proto, wire
from serving_agent.contract.manifest import Limits
from serving_agent.contract.options import Batching, ServingOptions
from serving_agent.contract.signature import Signature, TensorSpec
from tests.fakes import models
from tests.fakes.agents import make_manifest, start_agent

PREFIX = f"/{wire.GRPC_SERVICE}/"
LONG = 300.0
"""Input of the slow model that keeps it busy for tens of milliseconds or more."""
CONCURRENCY = 8


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2.0


class Widens(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat(1, 100_000)


@pytest.fixture(scope="module")
def echo(tmp_path_factory, nursery):
    """A model that returns its input, doubled; nobody but the tests asks it."""
    folder = tmp_path_factory.mktemp("echo")
    program = models.save_torchscript(Double(), folder / "model")
    options = ServingOptions(check_interval_s=0)
    manifest = make_manifest(program, models.SCALAR, options=options)
    with start_agent(manifest, folder, nursery=nursery) as agent:
        yield agent


@contextmanager
def slow_agent(folder, nursery):
    """An agent that works on one row at a time and on CONCURRENCY requests at once."""
    program = models.save_torchscript(models.Slow(), folder / "model")
    options = ServingOptions(batching=Batching(max_rows=1), max_concurrency=CONCURRENCY)
    limits = Limits(request_timeout_s=30, drain_grace_s=0.1)
    manifest = make_manifest(program, models.SCALAR, options=options, limits=limits)
    with start_agent(manifest, folder, nursery=nursery) as agent:
        yield agent


@pytest.fixture(scope="module")
def slow(tmp_path_factory, nursery):
    with slow_agent(tmp_path_factory.mktemp("slow"), nursery) as agent:
        yield agent


@pytest.fixture
def channel(echo):
    with grpc.insecure_channel(echo.manifest.grpc_address) as channel:
        yield channel


def call(channel, method, data=None, metadata=None, **fields):
    """Call the unary *method* with *fields*, or with *data* as it is."""
    if data is None:
        data = proto.message_class(f"{method}Request")(**fields).SerializeToString()
    response, done = channel.unary_unary(PREFIX + method).with_call(data, timeout=60, metadata=metadata)
    return proto.message_class(f"{method}Response").FromString(response), done


def request(value, **changes):
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1]}
    fields = {"model_name": "digits", "inputs": [tensor], "raw_input_contents": [struct.pack("<f", value)]}
    return proto.message_class("ModelInferRequest")(**(fields | changes))


def infer(channel, value, metadata=None, **changes):
    return call(channel, "ModelInfer", request(value, **changes).SerializeToString(), metadata)


def value_of(response):
    return struct.unpack("<f", response.raw_output_contents[0])[0]


class Stream:
    """One ModelStreamInfer call: requests are sent when the test says so."""

    def __init__(self, channel, metadata=None):
        self._sent = []
        self._more = threading.Condition()
        self._open = True
        self.call = channel.stream_stream(PREFIX + "ModelStreamInfer")(self._requests(), metadata=metadata)

    def send(self, *requests):
        with self._more:
            self._sent += [one if isinstance(one, bytes) else one.SerializeToString() for one in requests]
            self._more.notify()

    def close(self):
        with self._more:
            self._open = False
            self._more.notify()

    def __next__(self):
        return proto.message_class("ModelStreamInferResponse").FromString(next(self.call))

    def __iter__(self):
        return self

    def _requests(self):
        while True:
            with self._more:
                self._more.wait_for(lambda: self._sent or not self._open, timeout=30)
                if not self._sent:
                    return
                one = self._sent.pop(0)
            yield one


@contextmanager
def stream_to(agent, **options):
    with grpc.insecure_channel(agent.manifest.grpc_address) as channel:
        stream = Stream(channel, **options)
        try:
            yield stream
        finally:
            stream.close()
            stream.call.cancel()


def eventually(condition, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# streams


def test_a_stock_client_streams_and_gets_its_answers_in_order(echo):
    answers = []
    done = threading.Event()

    def keep(result, error):
        answers.append((result, error))
        if len(answers) == 100:
            done.set()

    with triton.InferenceServerClient(echo.manifest.grpc_address) as client:
        client.start_stream(keep)
        for number in range(100):
            tensor = triton.InferInput("x", [1, 1], "FP32")
            tensor.set_data_from_numpy(np.full((1, 1), number, np.float32))
            client.async_stream_infer(
                "digits", [tensor], request_id=str(number), enable_empty_final_response=number % 2 == 0
            )
        assert done.wait(20)
        client.stop_stream()
    assert [error for _, error in answers] == [None] * 100
    responses = [result.get_response() for result, _ in answers]
    assert [response.id for response in responses] == [str(number) for number in range(100)]
    assert [value_of(response) for response in responses] == [2.0 * number for number in range(100)]
    assert all(response.parameters["triton_final_response"].bool_param for response in responses)


def test_a_bad_request_is_told_by_its_id_and_the_stream_goes_on(echo):
    with stream_to(echo) as stream:
        stream.send(
            request(1.0, id="good"),
            request(2.0, id="misfit", model_name="other", model_version="7"),
            b"\xff\xff",
            request(3.0, id="timeout", parameters={"timeout": {"int64_param": -1}}),
            request(4.0, id="last"),
        )
        good, misfit, broken, timeout, last = (next(stream) for _ in range(5))
        assert (good.error_message, value_of(good.infer_response)) == ("", 2.0)
        assert "no model 'other' here" in misfit.error_message
        assert (misfit.infer_response.id, misfit.infer_response.model_version) == ("misfit", "7")
        assert misfit.infer_response.parameters["triton_final_response"].bool_param
        assert broken.error_message == "the message is not a valid ModelInferRequest"
        assert "'timeout'" in timeout.error_message
        assert (last.infer_response.id, value_of(last.infer_response)) == ("last", 8.0)
        stream.close()
        assert list(stream) == []
        assert stream.call.code() == grpc.StatusCode.OK
        assert dict(stream.call.trailing_metadata())[wire.VERSION_HEADER] == "digits-cnn@2"


def test_requests_of_one_stream_run_together_up_to_the_agents_bound(slow):
    with stream_to(slow) as stream:
        stream.send(*(request(LONG, id=str(number)) for number in range(3 * CONCURRENCY)))
        eventually(lambda: slow.status()["in_flight"] == CONCURRENCY)
        answers = []
        most = 0
        for answer in (next(stream) for _ in range(3 * CONCURRENCY)):
            answers.append(answer)
            most = max(most, slow.status()["in_flight"])
        assert most <= CONCURRENCY
        assert [answer.error_message for answer in answers] == [""] * (3 * CONCURRENCY)
        assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(3 * CONCURRENCY)]


def test_one_request_too_many_is_told_when_to_come_back(slow):
    with stream_to(slow) as stream, grpc.insecure_channel(slow.manifest.grpc_address) as channel:
        stream.send(*(request(LONG) for _ in range(CONCURRENCY)))
        eventually(lambda: slow.status()["in_flight"] == CONCURRENCY)
        with pytest.raises(grpc.RpcError) as caught:
            infer(channel, 1.0)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        metadata = dict(caught.value.trailing_metadata())
        assert metadata["grpc-retry-pushback-ms"] == "1000"
        assert metadata[wire.VERSION_HEADER] == "digits-cnn@2"
        assert [next(stream).error_message for _ in range(CONCURRENCY)] == [""] * CONCURRENCY


def test_a_client_that_goes_away_leaves_no_work(slow):
    def gone():
        with slow.http as http:
            lines = http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if 'code="499"' in line and "grpc" in line)

    before = gone()
    with stream_to(slow) as stream:
        stream.send(*(request(LONG) for _ in range(CONCURRENCY)))
        eventually(lambda: slow.status()["in_flight"] == CONCURRENCY)
        next(stream)
        stream.call.cancel()
        eventually(lambda: slow.status()["in_flight"] == 0)
        assert gone() - before >= 1
    with grpc.insecure_channel(slow.manifest.grpc_address) as channel:
        assert value_of(infer(channel, 1.0)[0]) == 1.0


def test_draining_answers_what_was_sent_and_then_ends_the_stream(tmp_path, nursery):
    with slow_agent(tmp_path, nursery) as agent, stream_to(agent) as stream:
        stream.send(*(request(5 * LONG, id=str(number)) for number in range(CONCURRENCY)))
        eventually(lambda: agent.status()["in_flight"] == CONCURRENCY)
        agent.process.send_signal(signal.SIGTERM)
        answers = [next(stream) for _ in range(CONCURRENCY)]
        assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(CONCURRENCY)]
        assert [answer.error_message for answer in answers] == [""] * CONCURRENCY
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "open the stream again" in caught.value.details()
        assert agent.process.wait(60) == 0


def test_a_stream_that_never_pauses_does_not_hold_the_end(tmp_path, nursery):
    """Its answers come in order until its end, and the process ends long before the drain's limit."""
    with slow_agent(tmp_path, nursery) as agent, stream_to(agent) as stream:
        stream.send(*(request(3.0, id=str(number)) for number in range(10_000)))
        answers = [next(stream) for _ in range(20)]
        agent.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            answers += iter(stream.__next__, None)
        # its sentence may be lost to a client that is still sending when the connection closes
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert agent.process.wait(60) == 0
        assert "still ran" not in agent.log
    assert len(answers) < 10_000
    assert [answer.error_message for answer in answers] == [""] * len(answers)
    assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(len(answers))]


def test_calls_that_never_pause_do_not_hold_the_end(tmp_path, nursery):
    """Each of 16 clients calls on until it is refused: what the model was given is answered.

    (gRPC itself cancels calls that it has not handed over yet when its server begins to stop.)
    """
    ends = []

    def ask(agent):
        with grpc.insecure_channel(agent.manifest.grpc_address) as channel:
            count = 0
            while True:
                try:
                    infer(channel, 3.0)
                except grpc.RpcError as error:
                    ends.append((count, error.code(), error.details()))
                    return
                count += 1

    handler = "tests.fakes.counting_handlers:Counts"
    limits, options = Limits(drain_grace_s=0.3), ServingOptions(check_interval_s=0)
    manifest = make_manifest(
        tmp_path, models.SCALAR, handler=handler, allowed_handlers=(handler,), limits=limits, options=options
    )
    with start_agent(manifest, tmp_path / "agent", nursery=nursery) as agent:
        before = (tmp_path / "rows").stat().st_size if (tmp_path / "rows").exists() else 0
        clients = [threading.Thread(target=ask, args=(agent,)) for _ in range(16)]
        for client in clients:
            client.start()
        eventually(lambda: agent.status()["in_flight"] > 4)
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(60) == 0
        for client in clients:
            client.join(60)
        assert "still ran" not in agent.log
    assert {code for _, code, _ in ends} <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert not any("before it could answer" in details for _, _, details in ends)
    assert (tmp_path / "rows").stat().st_size - before == sum(count for count, _, _ in ends) > 16


def watched(agent):
    """A Watch of the health service and the statuses it tells."""
    channel = grpc.insecure_channel(agent.manifest.grpc_address)
    call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
    return channel, call, health_pb2.HealthCheckResponse.ServingStatus.Name


def test_who_watches_hears_of_the_end_and_does_not_hold_it(tmp_path, nursery):
    with slow_agent(tmp_path, nursery) as agent:
        channel, call, name = watched(agent)
        with channel:
            assert name(next(call).status) == "SERVING"
            agent.process.send_signal(signal.SIGTERM)
            assert name(next(call).status) == "NOT_SERVING"
            with pytest.raises(grpc.RpcError) as caught:
                next(call)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert agent.process.wait(60) == 0
    assert "still ran" not in agent.log


def test_who_watches_hears_of_a_model_that_hangs(tmp_path, nursery):
    program = models.save_torchscript(models.Slow(), tmp_path / "model")
    limits = Limits(request_timeout_s=0.2, drain_grace_s=0.0, drain_s=0.2)
    manifest = make_manifest(program, models.SCALAR, limits=limits)
    with start_agent(manifest, tmp_path, nursery=nursery) as agent:
        channel, call, name = watched(agent)
        with channel, agent.http as http:
            assert name(next(call).status) == "SERVING"
            assert http.post("/predict", json={"input": [[1e6]]}).status_code == 504
            assert name(next(call).status) == "NOT_SERVING"


def test_a_message_above_the_limit_ends_its_stream(tmp_path, nursery):
    program = models.save_torchscript(Double(), tmp_path / "model")
    limits = Limits(max_request_bytes=100_000)
    manifest = make_manifest(program, models.SCALAR, limits=limits)
    with (
        start_agent(manifest, tmp_path, nursery=nursery) as agent,
        stream_to(agent) as stream,
    ):
        stream.send(request(1.0))
        assert value_of(next(stream).infer_response) == 2.0
        stream.send(b"\0" * 200_000)
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        eventually(lambda: agent.status()["in_flight"] == 0)


# refusals


def tensor(**changes):
    return {"name": "x", "datatype": "FP32", "shape": [1, 1]} | changes


TYPED = {"raw_input_contents": []}
MALFORMED = [
    ({"inputs": []}, "'inputs' must not be empty"),
    ({"raw_input_contents": [b"", b""]}, "holds 2 tensors for 1 inputs"),
    ({"raw_input_contents": [b"123"]}, "3 bytes of data"),
    ({"inputs": [tensor(contents={"fp32_contents": [1.0]})]}, "both contents and raw_input_contents"),
    ({**TYPED, "inputs": [tensor(contents={"fp64_contents": [1.0]})]}, "FP32 belongs in fp32_contents"),
    ({**TYPED, "inputs": [tensor()]}, "0 elements of data"),
    ({**TYPED, "inputs": [tensor(datatype="FP16")]}, "FP16 needs raw_input_contents"),
    ({"inputs": [tensor(datatype="FP128")]}, "unknown datatype 'FP128'"),
    ({"inputs": [tensor(datatype="")]}, "unknown datatype ''"),
    ({"inputs": [tensor(name="z")]}, "unknown input 'z'"),
    ({"inputs": [tensor(), tensor()], "raw_input_contents": [b"0000"] * 2}, "given twice"),
    ({"inputs": [tensor(shape=[1])]}, "must have shape"),
    ({"inputs": [tensor(shape=[-1, 1])]}, "sizes of at least 1"),
    ({"inputs": [tensor(shape=[2**62, 1])]}, "elements"),
    ({"outputs": [{"name": "z"}]}, "unknown output 'z'"),
    ({"outputs": [{"name": "y"}, {"name": "y"}]}, "asked for twice"),
    ({"outputs": [{"name": "y", "parameters": {"classification": {"int64_param": 1}}}]}, "'classification'"),
    (
        {"inputs": [tensor(parameters={"shared_memory_region": {"string_param": "r"}})]},
        "'shared_memory_region' is not supported",
    ),
    ({"parameters": {"timeout": {"int64_param": -1}}}, "'timeout' must be a whole number"),
    ({"parameters": {"timeout": {"string_param": "1"}}}, "'timeout' must be a whole number"),
    ({"parameters": {"timeout": {}}}, "'timeout' must be a whole number"),
    ({"parameters": {"mine": {}}}, "'mine' must be a boolean, a number or a string"),
]


@pytest.mark.parametrize(("changes", "sentence"), MALFORMED)
def test_malformed_requests_are_told_what_is_wrong(channel, changes, sentence):
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, 1.0, **changes)
    expected = (
        grpc.StatusCode.RESOURCE_EXHAUSTED if sentence == "elements" else grpc.StatusCode.INVALID_ARGUMENT
    )
    assert caught.value.code() == expected
    assert sentence in caught.value.details()


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05abc", b"\x0a\x02\xff\xfe", b"\x3b", b"\x0a"])
@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata", "RepositoryIndex", "ModelReady"])
def test_messages_that_are_none_are_told_so(channel, method, data):
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, method, data)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == f"the message is not a valid {method}Request"


@pytest.mark.parametrize("key", [wire.TIMEOUT_HEADER, wire.GATEWAY_TIMEOUT_HEADER])
def test_the_timeout_in_the_metadata_is_a_deadline(slow, key):
    with grpc.insecure_channel(slow.manifest.grpc_address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            infer(channel, LONG, metadata=((key, "1"),))
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert value_of(infer(channel, 1.0, metadata=((key, "20000"),))[0]) == 1.0


def test_a_timeout_that_is_none_is_the_clients_fault(channel):
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, 1.0, metadata=((wire.TIMEOUT_HEADER, "soon"),))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "must be a positive number of milliseconds" in caught.value.details()


@pytest.mark.parametrize(
    "method", ["ServerLive", "ServerMetadata", "ModelMetadata", "ModelConfig", "ModelReady"]
)
def test_every_answer_names_who_gives_it(channel, method):
    names = {"name": "digits"} if method.startswith("Model") else {}
    _, done = call(channel, method, **names)
    assert dict(done.trailing_metadata())[wire.VERSION_HEADER] == "digits-cnn@2"


def test_every_refusal_names_who_gives_it(channel):
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "ModelMetadata", name="other")
    assert dict(caught.value.trailing_metadata())[wire.DIGEST_HEADER] == "sha256:" + "ab" * 32


def test_answers_may_be_larger_than_requests(tmp_path, nursery):
    signature = Signature(models.SCALAR.inputs, (TensorSpec("y", "FP32", (-1, 100_000)),))
    program = models.save_torchscript(Widens(), tmp_path / "model")
    limits = Limits(max_request_bytes=100_000)
    manifest = make_manifest(program, signature, limits=limits)
    with (
        start_agent(manifest, tmp_path, nursery=nursery) as agent,
        grpc.insecure_channel(agent.manifest.grpc_address) as channel,
    ):
        assert len(infer(channel, 1.0)[0].raw_output_contents[0]) == 400_000


def test_large_texts_over_grpc_do_not_hold_up_others(tmp_path, nursery):
    text = Signature((TensorSpec("x", "BYTES", (-1,)),), (TensorSpec("y", "INT64", (-1,)),))
    handler = "tests.fakes.text_handlers:Sizes"
    manifest = make_manifest(tmp_path, text, handler=handler, allowed_handlers=(handler,))
    count = 2**18
    items = struct.pack("<I", 1) + b"a" + struct.pack("<I", 0) * (count - 1)
    tensor = {"name": "x", "datatype": "BYTES", "shape": [count]}
    with (
        start_agent(manifest, tmp_path / "agent", nursery=nursery) as agent,
        grpc.insecure_channel(agent.manifest.grpc_address) as channel,
    ):
        raw, _ = infer(channel, 0.0, inputs=[tensor], raw_input_contents=[items])
        sizes = np.frombuffer(raw.raw_output_contents[0], np.int64)
        assert (sizes.sum(), sizes[0], len(sizes)) == (1, 1, count)
        typed = {**tensor, "contents": {"bytes_contents": [b"ab"] * count}}
        raw, _ = infer(channel, 0.0, inputs=[typed], raw_input_contents=[])
        assert (np.frombuffer(raw.raw_output_contents[0], np.int64) == 2).all()
        with pytest.raises(grpc.RpcError) as caught:
            infer(channel, 0.0, inputs=[tensor], raw_input_contents=[items[:-1]])
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_tritons_timeout_is_a_deadline(slow):
    with triton.InferenceServerClient(slow.manifest.grpc_address) as client:
        tensor = triton.InferInput("x", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.full((1, 1), LONG, np.float32))
        with pytest.raises(triton.InferenceServerException, match="DEADLINE_EXCEEDED"):
            client.infer("digits", [tensor], timeout=1000)
        assert client.infer("digits", [tensor], timeout=20_000_000, priority=1).as_numpy("y") == LONG


def test_a_pass_through_parameter_changes_nothing(channel):
    parameters = {
        "temperature": {"double_param": 0.5},
        "sequence_id": {"uint64_param": 2**64 - 1},
        "triton_enable_empty_final_response": {"bool_param": True},
    }
    response, _ = infer(channel, 4.0, parameters=parameters)
    assert value_of(response) == 8.0
    assert not response.parameters


# extensions


def test_statistics_are_the_same_over_both_transports(echo):
    with triton.InferenceServerClient(echo.manifest.grpc_address) as client, echo.http as http:
        before = client.get_inference_statistics("digits").model_stats[0]
        tensor = triton.InferInput("x", [3, 1], "FP32")
        tensor.set_data_from_numpy(np.ones((3, 1), np.float32))
        client.infer("digits", [tensor])
        after = client.get_inference_statistics("digits", "2").model_stats[0]
        (rest,) = http.get("/v2/models/digits/versions/2/stats").json()["model_stats"]
        everything = client.get_inference_statistics(as_json=True)["model_stats"]
        with pytest.raises(triton.InferenceServerException, match="no model 'other' here"):
            client.get_inference_statistics("other")
    assert after.inference_count - before.inference_count == 3
    assert after.execution_count - before.execution_count == 1
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1
    assert after.inference_stats.success.ns - before.inference_stats.success.ns > 0
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert abs(after.last_inference / 1000 - time.time()) < 60
    assert rest["name"] == after.name == everything[0]["name"] == "digits"
    for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output", "cache_miss"):
        over_grpc = getattr(after.inference_stats, stage)
        assert rest["inference_stats"][stage] == {"count": over_grpc.count, "ns": over_grpc.ns}
    ran = {batch.batch_size: batch.compute_infer.count for batch in before.batch_stats}
    batches = {batch.batch_size: batch.compute_infer.count for batch in after.batch_stats}
    assert {batch["batch_size"]: batch["compute_infer"]["count"] for batch in rest["batch_stats"]} == batches
    assert batches == ran | {3: ran.get(3, 0) + 1}


def test_the_repository_holds_the_served_version(channel):
    (model,) = call(channel, "RepositoryIndex", ready=True)[0].models
    assert (model.name, model.version, model.state, model.reason) == ("digits", "2", "READY", "")


@pytest.mark.parametrize(
    ("method", "fields", "sentence"),
    [
        ("RepositoryModelLoad", {"model_name": "m"}, "signalbox deploy digits digits-cnn@N"),
        ("RepositoryModelUnload", {"model_name": "digits"}, "cannot unload 'digits' here"),
        (
            "SystemSharedMemoryRegister",
            {"name": "r", "key": "/r", "byte_size": 8},
            "send tensors in the request",
        ),
        ("CudaSharedMemoryRegister", {"name": "r", "byte_size": 8}, "send tensors in the request"),
        ("TraceSetting", {}, "traces are not set by clients"),
        ("LogSettings", {}, "logging is not set by clients"),
    ],
)
def test_what_agents_leave_to_the_control_plane(channel, method, fields, sentence):
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, method, **fields)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert sentence in caught.value.details()


def test_a_stock_client_may_clean_up_shared_memory_it_never_had(echo):
    with triton.InferenceServerClient(echo.manifest.grpc_address) as client:
        client.unregister_system_shared_memory()
        client.unregister_cuda_shared_memory()
        assert not client.get_system_shared_memory_status().regions
        assert not client.get_cuda_shared_memory_status().regions
        with pytest.raises(triton.InferenceServerException, match="no shared-memory region 'r'"):
            client.get_system_shared_memory_status("r")


class CountingProxy:
    """Forwards one TCP connection and counts the bytes that come back."""

    def __init__(self, target):
        host, _, port = target.rpartition(":")
        self.received = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._upstream = socket.create_connection((host, int(port)))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._forward)]
        self._threads[0].start()

    def _forward(self):
        self._client, _ = self._listener.accept()
        self._threads.append(threading.Thread(target=self._copy, args=(self._client, self._upstream)))
        self._threads[-1].start()
        self._copy(self._upstream, self._client, count=True)

    def _copy(self, source, sink, count=False):
        with suppress(OSError):  # the other side may be gone before the last bytes
            while data := source.recv(65536):
                self.received += len(data) if count else 0
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self):
        for thread in self._threads:
            thread.join(60)
        for end in (self._listener, self._client, self._upstream):
            end.close()


@pytest.mark.parametrize(("encoding", "is_small"), [(None, False), ("gzip", True), ("deflate", True)])
def test_large_responses_are_compressed_where_the_client_asks(echo, encoding, is_small):
    rows = 50_000
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 1]}
    proxy = CountingProxy(echo.manifest.grpc_address)
    metadata = (("accept-encoding", encoding),) if encoding else None
    with grpc.insecure_channel(proxy.address) as channel:
        zeros = {"inputs": [tensor], "raw_input_contents": [bytes(4 * rows)]}
        response, _ = infer(channel, 0.0, metadata, **zeros)
        assert response.raw_output_contents[0] == bytes(4 * rows)
    proxy.close()
    assert (proxy.received < 20_000) == is_small
