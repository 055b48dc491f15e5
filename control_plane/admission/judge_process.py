"""The process in which uploads are judged and their weights written anew.

It imports all it needs, gives up everything else, and only then opens the first received file. It runs
nothing of an upload; were a reader of ours tricked all the same, there is nothing it could reach.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from errno import EFBIG
from pathlib import Path
from typing import IO, Final
from zlib import crc32

import msgspec

from control_plane.admission import catalog, gate, isolation, safetensors_writer
from control_plane.admission.base import Accepted, Refusal, Refused, WeightsFile
from control_plane.admission.judge_messages import Ended, Order, Reached, Said
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.tensors import Storage

PR_SET_PDEATHSIG: Final = 1
READ_BYTES: Final = 1024 * 1024
SAY_EVERY_S: Final = 0.1
STATUS: Final = Path("/proc/self/status")
UNPACKED_SHARE: Final = 0.3
"""Share of the work that unpacking counts for."""

Say = Callable[[Said], None]


def main(pipe: int) -> int:
    """Judge what stdin describes and say on *pipe* what came of it."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    catalog.formats()  # imports them while that is still possible
    _die_with_parent()
    status = _own_status()
    confined = _confine(order)
    said = os.fdopen(pipe, "wb")

    def say(message: Said) -> None:
        said.write(msgspec.json.encode(message) + b"\n")
        said.flush()

    ended = attempt(order, say)
    say(msgspec.structs.replace(ended, level=confined.level, peak_bytes=_peak_bytes(status)))
    return 0


def attempt(order: Order, say: Say) -> Ended:
    """Judge, and write the weights where the order names a target."""
    try:
        return _answer(order, say)
    except Refusal as refusal:
        return Ended(refused=gate.readable(refusal.refused))
    except (MemoryError, RecursionError):
        return Ended(refused=exceeded("more memory"))
    except OSError as error:
        if error.errno == EFBIG:
            return Ended(refused=exceeded("larger files"))
        traceback.print_exc()
        return Ended(fault=error.strerror or str(error))


def exceeded(what: str) -> Refused:
    """Return the refusal of files that need *what* than any real model."""
    return Refused(
        ReasonCode.CHECK_EXCEEDED_LIMITS,
        None,
        f"Reading the upload took {what} than any real model of its size needs",
        "Save the model again, as a state_dict or with save_pretrained, and upload that.",
    )


def _answer(order: Order, say: Say) -> Ended:
    folder, scratch = Path(order.folder), Path(order.scratch)
    unpacking = _Teller("unpack", size_of(folder), 0.0, UNPACKED_SHARE, say)
    examined = gate.examine(folder, scratch, unpacking.advance)
    if isinstance(examined.verdict, Refused):
        return Ended(refused=examined.verdict)
    accepted = examined.verdict
    if order.target is not None:
        _write(accepted, Path(order.target), say)
    elif order.verify:
        _verify(accepted, say)
    places = {file.path: str(file.location) for file in examined.received}
    return Ended(
        accepted=without_pieces(accepted),
        sources=tuple((name, places[path]) for name, path in accepted.stored),
    )


def _write(accepted: Accepted, target: Path, say: Say) -> None:
    total = sum(tensor.size_bytes for file in accepted.weights for tensor in file.tensors)
    writing = _Teller("write", total, UNPACKED_SHARE, 1.0, say)
    safetensors_writer.write_all(accepted.weights, target, progress=writing.advance)


def _verify(accepted: Accepted, say: Say) -> None:
    """Read every storage that has a checksum and compare it. Raises Refusal."""
    tensors = [tensor for file in accepted.weights for tensor in file.tensors]
    storages = {
        piece.storage for tensor in tensors for piece in tensor.pieces if piece.storage.crc32 is not None
    }
    reading = _Teller("verify", sum(each.size_bytes for each in storages), UNPACKED_SHARE, 1.0, say)
    for storage in storages:
        if checksum(storage, reading.advance) != storage.crc32:
            raise Refusal(
                ReasonCode.BROKEN_ARCHIVE,
                "The upload is damaged: the bytes of a tensor do not fit their checksum",
                "Save the model again and check that the whole file was copied.",
            )


def checksum(storage: Storage, advance: Callable[[int], object]) -> int:
    """Return the CRC-32 of a storage's bytes, as zip has it; a cut one gives that of what is there."""
    value, left = 0, storage.size_bytes
    with storage.location.open("rb") as file:
        file.seek(storage.offset)
        while left and (chunk := file.read(min(left, READ_BYTES))):
            value = crc32(chunk, value)
            left -= len(chunk)
            advance(len(chunk))
    return value


def without_pieces(accepted: Accepted) -> Accepted:
    """Return the verdict with its tensors' names, types and shapes, and without where their bytes lie."""
    return replace(
        accepted,
        weights=tuple(
            WeightsFile(file.name, tuple(replace(tensor, pieces=()) for tensor in file.tensors))
            for file in accepted.weights
        ),
    )


class _Teller:
    """Says now and then how far a stage is that counts for *start* to *end* of the whole."""

    def __init__(self, stage: str, total: int, start: float, end: float, say: Say) -> None:
        self._stage = stage
        self._total = max(1, total)
        self._start, self._end = start, end
        self._say = say
        self._count = 0
        self._said_at = -math.inf

    def advance(self, count: int) -> None:
        self._count += count
        if time.monotonic() - self._said_at < SAY_EVERY_S:
            return
        self._said_at = time.monotonic()
        share = min(1.0, self._count / self._total)
        self._say(Reached(stage=self._stage, done=self._start + (self._end - self._start) * share))


def _own_status() -> IO[bytes] | None:
    """Open what Linux tells of this process, while that is still in reach."""
    try:
        return STATUS.open("rb")
    except OSError:
        return None


def _peak_bytes(status: IO[bytes] | None) -> int:
    """Return the most memory that this process held, resident; 0 where the system does not tell."""
    for line in status or ():
        if line.startswith(b"VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def size_of(folder: Path) -> int:
    """Return the bytes of all files below *folder*, or of the one file that it is."""
    if folder.is_file():
        return folder.stat().st_size
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _die_with_parent() -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _confine(order: Order) -> isolation.Isolation:
    libraries = [Path(library) for library in order.libraries]
    written = [Path(order.scratch), *([Path(order.target)] if order.target else [])]
    return isolation.confine(
        readable=[Path(order.folder), *libraries],
        writable=written,
        memory_bytes=order.memory_bytes,
        cpu_s=order.cpu_s,
        file_bytes=order.file_bytes,
    )
