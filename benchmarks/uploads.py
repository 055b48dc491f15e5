"""What an upload costs: speed against copying and hashing the same file, memory, and `/health` meanwhile.

    python -m benchmarks.uploads [GIB]

Starts the real web process on a temporary registry and sends one file of GIB GiB (default 4) with one tus
PATCH from a client that does nothing but `sendfile`. Compared with copying the file and hashing the copy,
in one process: once as `cp` and `sha256sum` do (nothing is forced to the disk), once durably (`fsync`),
which is what an upload promises. Both sides run three times in turn; medians count. Exits with 1 when a
goal is missed: at least 60 % of the durable copy's speed, at most 120 MB resident at any moment, /health
within 250 ms. Writes benchmarks/results/uploads.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.fakes import dashboard
from tests.fakes.registry import open_home
from tests.fakes.tus import Tus, headers

RESULTS = Path(__file__).parent / "results" / "uploads.json"
BLOCK = 4 * 1024 * 1024
ROUNDS = 3
GOAL_SHARE = 0.6
GOAL_RSS_MB = 120.0
GOAL_HEALTH_MS = 250.0


@dataclass
class Watched:
    """Resident memory of the web process in MB and answers of /health in milliseconds."""

    rss_mb: list[float] = field(default_factory=list)
    health_ms: list[float] = field(default_factory=list)


def make_file(path: Path, size: int) -> None:
    block = os.urandom(BLOCK)
    with path.open("wb") as file:
        for number in range(size // BLOCK):
            file.write(number.to_bytes(8, "little") + block[8:])
        os.fsync(file.fileno())


def copy_and_hash(source: Path, target: Path, *, durable: bool) -> tuple[float, str]:
    """Seconds to copy the file and to hash the copy, and the hash."""
    started = time.perf_counter()
    shutil.copyfile(source, target)
    whole = hashlib.sha256()
    with target.open("rb", buffering=0) as file:
        if durable:
            os.fsync(file.fileno())
        while block := file.read(BLOCK):
            whole.update(block)
    taken = time.perf_counter() - started
    target.unlink()
    return taken, whole.hexdigest()


def send(port: int, where: str, source: Path, size: int) -> None:
    lines = [
        f"PATCH /api/v1{where} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Length: {size}",
        "Connection: close",
    ]
    lines += [f"{name}: {value}" for name, value in headers(0).items()]
    with socket.create_connection(("127.0.0.1", port)) as raw, source.open("rb") as file:
        raw.sendall("\r\n".join([*lines, "", ""]).encode())
        raw.sendfile(file)
        answer = raw.recv(4096)
    if not answer.startswith(b"HTTP/1.1 204"):
        raise RuntimeError(answer.decode(errors="replace"))


def upload(web: dashboard.Dashboard, source: Path, size: int, expected: str) -> float:
    """Seconds from the first byte to the answer, which comes when the file is hashed and durable."""
    with httpx.Client(base_url=f"{web.url}/api/v1", trust_env=False, timeout=60) as api:
        client = Tus(api)
        upload_id, where = client.begin(size)
        started = time.perf_counter()
        send(web.settings.web_port, where, source, size)
        taken = time.perf_counter() - started
        if client.upload(upload_id)["files"][0]["sha256"] != expected:
            raise RuntimeError("the server has other bytes")
        api.delete(f"/uploads/{upload_id}")
    return taken


def watch(web: dashboard.Dashboard, watched: Watched, done: threading.Event) -> None:
    process = psutil.Process(web.process.pid)
    with httpx.Client(trust_env=False, timeout=30) as api:
        while not done.wait(0.05):
            with suppress(psutil.NoSuchProcess):
                watched.rss_mb.append(process.memory_info().rss / 1e6)
            started = time.perf_counter()
            api.get(f"{web.url}/health").raise_for_status()
            watched.health_ms.append((time.perf_counter() - started) * 1000)


def measured(web: dashboard.Dashboard, source: Path, size: int) -> dict[str, Any]:
    target = source.with_suffix(".copy")
    copies: dict[str, list[float]] = {"copy_hash_s": [], "durable_copy_hash_s": [], "upload_s": []}
    watched = Watched()
    idle_mb = psutil.Process(web.process.pid).memory_info().rss / 1e6
    for _ in range(ROUNDS):
        taken, digest = copy_and_hash(source, target, durable=False)
        copies["copy_hash_s"].append(taken)
        copies["durable_copy_hash_s"].append(copy_and_hash(source, target, durable=True)[0])
        done = threading.Event()
        watcher = threading.Thread(target=watch, args=(web, watched, done))
        watcher.start()
        try:
            copies["upload_s"].append(upload(web, source, size, digest))
        finally:
            done.set()
            watcher.join()
    return {**copies, "idle_rss_mb": idle_mb, **asdict(watched)}


def summary(raw: dict[str, Any], size: int) -> dict[str, Any]:
    median = {
        name: statistics.median(raw[name]) for name in ("copy_hash_s", "durable_copy_hash_s", "upload_s")
    }
    health = sorted(raw["health_ms"])
    return {
        "size_bytes": size,
        "upload_mb_s": size / 1e6 / median["upload_s"],
        "share_of_copy_and_hash": median["copy_hash_s"] / median["upload_s"],
        "share_of_durable_copy_and_hash": median["durable_copy_hash_s"] / median["upload_s"],
        "idle_rss_mb": raw["idle_rss_mb"],
        "worst_rss_mb": max(raw["rss_mb"]),
        "health_median_ms": statistics.median(health),
        "health_p99_ms": health[int(len(health) * 0.99)],
        "health_worst_ms": health[-1],
    }


def main(arguments: list[str]) -> int:
    size = int(float(arguments[0]) * 2**30) if arguments else 4 * 2**30
    with tempfile.TemporaryDirectory(prefix="sb-uploads-") as folder:
        source = Path(folder) / "source.bin"
        make_file(source, size)
        settings = dashboard.settings_for(Path(folder) / "home")
        open_home(settings.home, web_port=settings.web_port).engine.dispose()
        with dashboard.running(settings) as web:
            raw = measured(web, source, size)
    found = summary(raw, size)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    RESULTS.write_text(json.dumps({"machine": machine, "summary": found, "raw": raw}, indent=1) + "\n")
    for name, value in found.items():
        print(f"{name:32} {value:,.2f}")
    missed = (
        found["share_of_durable_copy_and_hash"] < GOAL_SHARE
        or found["worst_rss_mb"] > GOAL_RSS_MB
        or found["health_worst_ms"] > GOAL_HEALTH_MS
    )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
