"""A really started agent, asked over REST and gRPC by stock clients."""

import gzip
import json

import grpc
import httpx
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving_agent.contract import proto, wire
from tests.fakes import models
from tests.fakes.agents import make_manifest, start_agent

LIMITS = {"max_request_bytes": 1_000_000}


@pytest.fixture(scope="module")
def agent(tmp_path_factory, nursery):
    from serving_agent.contract.manifest import Limits

    folder = tmp_path_factory.mktemp("agent")
    program = models.save_torchscript(models.digits_model(), folder / "digits")
    manifest = make_manifest(program, models.DIGITS, limits=Limits(**LIMITS))
    with start_agent(manifest, folder, nursery=nursery) as running:
        yield running


@pytest.fixture(scope="module")
def http(agent):
    with agent.http as client:
        yield client


@pytest.fixture(scope="module")
def channel(agent):
    with grpc.insecure_channel(agent.manifest.grpc_address) as channel:
        yield channel


def call(channel, method, name=None, **fields):
    request = proto.message_class(f"{method}Request")
    stub = channel.unary_unary(
        f"/{wire.GRPC_SERVICE}/{method}",
        request_serializer=request.SerializeToString,
        response_deserializer=proto.message_class(f"{method}Response").FromString,
    )
    return stub.with_call(request(**fields), timeout=60)


@pytest.fixture(scope="module")
def images():
    return models.digits_data()[0][1500:1504]


@pytest.fixture(scope="module")
def logits(images):
    with torch.inference_mode():
        return models.digits_model()(torch.from_numpy(images)).numpy()


def body_of(images, **changes):
    tensor = {"name": "image", "datatype": "FP32", "shape": list(images.shape), "data": images.tolist()}
    return {"inputs": [tensor | changes]}


def test_rest_inference(http, images, logits):
    reply = http.post("/v2/models/digits/infer", json={"id": "7", **body_of(images)})
    assert reply.status_code == 200, reply.text
    assert reply.headers[wire.VERSION_HEADER] == "digits-cnn@2"
    assert reply.headers[wire.DIGEST_HEADER] == "sha256:" + "ab" * 32
    answer = reply.json()
    assert {key: answer[key] for key in ("model_name", "model_version", "id")} == {
        "model_name": "digits", "model_version": "2", "id": "7",
    }  # fmt: skip
    (output,) = answer["outputs"]
    assert output["shape"] == [4, 10]
    assert np.reshape(output["data"], (4, 10)) == pytest.approx(logits, abs=1e-5)
    assert http.post("/v2/models/digits/versions/2/infer", json=body_of(images)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2"),
        ("GET", "/v2/models/digits"),
        ("GET", "/v2/models/digits/config"),
        ("GET", "/v2/models/digits/stats"),
        ("GET", "/v2/models/digits/ready"),
        ("GET", "/ready"),
        ("GET", "/nothing"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/models/other/infer"),
    ],
)
def test_every_reply_names_who_answers(http, method, path):
    reply = http.request(method, path)
    assert reply.headers[wire.VERSION_HEADER] == "digits-cnn@2"
    assert reply.headers[wire.DIGEST_HEADER] == "sha256:" + "ab" * 32


