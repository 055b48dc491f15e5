import socket
import subprocess
import sys

import pytest

from serving_agent import addresses, device, errors, reasons
from serving_agent.errors import AgentError, StartError

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
