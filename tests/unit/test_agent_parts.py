import asyncio
import socket
import subprocess
import sys
import threading

import pytest

from serving_agent import addresses, device, errors, reasons
from serving_agent.contract.manifest import Limits
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.errors import AgentError, DeadlineError, ModelError, QueueFullError, StartError
from serving_agent.health import Health
from serving_agent.inference_thread import InferenceThread
from serving_agent.model_server import ModelServer, sample_inputs
from serving_agent.startup import warm_up
from tests.fakes.agents import make_manifest

LISTING = """
import sys
from serving_agent.contract import manifest, metric_names, proto, signature, status, wire
from serving_agent.formats import catalog as formats
from serving_agent.handlers import catalog as handlers
assert formats.names() and handlers.names()
heavy = {'torch', 'transformers', 'uvicorn', 'grpc'} & set(sys.modules)
assert not heavy, heavy
"""


def test_catalogues_are_listed_without_torch():
    subprocess.run([sys.executable, "-c", LISTING], check=True, timeout=60)


def test_the_whole_agent_is_imported_without_torch():
    code = "import sys; import serving_agent.agent; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def leaves(kind: type[AgentError]) -> set[type[AgentError]]:
    return {kind} if not kind.__subclasses__() else {kind}.union(*map(leaves, kind.__subclasses__()))


def test_every_code_has_an_entry_for_every_transport():
    import grpc

    codes = {kind.code for kind in leaves(AgentError) if "code" in vars(kind)}
    assert codes == set(errors.HTTP_STATUS) == set(errors.GRPC_STATUS)
    assert all(hasattr(grpc.StatusCode, name) for name in errors.GRPC_STATUS.values())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StartError("no NVIDIA GPU found"), "no NVIDIA GPU found"),
        (MemoryError(), "the model needs more memory than the limit of 64 MiB"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:116] DefaultCPUAllocator: can't allocate memory"),
            "the model needs more memory than the limit of 64 MiB",
        ),
        (ValueError("bad /srv/store/sha/model.pt here\nmore"), "ValueError: bad model.pt here"),
        (RuntimeError("It failed\nTraceback (most recent call last):\n File x\nRuntimeError: boom\n"),
         "RuntimeError: RuntimeError: boom"),
        (KeyError(), "KeyError"),
    ],
)  # fmt: skip
def test_reasons_are_one_sentence_without_paths(error, reason):
    assert reasons.reason_of(error, 64 * 1024 * 1024) == reason


@pytest.mark.parametrize(
    ("requested", "gpus", "sentence"),
    [
        ("cuda:0", 0, "no NVIDIA GPU found"),
        ("cuda:2", 2, "there are only 2 NVIDIA GPUs"),
        ("tpu", 0, "unknown device 'tpu'"),
    ],
)
def test_devices_that_are_not_there(requested, gpus, sentence):
    with pytest.raises(StartError, match=sentence):
        device.choose_gpu(requested, gpus)


def test_devices_that_are_there():
    assert device.choose_gpu("cuda:1", 2) == "cuda:1"
    assert device.resolve("cpu") == "cpu"


@pytest.mark.parametrize(
    "text",
    ["", "0.0.0.0:80", "127.0.0.1:0", "127.0.0.1:70000", "unix:x", "unix:/" + "x" * 103, "127.0.0.1:²"],
)
def test_addresses_beyond_loopback_are_refused(text):
    with pytest.raises(StartError):
        addresses.parse(text)


def test_a_stale_socket_file_is_replaced_and_a_live_one_is_not(tmp_path):
    address = addresses.parse(f"unix:{tmp_path}/s")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/s")
    with addresses.bind(address), pytest.raises(StartError, match="another process listens"):
        addresses.bind(address)
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    addresses.remove(address)
    assert not (tmp_path / "s").exists()


class Held(ModelServer):
    """Waits for `go` at every request and notes what it has seen."""

    def __init__(self):
        self.go = threading.Event()
        self.entered = threading.Event()
        self.seen = []

    def signature(self):
        return Signature((), (TensorSpec("y", "FP32", (-1,)),))

    def preprocess(self, inputs):
        self.seen.append(int(inputs["x"][0]))
        self.entered.set()
        self.go.wait(10)
        if inputs["x"][0] < 0:
            raise ValueError("boom")
        return inputs

    def predict(self, inputs):
        return {"y": inputs["x"]}

    def postprocess(self, outputs):
        return outputs


