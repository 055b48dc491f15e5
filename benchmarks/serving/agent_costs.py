"""What an agent costs before its first request: memory above `import torch`, and the time to ready."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.serving import processes
from benchmarks.serving.peers import signalbox
from benchmarks.serving.peers.base import Start, Target, Variant
from benchmarks.serving.rounds import MODELS
from benchmarks.serving.workloads import TINY

FIELDS: Final = {"Rss": "rss_mib", "Pss": "pss_mib", "Anonymous": "anonymous_mib"}
"""Lines of /proc/PID/smaps_rollup that are kept; see proc_pid_smaps(5)."""
BASELINE: Final = (
    "import signal, time; began = time.perf_counter(); import torch; torch.set_num_threads(1); "
    "print(time.perf_counter() - began, flush=True); signal.pause()"
)
GOAL_MIB: Final = 60.0


def measure(starts: int, core: int) -> dict[str, Any]:
    """Return medians over *starts*: memory in MiB, times in seconds, of an agent with the tiny model."""
    with_torch = [_torch_alone(core) for _ in range(starts)]
    agents = [_agent(core) for _ in range(starts)]
    return {
        "starts": starts,
        "import_torch": _medians(with_torch),
        "agent": _medians(agents),
        "above_torch": above(_medians(agents), _medians(with_torch)),
    }


def above(agent: dict[str, float], with_torch: dict[str, float]) -> dict[str, float]:
    """Return by how much the agent's memory exceeds that of a process that has only imported torch. Pure."""
    return {name: round(agent[name] - with_torch[name], 1) for name in FIELDS.values()}


def rollup(text: str) -> dict[str, float]:
    """Return FIELDS of a smaps_rollup file's *text*, in MiB. Pure."""
    sizes = dict(line.split(":", 1) for line in text.splitlines() if line.endswith("kB"))
    return {name: round(int(sizes[field].split()[0]) / 1024, 1) for field, name in FIELDS.items()}


def _medians(samples: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(each[name] for each in samples), 3) for name in samples[0]}


def _memory(pid: int) -> dict[str, float]:
    return rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())


def _torch_alone(core: int) -> dict[str, float]:
    command = [sys.executable, "-c", BASELINE]
    with (
        tempfile.TemporaryDirectory(prefix="serving-") as folder,
        processes.running(command, folder=Path(folder), core=core) as process,
    ):
        process.wait_until(lambda: process.log.read_text().endswith("\n"))
        return {"import_torch_s": float(process.log.read_text()), **_memory(process.process.pid)}


def _agent(core: int) -> dict[str, float]:
    port, grpc_port = processes.free_ports(2)
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        start = Start(MODELS / TINY.name, Path(folder), TINY, Variant(), core)
        target = Target(rest=f"127.0.0.1:{port}", grpc=f"127.0.0.1:{grpc_port}")
        began = time.perf_counter()
        with signalbox.agent(start, target) as server:
            server.wait_until(lambda: processes.answers(f"http://{target.rest}/ready"))
            ready_s = time.perf_counter() - began
            stages = {f"{name}_s": value for name, value in _timings(target).items()}
            return {"ready_s": ready_s, **stages, **_memory(server.process.pid)}


def _timings(target: Target) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{target.rest}/health", timeout=10) as reply:
        return dict(json.load(reply)["timings_s"])
