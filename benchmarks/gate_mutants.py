"""`python -m benchmarks.gate_mutants --count 100000 --seed 1`: the gate against mutants of the corpus.

Every mutant is judged and, where it is let in, converted and read again. Counted are errors that nothing
caught, checks of more than a second of processor time, workers ended by a signal, and conversions that
safetensors cannot read. The summary is written to benchmarks/results/gate_mutants.json; a mutant that failed
is made again from its seed and number with `--only NUMBER`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final

import msgspec
import safetensors

from benchmarks.gate_mutations import Upload, mutant
from control_plane.admission import gate, judge_process, safetensors_writer
from control_plane.admission.base import Accepted, Refusal

RESULTS: Final = Path(__file__).parent / "results" / "gate_mutants.json"
HANG_S: Final = 1.0
"""Processor time; wall time would count what else the machine does."""
SILENCE_S: Final = 30.0
MAX_SEED_BYTES: Final = 64 * 1024
MAX_SEED_FILES: Final = 40
BENIGN_TIMES: Final = 8
REPORT_EVERY: Final = 200


class HangError(BaseException):
    """A check took too long; no reader may catch it."""


@dataclass
class Outcome:
    """What became of a run of mutants."""

    decisions: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    problems: list[dict[str, Any]] = field(default_factory=list)
    slowest_s: float = 0.0

    def add(self, other: dict[str, Any]) -> None:
        """Count what a worker reported."""
        self.decisions.update(other["decisions"])
        self.codes.update(other["codes"])
        self.problems.extend(other["problems"])
        self.slowest_s = max(self.slowest_s, other["slowest_s"])


def seeds(corpus: Path) -> list[Upload]:
    """The corpus' small uploads without links and pipes; benign ones several times, to get further in."""
    kinds = {each["name"]: each["kind"] for each in json.loads((corpus / "corpus.json").read_text())}
    found = []
    for name, kind in sorted(kinds.items()):
        files = [
            path for path in sorted((corpus / name).rglob("*")) if path.is_file() and not path.is_symlink()
        ]
        upload = {path.relative_to(corpus / name).as_posix(): path.read_bytes() for path in files}
        if upload and sum(map(len, upload.values())) <= MAX_SEED_BYTES and len(upload) < MAX_SEED_FILES:
            found += [upload] * (BENIGN_TIMES if kind == "benign" else 1)
    return found


def made(uploads: list[Upload], seed: int, number: int) -> Upload:
    """Mutant *number* of a run."""
    chance = random.Random(f"{seed}/{number}")
    return mutant(chance.choice(uploads), uploads, chance)


def attempt(upload: Upload, work: Path) -> tuple[str, str]:
    """Judge, convert and read again; return decision and reason code. Raises what nothing caught."""
    shutil.rmtree(work, ignore_errors=True)
    folder, scratch = work / "upload", work / "scratch"
    scratch.mkdir(parents=True)
    for path, content in upload.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    with _watched():
        examined = gate.examine(folder, scratch)
        if isinstance(examined.verdict, Accepted):
            msgspec.json.encode(judge_process.without_pieces(examined.verdict))
            return _convert(examined.verdict, work)
        msgspec.json.encode(examined.verdict)  # as it leaves the confined process
    return examined.verdict.decision, examined.verdict.code


def _convert(verdict: Accepted, work: Path) -> tuple[str, str]:
    for number, file in enumerate(verdict.weights):
        try:
            safetensors_writer.write(file.tensors, work / f"{number}.safetensors")
        except Refusal as refusal:
            return "refuse", f"{refusal.refused.code} (while writing)"
        held = safetensors.deserialize(  # type: ignore[no-untyped-call]  # it has no types
            (work / f"{number}.safetensors").read_bytes()
        )
        if {name for name, _ in held} != {tensor.name for tensor in file.tensors}:
            raise AssertionError("the conversion holds other tensors")
    return verdict.decision, verdict.code


@contextmanager
def _watched() -> Iterator[None]:
    """Raise HangError in what takes more processor time than it may."""
    signal.setitimer(signal.ITIMER_PROF, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _hang(_number: int, _frame: FrameType | None) -> None:
    raise HangError


def run(uploads: list[Upload], seed: int, numbers: range, work: Path) -> Iterator[dict[str, Any]]:
    """Attempt mutants *numbers* and yield what was counted, every now and then."""
    signal.signal(signal.SIGPROF, _hang)
    outcome = Outcome()
    for number in numbers:
        _count(outcome, uploads, seed, number, work)
        if (number - numbers.start) % REPORT_EVERY == REPORT_EVERY - 1 or number == numbers[-1]:
            yield {**vars(outcome), "done": number}
            outcome = Outcome()


def _count(outcome: Outcome, uploads: list[Upload], seed: int, number: int, work: Path) -> None:
    try:
        upload = made(uploads, seed, number)
        started = time.process_time()
        decision, code = attempt(upload, work)
        outcome.slowest_s = max(outcome.slowest_s, time.process_time() - started)
        outcome.decisions[decision] += 1
        outcome.codes[str(code)] += 1
    except (Exception, HangError) as error:  # noqa: BLE001  whatever is raised is what is looked for
        kind = "hang" if isinstance(error, HangError) else "error"
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno} {where.name}"
        outcome.problems.append({"number": number, "kind": kind, "error": repr(error)[:200], "at": place})


