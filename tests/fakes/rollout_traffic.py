"""Versions that behave as their handler says, endpoints that serve them, and production's traffic."""

from __future__ import annotations

import random
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import torch

from control_plane.config import Settings
from control_plane.domain.views import Example
from control_plane.services import registration
from control_plane.services.context import open_context
from tests.fakes.models import SCALAR, save_torchscript
from tests.fakes.stack import Stack
from tests.fakes.waiting import wait_until

MODULE = "tests.fakes.rollout_handlers"
HANDLERS = (
    "Doubles", "DoublesAgain", "Fails", "AlwaysFails", "IsSlow", "AnswersNaN", "IsWrong", "Crashes", "Hangs",
    "Leaks",
)  # fmt: skip
ENDED = {"completed", "rolled_back", "aborted", "superseded", "failed"}
EXAMPLES = tuple(Example(inputs={"x": [float(value)]}) for value in range(4))


def handler(name: str) -> str:
    return f"{MODULE}:{name}"


def allowed() -> tuple[str, ...]:
    return tuple(handler(name) for name in HANDLERS)


def register(settings: Settings, folder: Path, names: tuple[str, ...] = HANDLERS) -> dict[str, str]:
    """One version a handler, by its name: `model@N`."""
    ctx = open_context(settings)
    found = {}
    for name in names:
        source = save_torchscript(torch.nn.Identity(), folder / name, torch.zeros(1, 1))
        (source / "behaves.txt").write_text(name)
        found[name] = registration.register(
            ctx,
            model="scalar",
            files_dir=source,
            format="torchscript",
            handler=handler(name),
            signature=SCALAR,
            examples=EXAMPLES,
            actor="ana",
        )
    ctx.engine.dispose()
    return found


@dataclass
class Traffic:
    """Requests of production at a steady rate, from several connections, while the `with` block lasts.

    url: the gateway's; binary: ask over the inference protocol for raw bytes, which can carry NaN. `failures`
    holds what was not answered 200, and `wrong` the answers that are not twice what was asked.
    """

    url: str
    endpoint: str
    rate: float = 60.0
    connections: int = 4
    headers: dict[str, str] = field(default_factory=dict)
    binary: bool = False
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    wrong: int = 0

    def __enter__(self) -> Traffic:
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(self.connections)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask no more; returns when the last answer is there."""
        self._ending.set()
        for thread in self._threads:
            thread.join(90)

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        pause_s = self.connections / self.rate
        with httpx.Client(timeout=80, headers=self.headers) as client:
            due = time.monotonic()
            while not self._ending.wait(max(0.0, due - time.monotonic())):
                due = max(due + pause_s, time.monotonic() - 1.0)
                self._send(client, 100.0 + chance.randrange(0, 900))

    def _send(self, client: httpx.Client, value: float) -> None:
        try:
            answer = self._ask(client, value)
        except httpx.HTTPError as problem:
            self._count(f"{type(problem).__name__} {problem}")
            return
        if answer.status_code != 200:
            self._count(f"{answer.status_code}: {answer.text[:200]}")
            return
        self._count(None, right=self._value(answer) == 2 * value)

    def _ask(self, client: httpx.Client, value: float) -> httpx.Response:
        if not self.binary:
            return client.post(f"{self.url}/e/{self.endpoint}/predict", json={"input": [[value]]})
        body = {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [value]}],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        }
        return client.post(f"{self.url}/v2/models/{self.endpoint}/infer", json=body)

    def _value(self, answer: httpx.Response) -> float:
        if not self.binary:
            return float(answer.json()["predictions"][0][0])
        (value,) = struct.unpack("<f", answer.content[-4:])
        return float(value)

    def _count(self, failure: str | None, *, right: bool = True) -> None:
        with self._lock:
            if failure is not None:
                self.failures.append(failure)
            else:
                self.answered += 1
                self.wrong += not right


def start(stack: Stack, endpoint: str, candidate: str, **wish: Any) -> dict[str, Any]:
    answer = stack.api.post("/rollouts", json={"endpoint": endpoint, "candidate": candidate, **wish})
    assert answer.is_success, answer.text
    view: dict[str, Any] = answer.json()
    return view


def rollout(stack: Stack, endpoint: str) -> dict[str, Any]:
    answer = stack.api.get(f"/endpoints/{endpoint}/rollout")
    answer.raise_for_status()
    view: dict[str, Any] = answer.json()
    return view


def wait_for(stack: Stack, endpoint: str, *states: str, timeout_s: float = 120) -> dict[str, Any]:
    """Wait until the endpoint's rollout is in one of *states*."""

    def look() -> dict[str, Any] | None:
        view = rollout(stack, endpoint)
        assert view["state"] in states or view["state"] not in ENDED, view
        return view if view["state"] in states else None

    return wait_until(look, timeout_s=timeout_s, what=lambda: f"{endpoint}: {rollout(stack, endpoint)}")
