"""An agent's counts in the shape of Triton's statistics extension: `GET …/stats` and ModelStatistics. Pure.

Protocol: the `statistics` extension of the Triton Inference Server (docs/protocol/extension_statistics.md).
The names of its JSON are those of the protobuf too: `ModelStatisticsResponse(**model_statistics(…))`. Every
number is a whole one; durations are in nanoseconds, summed since the agent started.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from serving_agent.contract.manifest import Manifest
from serving_agent.measurements import BatchTotals, Histogram, Measurements

NS_PER_S: Final = 1_000_000_000
MEMORY_TYPE: Final = {"rss": "CPU", "cuda": "GPU"}
"""Kind of memory in the agent's metrics → its name in the extension."""


def model_statistics(
    manifest: Manifest, measurements: Measurements, memory_bytes: Mapping[str, float]
) -> dict[str, Any]:
    """Return the statistics of the one model that *manifest* serves.

    memory_bytes: bytes in use by kind, a key of MEMORY_TYPE; a kind of which nothing is in use is left out.
    `inference_count` counts rows and `execution_count` batches, both without the cache's answers;
    `inference_stats` counts requests, `success` and `queue` being the answered and the queued ones.
    """
    return {
        "model_stats": [
            {
                "name": manifest.endpoint,
                "version": str(manifest.version),
                "last_inference": measurements.last_inference_ms,
                "inference_count": measurements.inferred_rows,
                "execution_count": measurements.rows.count,
                "inference_stats": _inference_stats(measurements),
                "batch_stats": [
                    _batch_stats(size, totals) for size, totals in sorted(measurements.batches.items())
                ],
                "memory_usage": _memory_usage(memory_bytes),
                # counts the answers of models that give several to one request, which no agent serves
                "response_stats": {},
            }
        ]
    }


def _inference_stats(measurements: Measurements) -> dict[str, dict[str, int]]:
    return {
        "success": _observed(measurements.request),
        "fail": _duration(measurements.failed, measurements.failed_s),
        "queue": _observed(measurements.queue),
        "compute_input": _observed(measurements.preprocess),
        "compute_infer": _observed(measurements.predict),
        "compute_output": _observed(measurements.postprocess),
        "cache_hit": _duration(measurements.cache_hits, measurements.cache_hit_s),
        # a miss costs one look-up in a dictionary, which is not timed
        "cache_miss": _duration(measurements.cache_misses, 0.0),
    }


def _batch_stats(size: int, totals: BatchTotals) -> dict[str, Any]:
    return {
        "batch_size": size,
        "compute_input": _duration(totals.executions, totals.preprocess_s),
        "compute_infer": _duration(totals.executions, totals.predict_s),
        "compute_output": _duration(totals.executions, totals.postprocess_s),
    }


def _memory_usage(memory_bytes: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {"type": MEMORY_TYPE[kind], "id": 0, "byte_size": int(size)}
        for kind, size in memory_bytes.items()
        if size > 0
    ]


def _observed(histogram: Histogram) -> dict[str, int]:
    return _duration(histogram.count, histogram.total)


def _duration(count: int, total_s: float) -> dict[str, int]:
    return {"count": count, "ns": round(total_s * NS_PER_S)}
