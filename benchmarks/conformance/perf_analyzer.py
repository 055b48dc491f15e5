"""NVIDIA's perf_analyzer against a target: does it run, and does it tell right answers from wrong ones.

It only compares answers when it is given `validation_data`, bit by bit, and only where no size of the output
is left open. Nothing is timed here.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.conformance import models, triton
from benchmarks.conformance.checks import SENTENCE, Json
from benchmarks.conformance.matrix import Addresses
from benchmarks.serving import environments

NAME: Final = "perf_analyzer"
LIBRARIES: Final = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
"""What the program is linked against → where Triton's wheel has it."""
REQUESTS: Final = 40
TIMEOUT_S: Final = 60
MISMATCH: Final = "Output doesn't match expected output"
INFER_PROTOCOLS: Final = ("http", "grpc")

_RIGHT: Final = {"exit": 0, "mismatch": False}
_WRONG: Final = {"exit": 99, "mismatch": True}
EXPECTED: Final[dict[str, Json]] = {
    f"perf_analyzer/{protocol}/{name}": outcome
    for protocol in INFER_PROTOCOLS
    for name, outcome in (("right", _RIGHT), ("wrong", _WRONG), ("open-shape", _RIGHT))
}
"""Check → what every target must give. `wrong` has a false answer among the expected ones."""


def prepare(environment: Path) -> None:
    """Give the program the shared libraries it expects from the system: Triton's wheel has them."""
    folder = environment / "libraries"
    folder.mkdir(exist_ok=True)
    for name, pattern in LIBRARIES.items():
        (found,) = triton.libraries(environments.folder(triton.NAME)).glob(pattern)
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(found)


def observe(addresses: Addresses, folder: Path) -> dict[str, Json]:
    """Return what the program does with the target at *addresses*, by check; its inputs go into *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    right, wrong = folder / "right.json", folder / "wrong.json"
    right.write_text(json.dumps(input_data(models.logits())))
    wrong.write_text(json.dumps(input_data(_with_an_error(models.logits()))))
    options = {
        "right": (models.DIGIT, f"--input-data={right}"),
        "wrong": (models.DIGIT, f"--input-data={wrong}"),
        "open-shape": (models.DIGITS, "--shape=image:1,1,8,8"),
    }
    return {
        f"perf_analyzer/{protocol}/{name}": _run(protocol, addresses, *chosen)
        for protocol in INFER_PROTOCOLS
        for name, chosen in options.items()
    }


def input_data(logits: models.Array) -> Mapping[str, Any]:
    """Return the program's input file: each image, and *logits* (n, 10) as the answers to expect. Pure."""
    images = [{"image": _tensor(image[None])} for image in models.images()]
    answers = [{"logits": _tensor(row[None])} for row in logits]
    return {"data": images, "validation_data": answers}


def _with_an_error(logits: models.Array) -> models.Array:
    changed = logits.copy()
    changed[2, 3] += 1 / 1024
    return changed


def _tensor(array: models.Array) -> dict[str, Any]:
    return {"content": [float(value) for value in array.ravel()], "shape": list(array.shape)}


def _run(protocol: str, addresses: Addresses, model: str, option: str) -> Json:
    home = environments.folder(NAME)
    address = addresses[model, "http" if protocol == "http" else "grpc"]
    command = [str(home / "bin" / "perf_analyzer"), "-m", model, "-u", address, "-i", protocol]
    command += [option, "--concurrency-range=2", f"--request-count={REQUESTS}"]
    variables = os.environ | {"LD_LIBRARY_PATH": str(home / "libraries")}
    try:
        done = subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"exit": None, "mismatch": False, SENTENCE: f"still running after {TIMEOUT_S} s"}
    said = done.stdout + done.stderr
    return {"exit": done.returncode, "mismatch": MISMATCH in said, SENTENCE: done.stderr.strip()[:300]}
