"""What viewers of the live page cost: script runs, chart data and `/health` while they watch.

    python -m benchmarks.live_viewers [VIEWERS] [SECONDS] [--lockstep]

Starts the real web process on a temporary registry with four minutes of measurements. Each viewer is a raw
websocket session, as a browser tab is: it runs the page once, then fetches the charts' data every 2 s and
lets its fragments run again as often as the page asked. Prints medians and worst times in milliseconds and
writes every measurement to benchmarks/results/live_viewers.json. Exits with 1 when a goal is missed (median
fragment run <= 50 ms, worst /health <= 100 ms) or an answer is wrong.

Viewers open the page one after another during the warm-up, as people do; with --lockstep all at one moment,
so that they also ask in step ever after, which is the worst case.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from tests.fakes import dashboard, seeded

RESULTS = Path(__file__).parent / "results" / "live_viewers.json"
PAGE = "live"
RANGE_S = 900
FETCH_EVERY_S = 2.0
PROBE_EVERY_S = 0.25
WARM_UP_S = 4.0
GOAL_RUN_MS = 50.0
GOAL_HEALTH_MS = 100.0
FAILED_RUNS = (ForwardMsg.FINISHED_WITH_COMPILE_ERROR,)


@dataclass
class Measured:
    """Times in milliseconds, by kind; and what was wrong."""

    first_run: list[float] = field(default_factory=list)
    fragment_run: list[float] = field(default_factory=list)
    fetch: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    checked: set[bytes] = field(default_factory=set)
    bytes_in: int = 0


@dataclass
class Viewer:
    """One tab: its websocket, the page's hash, and its fragments that run again, with their pauses."""

    socket: websockets.ClientConnection
    measured: Measured
    page_hash: str = ""
    fragments: dict[str, float] = field(default_factory=dict)

    async def run(self, fragment_id: str = "") -> float:
        """Let the page or one fragment run; returns milliseconds from asking until it has finished."""
        message = BackMsg()
        asked = message.rerun_script
        asked.page_name = PAGE if not self.page_hash else ""
        asked.page_script_hash = self.page_hash
        asked.fragment_id = fragment_id
        asked.is_auto_rerun = bool(fragment_id)
        started = time.perf_counter()
        await self.socket.send(message.SerializeToString())
        while await self._next() is None:
            pass
        return (time.perf_counter() - started) * 1000

    async def _next(self) -> int | None:
        """Read one message; how the run finished, once it did."""
        data = await self.socket.recv(decode=False)
        self.measured.bytes_in += len(data)
        message = ForwardMsg.FromString(data)
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self.page_hash = message.new_session.page_script_hash
        elif kind == "auto_rerun":
            self.fragments[message.auto_rerun.fragment_id] = message.auto_rerun.interval
        elif kind == "delta" and message.delta.new_element.HasField("exception"):
            self.measured.wrong.append(message.delta.new_element.exception.message)
        elif kind == "script_finished":
            if message.script_finished in FAILED_RUNS:
                self.measured.wrong.append("a run failed")
            return int(message.script_finished)
        return None


async def watch(url: str, measured: Measured, opens_at: float, until: float, counted_from: float) -> None:
    """One viewer from opening the page until *until* (monotonic seconds); counts from *counted_from* on."""
    await asyncio.sleep(max(0.0, opens_at - time.monotonic()))
    address = url.replace("http", "ws") + "/_stcore/stream"
    origin = websockets.Origin(url)
    spoken = [websockets.Subprotocol("streamlit")]
    async with (
        websockets.connect(address, origin=origin, subprotocols=spoken, max_size=None) as socket,
        httpx.AsyncClient(base_url=url) as client,
    ):
        viewer = Viewer(socket, measured)
        measured.first_run.append(await viewer.run())
        if not viewer.fragments:
            measured.wrong.append("the page asked for no fragment to run again")
        fetching = repeat(FETCH_EVERY_S, until, lambda: fetch(client, measured, counted_from))
        await asyncio.gather(fetching, rerun(viewer, until, counted_from))


async def rerun(viewer: Viewer, until: float, counted_from: float) -> None:
    """Run each fragment at its pace, one after the other, as one session does."""
    due = {name: time.monotonic() + pause for name, pause in viewer.fragments.items()}
    while due:
        name = min(due, key=lambda each: due[each])
        if due[name] >= until:
            return
        await asyncio.sleep(max(0.0, due[name] - time.monotonic()))
        took = await viewer.run(name)
        if time.monotonic() > counted_from:
            viewer.measured.fragment_run.append(took)
        due[name] += viewer.fragments[name]


