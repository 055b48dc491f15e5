"""The limit: the model in a loop, nothing around it. `raw_loop.py BATCH WARMUP_S SECONDS` prints one JSON."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
from torch_model import infer, load  # type: ignore[import-not-found] # beside this file


def main() -> None:
    batch, warm_up_s, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    row = [int(size) for size in os.environ["BENCH_ROW"].split(",")]
    model, x = load(), np.random.default_rng(0).random((batch, *row), dtype=np.float32)
    run(model, x, warm_up_s)
    durations = run(model, x, seconds)
    print(
        json.dumps(
            {"batch": batch, "calls": len(durations), "seconds": sum(durations), **_quantiles(durations)}
        )
    )


def run(model: object, x: np.ndarray, seconds: float) -> list[float]:
    """Return how long each call took, in seconds, for about *seconds* altogether."""
    durations = []
    now = time.perf_counter()
    end = now + seconds
    while now < end:
        infer(model, x)
        before, now = now, time.perf_counter()
        durations.append(now - before)
    return durations


def _quantiles(durations: list[float]) -> dict[str, float]:
    p50, p90, p99 = np.quantile(durations, [0.5, 0.9, 0.99]) * 1e6
    return {"p50_us": float(p50), "p90_us": float(p90), "p99_us": float(p99)}


if __name__ == "__main__":
    main()
