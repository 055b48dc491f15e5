"""Clients and models that misbehave: each gets a clear answer, and everybody else is served."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import psutil
import pytest

from serving_agent.contract.manifest import Limits
from serving_agent.contract.options import Batching, ServingOptions
from serving_agent.health import HANGING_GRACE_S
from tests.fakes import models
from tests.fakes.agents import make_manifest, start_agent
from tests.fakes.waiting import wait_until

MIB = 2**20
INFER = "/v2/models/digits/infer"


def manifest_of(folder, handler, limits=None, **options):
    name = f"tests.fakes.operator_handlers:{handler}"
    return make_manifest(
        folder,
        models.SCALAR,
        handler=name,
        allowed_handlers=(name,),
        limits=limits or Limits(drain_grace_s=0.0),
        options=ServingOptions(**{"check_interval_s": 0.0, **options}),
    )


@pytest.fixture(scope="module")
def agent(tmp_path_factory, nursery):
    """One agent that all bad clients of this module talk to: what one does must not reach the next."""
    folder = tmp_path_factory.mktemp("faults")
    limits = Limits(max_request_bytes=110 * MIB, drain_grace_s=0.0)
    with start_agent(manifest_of(folder, "Doubles", limits), folder, nursery=nursery) as running:
        yield running


@pytest.fixture(autouse=True)
def everybody_else_is_served(request):
    """After whatever the test did, a plain request is answered, and the agent holds nothing of the others."""
    yield
    if "agent" in request.fixturenames:
        agent = request.getfixturevalue("agent")
        assert ask(agent, [[21.0]]).json() == {"predictions": [[42.0]]}
        wait_until(lambda: agent.status()["in_flight"] == 0, timeout_s=10, what=lambda: str(agent.status()))


def ask(agent, rows):
    with agent.http as http:
        return http.post("/predict", json={"input": rows})


def address(agent):
    host, _, port = agent.manifest.rest_address.rpartition(":")
    return host, int(port)


def connect(agent):
    return socket.create_connection(address(agent), timeout=60)


def head(path=INFER, **headers):
    lines = [
        f"POST {path} HTTP/1.1",
        "host: agent",
        *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_reply(client):
    """One reply's status and JSON body."""
    reply = b""
    while b"\r\n\r\n" not in reply:
        reply += client.recv(65536)
    top, _, body = reply.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in top.split(b"\r\n")[1:])
    while len(body) < int(headers[b"content-length"]):
        body += client.recv(65536)
    return int(top.split()[1]), json.loads(body)


def body_of(values, **extra):
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(values), 1], "data": values}
    return json.dumps({"inputs": [tensor], **extra}).encode()


# clients


def test_half_a_body_and_gone(agent):
    body = body_of([1.0] * 100)
    for _ in range(20):
        with connect(agent) as client:
            client.sendall(head(content_length=len(body)) + body[:50])


def test_a_body_in_single_bytes(agent):
    body = body_of([1.5])
    with connect(agent) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head(content_length=len(body)) + body:
            client.sendall(bytes([byte]))
        status, answer = read_reply(client)
    assert (status, answer["outputs"][0]["data"]) == (200, [3.0])


def test_chunks_of_one_byte(agent):
    body = body_of([1.5])
    chunked = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in body) + b"0\r\n\r\n"
    with connect(agent) as client:
        client.sendall(head(transfer_encoding="chunked") + chunked)
        assert read_reply(client)[0] == 200


def test_a_hundred_megabytes_of_json(agent):
    """As many numbers as JSON may carry are answered, more are refused, and their memory is given back."""
    process = psutil.Process(agent.process.pid)
    before = process.memory_info().rss
    for number, status, told in ((b"0.125,", 413, "16777215 or more elements"), (b"0.1234567,", 200, "")):
        count = 100 * MIB // len(number)
        numbers = number * (count - 1) + number.rstrip(b",")
        body = body_of([]).replace(b"[0, 1]", b"[%d, 1]" % count).replace(b"[]}]", b"[" + numbers + b"]}]")
        with agent.http as http:
            reply = http.post(INFER, content=body, timeout=60)
        assert reply.status_code == status
        assert told in reply.text
    assert reply.text.count("0.2469134") == count
    assert process.memory_info().rss - before < 3 * len(body)


def test_more_than_the_limit_is_refused_before_it_is_sent(agent):
    with connect(agent) as client:
        client.sendall(head(content_length=200 * MIB))
        status, answer = read_reply(client)
    assert status == 413
    assert answer == {"error": f"the body is larger than the limit of {110 * MIB} bytes"}