async def repeat(every_s: float, until: float, call: Callable[[], Awaitable[None]]) -> None:
    """Call every *every_s* seconds until *until*."""
    due = time.monotonic()
    while due < until:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        await call()
        due += every_s


async def fetch(client: httpx.AsyncClient, measured: Measured, counted_from: float) -> None:
    """Fetch the charts' data and look that they are right."""
    started = time.perf_counter()
    answer = await client.get("/api/v1/live", params={"range_s": RANGE_S})
    took = (time.perf_counter() - started) * 1000
    check(answer, measured)
    if time.monotonic() > counted_from:
        measured.fetch.append(took)


def check(answer: httpx.Response, measured: Measured) -> None:
    """Look that chart data are right; the same bytes, which many viewers get, only once."""
    digest = hashlib.sha256(answer.content).digest()
    if digest in measured.checked:
        return
    measured.checked.add(digest)
    lines = {panel["id"]: panel["lines"] for panel in answer.json().get("panels", ())}
    if answer.status_code != 200 or not any(value for value in lines["request_rate"][0]["y"]):
        measured.wrong.append(f"wrong chart data ({answer.status_code})")


async def probe(client: httpx.AsyncClient, measured: Measured, counted_from: float) -> None:
    """Ask for `/health`."""
    started = time.perf_counter()
    answer = await client.get("/health")
    took = (time.perf_counter() - started) * 1000
    if answer.json() != {"status": "ok", "registry": "ok"}:
        measured.wrong.append(f"/health said {answer.text[:200]}")
    if time.monotonic() > counted_from:
        measured.health.append(took)


async def measure(url: str, viewers: int, seconds: float, *, lockstep: bool) -> Measured:
    """All viewers and the probe together."""
    measured = Measured()
    now = time.monotonic()
    counted_from = now + WARM_UP_S
    until = counted_from + seconds
    pause = 0.0 if lockstep else WARM_UP_S / 2 / viewers
    watching = [watch(url, measured, now + i * pause, until, counted_from) for i in range(viewers)]
    async with httpx.AsyncClient(base_url=url) as client:
        probing = repeat(PROBE_EVERY_S, until, lambda: probe(client, measured, counted_from))
        await asyncio.gather(probing, *watching)
    return measured


def report(measured: Measured, viewers: int, seconds: float, cpu_s: float) -> bool:
    """Print the table, keep every number, and say whether the goals were met."""
    print(f"{viewers} viewers of the live page for {seconds:.0f} s")
    print(f"{'':24}{'n':>6}{'median':>10}{'p95':>10}{'worst':>10}   ms")
    for name in ("first_run", "fragment_run", "fetch", "health"):
        values = sorted(getattr(measured, name))
        p95 = values[int(len(values) * 0.95)]
        median = statistics.median(values)
        print(f"{name.replace('_', ' '):24}{len(values):>6}{median:>10.1f}{p95:>10.1f}{values[-1]:>10.1f}")
    print(f"processor time of the web process: {cpu_s / (seconds + WARM_UP_S):.0%} of one core")
    for what in sorted(set(measured.wrong)):
        print(f"WRONG: {what}")
    RESULTS.parent.mkdir(exist_ok=True)
    measured.checked.clear()
    kept = {
        **vars(measured),
        "checked": None,
        "viewers": viewers,
        "seconds": seconds,
        "cpu_s": cpu_s,
        "cores": os.cpu_count(),
    }
    RESULTS.write_text(json.dumps(kept) + "\n", "utf-8")
    run_ok = statistics.median(measured.fragment_run) <= GOAL_RUN_MS
    return run_ok and max(measured.health) <= GOAL_HEALTH_MS and not measured.wrong


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Processor time a process has used so far."""
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def main(viewers: int, seconds: float, *, lockstep: bool) -> int:
    """Measure; 0 when every goal is met."""
    with tempfile.TemporaryDirectory() as folder:
        settings = dashboard.settings_for(Path(folder))
        ctx = seeded.open_home(settings.home)
        seeded.fill(ctx)
        ctx.engine.dispose()
        with dashboard.running(settings) as shown:
            before = cpu_seconds(shown.process)
            measured = asyncio.run(measure(shown.url, viewers, seconds, lockstep=lockstep))
            return 0 if report(measured, viewers, seconds, cpu_seconds(shown.process) - before) else 1


if __name__ == "__main__":
    numbers = [float(word) for word in sys.argv[1:] if not word.startswith("-")]
    count, duration_s = (*numbers, *(20.0, 20.0)[len(numbers) :])
    sys.exit(main(int(count), duration_s, lockstep="--lockstep" in sys.argv))
