"""Starts that fail, hang or are cut short; draining under load."""

import gzip
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import httpx
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from torch import nn

from serving_agent.agent import LAST_WORDS_S
from serving_agent.contract.manifest import Limits
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.health import HANGING_GRACE_S
from tests.fakes import models
from tests.fakes.agents import ROOT, make_manifest, start_agent

HANDLERS = """
import os, threading
from serving_agent.model_server import ModelServer

class Hangs(ModelServer):
    def load_model(self, context):
        threading.Event().wait()

class Crashes(ModelServer):
    def load_model(self, context):
        raise RuntimeError("weights are missing in /srv/secret/place")

class Exits(ModelServer):
    def load_model(self, context):
        raise SystemExit(0)

class Eats(ModelServer):
    def load_model(self, context):
        import torch
        self.weights = [torch.zeros(2**26) for _ in range(64)]

class Checks(ModelServer):
    def load_model(self, context):
        assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        super().load_model(context)
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return models.save_torchscript(models.digits_model(), tmp_path_factory.mktemp("program"))


@pytest.fixture
def custom(tmp_path, program):
    """Start an agent with a handler of HANDLERS."""
    (tmp_path / "operators.py").write_text(HANDLERS)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))),
    }

    def start(name, allow=True, **changes):
        handler = f"operators:{name}"
        manifest = make_manifest(
            program, models.DIGITS, handler=handler, allowed_handlers=(handler,) if allow else (), **changes
        )
        return start_agent(manifest, tmp_path / "agent", wait=False, env=environment)

    return start


def failure_of(agent, timeout_s=60):
    """The exit code, the failure file and the last line of the log."""
    code = agent.process.wait(timeout_s)
    return code, json.loads(agent.failure_path.read_text()), agent.log.splitlines()[-1]


def test_a_model_that_crashes_on_load(custom):
    with custom("Crashes") as agent:
        code, failure, last_line = failure_of(agent)
    assert code == 3
    assert failure == {"reason": "RuntimeError: weights are missing in place", "phase": "loading"}
    assert last_line.endswith("failed while loading: RuntimeError: weights are missing in place")


def test_a_model_that_tries_to_leave(custom):
    with custom("Exits") as agent:
        assert failure_of(agent)[:2] == (3, {"reason": "SystemExit: 0", "phase": "loading"})


def test_a_model_that_eats_memory(custom):
    with custom("Eats", limits=Limits(memory_bytes=1536 * 2**20)) as agent:
        code, failure, _ = failure_of(agent)
    assert code == 3
    assert failure["reason"] == "the model needs more memory than the limit of 1536 MiB"


def test_a_handler_that_is_not_allowed_is_never_imported(custom):
    with custom("Crashes", allow=False) as agent:
        code, failure, _ = failure_of(agent)
    assert code == 3
    assert failure["reason"] == "handler 'operators:Crashes' is not in the list of allowed handlers"


def test_an_allowed_handler_runs_with_the_forced_environment(custom):
    with custom("Checks") as agent:
        agent.wait_phase("ready")


def test_a_load_that_hangs_is_visible_and_can_be_stopped(custom):
    with custom("Hangs") as agent:
        status = agent.wait_phase("loading")
        assert status["timings_s"].keys() == {"import"}
        with agent.http as http:
            assert http.get("/health").status_code == 200
            assert http.get("/ready").status_code == 503
            assert http.get("/v2/health/ready").status_code == 503
            assert http.get("/v2/health/live").status_code == 200
            for reply in (http.post("/predict", json={"input": 1}), http.get("/v2/models/digits")):
                assert reply.status_code == 503
                assert reply.json() == {"error": "the model is not ready: the agent is loading"}
                assert reply.headers["retry-after"] == "1"
        agent.process.terminate()
        assert agent.process.wait(30) == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"format": "gguf"},
            "unknown format 'gguf'; known formats are torchscript, exported_program, huggingface",
        ),
        ({"handler": "magic"}, "unknown handler 'magic'; known handlers are"),
        ({"device": "cuda:63"}, "NVIDIA GPU"),
        ({"rest_address": "0.0.0.0:80"}, "neither unix:/path nor 127.0.0.1:port"),
        ({"format": "exported_program"}, "the artefact must hold exactly one .pt2 file; it holds 0"),
    ],
)
def test_manifests_that_cannot_be_served(tmp_path, program, changes, reason):
    with start_agent(make_manifest(program, models.DIGITS, **changes), tmp_path, wait=False) as agent:
        code, failure, last_line = failure_of(agent)
    assert code == 3
    assert reason in failure["reason"]
    assert failure["reason"] in last_line


def test_a_model_that_fails_its_warm_up(tmp_path, nursery):
    folder = models.save_torchscript(models.Broken(), tmp_path / "model")
    manifest = make_manifest(folder, models.SCALAR)
    with start_agent(manifest, tmp_path, wait=False, nursery=nursery) as agent:
        code, failure, _ = failure_of(agent)
    assert code == 3
    assert failure["phase"] == "warming"
    assert "no weights at weights.bin" in failure["reason"]
    assert "secret" not in failure["reason"]


def test_a_manifest_that_is_none(tmp_path):
    (tmp_path / "m.json").write_text('{"agent_id": 1}')
    command = [sys.executable, "-m", "serving_agent", "--manifest", str(tmp_path / "m.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "the manifest cannot be read" in done.stderr


class Clients:
    """Threads that keep asking, each on a connection of its own, until told to stop or told to go away."""

    def __init__(self, agent, count):
        self.answers, self.failures = [], []
        self._agent, self._stop = agent, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self):
        with self._agent.http as http:
            while not self._stop.is_set():
                try:
                    self.answers.append(http.post("/predict", json={"input": [[30.0]]}).status_code)
                except httpx.TransportError as error:
                    self.failures.append(repr(error))


def test_draining_under_load_fails_no_request(tmp_path, nursery):
    """Clients that leave within the grace, as the gateway's do, see no failure; running ones are answered."""
    folder = models.save_torchscript(models.Slow(), tmp_path / "model")
    limits = Limits(drain_grace_s=1.0, drain_s=20)
    manifest = make_manifest(folder, models.SCALAR, limits=limits)
    with start_agent(manifest, tmp_path, nursery=nursery) as agent:
        slow = []

        def ask_slowly():
            with agent.http as http:
                slow.append(http.post("/predict", json={"input": [[3000.0]]}).status_code)

        with Clients(agent, 4) as clients:
            while len(clients.answers) < 20:
                time.sleep(0.01)
            agent.process.send_signal(signal.SIGTERM)
            agent.wait_phase("draining")
            long_request = threading.Thread(target=ask_slowly)
            long_request.start()
            seen = len(clients.answers)
            with agent.http as http:
                reply = http.get("/ready")
                assert reply.status_code == 503
                assert reply.json() == {"ready": False, "phase": "draining"}
                assert reply.headers["connection"] == "close"
            while len(clients.answers) < seen + 4:
                time.sleep(0.01)
        assert agent.process.wait(30) == 0
        long_request.join(60)
    assert clients.failures == []
    assert set(clients.answers) == {200}
    assert slow == [200]


