"""Judging and converting uploads in a confined process of their own (`admission.judge_process`).

The process is ours and runs nothing of the upload; it is confined because its readers are the first code that
meets hostile bytes. What it says is checked again where it names files.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

import msgspec

import serving_agent
from control_plane import admission
from control_plane.admission import judge_process
from control_plane.admission.base import Accepted, Refusal, Refused, Verdict
from control_plane.admission.judge_messages import Ended, Order, Said
from control_plane.admission.unpacking import FREE_BYTES, MAX_RATIO
from control_plane.errors import SignalboxError

MEMORY_BYTES: Final = 1024**3
"""Private memory of the process: a pickle of 64 MiB and its 3 million instructions fit."""
BASE_CPU_S: Final = 60
CPU_BYTES_PER_S: Final = 20 * 1024**2
BASE_WALL_S: Final = 120.0
WALL_BYTES_PER_S: Final = 4 * 1024**2
"""Slower than this over the whole upload is no longer waited for."""
REPORT_S: Final = 0.2
MAX_LINE_BYTES: Final = 64 * 1024**2
"""Longest answer: names and shapes of every tensor."""
PACKAGES: Final = tuple(
    Path(module.__file__ or "").parent  # each has one
    for module in (admission, serving_agent, msgspec)
)
ROOTS: Final = (PACKAGES[0].parents[1], PACKAGES[1].parent, PACKAGES[2].parent)
"""Where our packages and msgspec are found."""
STANDARD_LIBRARY: Final = Path(sysconfig.get_path("stdlib"))
BOOT: Final = (
    "import sys; sys.path[:0] = sys.argv[2:]; "
    "from control_plane.admission.judge_process import main; raise SystemExit(main(int(sys.argv[1])))"
)
KEPT_VARIABLES: Final = ("LD_LIBRARY_PATH",)
"""All of our environment that the process sees."""

Progress = Callable[[str, float], object]
"""Told the stage and the share done, several times a second; whatever it raises ends the check."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, and how it came about."""

    verdict: Verdict
    level: str
    """How far the process was confined: a value of `isolation.Level`."""
    peak_bytes: int
    """Most memory that the process held, resident; 0 where it did not live to tell."""


def judge(folder: Path, scratch: Path, *, progress: Progress | None = None) -> Verdict:
    """Judge all files below *folder*, or the one file that it is.

    scratch: an existing empty folder for what archives hold; the caller removes it.
    The tensors of an accepted upload have names, types and shapes, and no pieces; their bytes are not read.
    Raises what *progress* raises, and SignalboxError when the check itself failed.
    """
    return _verdict(_checked(folder, scratch, None, progress))


def examine(folder: Path, scratch: Path, *, progress: Progress | None = None) -> Judged:
    """Judge as `judge` does, compare every checksum too, and tell how the process was confined."""
    ended = _checked(folder, scratch, None, progress, verify=True)
    return Judged(_verdict(ended), ended.level, ended.peak_bytes)


def convert(folder: Path, scratch: Path, target: Path, *, progress: Progress | None = None) -> Accepted:
    """Judge as `judge` does and write the artefact's files into *target*, an existing empty folder.

    Weights are written anew; files that are kept as they came are linked, or copied where that fails. Raises
    Refusal, what *progress* raises, and SignalboxError when the check itself failed.
    """
    ended = _checked(folder, scratch, target, progress)
    verdict = _verdict(ended)
    if isinstance(verdict, Refused):
        refusal = Refusal(verdict.code, verdict.message, verdict.next_step)
        refusal.refused = verdict
        raise refusal
    _keep(ended.sources, target, (folder, scratch))
    return verdict


def _verdict(ended: Ended) -> Verdict:
    verdict = ended.accepted or ended.refused
    if verdict is None:
        raise _fault(ended.fault or "it gave no verdict")
    return verdict


def _checked(
    folder: Path, scratch: Path, target: Path | None, progress: Progress | None, *, verify: bool = False
) -> Ended:
    order, wall_s = _order(folder, scratch, target, verify=verify)
    with tempfile.TemporaryFile() as log, _started(order, log) as (process, reader):
        ended = _listen(reader, progress, time.monotonic() + wall_s)
        if ended is not None:
            return ended
        return _death(_exit_code(process), _tail(log))


def _order(folder: Path, scratch: Path, target: Path | None, *, verify: bool) -> tuple[Order, float]:
    """Return what the process is told, and how long it may take in seconds."""
    size = judge_process.size_of(folder)
    order = Order(
        folder=str(folder.resolve()),
        scratch=str(scratch.resolve()),
        target=str(target.resolve()) if target else None,
        verify=verify,
        libraries=tuple(str(path) for path in (*PACKAGES, STANDARD_LIBRARY) if path.exists()),
        memory_bytes=MEMORY_BYTES,
        cpu_s=BASE_CPU_S + size // CPU_BYTES_PER_S,
        file_bytes=MAX_RATIO * (size + FREE_BYTES) * 2,
    )
    return order, BASE_WALL_S + size / WALL_BYTES_PER_S


