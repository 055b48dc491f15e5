"""Which agent a request reaches through a real Envoy, and what Envoy itself answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from control_plane.gateway.envoy_admin import EnvoyAdmin
from control_plane.gateway.envoy_files import gateway_files
from serving_agent.contract import proto
from tests.fakes import upstream
from tests.fakes.envoy import RunningEnvoy, plan, running_envoy
from tests.fakes.waiting import wait_until

SERVICE = "/inference.GRPCInferenceService"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("u")


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[RunningEnvoy]:
    """Agent a serves digits@1, agent b digits@2.

    Endpoints: `digits` is a's and `cats` b's; `split` has a quarter at b; `idle` and `void` have no agent.
    """
    with running_envoy(tmp_path_factory.mktemp("home")) as running, ExitStack() as cleanup:
        for agent, version in (("a", "digits@1"), ("b", "digits@2")):
            cleanup.callback(upstream.start(folder, agent, version).kill)
        a, b = (upstream.replica_at(folder, agent) for agent in "ab")
        running.apply(
            plan("digits", v1=(1.0, [a])),
            plan("cats", v2=(1.0, [b])),
            plan("split", v1=(0.75, [a]), v2=(0.25, [b])),
            plan("idle"),
            plan("void", v9=(1.0, [])),
        )
        yield running


@pytest.fixture
def http(envoy: RunningEnvoy) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=envoy.url, timeout=60) as client:
        yield client


@pytest.fixture
def channel(envoy: RunningEnvoy) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{envoy.settings.gateway_port}") as channel:
        yield channel


def infer(channel: grpc.Channel, model: str, **metadata: str) -> Any:
    call = channel.unary_unary(
        f"{SERVICE}/ModelInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=proto.message_class("ModelInferResponse").FromString,
    )
    request = proto.message_class("ModelInferRequest")(model_name=model)
    pairs = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    return call(request, metadata=pairs, timeout=60, wait_for_ready=False)


def admin(envoy: RunningEnvoy) -> EnvoyAdmin:
    return EnvoyAdmin(gateway_files(envoy.settings).admin_socket)


@pytest.mark.parametrize(
    ("path", "seen", "version"),
    [
        ("/e/digits/predict", "/predict", "digits@1"),
        ("/e/digits", "/", "digits@1"),
        ("/e/cats/v2/models/cats/infer", "/v2/models/cats/infer", "digits@2"),
        ("/v2/models/digits", "/v2/models/digits", "digits@1"),
        ("/v2/models/cats/infer", "/v2/models/cats/infer", "digits@2"),
        ("/v2/models/cats/versions/2/infer", "/v2/models/cats/versions/2/infer", "digits@2"),
    ],
)
def test_a_path_reaches_its_endpoint(http: httpx.Client, path: str, seen: str, version: str) -> None:
    answer = http.post(path, params={"k": "v/e/x"}, content=b"12345")

    assert answer.status_code == 200
    body = answer.json()
    assert (body["path"], body["version"], body["length"]) == (seen, version, 5)
    assert body["query"] == "k=v%2Fe%2Fx"
    assert answer.headers["x-signalbox-version"] == version


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/e/dogs/predict", "no endpoint named dogs"),
        ("/e/digit/predict", "no endpoint named digit"),
        ("/e/digitss/predict", "no endpoint named digitss"),
        ("/v2/models/dogs/infer", "no endpoint named dogs"),
        (
            "/somewhere",
            "nothing answers at this path: call /e/<endpoint>/predict or /v2/models/<endpoint>/infer",
        ),
    ],
)
def test_unknown_names_are_404_with_a_sentence(http: httpx.Client, path: str, sentence: str) -> None:
    answer = http.post(path, json={})

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"error": sentence}


@pytest.mark.parametrize("endpoint", ["idle", "void"])
@pytest.mark.parametrize("form", ["/e/{}/predict", "/v2/models/{}/infer"])
def test_nobody_to_answer_is_503_with_a_sentence(http: httpx.Client, endpoint: str, form: str) -> None:
    answer = http.post(form.format(endpoint), json={})

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json() == {"error": f"endpoint {endpoint} has no ready agent"}


def test_an_agents_own_error_passes_untouched(http: httpx.Client) -> None:
    answer = http.post("/e/digits/fail")

    assert answer.status_code == 500
    assert answer.json()["agent"] == "a"


@pytest.mark.parametrize("path", ["/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/"])
def test_the_gateway_answers_for_itself(http: httpx.Client, path: str) -> None:
    answer = http.get(path)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert isinstance(answer.json(), dict)


def test_grpc_goes_by_metadata(channel: grpc.Channel) -> None:
    assert infer(channel, "whatever", x_endpoint="cats").model_version == "digits@2"


@pytest.mark.parametrize(("model", "version"), [("digits", "digits@1"), ("cats", "digits@2")])
def test_grpc_goes_by_model_name(channel: grpc.Channel, model: str, version: str) -> None:
    assert infer(channel, model).model_version == version


def test_grpc_asks_for_a_models_readiness_by_name(channel: grpc.Channel) -> None:
    ready = channel.unary_unary(f"{SERVICE}/ModelReady")
    request = proto.message_class("ModelReadyRequest")(name="digits").SerializeToString()

    assert ready(request, timeout=60) == b"\x08\x01"


@pytest.mark.parametrize("method", [f"{SERVICE}/ServerLive", "/grpc.health.v1.Health/Check"])
def test_grpc_calls_about_the_server_need_no_endpoint(channel: grpc.Channel, method: str) -> None:
    assert channel.unary_unary(method)(b"", timeout=60) == b"\x08\x01"


@pytest.mark.parametrize(
    ("model", "metadata", "code", "details"),
    [
        ("dogs", {}, grpc.StatusCode.NOT_FOUND, "no endpoint has this model name"),
        ("x", {"x_endpoint": "dogs"}, grpc.StatusCode.NOT_FOUND, "no endpoint named dogs"),
        ("idle", {}, grpc.StatusCode.UNAVAILABLE, "endpoint idle has no ready agent"),
        ("x", {"x_endpoint": "idle"}, grpc.StatusCode.UNAVAILABLE, "endpoint idle has no ready agent"),
        ("void", {}, grpc.StatusCode.UNAVAILABLE, "no healthy upstream"),
    ],
)
def test_grpc_refusals(
    channel: grpc.Channel, model: str, metadata: dict[str, str], code: grpc.StatusCode, details: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, model, **metadata)

    assert caught.value.code() == code
    assert details in caught.value.details()


def test_events_arrive_one_by_one(http: httpx.Client) -> None:
    with http.stream("GET", "/e/digits/events") as answer:
        first = next(answer.iter_text())

    assert first == "data: 0\n\n"


def test_a_large_body_passes(http: httpx.Client) -> None:
    size = 20 * 1024 * 1024

    assert http.post("/e/digits/predict", content=bytes(size)).json()["length"] == size


def test_requests_are_counted_by_endpoint_version_and_status(
    envoy: RunningEnvoy, http: httpx.Client, channel: grpc.Channel
) -> None:
    infer(channel, "cats")
    http.post("/e/cats/fail")
    http.post("/e/idle/predict")

    def counted() -> bool:
        text = admin(envoy).prometheus("^gwm")
        wanted = (
            'envoy_gwm_requests{endpoint="cats",version="digits@2",code="500",grpc=""}',
            'envoy_gwm_requests{endpoint="cats",version="digits@2",code="200",grpc="0"}',
            'envoy_gwm_requests{endpoint="idle",version="",code="503",grpc=""}',
            'envoy_gwm_latency_us_bucket{endpoint="cats",version="digits@2",le="500"}',
        )
        return all(line in text for line in wanted)

    wait_until(counted, timeout_s=5, what=lambda: admin(envoy).prometheus("^gwm"))


def test_the_admin_socket_is_the_owners_alone(envoy: RunningEnvoy) -> None:
    socket = envoy.settings.run_dir / "envoy-admin.sock"

    assert socket.stat().st_mode & 0o777 == 0o600


def test_weights_split_requests(http: httpx.Client) -> None:
    answers = Counter(http.get("/e/split/predict").json()["version"] for _ in range(400))

    # 400 draws at 0.25: the standard deviation is 8.7, five of them are 43
    assert 57 <= answers["digits@2"] <= 143


def test_health_probes_are_nobodys_requests(envoy: RunningEnvoy, http: httpx.Client) -> None:
    assert http.get("/v2/health/live").is_success
    assert http.get("/e/nobody-at-home/predict").status_code == 404

    def counted() -> list[str]:
        lines = envoy.gateway.metrics().splitlines()
        return [line for line in lines if line.startswith("envoy_gwm_requests{")]

    unnamed = wait_until(
        lambda: [line for line in counted() if 'code="404"' in line], timeout_s=5, what=envoy.gateway.metrics
    )
    assert unnamed
    assert not [line for line in counted() if 'code="200"' in line and 'endpoint="-"' in line]


@pytest.mark.parametrize("metadata", [{}, {"x_endpoint": "digits"}], ids=["by name", "by metadata"])
def test_a_large_grpc_message_arrives(channel: grpc.Channel, metadata: dict[str, str]) -> None:
    call = channel.unary_unary(
        f"{SERVICE}/ModelInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=proto.message_class("ModelInferResponse").FromString,
    )
    tensor = proto.message_class("ModelInferRequest")(
        model_name="digits", raw_input_contents=[bytes(30 * 1024 * 1024)]
    )
    pairs = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    assert call(tensor, metadata=pairs, timeout=60).model_name