def test_a_request_that_outlives_the_drain_does_not_hold_the_process(tmp_path, nursery):
    folder = models.save_torchscript(models.Slow(), tmp_path / "model")
    limits = Limits(drain_grace_s=0.0, drain_s=0.2)
    manifest = make_manifest(folder, models.SCALAR, limits=limits)
    with start_agent(manifest, tmp_path, nursery=nursery) as agent:
        answers = []

        def ask():
            with agent.http as http:
                answers.append(http.post("/predict", json={"input": [[1e6]]}))

        asking = threading.Thread(target=ask)
        asking.start()
        while agent.status()["in_flight"] == 0:
            time.sleep(0.01)
        agent.process.terminate()
        assert agent.process.wait(60) == 0
        asking.join(60)
        assert "1 requests still ran after 0.2 s" in agent.log
        assert answers[0].status_code == 503
        assert answers[0].json() == {"error": "the agent is ending before it could answer; try again"}


class RawClient:
    """One HTTP connection on which a test sends and reads when it wants."""

    def __init__(self, agent, **options):
        host, _, port = agent.manifest.rest_address.rpartition(":")
        self.socket = socket.socket()
        if "receive_buffer" in options:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options["receive_buffer"])
        self.socket.settimeout(20)
        self.socket.connect((host, int(port)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def ask(self, body, send=None):
        """Send a /predict request, only the first *send* bytes of its body."""
        head = f"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
        self.socket.sendall(head.encode() + body[:send])

    def answer(self):
        """The status, the headers and the body."""
        content = b""
        while b"\r\n\r\n" not in content:
            content += self.receive()
        head, _, body = content.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        while len(body) < int(headers["content-length"]):
            body += self.receive()
        return int(status.split()[1]), headers, body

    def receive(self):
        data = self.socket.recv(65536)
        assert data, "the connection was cut"
        return data


def test_a_request_half_sent_at_the_end_is_awaited_and_answered(tmp_path, program, nursery):
    """A client whose body dribbles in is waited for, beyond the grace; one that says nothing is not."""
    limits = Limits(drain_grace_s=0.2, drain_s=20)
    manifest = make_manifest(program, models.DIGITS, limits=limits)
    body = json.dumps({"input": models.digits_data()[0][:1].tolist()}).encode()
    with (
        start_agent(manifest, tmp_path, nursery=nursery) as agent,
        RawClient(agent) as client,
        RawClient(agent) as idle,
    ):
        client.ask(body, send=100)
        agent.process.send_signal(signal.SIGTERM)
        assert idle.socket.recv(1) == b"", "the grace is over"
        for place in range(100, len(body), 100):
            client.socket.sendall(body[place : place + 100])
        status, headers, _ = client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert agent.process.wait(60) == 0
        assert "still ran" not in agent.log


class Widens(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat(1, 2_000_000)


def test_a_large_answer_is_read_to_its_end_by_a_slow_client(tmp_path, nursery):
    """20 MB that take longer than last words may: the agent waits while its answer is being read."""
    signature = Signature(models.SCALAR.inputs, (TensorSpec("y", "FP32", (-1, 2_000_000)),))
    folder = models.save_torchscript(Widens(), tmp_path / "model")
    limits = Limits(drain_grace_s=0.0, drain_s=30)
    manifest = make_manifest(folder, signature, limits=limits)
    with (
        start_agent(manifest, tmp_path, nursery=nursery) as agent,
        RawClient(agent, receive_buffer=65536) as client,
    ):
        client.ask(b'{"input": [[123456.5]]}')
        first = client.receive()
        agent.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            agent.process.wait(2 * LAST_WORDS_S + 1.0)
        head, _, body = first.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        assert size > 15_000_000
        received = len(body)
        while received < size:
            received += len(client.receive())
        assert client.socket.recv(1) == b""
        assert agent.process.wait(60) == 0
        assert "still ran" not in agent.log


def test_an_answer_that_nobody_reads_is_cut_at_the_end_of_the_drain(tmp_path, nursery):
    signature = Signature(models.SCALAR.inputs, (TensorSpec("y", "FP32", (-1, 2_000_000)),))
    folder = models.save_torchscript(Widens(), tmp_path / "model")
    limits = Limits(drain_grace_s=0.0, drain_s=0.5)
    manifest = make_manifest(folder, signature, limits=limits)
    with (
        start_agent(manifest, tmp_path, nursery=nursery) as agent,
        RawClient(agent, receive_buffer=65536) as client,
    ):
        client.ask(b'{"input": [[123456.5]]}')
        client.receive()
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(60) == 0
        assert "connections were cut with requests under way" in agent.log


def silence_while(agent, ask):
    """The answer of *ask*, and the longest share of its time in which `/health` did not answer."""
    answers, longest_s = [], 0.0
    started_s = time.monotonic()
    asking = threading.Thread(target=lambda: answers.append(ask()))
    with agent.http as http:
        http.get("/health")
        asking.start()
        while asking.is_alive():
            began_s = time.monotonic()
            assert http.get("/health").status_code == 200
            longest_s = max(longest_s, time.monotonic() - began_s)
        asking.join()
    return answers[0], longest_s / (time.monotonic() - started_s)


TEXT = Signature((TensorSpec("x", "BYTES", (-1,)),), (TensorSpec("y", "INT64", (-1,)),))
COUNT = 4_000_000
SLOW_BODIES = {
    "nested": (b'{"input": [' + b",".join([b"[1]"] * COUNT) + b"]}", {}, 400),
    "ragged": (b'{"input": [' + b",".join([b"[1]"] * COUNT) + b",[1,2]]}", {}, 413),
    "texts": (b'{"input": [' + b",".join([b'"a"'] * COUNT) + b"]}", {}, 200),
    "packed": (gzip.compress(b'{"input": [' + b",".join([b'"a"'] * COUNT) + b"]}", 1), {
        "content-encoding": "gzip"}, 200),
}  # fmt: skip


@pytest.fixture(scope="module")
def reader(tmp_path_factory, nursery):
    """An agent whose model takes texts and answers their sizes."""
    folder = tmp_path_factory.mktemp("reader")
    handler = "tests.fakes.text_handlers:Sizes"
    manifest = make_manifest(
        folder, TEXT, handler=handler, allowed_handlers=(handler,), limits=Limits(drain_grace_s=0.0)
    )
    with start_agent(manifest, folder / "agent", nursery=nursery) as agent:
        yield agent


@pytest.mark.parametrize("kind", sorted(SLOW_BODIES))
def test_health_answers_while_a_large_body_is_read(reader, kind):
    content, headers, status = SLOW_BODIES[kind]

    def ask():
        with reader.http as http:
            return http.post("/predict", content=content, headers=headers, timeout=120)

    reply, longest = silence_while(reader, ask)
    assert reply.status_code == status, reply.text[:300]
    assert longest < 0.7
    assert list(reply.json()) == (["predictions"] if status == 200 else ["error"])


def test_health_answers_while_many_binary_texts_are_read(reader):
    items = (1).to_bytes(4, "little") + b"a" + bytes(4 * (COUNT - 1))
    tensor = {
        "name": "x",
        "datatype": "BYTES",
        "shape": [COUNT],
        "parameters": {"binary_data_size": len(items)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"inference-header-content-length": str(len(head))}

    def ask():
        with reader.http as http:
            return http.post("/v2/models/digits/infer", content=head + items, headers=headers, timeout=120)

    reply, longest = silence_while(reader, ask)
    assert reply.status_code == 200, reply.text[:300]
    assert longest < 0.7
    assert len(reply.content) > 8 * COUNT


def test_a_client_that_leaves_while_its_body_is_read_is_forgotten(reader):
    content = SLOW_BODIES["texts"][0]
    with RawClient(reader) as client:
        client.ask(content)
        while reader.status()["in_flight"] == 0:
            time.sleep(0.01)
    while reader.status()["in_flight"] > 0:
        time.sleep(0.01)
    with reader.http as http:
        assert http.post("/predict", json={"input": ["abc", ""]}).json() == {"predictions": [3, 0]}
        assert 'model_requests_total{code="499"' in http.get("/metrics").text


def test_a_model_that_hangs_on_a_request_is_not_ready(tmp_path, nursery):
    folder = models.save_torchscript(models.Slow(), tmp_path / "model")
    limits = Limits(request_timeout_s=0.2, drain_grace_s=0.0)
    manifest = make_manifest(folder, models.SCALAR, limits=limits)
    with start_agent(manifest, tmp_path, nursery=nursery) as agent:
        assert agent.status()["busy_s"] == 0
        assert grpc_health(agent) == "SERVING"
        with agent.http as http:
            assert http.post("/predict", json={"input": [[1e6]]}).status_code == 504
            while (status := agent.status())["busy_s"] <= 0.2 + HANGING_GRACE_S:
                time.sleep(0.01)
            assert (status["phase"], status["in_flight"]) == ("ready", 0)
            assert http.get("/ready").status_code == 503
            assert http.get("/v2/health/ready").status_code == 503
        assert grpc_health(agent) == "NOT_SERVING"
        agent.process.terminate()
        assert agent.process.wait(60) == 0


def grpc_health(agent):
    """What the standard health service answers, which the gateway asks about gRPC."""
    with grpc.insecure_channel(agent.manifest.grpc_address) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


def no_room():
    """Let no file grow, as on a full disk: every write to one fails with EFBIG (Python ignores SIGXFSZ)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@pytest.mark.parametrize("changes", [{"format": "gguf"}, {"rest_address": "0.0.0.0:80"}])
def test_an_agent_that_fails_ends_on_a_full_disk_too(tmp_path, program, changes):
    manifest = make_manifest(program, models.DIGITS, **changes)
    with start_agent(manifest, tmp_path, wait=False, preexec_fn=no_room) as agent:
        assert agent.process.wait(60) == 3
        assert agent.failure_path.read_bytes() == b""


def test_sockets_of_a_killed_agent_are_taken_over_and_removed_at_the_end(tmp_path_factory, program, nursery):
    import tempfile
    from pathlib import Path

    folder = tmp_path_factory.mktemp("a")
    with tempfile.TemporaryDirectory(dir="/tmp") as sockets:
        addresses = {"rest_address": f"unix:{sockets}/r", "grpc_address": f"unix:{sockets}/g"}
        manifest = make_manifest(program, models.DIGITS, **addresses)
        with start_agent(manifest, folder / "1", nursery=nursery) as agent:
            agent.process.kill()
            agent.process.wait()
            assert len(list(Path(sockets).iterdir())) == 2
        with start_agent(manifest, folder / "2", nursery=nursery) as agent:
            with start_agent(manifest, folder / "3", wait=False, nursery=nursery) as second:
                code, failure, _ = failure_of(second)
                assert code == 3
                assert failure["reason"] == "another process listens on the agent's socket"
            assert agent.status()["phase"] == "ready"
            agent.process.terminate()
            assert agent.process.wait(60) == 0
            assert list(Path(sockets).iterdir()) == []


def test_health_answers_before_torch_is_there(tmp_path, program):
    with start_agent(make_manifest(program, models.DIGITS), tmp_path, wait=False) as agent:
        first = agent.wait_phase("starting", "loading", "warming", "ready")
    assert first["phase"] == "starting"
    assert first["timings_s"] == {}
