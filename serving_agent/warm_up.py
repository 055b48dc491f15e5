"""Running the model before clients do: at every batch size it is warmed for, and with and without options."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from serving_agent import batch, execution, limits, pipeline
from serving_agent.contract.options import Batching, Execution
from serving_agent.contract.status import OptionsEffect
from serving_agent.datatypes import FLOATS, Array
from serving_agent.errors import ModelError, StartError
from serving_agent.messages import OutputTensor
from serving_agent.model_server import ModelServer

logger = logging.getLogger(__name__)

RUNS: Final = 3
"""TorchScript's profiling executor optimises in the second run and is settled in the third."""
MEASURED_RUNS: Final = 5
OPEN_SIZES: Final = (8, 32, 224)
"""Sizes tried in a warm-up for dimensions beyond the first that the signature leaves open."""
LARGE_BATCH_S: Final = 2.0
"""The largest batch is warmed up where one run of it should take no longer than this."""

Inputs = Mapping[str, Array]


def first_row(server: ModelServer, examples: Inputs | None) -> Inputs | None:
    """Run *server* on one row, *examples* or a made-up one, and return the row that worked.

    A failure on *examples* or on a fully declared signature raises: no client could do better. Where the
    signature leaves inner sizes open the failure may be our guess's fault: after OPEN_SIZES the model is
    taken as it is, with a warning, and None is returned.
    """
    if examples is not None:
        _run(server, examples, RUNS)
        return examples
    guessing = any(-1 in spec.shape[1:] for spec in server.signature().inputs)
    for open_size in OPEN_SIZES if guessing else OPEN_SIZES[:1]:
        inputs = server.sample_inputs(open_size)
        try:
            _run(server, inputs, RUNS)
        except Exception as error:
            if not guessing or limits.is_out_of_memory(error):
                raise
            logger.info("warm-up with size %d did not work: %s", open_size, type(error).__name__)
        else:
            return inputs
    logger.warning("no warm-up: no size out of %s suits the open dimensions of the inputs", OPEN_SIZES)
    return None


def warm_batches(server: ModelServer, row: Inputs, batching: Batching) -> None:
    """Run copies of *row* at every batch size that `sizes` names."""
    for rows in sizes(batching, pipeline.run(server, batch.copied(row)).stages.total_s):
        _run(server, batch.join([row] * rows, rows), RUNS)


def sizes(batching: Batching, row_s: float) -> Sequence[int]:
    """Return the batch sizes to warm up beside 1 row, which takes *row_s* seconds. Pure.

    All buckets; without buckets the largest batch, unless it would take long.
    """
    if batching.buckets:
        return batching.buckets
    largest = batching.max_rows
    return (largest,) if largest > 1 and largest * row_s <= LARGE_BATCH_S else ()


def optimise(server: ModelServer, wanted: Execution, row: Inputs | None) -> OptionsEffect | None:
    """Bring the loaded model into the form *wanted* asks for, and return what that changed for *row*.

    The server must have been loaded and warmed with every option off. Raises StartError where an option does
    not apply; returns None where no row is known to measure with.
    """
    module = getattr(getattr(server, "model", None), "module", None)
    if module is None:
        raise StartError(
            "execution options change how torch runs a model, and need a handler that keeps the artefact's "
            "module in `self.model`; turn them off"
        )
    plain = None if row is None else _measure(server, row)
    server.context = replace(server.context, execution=wanted)
    server.model.module = execution.prepared(module, wanted)  # type: ignore[attr-defined]  # checked above
    if plain is None or row is None:
        return None
    _run(server, row, RUNS)
    optimised = _measure(server, row)
    return OptionsEffect(
        plain_s=plain[0], optimized_s=optimised[0], largest_difference=_difference(plain[1], optimised[1])
    )


def _run(server: ModelServer, inputs: Inputs, times: int) -> None:
    for _ in range(times):
        if not pipeline.run(server, batch.copied(inputs)).outputs:
            raise ModelError("the model's signature declares no outputs")


def _measure(server: ModelServer, inputs: Inputs) -> tuple[float, tuple[OutputTensor, ...]]:
    runs = [pipeline.run(server, batch.copied(inputs)) for _ in range(MEASURED_RUNS)]
    return statistics.median(run.stages.total_s for run in runs), runs[-1].outputs


def _difference(plain: Iterable[OutputTensor], optimised: Iterable[OutputTensor]) -> float:
    """Return the largest difference of floating-point elements that are finite in both."""
    return max(
        (
            _largest_difference(one.array.astype(np.float64), other.array.astype(np.float64))
            for one, other in zip(plain, optimised, strict=True)
            if one.datatype in FLOATS and one.array.shape == other.array.shape
        ),
        default=0.0,
    )


def _largest_difference(one: Array, other: Array) -> float:
    finite = np.isfinite(one) & np.isfinite(other)
    return float(np.abs(one[finite] - other[finite]).max(initial=0.0))