def test_predict(http, images, logits):
    many = http.post("/predict", json={"input": images.tolist()})
    assert np.array(many.json()["predictions"]) == pytest.approx(logits, abs=1e-5)
    one = http.post("/predict", json={"input": {"image": images[0].tolist()}})
    assert np.array(one.json()["predictions"]) == pytest.approx(logits[:1], abs=1e-5)
    packed = gzip.compress(json.dumps({"input": images.tolist()}).encode())
    assert http.post("/predict", content=packed, headers={"content-encoding": "gzip"}).json() == many.json()


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True, None])
def test_stock_http_client(agent, images, logits, binary_in, binary_out):
    from tritonclient import http as triton

    with triton.InferenceServerClient(agent.manifest.rest_address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits")
        assert client.is_model_ready("digits", "2")
        assert client.get_model_metadata("digits")["inputs"][0]["shape"] == [-1, 1, 8, 8]
        assert client.get_model_config("digits")["max_batch_size"] == 32
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        tensor = triton.InferInput("image", list(images.shape), "FP32")
        tensor.set_data_from_numpy(images, binary_data=binary_in)
        wanted = (
            None if binary_out is None else [triton.InferRequestedOutput("logits", binary_data=binary_out)]
        )
        result = client.infer("digits", [tensor], outputs=wanted, request_id="a")
        assert result.as_numpy("logits") == pytest.approx(logits, abs=1e-5)
        assert result.get_response()["id"] == "a"
        with pytest.raises(triton.InferenceServerException, match="no model 'other' here"):
            client.infer("other", [tensor])


def test_stock_grpc_client(agent, images, logits):
    from tritonclient import grpc as triton

    with triton.InferenceServerClient(agent.manifest.grpc_address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits", "2")
        assert client.get_model_metadata("digits").platform == "pytorch_libtorch"
        assert client.get_model_config("digits").config.output[0].dims == [10]
        assert client.get_server_metadata().version == "digits-cnn@2"
        assert [model.name for model in client.get_model_repository_index().models] == ["digits"]
        tensor = triton.InferInput("image", list(images.shape), "FP32")
        tensor.set_data_from_numpy(images)
        result = client.infer(
            "digits", [tensor], outputs=[triton.InferRequestedOutput("logits")], request_id="a"
        )
        assert result.as_numpy("logits") == pytest.approx(logits, abs=1e-5)
        assert result.get_response().model_version == "2"
        with pytest.raises(triton.InferenceServerException, match="no version '9' of 'digits'"):
            client.infer("digits", [tensor], model_version="9")


def test_grpc_with_typed_contents_names_the_version(channel, images, logits):
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": images.shape,
        "contents": {"fp32_contents": images.ravel().tolist()},
    }
    reply, done = call(channel, "ModelInfer", model_name="digits", inputs=[tensor])
    answer = np.frombuffer(reply.raw_output_contents[0], "<f4").reshape(4, 10)
    assert answer == pytest.approx(logits, abs=1e-5)
    metadata = dict(done.trailing_metadata())
    assert metadata[wire.VERSION_HEADER] == "digits-cnn@2"
    assert metadata[wire.DIGEST_HEADER].startswith("sha256:ab")


def test_grpc_health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", wire.GRPC_SERVICE):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_health_and_readiness(http):
    status = http.get("/health").json()
    assert status["phase"] == "ready"
    assert status["version"] == "digits-cnn@2"
    assert status["device"] in ("cpu", "cuda:0")
    assert status["timings_s"].keys() == {"import", "load", "warm"}
    for path in ("/ready", "/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready", "/v2", "/v2/"):
        reply = http.get(path)
        assert reply.status_code == 200, path
        assert isinstance(reply.json(), dict)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("GET", "/v2/models/digits/versions/1", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/v2/models/digits/infer/more", 404),
        ("GET", "/v2/models/digits/infer", 405),
        ("GET", "/predict", 405),
        ("POST", "/health", 405),
    ],
)
def test_routes_that_are_not_there(http, method, path, status):
    reply = http.request(method, path)
    assert reply.status_code == status
    assert list(reply.json()) == ["error"]
    assert ("allow" in reply.headers) == (status == 405)


def test_large_bodies_are_refused(http, agent, channel):
    def chunks():
        for _ in range(20):
            yield b" " * 100_000

    for content in (b" " * 1_000_001, chunks()):
        reply = http.post("/predict", content=content)
        assert reply.status_code == 413
        assert "1000000 bytes" in reply.json()["error"]
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "ModelInfer", model_name="digits", raw_input_contents=[b" " * 1_000_001])
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_metrics_count_both_transports_with_bounded_labels(http, channel, images):
    def count():
        text = http.get("/metrics").text
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith(("model_requests_total{", "model_inference_duration_seconds_count"))
        }

    before = count()
    http.post("/predict", json={"input": images.tolist()})
    http.post("/v2/models/made-up/infer", json={})
    with pytest.raises(grpc.RpcError):
        call(channel, "ModelInfer", model_name="digits")
    after = count()
    labels = 'endpoint="digits",model_name="digits-cnn"'
    grown = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    assert grown == {
        f'model_requests_total{{code="200",{labels},transport="rest",version="2"}}': 1,
        f'model_requests_total{{code="404",{labels},transport="rest",version="2"}}': 1,
        f'model_requests_total{{code="400",{labels},transport="grpc",version="2"}}': 1,
        f'model_inference_duration_seconds_count{{{labels},version="2"}}': 1,
    }
    text = http.get("/metrics").text
    assert "made-up" not in text
    assert 'kind="rss"' in text
    assert "process_cpu_seconds_total" in text


def test_the_clients_deadline_is_kept(http, images):
    reply = http.post("/predict", json={"input": images.tolist()}, headers={wire.GATEWAY_TIMEOUT_HEADER: "0"})
    assert reply.status_code == 504
    assert "no answer within" in reply.json()["error"]


SAME_STATUS = {400: grpc.StatusCode.INVALID_ARGUMENT, 413: grpc.StatusCode.RESOURCE_EXHAUSTED}


def answer_of_rest(http, tensors, outputs):
    reply = http.post("/v2/models/digits/infer", json={"inputs": tensors, "outputs": outputs})
    if reply.status_code != 200:
        return SAME_STATUS[reply.status_code], reply.json()["error"]
    return [np.array(output["data"], np.float32).tolist() for output in reply.json()["outputs"]]


