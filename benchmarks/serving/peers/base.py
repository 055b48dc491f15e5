"""What a server must offer to take part in the benchmark."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from benchmarks.serving.workloads import Workload

Wire = Literal["oip_json", "oip_binary", "grpc", "own_json"]
"""How tensors travel: Open Inference Protocol v2 as JSON, as JSON head plus raw tensors, over gRPC (raw
contents), or the server's own JSON (`{"x": [[...]]}` in, an array under `"y"` out)."""

MODEL_NAME: Final = "bench"
"""The name under which every server serves the model."""
MODEL_FILE: Final = "model.pt"
"""TorchScript file in `Start.model_dir`; forward(x) -> y, first dimension is the batch, see `workloads`."""
EXPECTED_FILE: Final = "expected.npy"
"""Torch's own answers, FP32 (distinct, *answer), beside the model."""
MAX_BATCH: Final = 16
"""Rows in the largest batch, where a server batches."""


@dataclass(frozen=True, slots=True)
class Variant:
    """How a server is set up: as installed or tuned for this machine, with or without dynamic batching."""

    tuned: bool = False
    batching: bool = False

    def __str__(self) -> str:
        return ("tuned" if self.tuned else "default") + (", batching" if self.batching else "")


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a server.

    model_dir: read-only, holds MODEL_FILE. folder: empty, for configuration and logs. core: the CPU core the
    server and all its children are pinned to; the model runs on one thread.
    """

    model_dir: Path
    folder: Path
    workload: Workload
    variant: Variant
    core: int


@dataclass(frozen=True, slots=True)
class Target:
    """Where a running server is reached.

    rest, grpc: `host:port` or `unix:/path`. rest_path: where requests are posted. json_key: the text in a
    JSON reply after which the output array is the next `[`.
    """

    rest: str | None = None
    grpc: str | None = None
    rest_path: str = f"/v2/models/{MODEL_NAME}/infer"
    json_key: str = '"data"'


class Peer(Protocol):
    """A server that takes part.

    name: of its environment `.peers/<name>` and of `requirements/<name>.txt`. wires: what it speaks.
    variants: how it can be set up; the first is as installed.
    """

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def wires(self) -> frozenset[Wire]: ...
    @property
    def variants(self) -> tuple[Variant, ...]: ...

    def prepare(self, environment: Path) -> None:
        """Do what pip cannot, once, after the virtual environment in *environment* has been installed."""

    def start(self, start: Start) -> AbstractContextManager[Target]:
        """Start the server and return once the model answers; every process has ended when the block is left.

        Raises `processes.StartError` with the end of the server's log when it does not come up.
        """
