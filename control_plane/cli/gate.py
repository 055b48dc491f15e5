"""`signalbox gate`: what the gate says of a file or folder, without registering it and without a server."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from control_plane.admission import judging
from control_plane.admission.base import Accepted, LeftOut, Refused
from control_plane.admission.gate import VERSION
from control_plane.admission.judging import Judged
from control_plane.cli.command import Session, command
from control_plane.cli.output import Output, size
from control_plane.errors import InvalidInputError

EXIT_CODES: Final = {"accept": 0, "convert": 0, "sandbox": 3, "refuse": 4}
MEANINGS: Final = {
    "accept": "weights that no code touches",
    "convert": "weights out of a container that could hold more; only they are kept",
    "sandbox": "a program: it runs only after a person accepted it",
    "refuse": "not let in",
}
_NEEDS: Final = {
    "acceptance": "a person accepts to run it",
    "signature": "inputs and outputs are declared",
    "architecture": "the network is named that the weights belong to",
}


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    command(app)(gate)


def gate(
    session: Session,
    path: Annotated[Path, typer.Argument(help="A file or a folder.")],
) -> None:
    """Judge a file or folder as an upload would be, without registering it; needs no running server."""
    started = time.monotonic()
    judged = _judged(path, session.out)
    document = {**_document(judged), "seconds": round(time.monotonic() - started, 3)}
    _print(judged, path.name or str(path), session.out)
    session.out.document(document)
    code = EXIT_CODES[judged.verdict.decision]
    if code:
        raise typer.Exit(code)


def _judged(path: Path, out: Output) -> Judged:
    if not path.is_file() and not path.is_dir():
        raise InvalidInputError(f"there is no file or folder {path} that can be read")
    with (
        tempfile.TemporaryDirectory(prefix="signalbox-gate-") as scratch,
        out.progress.status("reading") as bar,
    ):
        return judging.examine(
            path.resolve(), Path(scratch), progress=lambda stage, done: bar.update(f"{stage} {done:.0%}")
        )


def _document(judged: Judged) -> dict[str, Any]:
    verdict = judged.verdict
    common = {
        "verdict": verdict.decision,
        "code": str(verdict.code),
        "gate_version": VERSION,
        "isolation": judged.level,
        "peak_bytes": judged.peak_bytes,
    }
    return {**common, **(_refused(verdict) if isinstance(verdict, Refused) else _accepted(verdict))}


def _refused(verdict: Refused) -> dict[str, Any]:
    return {
        "file": verdict.file,
        "member": verdict.member,
        "message": verdict.message,
        "next_step": verdict.next_step,
    }


def _accepted(verdict: Accepted) -> dict[str, Any]:
    tensors = [tensor for file in verdict.weights for tensor in file.tensors]
    return {
        "format": verdict.format,
        "needs": list(verdict.needs),
        "tensors": len(tensors),
        "weights_bytes": sum(tensor.size_bytes for tensor in tensors),
        "kept": [path for _, path in verdict.stored],
        "left_out": [
            {"path": each.path, "size_bytes": each.size_bytes, "why": each.why} for each in verdict.left_out
        ],
    }


def _print(judged: Judged, name: str, out: Output) -> None:
    verdict = judged.verdict
    if isinstance(verdict, Refused):
        _print_refused(verdict, out)
    else:
        _print_accepted(verdict, out)
    out.line(f"isolation  {judged.level or 'the process did not live to tell'}")
    out.line(f"{name}: {MEANINGS[verdict.decision]}: {verdict.decision}")


def _print_refused(verdict: Refused, out: Output) -> None:
    where = " / ".join(part for part in (verdict.file, verdict.member) if part)
    out.line(f"code       {verdict.code}")
    if where:
        out.line(f"where      {where}")
    out.line(f"why        {verdict.message}")
    out.line(f"what to do {verdict.next_step}")


def _print_accepted(verdict: Accepted, out: Output) -> None:
    tensors = [tensor for file in verdict.weights for tensor in file.tensors]
    out.line(f"code       {verdict.code}")
    out.line(f"format     {verdict.format}")
    if tensors:
        out.line(f"tensors    {len(tensors)}, {size(sum(tensor.size_bytes for tensor in tensors))}")
    for need in verdict.needs:
        out.line(f"needs      {_NEEDS[need]}")
    for left in verdict.left_out:
        out.line(f"left out   {_left(left)}")


def _left(left: LeftOut) -> str:
    return f"{left.path} ({left.why}, {size(left.size_bytes)})"