def work_off(corpus: Path, seed: int, count: int, workers: int) -> Outcome:
    """Share the mutants among processes and gather what they report; a dead one is counted and replaced."""
    outcome = Outcome()
    size = -(-count // workers)
    waiting = [range(start, min(count, start + size)) for start in range(0, count, size)]
    with selectors.DefaultSelector() as selector:
        running = [_Worker(selector, corpus, seed, numbers) for numbers in waiting]
        while any(worker.numbers for worker in running):
            ready = selector.select(SILENCE_S / 10)
            for key, _ in ready:
                key.data.read(outcome)
            for worker in running:
                worker.look_after()
        for worker in running:
            worker.end()
    return outcome


class _Worker:
    """One process and the mutants that it has still to attempt."""

    def __init__(self, selector: selectors.BaseSelector, corpus: Path, seed: int, numbers: range) -> None:
        self._selector, self._corpus, self._seed = selector, corpus, seed
        self.numbers = numbers
        self._start()

    def _start(self) -> None:
        span = f"{self.numbers.start}:{self.numbers.stop}"
        words = [
            "-m",
            "benchmarks.gate_mutants",
            "--worker",
            span,
            "--seed",
            str(self._seed),
            str(self._corpus),
        ]
        self._process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE)
        self._heard_at = time.monotonic()
        self._selector.register(self._said, selectors.EVENT_READ, self)

    @property
    def _said(self) -> IO[bytes]:
        if self._process.stdout is None:
            raise RuntimeError("the process was started without a pipe")
        return self._process.stdout

    def read(self, outcome: Outcome) -> None:
        """Take one line."""
        line = self._said.readline()
        self._heard_at = time.monotonic()
        if line:
            said = json.loads(line)
            outcome.add(said)
            self.numbers = range(said["done"] + 1, self.numbers.stop)
            return
        self._selector.unregister(self._said)
        code = self.end()
        if self.numbers:
            outcome.problems.append(
                {"number": self.numbers.start, "kind": "signal", "error": f"exit code {code}"}
            )
            self.numbers = range(self.numbers.start + REPORT_EVERY, self.numbers.stop)
            if self.numbers:
                self._start()

    def end(self) -> int:
        """Wait for the process and return its exit code. Idempotent."""
        code = self._process.wait()
        self._said.close()
        return code

    def look_after(self) -> None:
        """End a process that has been silent for too long; `read` then sees its end."""
        if self.numbers and time.monotonic() - self._heard_at > SILENCE_S:
            self._process.kill()


def _worker(corpus: Path, seed: int, span: str) -> None:
    first, _, last = span.partition(":")
    with tempfile.TemporaryDirectory(prefix="gate-mutants-", dir=_memory_disk()) as work:
        for said in run(seeds(corpus), seed, range(int(first), int(last)), Path(work) / "one"):
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()


def _memory_disk() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def summary(outcome: Outcome, seed: int, count: int, seconds: float) -> dict[str, Any]:
    """What is written to the results."""
    kinds = Counter(problem["kind"] for problem in outcome.problems)
    return {
        "mutants": count,
        "seed": seed,
        "gate_version": gate.VERSION,
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "seconds": round(seconds, 1),
        "uncaught_errors": kinds["error"],
        "hangs_over_1_s": kinds["hang"],
        "signals": kinds["signal"],
        "slowest_s_of_processor": round(outcome.slowest_s, 3),
        "decisions": dict(outcome.decisions),
        "codes": dict(outcome.codes.most_common()),
        "problems": outcome.problems[:200],
    }


def main() -> int:
    """Make the corpus, run all mutants, write the summary."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate_mutants", description=__doc__)
    parser.add_argument("corpus", type=Path, nargs="?", help="a folder that tests.corpus.make wrote")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument(
        "--only", type=int, help="write this one mutant into the folder `mutant` and judge it"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        _worker(given.corpus, given.seed, given.worker)
        return 0
    if given.only is not None:
        print(attempt(made(seeds(given.corpus), given.seed, given.only), Path("mutant")))
        return 0
    with tempfile.TemporaryDirectory(prefix="gate-corpus-") as folder:
        corpus = given.corpus or _corpus(Path(folder))
        started = time.monotonic()
        outcome = work_off(corpus, given.seed, given.count, given.workers)
    told = summary(outcome, given.seed, given.count, time.monotonic() - started)
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))
    return 1 if outcome.problems else 0


def _corpus(folder: Path) -> Path:
    from tests.corpus import make  # with torch and transformers

    make.make(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())