@pytest.fixture
async def held():
    import torch  # noqa: F401 - the pipeline enters its inference mode; importing it takes longer than a deadline

    server, ready = Held(), asyncio.Event()
    thread = InferenceThread(
        lambda: server,
        lambda _: ready.set(),
        lambda error: pytest.fail(str(error)),
        max_queue=2,
        memory_bytes=None,
    )
    thread.start()
    await ready.wait()
    server.thread = thread
    yield server, lambda number, timeout_s=5.0: thread.submit({"x": numbers(number)}, timeout_s)
    server.go.set()


def numbers(number):
    import numpy as np

    return np.array([number], np.float32)


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 5)


async def test_a_full_queue_refuses(held):
    server, submit = held
    running = asyncio.create_task(submit(1))
    await until(server.entered)
    waiting = [asyncio.create_task(submit(number)) for number in (2, 3)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError, match="2 requests are waiting"):
        await submit(4)
    server.go.set()
    answers = await asyncio.gather(running, *waiting)
    assert [answer.outputs[0].array[0] for answer in answers] == [1, 2, 3]
    assert answers[1].queue_s > 0


async def test_work_of_gone_clients_never_reaches_the_model(held):
    server, submit = held
    running = asyncio.create_task(submit(1))
    await until(server.entered)
    gone = asyncio.create_task(submit(2))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(DeadlineError, match=r"no answer within 0.05 s"):
        await submit(3, 0.05)
    server.go.set()
    await running
    await submit(4)
    assert server.seen == [1, 4]


async def test_a_late_answer_is_dropped_and_the_next_one_is_right(held):
    server, submit = held
    with pytest.raises(DeadlineError):
        await submit(1, 0.05)
    server.go.set()
    assert (await submit(2)).outputs[0].array[0] == 2


async def test_a_failing_model_fails_its_own_request_only(held):
    server, submit = held
    server.go.set()
    with pytest.raises(ModelError, match="ValueError") as caught:
        await submit(-1)
    assert "boom" not in str(caught.value)
    assert (await submit(5)).outputs[0].array[0] == 5


@pytest.mark.parametrize("number", [1, -1])
async def test_the_thread_is_busy_while_the_model_runs_even_when_its_client_has_gone(held, number):
    server, submit = held
    assert server.thread.busy_s == 0
    with pytest.raises(DeadlineError):
        await submit(number, 0.05)
    await until(server.entered)
    before = server.thread.busy_s
    assert before > 0
    assert server.thread.busy_s > before
    server.go.set()
    await submit(5)
    assert server.thread.busy_s == 0


async def test_an_agent_whose_model_hangs_is_not_ready_and_says_for_how_long(tmp_path):
    manifest = make_manifest(tmp_path, Signature((), ()), limits=Limits(request_timeout_s=10))
    busy_s = 20.0
    health = Health(manifest, lambda: busy_s)
    assert not health.is_ready
    health.enter("ready")
    assert health.is_ready
    busy_s = 20.1
    assert not health.is_ready
    assert (health.status().phase, health.status().busy_s) == ("ready", 20.1)


def test_samples_fit_the_signature():
    signature = Signature(
        (
            TensorSpec("i", "FP16", (-1, 3, -1)),
            TensorSpec("n", "UINT8", (2,)),
            TensorSpec("t", "BYTES", (-1,)),
        ),
        (),
    )
    samples = sample_inputs(signature, 8)
    assert samples["i"].shape == (1, 3, 8)
    assert samples["n"].shape == (2,)
    assert samples["t"].tolist() == [b"signal"]


class Sized(Held):
    """Takes rows of 32 numbers only."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def signature(self):
        return Signature((TensorSpec("x", "FP32", (-1, self.size)),), (TensorSpec("y", "FP32", (-1,)),))

    def preprocess(self, inputs):
        self.seen.append(inputs["x"].shape)
        if inputs["x"].shape[1] != 32:
            raise ValueError("size")
        return {"x": inputs["x"][:, 0]}


def test_warm_up_looks_for_a_size_where_the_signature_leaves_it_open():
    server = Sized(-1)
    warm_up(server)
    assert server.seen == [(1, 8), (1, 32), (1, 32), (1, 32)]
    with pytest.raises(ValueError, match="size"):
        warm_up(Sized(5))
