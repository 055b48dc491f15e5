"""KServe's clients against a target, in an environment of their own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final

from benchmarks.conformance import checks, models
from benchmarks.conformance.checks import SENTENCE, Json
from benchmarks.conformance.matrix import Addresses
from benchmarks.serving import environments

NAME: Final = "kserve_client"
PROBE: Final = Path(__file__).with_name("kserve_probe.py")
TIMEOUT_S: Final = 120

_ANSWER: Final = {"id": "k-1", "model": models.DIGITS, "logits": checks.tensor(models.logits())}
EXPECTED: Final[dict[str, Json]] = {
    "kserve/rest/json": _ANSWER,
    "kserve/rest/binary": _ANSWER,
    "kserve/rest/binary-in": _ANSWER,
    "kserve/rest/live": None,
    "kserve/rest/ready": None,
    "kserve/rest/model-ready": True,
    "kserve/rest/unknown-model-ready": False,
    "kserve/grpc/raw": _ANSWER,
    "kserve/grpc/typed": _ANSWER,
    "kserve/grpc/live": True,
    "kserve/grpc/ready": True,
    "kserve/grpc/model-ready": True,
}
"""Check → what every target must give; None where Triton's own answer fails the client."""


def prepare(environment: Path) -> None:
    """Do nothing: pip has installed all there is."""
    del environment


def observe(addresses: Addresses) -> dict[str, Json]:
    """Return what the clients see of the target at *addresses*, by check."""
    rest, grpc = (addresses[models.DIGITS, protocol] for protocol in ("http", "grpc"))
    # -P: the probe's own folder holds modules with the names of others
    command = [str(environments.python(NAME)), "-P", str(PROBE), f"http://{rest}", grpc]
    images = json.dumps(models.images().tolist())
    try:
        done = subprocess.run(
            command, input=images, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        failed = {"failed": type(error).__name__, SENTENCE: str(error.stderr)[-300:]}
        return dict.fromkeys(EXPECTED, failed)
    found: dict[str, Json] = json.loads(done.stdout)
    return found