def test_a_shape_of_a_billion_elements(agent):
    with agent.http as http:
        tensor = {"name": "x", "datatype": "FP32", "shape": [10**9, 1], "data": [1.0]}
        reply = http.post(INFER, json={"inputs": [tensor]})
        assert reply.status_code == 413
        assert "1000000000" in reply.json()["error"]
        tensor["shape"] = [2**62, 2**62]
        assert http.post(INFER, json={"inputs": [tensor]}).status_code in (400, 413)


def test_names_given_twice(agent):
    with agent.http as http:
        for body in (
            b'{"inputs": [], ' + body_of([1.0])[1:],
            body_of([1.0]).replace(b'"shape"', b'"shape": [2, 1], "shape"'),
        ):
            reply = http.post(INFER, content=body)
            assert reply.status_code == 400
            assert "twice in one JSON object" in reply.json()["error"]
        twice = json.loads(body_of([1.0]))
        twice["inputs"] *= 2
        assert http.post(INFER, json=twice).json() == {"error": "input 'x' is given twice"}


@pytest.mark.parametrize(
    "body",
    [b"[" * 200_000, b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"a":' * 5000 + b"1" + b"}" * 5000],
)
def test_deep_nesting(agent, body):
    with agent.http as http:
        reply = http.post(INFER, content=body)
    assert reply.status_code == 400
    assert list(reply.json()) == ["error"]


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff\xfe" * 100,
        b"GET\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"\x16\x03\x01" * 9,
    ],
)
def test_what_is_no_http(agent, data):
    with connect(agent) as client:
        client.sendall(data)
        status, answer = read_reply(client)
        assert status == 400
        assert answer["error"].startswith("the request is not valid HTTP")
        assert client.recv(10) == b"", "the connection ends"


def test_two_lengths_in_one_request_are_no_way_in(agent):
    """Content-Length beside Transfer-Encoding smuggles requests through proxies (RFC 9112 6.1)."""
    with connect(agent) as client:
        client.sendall(head(content_length=5, transfer_encoding="chunked") + b"0\r\n\r\n")
        assert read_reply(client)[0] == 400


def test_a_grpc_message_above_the_limit(agent):
    with grpc.insecure_channel(
        agent.manifest.grpc_address, [("grpc.max_send_message_length", -1)]
    ) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\x00" * (111 * MIB), timeout=30)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_ten_thousand_connections_opened_and_closed(agent):
    process = psutil.Process(agent.process.pid)
    before = process.num_fds()
    for _ in range(100):
        with contextlib.ExitStack() as stack:
            for index in range(100):
                client = stack.enter_context(connect(agent))
                if index % 3 == 0:
                    client.sendall(head(content_length=10)[: index + 1])
    wait_until(lambda: process.num_fds() <= before + 5, timeout_s=20, what=lambda: str(process.num_fds()))


# models


def test_models_that_raise_answer_nan_or_the_wrong_shape(tmp_path, nursery):
    with start_agent(manifest_of(tmp_path, "Raises"), tmp_path / "agent", nursery=nursery) as agent:
        for value, sentence in (
            (-1.0, "the model failed on this input (RuntimeError); the agent's log tells more"),
            (-2.0, "the model failed on this input (SystemExit); the agent's log tells more"),
            (-3.0, "output 'y' holds NaN or infinite values, which JSON cannot carry; ask for it in binary"),
            (-4.0, "the model did not return one output row for each of 1 input rows"),
        ):
            reply = ask(agent, [[value]])
            assert reply.status_code == 500
            assert reply.json()["error"].startswith(sentence)
            assert ask(agent, [[1.0]]).json() == {"predictions": [[2.0]]}
        assert "cannot take -1" in agent.log, "the log tells more"
        with agent.http as http:
            raw = json.dumps({
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1],
                            "parameters": {"binary_data_size": 4}}],
                "parameters": {"binary_data_output": True},
            }).encode()  # fmt: skip
            headers = {"inference-header-content-length": str(len(raw))}
            reply = http.post(INFER, content=raw + np.float32(-3).tobytes(), headers=headers)
            split = int(reply.headers["inference-header-content-length"])
            assert np.isnan(np.frombuffer(reply.content[split:], np.float32)).all()


def test_a_hanging_model_holds_nobody_beyond_the_deadline(tmp_path, nursery):
    """Its own request and those behind it are answered at their deadlines, and `/health` all along."""
    limits = Limits(request_timeout_s=0.5, drain_grace_s=0.0, drain_s=0.5)
    manifest = manifest_of(tmp_path, "Hangs", limits)
    with start_agent(manifest, tmp_path / "agent", nursery=nursery) as agent:
        codes = []
        asking = [threading.Thread(target=lambda: codes.append(ask(agent, [[-1.0]]).status_code))]
        asking += [
            threading.Thread(target=lambda: codes.append(ask(agent, [[1.0]]).status_code)) for _ in range(3)
        ]
        asking[0].start()
        wait_until(lambda: agent.status()["busy_s"] > 0, timeout_s=10, what=lambda: str(agent.status()))
        for thread in asking[1:]:
            thread.start()
        for thread in asking:
            thread.join(60)
        assert codes == [504] * 4
        assert agent.status()["phase"] == "ready"
        wait_until(
            lambda: agent.status()["busy_s"] > 0.5 + HANGING_GRACE_S,
            timeout_s=15,
            what=lambda: str(agent.status()),
        )
        with agent.http as http:
            assert http.get("/ready").status_code == 503
        agent.process.terminate()
        assert agent.process.wait(60) == 0


