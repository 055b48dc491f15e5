"""The load generator: built from C, run on a core of its own, its figures read and every answer judged."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.serving import exchange
from benchmarks.serving import wire as wires
from benchmarks.serving.environments import PEERS, SetupError
from benchmarks.serving.peers.base import Target, Wire
from benchmarks.serving.wire import ReplyError
from benchmarks.serving.workloads import FloatArray, Workload

SOURCE: Final = Path(__file__).parent / "generator"
BINARY: Final = PEERS / "generator" / "generator"
COMPILE: Final = ("-O2", "-std=c11", "-Wall", "-Wextra", "-Werror")
MOST_BUSY: Final = 0.9
"""Above this share of its core the generator, not the server, may have set the pace: marked in the report."""


@dataclass(frozen=True, slots=True)
class Load:
    """A closed loop: so many connections, each with one request under way; pinned to *core*."""

    concurrency: int
    warm_up_s: float
    seconds: float
    core: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What one measurement gave. Latencies in microseconds; different: answers that were not, byte for byte,
    the ones of the check before (all of them compared by value); generator_busy: share of its core used."""

    rps: float
    p50_us: float
    p90_us: float
    p99_us: float
    max_us: float
    answers: int
    different: int
    generator_busy: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def build() -> None:
    """Compile the generator unless it is newer than its sources. Raises SetupError."""
    sources = sorted(SOURCE.glob("*.[ch]"))
    if BINARY.exists() and all(BINARY.stat().st_mtime > source.stat().st_mtime for source in sources):
        return
    compiler = shutil.which("cc")
    if compiler is None:
        raise SetupError("the load generator is C: install a C compiler (Debian: apt install gcc libc6-dev)")
    BINARY.parent.mkdir(parents=True, exist_ok=True)
    files = [str(source) for source in sources if source.suffix == ".c"]
    done = subprocess.run(
        [compiler, *COMPILE, "-o", str(BINARY), *files], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SetupError(done.stderr)


def measure(
    wire: Wire, target: Target, workload: Workload, expected: FloatArray, load: Load, folder: Path
) -> Figures:
    """Verify, load, verify again. Raises ReplyError for an error or a wrong answer, and OSError."""
    sent = exchange.requests(wire, target, workload)
    right = exchange.verify(wire, target, workload, expected, sent)
    _write(folder, wire, target, sent, right)
    report = _run(wire, target, workload, load, folder)
    found = figures(report)
    _judge(wire, workload, expected, folder, found)
    exchange.verify(wire, target, workload, expected, sent)
    return found


def figures(report: dict[str, Any]) -> Figures:
    """Return the figures of a generator's report. Raises ReplyError where anything was wrong."""
    if report["errors"]:
        raise ReplyError(f"{report['errors']} errors, the first: {report['first_error']}")
    if report["unlisted"]:
        raise ReplyError(f"{report['unlisted']} answers differ in too many ways to be compared")
    if not report["answers"]:
        raise ReplyError("no answer came in the time measured")
    names = ("p50_us", "p90_us", "p99_us", "max_us", "answers", "different", "generator_busy")
    return Figures(rps=report["answers"] / report["seconds"], **{name: report[name] for name in names})


def _write(folder: Path, wire: Wire, target: Target, sent: Sequence[bytes], right: Sequence[bytes]) -> None:
    folder.mkdir(parents=True)
    for index, (request, answer) in enumerate(zip(sent, right, strict=True)):
        (folder / f"request-{index}").write_bytes(request)
        (folder / f"answer-{index}").write_bytes(answer)
    if wire == "grpc":
        address = target.grpc or ""
        authority = "localhost" if address.startswith("unix:") else address
        (folder / "headers").write_bytes(wires.grpc_headers(authority))


def _run(wire: Wire, target: Target, workload: Workload, load: Load, folder: Path) -> dict[str, Any]:
    address = target.grpc if wire == "grpc" else target.rest
    marker = target.json_key if wire in ("oip_json", "own_json") else ""
    command = [
        *("taskset", "--cpu-list", str(load.core), str(BINARY)),
        *("grpc" if wire == "grpc" else "http", str(address), str(folder), str(workload.distinct)),
        *(str(load.concurrency), str(load.warm_up_s), str(load.seconds), marker),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReplyError(f"the load generator failed ({done.returncode}): {done.stderr[-500:]}")
    return dict(json.loads(done.stdout))


def _judge(wire: Wire, workload: Workload, expected: FloatArray, folder: Path, found: Figures) -> None:
    """Compare by value every answer that was not the verified one byte for byte. Raises ReplyError."""
    if not found.different:
        return
    for variant in folder.glob("variant-*"):
        index = int(variant.name.split("-")[1])
        values = wires.floats(wire, variant.read_bytes())
        exchange.check(values, expected[index], workload.relative_tolerance)
