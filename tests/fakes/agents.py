"""Really started serving agents for tests."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from serving_agent.contract import manifest as manifests
from serving_agent.contract.manifest import Manifest
from serving_agent.contract.signature import Signature
from tests.fakes.nursery import Nursery, Ward

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_manifest(artifact_dir: Path, signature: Signature, **changes: Any) -> Manifest:
    """A manifest for endpoint `digits` of `digits@2` on free loopback ports."""
    settings: dict[str, Any] = {
        "agent_id": "agent-1",
        "endpoint": "digits",
        "model": "digits-cnn",
        "version": 2,
        "digest": "sha256:" + "ab" * 32,
        "format": "torchscript",
        "handler": "tensor",
        "artifact_dir": artifact_dir,
        "signature": signature,
        "rest_address": f"127.0.0.1:{free_port()}",
        "grpc_address": f"127.0.0.1:{free_port()}",
    }
    return Manifest(**(settings | changes))


@dataclass
class RunningAgent:
    """An agent process and how to reach it."""

    process: subprocess.Popen[bytes] | Ward
    manifest: Manifest
    log_path: Path
    failure_path: Path

    @property
    def http(self) -> httpx.Client:
        address = self.manifest.rest_address
        if address.startswith("unix:"):
            transport = httpx.HTTPTransport(uds=address.removeprefix("unix:"))
            return httpx.Client(transport=transport, base_url="http://agent", timeout=60)
        return httpx.Client(base_url=f"http://{address}", timeout=60)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def _connect(self) -> None:
        """Raise OSError until somebody listens; httpx would leave its failed unix sockets open."""
        unix = self.manifest.rest_address.removeprefix("unix:")
        if unix != self.manifest.rest_address:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(unix)

    def status(self) -> dict[str, Any]:
        with self.http as http:
            return dict(http.get("/health").json())

    def wait_phase(self, *phases: str, timeout_s: float = 60.0) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log
            with contextlib.suppress(OSError, httpx.TransportError):
                self._connect()
                if (status := self.status())["phase"] in phases:
                    return status
            time.sleep(0.02)
        raise AssertionError(f"not {phases} within {timeout_s} s: {self.log}")


def _started(manifest: Path, log_path: Path, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "serving_agent", "--manifest", str(manifest)]
    with log_path.open("wb") as log:
        return subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log, **options)


@contextlib.contextmanager
def start_agent(
    manifest: Manifest, folder: Path, *, wait: bool = True, nursery: Nursery | None = None, **options: Any
) -> Iterator[RunningAgent]:
    """Start `python -m serving_agent` for *manifest*; it has ended when the block is left.

    nursery: fork it there; options: for `subprocess.Popen`, where it is not forked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, log_path = folder / "manifest.json", folder / "agent.log"
    manifests.write(manifest, path)
    process = nursery.begin(path, log_path) if nursery else _started(path, log_path, **options)
    agent = RunningAgent(process, manifest, log_path, path.with_name("manifest.json.failure.json"))
    try:
        if wait:
            agent.wait_phase("ready")
        yield agent
    finally:
        process.kill()
        process.wait()
