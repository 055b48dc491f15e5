"""How soon the product reacts: a killed Envoy is back, and a cancelled job has ended.

    python -m benchmarks.reaction_times [ROUNDS]

Each round starts the whole product on a temporary home, for a second kill within minutes would find the
supervisor backing off. It cancels a job in its training, cancels one whose process is stopped so that the
worker has to kill it, and kills Envoy and waits until the gateway answers. Prints seconds and writes all
of them to benchmarks/results/reaction_times.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from tests.fakes import stack as stacks
from tests.fakes.stack import Stack
from tests.fakes.waiting import wait_until

RESULTS: Final = Path(__file__).parent / "results" / "reaction_times.json"
PAUSE_S: Final = 0.005


def main() -> None:
    rounds = [measured_round() for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 7)]
    measured = {name: [each[name] for each in rounds] for name in rounds[0]}
    for name, seconds in measured.items():
        print(f"{name}: median {statistics.median(seconds):.2f}, longest {max(seconds):.2f}")
    RESULTS.write_text(json.dumps({"at": time.strftime("%Y-%m-%d"), **measured}, indent=1) + "\n")


def measured_round() -> dict[str, float]:
    """One round on a product of its own, in seconds."""
    with (
        tempfile.TemporaryDirectory(prefix="sb-") as folder,
        stacks.running(stacks.settings_for(Path(folder) / "home")) as stack,
    ):
        return {
            "cancelled_training_ended_s": cancelled(stack, stopped=False),
            "cancelled_stopped_job_ended_s": cancelled(stack, stopped=True),
            "killed_envoy_answers_s": envoy_back(stack),
        }


def envoy_back(stack: Stack) -> float:
    """Seconds from the kill until the gateway answers."""
    killed = stack.process("envoy")
    began = time.perf_counter()
    killed.kill()
    killed.wait()
    url = f"{stack.settings.gateway_url}/v2/health/live"
    wait_until(lambda: answers(url), timeout_s=30, what=stack.output.read_text, pause_s=PAUSE_S)
    return time.perf_counter() - began


def answers(url: str) -> bool:
    """Whether the gateway gives a good answer."""
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def cancelled(stack: Stack, *, stopped: bool) -> float:
    """Seconds from the cancelling call until the job is cancelled; stopped: its process hears nothing."""
    job = stack.api.post("/jobs", json={"kind": "example", "params": {}}).json()["id"]
    until(stack, job, lambda view: view["stage"].startswith("train"))
    if stopped:
        psutil.Process(stack.process("worker").pid).children(recursive=True)[0].suspend()
    began = time.perf_counter()
    stack.api.post(f"/jobs/{job}/cancel")
    until(stack, job, lambda view: view["state"] == "cancelled")
    return time.perf_counter() - began


def until(stack: Stack, job: str, is_there: Callable[[dict[str, Any]], bool]) -> None:
    """Ask REST for the job until *is_there*."""

    def seen() -> dict[str, Any]:
        found: dict[str, Any] = stack.api.get(f"/jobs/{job}").json()
        return found

    wait_until(lambda: is_there(seen()), timeout_s=60, what=lambda: str(seen()), pause_s=PAUSE_S)


if __name__ == "__main__":
    main()
