"""The stages of a start, run on the inference thread: import torch, load, warm up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from serving_agent import device, limits, pipeline
from serving_agent.contract.manifest import Manifest
from serving_agent.contract.signature import Signature
from serving_agent.contract.status import Phase
from serving_agent.errors import ModelError
from serving_agent.formats import catalog as formats
from serving_agent.handlers import catalog as handlers
from serving_agent.model_server import ModelContext, ModelServer

logger = logging.getLogger(__name__)

WARM_UP_RUNS: Final = 3
"""TorchScript's profiling executor optimises in the second run and is settled in the third."""
OPEN_SIZES: Final = (8, 32, 224)
"""Sizes tried in a warm-up for dimensions beyond the first that the signature leaves open."""

EnterPhase = Callable[[Phase], None]
RecordTiming = Callable[[str, float], None]


class Startup:
    """Brings one manifest's model from nothing to ready, reporting phases and times."""

    def __init__(self, manifest: Manifest, enter: EnterPhase, record: RecordTiming) -> None:
        self._manifest = manifest
        self._enter = enter
        self._record = record

    def run(self) -> ModelServer:
        """Return a warm handler. Raises StartError or whatever the model raises."""
        manifest = self._manifest
        handler = handlers.get(manifest.handler, manifest.allowed_handlers)
        served = handler.served_signature(manifest.signature, manifest.labels)
        with self._timed("import"):
            import_torch(manifest.threads)
        limits.limit_memory(manifest.limits.memory_bytes)
        self._enter("loading")
        with self._timed("load"):
            server = handler()
            server.context = self._context(served)
            server.load_model(server.context)
        self._enter("warming")
        with self._timed("warm"):
            warm_up(server)
        return server

    def _context(self, served: Signature) -> ModelContext:
        manifest = self._manifest
        return ModelContext(
            artifact_dir=manifest.artifact_dir,
            format=formats.get(manifest.format),
            signature=served,
            model_signature=manifest.signature,
            labels=manifest.labels,
            device=device.resolve(manifest.device),
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._record(stage, time.perf_counter() - started)


def import_torch(threads: int) -> None:
    """Import torch and give it *threads* CPU threads per operation, one operation at a time."""
    import torch

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)


def warm_up(server: ModelServer) -> None:
    """Run the model on made-up inputs of one row, WARM_UP_RUNS times.

    A failure on a fully declared signature raises: no client could do better. Where the signature leaves
    inner sizes open the failure may be our guess's fault: after OPEN_SIZES the model is taken as it is, with
    a warning.
    """
    guessing = any(-1 in spec.shape[1:] for spec in server.signature().inputs)
    for open_size in OPEN_SIZES if guessing else OPEN_SIZES[:1]:
        try:
            _run_samples(server, open_size)
        except Exception as error:
            if not guessing or limits.is_out_of_memory(error):
                raise
            logger.info("warm-up with size %d did not work: %s", open_size, type(error).__name__)
        else:
            return
    logger.warning("no warm-up: no size out of %s suits the open dimensions of the inputs", OPEN_SIZES)


def _run_samples(server: ModelServer, open_size: int) -> None:
    inputs = server.sample_inputs(open_size)
    for _ in range(WARM_UP_RUNS):
        outputs = pipeline.run(server, inputs)
    if not outputs:
        raise ModelError("the model's signature declares no outputs")
