"""The process that builds one variant: `python -m control_plane.optimization.build_process FD`.

It opens the parent, lets one method work on it, and says on the pipe FD what came of it. It takes its
parent's memory limits along, and dies with it.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from control_plane.optimization import catalog, parents, serving, text_graphs
from control_plane.optimization.base import BuildError, Built, Calibration, Work
from control_plane.optimization.children import die_with_parent, is_out_of_memory
from control_plane.optimization.messages import Artefact, BuildOrder, BuildReply
from serving_agent.contract import graph_tensors
from serving_agent.contract.signature import Signature
from serving_agent.errors import AgentError
from serving_agent.model_server import ModelServer

if TYPE_CHECKING:
    from torch import Tensor

HUB: Final = "huggingface"
CALIBRATION_BATCH: Final = 8
"""Rows in one calibration batch."""
SAMPLE_ROWS: Final = 4
OPEN_SIZE: Final = 16
"""Size of made-up samples where the signature leaves one open."""
FULL_BYTES: Final = 64 * 1024
"""A disk with less free space than this is full: no artefact is so small."""
COMPANIONS: Final = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
    "vocab.json", "merges.txt", "tokenizer.model", "added_tokens.json", "chat_template.jinja",
    "generation_config.json", "preprocessor_config.json",
)  # fmt: skip
"""Files of a Hugging Face folder that a variant needs beside its graph."""


def main() -> int:
    """Carry out the order on stdin. Returns the exit code: 0 once the answer is sent."""
    pipe = int(sys.argv[1])
    os.set_inheritable(pipe, False)
    die_with_parent()
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=BuildOrder)
    os.write(pipe, msgspec.json.encode(answer(order)) + b"\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # taking the engines apart takes seconds and tells nothing


def answer(order: BuildOrder) -> BuildReply:
    """Build, and say what came of it or why nothing did."""
    try:
        return build(order)
    except Exception as error:  # noqa: BLE001  an edge: whatever a library raises is the variant's failure
        if not isinstance(error, BuildError | AgentError):
            traceback.print_exc()
        return failure(error, Path(order.out))


def failure(error: Exception, out: Path) -> BuildReply:
    """*error* as one sentence and a code: what ran out is named, whatever a method made of it."""
    if is_out_of_memory(error):
        return BuildReply(failed="it needs more memory than it may use", code="out_of_memory")
    if is_out_of_space(error, out):
        return BuildReply(failed="the disk is full", code="no_space")
    if isinstance(error, BuildError | AgentError):
        return BuildReply(failed=str(error), code="cannot_build")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return BuildReply(
        failed=f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:500], code="build_failed"
    )


def is_out_of_space(error: Exception, out: Path) -> bool:
    """Whether the disk of *out* is full: engines say so in Python's words, in libc's, or in none."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return os.strerror(errno.ENOSPC) in str(error) or shutil.disk_usage(out).free < FULL_BYTES


def build(order: BuildOrder) -> BuildReply:
    """Open the parent, call the method and put the companions beside what it wrote."""
    import torch

    torch.set_num_threads(order.threads)
    torch.manual_seed(0)
    method = catalog.get(order.method)
    params = method.params.model_validate(order.params)
    say("open the parent")
    server = serving.opened(order.parent)
    tensors = text_graphs.tensors(order.parent.signature, order.parent.handler, config_of(order.parent))
    calibration = calibration_of(server, tensors, order.rows_file)
    with torch.no_grad():
        samples = samples_of(server, tensors, calibration)
        parent = parents.parent_of(server, msgspec.structs.replace(order.parent, signature=tensors), samples)
        out = Path(order.out)
        started = time.perf_counter()
        built = method.build(Work(parent=parent, calibration=calibration, out=out, say=say), params)
    seconds = time.perf_counter() - started
    add_companions(order.parent, out)
    if tensors != order.parent.signature and built.format != HUB:
        graph_tensors.write(tensors, out)
    return BuildReply(format=built.format, notes=built.notes, libraries=versions_of(built), seconds=seconds)


def say(what: str) -> None:
    """Tell the job's log."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def config_of(parent: Artefact) -> dict[str, Any]:
    """The configuration beside the network; empty where there is none."""
    path = Path(parent.folder) / "config.json"
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Any]) if path.is_file() else {}


def calibration_of(server: ModelServer, tensors: Signature, rows_file: str | None) -> Calibration:
    """The rows of the file as batches of tensors, through the handler's own preprocessing."""
    import hashlib

    if rows_file is None:
        return Calibration(batches=(), rows=0, digest="")
    content = Path(rows_file).read_bytes()
    rows = msgspec.json.decode(content, type=list[dict[str, object]])
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Calibration(batches=tuple(batches(server, tensors, rows)), rows=len(rows), digest=digest)


def batches(server: ModelServer, tensors: Signature, rows: Sequence[serving.Row]) -> list[tuple[Tensor, ...]]:
    """*rows* in batches of CALIBRATION_BATCH; rows of other inner shapes get batches of their own."""
    served = server.signature()
    made = []
    for start in range(0, len(rows), CALIBRATION_BATCH):
        chunk = rows[start : start + CALIBRATION_BATCH]
        try:
            made.append(serving.model_inputs(server, serving.batch_of(chunk, served), tensors))
        except ValueError:  # numpy stacks equal shapes only
            made += [serving.model_inputs(server, serving.batch_of([row], served), tensors) for row in chunk]
    return made


def samples_of(server: ModelServer, tensors: Signature, calibration: Calibration) -> tuple[Tensor, ...]:
    """Inputs of a few rows: the first that calibrate, or made-up ones."""
    import numpy as np

    if calibration.batches and len(calibration.batches[0][0]) > 1:
        return tuple(tensor[:SAMPLE_ROWS].clone() for tensor in calibration.batches[0])
    one = server.sample_inputs(OPEN_SIZE)
    return serving.model_inputs(
        server, {name: np.repeat(array, SAMPLE_ROWS, axis=0) for name, array in one.items()}, tensors
    )


def add_companions(parent: Artefact, out: Path) -> None:
    """Copy the parent's tokenizer and configuration where the method wrote none."""
    for name in COMPANIONS:
        source, target = Path(parent.folder) / name, out / name
        if source.is_file() and not target.exists():
            target.write_bytes(source.read_bytes())


def versions_of(built: Built) -> dict[str, str]:
    """Versions of the distributions that had a part in it."""
    return {name: metadata.version(name) for name in sorted({"torch", *built.libraries})}


if __name__ == "__main__":
    raise SystemExit(main())