def answer_of_grpc(channel, tensors, outputs):
    inputs = [
        {**{key: tensor[key] for key in ("name", "datatype", "shape")},
         "contents": {"fp32_contents": tensor["data"]} if tensor["data"] else {}}
        for tensor in tensors
    ]  # fmt: skip
    try:
        reply, _ = call(channel, "ModelInfer", model_name="digits", inputs=inputs, outputs=outputs)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return [np.frombuffer(raw, "<f4").tolist() for raw in reply.raw_output_contents]


TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["image", "image", "image", "other"]),
        "datatype": st.sampled_from(["FP32", "FP32", "FP32", "nonsense"]),
        "shape": st.sampled_from(
            [[1, 1, 8, 8], [2, 1, 8, 8], [1, 8, 8], [0, 1, 8, 8], [1, 1, 8, -1], [2**60, 1, 8, 8]]
        ),
        "data": st.sampled_from([64, 128, 63]).flatmap(
            lambda size: st.lists(st.floats(-10, 10, width=32), min_size=size, max_size=size)
        ),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(TENSORS, max_size=2),
    st.lists(st.sampled_from(["logits", "other"]).map(lambda n: {"name": n}), max_size=2),
)
def test_both_transports_give_the_same_answer(http, channel, tensors, outputs):
    assert answer_of_rest(http, tensors, outputs) == answer_of_grpc(channel, tensors, outputs)


FAULTS = [
    ("FP32", [float("nan")], "input 'x' holds NaN or infinite values, which this endpoint refuses"),
    ("FP32", [float("inf")], "input 'x' holds NaN or infinite values, which this endpoint refuses"),
    ("FP64", [1.0], "input 'x' must be FP32, not FP64"),
]


@pytest.fixture(scope="module")
def picky(tmp_path_factory, nursery):
    """A model that fails, answers NaN or eats memory on demand, on unix sockets, under a memory limit."""
    import tempfile
    from pathlib import Path

    from serving_agent.contract.manifest import Limits

    folder = tmp_path_factory.mktemp("picky")
    with tempfile.TemporaryDirectory(dir="/tmp") as sockets:
        manifest = make_manifest(
            models.save_torchscript(models.Picky(), folder / "model"),
            models.SCALAR,
            rest_address=f"unix:{sockets}/r",
            grpc_address=f"unix:{sockets}/g",
            limits=Limits(memory_bytes=4 * 2**30),
        )
        with start_agent(manifest, folder, nursery=nursery) as agent:
            for name in ("r", "g"):
                assert (Path(sockets) / name).stat().st_mode & 0o777 == 0o600
            yield agent


def ask(agent, value):
    with agent.http as http:
        return http.post("/predict", json={"input": [[value]]})


def ask_grpc(agent, datatype, values):
    raw = np.array(values, {"FP32": "<f4", "FP64": "<f8"}[datatype]).tobytes()
    tensor = {"name": "x", "datatype": datatype, "shape": [len(values), 1]}
    with grpc.insecure_channel(agent.manifest.grpc_address) as channel:
        return call(channel, "ModelInfer", model_name="digits", inputs=[tensor], raw_input_contents=[raw])[0]


@pytest.mark.parametrize(("datatype", "values", "sentence"), FAULTS)
def test_binary_faults_over_grpc(picky, datatype, values, sentence):
    with pytest.raises(grpc.RpcError) as caught:
        ask_grpc(picky, datatype, values)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == sentence


def test_a_models_own_exception_is_a_500_without_details(picky):
    reply = ask(picky, -1.0)
    assert reply.status_code == 500
    assert "the model failed on this input" in reply.json()["error"]
    assert "boom" not in reply.text
    assert "boom" in picky.log
    assert ask(picky, 5.0).json() == {"predictions": [[5.0]]}


def test_a_request_beyond_the_memory_limit_fails_alone(picky):
    reply = ask(picky, 7.0)
    assert reply.status_code == 500
    assert reply.json() == {"error": "the model needs more memory than the limit of 4096 MiB"}
    assert ask(picky, 5.0).status_code == 200


def test_nan_outputs_are_an_error_in_json_and_pass_in_binary(picky):
    reply = ask(picky, 200.0)
    assert reply.status_code == 500
    assert "output 'y' holds NaN" in reply.json()["error"]
    raw = ask_grpc(picky, "FP32", [200.0]).raw_output_contents[0]
    assert np.isnan(np.frombuffer(raw, "<f4")).all()


def test_httpx_is_kept_alive(picky):
    with picky.http as http:
        assert isinstance(http, httpx.Client)
        assert "connection" not in http.get("/ready").headers
