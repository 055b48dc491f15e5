"""Triton with its Python backend: the wheel holds the server, and no libtorch backend comes with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.conformance import triton
from benchmarks.serving import workloads
from benchmarks.serving.peers import python_app
from benchmarks.serving.peers.base import MAX_BATCH, MODEL_FILE, MODEL_NAME, Start, Target, Variant, Wire
from benchmarks.serving.workloads import Workload
from serving_agent.contract.signature import Signature, TensorSpec

MODEL_SOURCE: Final = python_app.APPS / "triton_model.py"
TUNED: Final = ("--http-thread-count=2", "--log-info=false", "--allow-metrics=false")
"""One core is all it gets: eight HTTP threads, as installed, are in each other's way."""
BATCHING: Final = "dynamic_batching { }"
TUNED_BATCHING: Final = "dynamic_batching { max_queue_delay_microseconds: 2000 }"
"""The wait for company that the tuned variants of the others have too."""
"""Without a delay: what waits while the model is busy is the next batch."""


class Triton:
    """Default: one model instance, no batching, eight HTTP threads, metrics.

    Tuned: two HTTP threads, no metrics. Batching: Triton's dynamic batcher; the model runs each batch as one.
    """

    name = triton.NAME
    title = "Triton, Python backend"
    wires: frozenset[Wire] = frozenset({"oip_json", "oip_binary", "grpc"})
    variants = (Variant(), Variant(tuned=True), Variant(tuned=True, batching=True))

    def prepare(self, environment: Path) -> None:
        """Lay out the Python backend."""
        triton.prepare(environment)

    @contextlib.contextmanager
    def start(self, start: Start) -> Iterator[Target]:
        served = triton.Served(
            MODEL_NAME,
            signature(start.workload),
            MODEL_SOURCE,
            start.model_dir / MODEL_FILE,
            max_batch_size=MAX_BATCH if start.variant.batching else 0,
            extra=_batching(start.variant),
        )
        repository = triton.write_repository(start.folder / "repository", [served])
        options = TUNED if start.variant.tuned else ()
        with triton.running(
            repository, [MODEL_NAME], start.folder, core=start.core, options=options
        ) as found:
            yield Target(rest=found.rest, grpc=found.grpc)


def signature(workload: Workload) -> Signature:
    """Return the tensors of *workload*'s model; the first dimension is the batch. Pure."""
    return Signature(
        (TensorSpec(workloads.INPUT, "FP32", (-1, *workload.row)),),
        (TensorSpec(workloads.OUTPUT, "FP32", (-1, *workload.answer)),),
    )


def _batching(variant: Variant) -> str:
    if not variant.batching:
        return ""
    return TUNED_BATCHING if variant.tuned else BATCHING