@contextmanager
def _started(order: Order, log: IO[bytes]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start the process and give it with the pipe's end that it speaks on; nothing of it is left running."""
    reader, writer = os.pipe()
    try:
        try:
            process = _spawn(writer, log)
        finally:
            os.close(writer)
        try:
            _tell(process, msgspec.json.encode(order))
            yield process, reader
        finally:
            process.kill()
            process.wait()
    finally:
        os.close(reader)


def _spawn(writer: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", BOOT, str(writer), *map(str, ROOTS)]
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}  # noqa: TID251  the loader's
    return subprocess.Popen(  # noqa: S603  our own interpreter and module
        command,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env=kept,
        cwd="/",
        pass_fds=(writer,),
        start_new_session=True,
    )


def _tell(process: subprocess.Popen[bytes], order: bytes) -> None:
    if process.stdin:
        try:
            process.stdin.write(order)
            process.stdin.close()
        except BrokenPipeError:
            pass  # its exit code says why


def _listen(reader: int, progress: Progress | None, deadline: float) -> Ended | None:
    """Return what the process said at its end; None when it ended without a word or the time was up."""
    stage, done = "read", 0.0
    for line in _lines(reader, deadline):
        if line:
            said = _decoded(line)
            if isinstance(said, Ended):
                return said
            stage, done = said.stage, said.done
        if progress:
            progress(stage, done)
    return None


def _decoded(line: bytes) -> Said:
    try:
        said: Said = msgspec.json.decode(line, type=Said)
    except msgspec.MsgspecError as error:
        raise _fault(f"its process gave an answer that cannot be read ({error})") from None
    return said


def _lines(reader: int, deadline: float) -> Iterator[bytes]:
    """Yield each line, and an empty one whenever nothing was said for a while."""
    held = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0 and len(held) <= MAX_LINE_BYTES:
            if not selector.select(min(REPORT_S, left)):
                yield b""
                continue
            chunk = os.read(reader, 1024 * 1024)
            if not chunk:
                return
            *lines, rest = (bytes(held) + chunk).split(b"\n")
            held = bytearray(rest)
            yield from lines


def _exit_code(process: subprocess.Popen[bytes]) -> int | None:
    """Return how the process ended that no longer speaks; None when it still runs."""
    try:
        return process.wait(REPORT_S)
    except subprocess.TimeoutExpired:
        return None


def _death(code: int | None, tail: str) -> Ended:
    """Say what the end of a process means that gave no answer. Raises SignalboxError for a fault of ours."""
    if code is None:
        return Ended(refused=judge_process.exceeded("more time"))
    if code == -signal.SIGXCPU:
        return Ended(refused=judge_process.exceeded("more processor time"))
    if code == -signal.SIGKILL:
        return Ended(refused=judge_process.exceeded("more memory"))
    if code < 0:
        raise _fault(f"its process crashed ({_signal_name(-code)})")
    raise _fault(tail or f"its process ended with exit code {code}")


def _signal_name(number: int) -> str:
    """Return a signal's name, or its number where it has none."""
    return signal.Signals(number).name if number in signal.valid_signals() else str(number)


def _tail(log: IO[bytes]) -> str:
    """Return the last line that the process wrote, and repeat all of them in this process's log."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - 65536))
    lines = log.read().decode(errors="replace").splitlines()
    for line in lines:
        sys.stderr.write(f"  check: {line}\n")
    return lines[-1][:200] if lines else ""


def _fault(why: str) -> SignalboxError:
    return SignalboxError(
        f"the check itself failed: {why}",
        next_step="Try again; if it fails again, report it with the log of the check.",
    )


def _keep(sources: tuple[tuple[str, str], ...], target: Path, within: tuple[Path, ...]) -> None:
    """Put the files that are kept as they came under their names in *target*."""
    for name, place in sources:
        source = Path(place)
        if not _is_plain(name) or source.is_symlink() or not _lies_in(source, within):
            raise _fault(f"it named {name[:80]!r}, which does not belong to the upload")
        kept = target / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        try:
            kept.hardlink_to(source)
        except OSError:  # another disk, or a file system without links
            shutil.copyfile(source, kept)


def _is_plain(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts


def _lies_in(source: Path, folders: tuple[Path, ...]) -> bool:
    real = source.resolve()
    return source.is_file() and any(real.is_relative_to(folder.resolve()) for folder in folders)
