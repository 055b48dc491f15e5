"""The stages of a start, run on the inference thread: import torch and check the files, load, warm up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serving_agent import device, examples, integrity, limits, row_independence, warm_up
from serving_agent.batch import Inputs
from serving_agent.contract.manifest import Manifest
from serving_agent.contract.signature import Signature
from serving_agent.contract.status import OptionsEffect, Phase
from serving_agent.formats import catalog as formats
from serving_agent.handlers import catalog as handlers
from serving_agent.model_server import ModelContext, ModelServer

logger = logging.getLogger(__name__)

EnterPhase = Callable[[Phase], None]
RecordTiming = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Started:
    """A model that is ready to answer."""

    server: ModelServer
    row: Inputs | None
    """Inputs of one row that the model has taken; None where no size out of our guesses suits it."""
    effect: OptionsEffect | None
    """Set where execution options are on and could be measured."""
    shares_batches: bool
    """Whether requests may run together."""


class Startup:
    """Brings one manifest's model from nothing to ready, reporting phases and times."""

    def __init__(self, manifest: Manifest, enter: EnterPhase, record: RecordTiming) -> None:
        self._manifest = manifest
        self._enter = enter
        self._record = record

    def run(self) -> Started:
        """Return the warm handler. Raises StartError or whatever the model raises."""
        manifest = self._manifest
        handler = handlers.get(manifest.handler, manifest.allowed_handlers)
        served = handler.served_signature(manifest.signature, manifest.labels)
        integrity.check_native(manifest, formats.get(manifest.format))
        self._import_and_verify()
        limits.limit_memory(manifest.limits.memory_bytes)
        self._enter("loading")
        with self._timed("load"):
            server = handler()
            server.context = self._context(served)
            server.load_model(server.context)
        self._enter("warming")
        with self._timed("warm"):
            return self._warm_up(server)

    def _import_and_verify(self) -> None:
        """Import torch while the version's files are checked; `verify` is what the check takes longer."""
        started = time.perf_counter()
        with integrity.verified_meanwhile(self._manifest):
            import_torch(self._manifest.threads)
            imported = time.perf_counter()
        if self._manifest.provenance is not None:
            self._record("verify", time.perf_counter() - imported)
        self._record("import", imported - started)

    def _warm_up(self, server: ModelServer) -> Started:
        options = self._manifest.options
        effect = None
        row = warm_up.first_row(server, examples.read(self._manifest.examples, server.signature()))
        if not options.execution.is_default:
            effect = warm_up.optimise(server, options.execution, row)
        shares_batches = row_independence.can_share_batches(server, row, options.batching)
        if shares_batches and row is not None:
            warm_up.warm_batches(server, row, options.batching)
        return Started(server, row, effect, shares_batches)

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