def test_a_leaking_model_ends_at_its_limit_and_says_so(tmp_path, nursery):
    limits = Limits(memory_bytes=1536 * MIB, drain_grace_s=0.0)
    manifest = manifest_of(tmp_path, "Leaks", limits)
    with start_agent(manifest, tmp_path / "agent", nursery=nursery) as agent:
        codes = []
        with agent.http as http:
            while not codes or codes[-1] == 200:
                reply = http.post("/predict", json={"input": [[1.0]]})
                codes.append(reply.status_code)
                assert len(codes) < 400
            assert reply.status_code == 500
            assert reply.json() == {"error": "the model needs more memory than the limit of 1536 MiB"}
            assert http.get("/health").status_code == 200


def test_no_child_or_socket_is_left_by_a_stopped_agent(tmp_path):
    with start_agent(manifest_of(tmp_path, "Doubles"), tmp_path / "agent") as agent:
        process = psutil.Process(agent.process.pid)
        assert process.children(recursive=True) == []
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(60) == 0
    with pytest.raises(ConnectionRefusedError):
        connect(agent)


CLOCK = """
#include <time.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/stat.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    struct stat jump;
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, now);
    if (clock == CLOCK_REALTIME && stat(getenv("JUMP_FILE"), &jump) == 0) now->tv_sec -= 86400;
    return status;
}
"""


def test_a_wall_clock_that_jumps_back_a_day_ends_no_request(tmp_path):
    """The agent runs with a library that shifts CLOCK_REALTIME once a file is there."""
    (tmp_path / "clock.c").write_text("#define _GNU_SOURCE\n" + CLOCK)
    library, jump = tmp_path / "clock.so", tmp_path / "jump"
    compiled = subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "clock.c"), "-ldl"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert compiled.returncode == 0, compiled.stderr
    environment = {**os.environ, "LD_PRELOAD": str(library), "JUMP_FILE": str(jump)}
    limits = Limits(request_timeout_s=5, drain_grace_s=0.0)
    manifest = manifest_of(tmp_path, "CountsRows", limits, batching=Batching(max_rows=4, max_delay_ms=50))
    with start_agent(manifest, tmp_path / "agent", env=environment) as agent:
        answers = []
        slow = threading.Thread(target=lambda: answers.append(ask(agent, [[500.0]])))
        slow.start()
        wait_until(lambda: agent.status()["busy_s"] > 0, timeout_s=10, what=lambda: str(agent.status()))
        jump.touch()
        assert ask(agent, [[1.0]]).status_code == 200
        slow.join(60)
        assert answers[0].status_code == 200
        with agent.http as http:
            stats = http.get("/v2/models/digits/stats").json()["model_stats"][0]
        assert stats["last_inference"] < (time.time() - 80_000) * 1000, "the jump was real"
        assert 0 <= stats["inference_stats"]["success"]["ns"] < 5e9
        agent.process.terminate()
        assert agent.process.wait(60) == 0


def test_no_batch_is_lost_when_clients_leave_at_random(tmp_path, nursery):
    """Answers always belong to their own requests, whoever else leaves meanwhile."""
    manifest = manifest_of(tmp_path, "Doubles", batching=Batching(max_rows=8, max_delay_ms=5))
    with start_agent(manifest, tmp_path / "agent", nursery=nursery) as agent:
        wrong = []

        def stay(base):
            with agent.http as http:
                answers = {
                    value: http.post("/predict", json={"input": [[float(value)]]}).json()
                    for value in range(base, base + 60)
                }
            wrong.extend(
                value for value, answer in answers.items() if answer != {"predictions": [[2.0 * value]]}
            )

        def leave():
            body = body_of([7.0])
            for _ in range(60):
                with connect(agent) as client:
                    client.sendall(head(content_length=len(body)) + body)

        threads = [threading.Thread(target=stay, args=(1000 * index,)) for index in range(4)]
        threads += [threading.Thread(target=leave) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == []


def test_unused_imports_are_not_paid_for(tmp_path):
    """An agent for a tensor model loads neither transformers nor the tracing SDK."""
    code = (
        "import sys, serving_agent.agent, torch\n"
        "print([name for name in ('transformers', 'opentelemetry.sdk', 'uvicorn', 'fastapi', 'requests')"
        " if name in sys.modules])"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"
