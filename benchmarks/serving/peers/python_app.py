"""What the peers that run our small programs in their own environments have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.serving.peers.base import MAX_BATCH, MODEL_FILE, Start

APPS: Final = Path(__file__).parent / "apps"


def settings(start: Start, port: int, grpc_port: int) -> dict[str, str]:
    """Return the environment that the programs in `apps/` read."""
    return {
        "BENCH_MODEL": str((start.model_dir / MODEL_FILE).resolve()),
        "BENCH_ROW": ",".join(map(str, start.workload.row)),
        "BENCH_TUNED": "1" if start.variant.tuned else "",
        "BENCH_BATCHING": "1" if start.variant.batching else "",
        "BENCH_MAX_BATCH": str(MAX_BATCH),
        "BENCH_PORT": str(port),
        "BENCH_GRPC_PORT": str(grpc_port),
        "PYTHONPATH": str(APPS),
    }
