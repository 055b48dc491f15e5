"""Whether a model answers each row by itself: only then may requests share a batch.

Two rows that differ are run alone and together. A model that mixes them (a mean over the batch, batch
statistics) answers the pair otherwise than the rows; so does one that draws random numbers. Such models get
each request alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import numpy as np

from serving_agent import batch, limits, pipeline
from serving_agent.batch import Inputs
from serving_agent.contract.options import Batching
from serving_agent.datatypes import FLOATS, Array
from serving_agent.messages import OutputTensor
from serving_agent.model_server import ModelServer

logger = logging.getLogger(__name__)

TOLERANCE: Final = 1e-3
"""Relative to the largest value of an output: kernels for other batch sizes add in another order."""
LOW_PRECISION_TOLERANCE: Final = 0.05
"""The same where values are computed with the eight bits of bfloat16."""


def can_share_batches(server: ModelServer, row: Inputs | None, batching: Batching) -> bool:
    """Tell whether requests may run together: as handler and signature say, and as *row* and another show.

    False where no row is known to try it with, or the trial cannot be run.
    """
    if batching.max_rows == 1 or not (server.row_wise and batch.is_batchable(server.signature())):
        return False
    try:
        reason = "no row is known to try it with" if row is None else _dependence(server, row)
    except Exception as error:
        if limits.is_out_of_memory(error):
            raise
        reason = f"the trial with two rows failed ({type(error).__name__})"
    if reason is not None:
        logger.warning("requests run one by one: %s", reason)
    return reason is None


def _dependence(server: ModelServer, row: Inputs) -> str | None:
    """Return how the rows of a batch depend on each other; None where they do not."""
    other = another(row)
    alone = [pipeline.run(server, batch.copied(inputs)).outputs for inputs in (row, other)]
    together = pipeline.run(server, batch.join([row, other], 2)).outputs
    if not batch.holds_rows(together, 2):
        return "the model does not answer with one row for each input row"
    low = server.context.execution.autocast != "off"
    tolerance = LOW_PRECISION_TOLERANCE if low else TOLERANCE
    parts = batch.split(together, [1, 1])
    if all(agree(one, part, tolerance) for one, part in zip(alone, parts, strict=True)):
        return None
    return "the model answers a row otherwise when another one is beside it"


def another(row: Inputs) -> Inputs:
    """Return a row that differs from *row* and is as valid, as far as can be told. Pure.

    Its values are those of *row* in reverse order, so that tokens stay tokens and pixels pixels; where that
    changes nothing, floats are halved and texts doubled.
    """
    turned = {name: np.flip(array.reshape(1, -1)).reshape(array.shape) for name, array in row.items()}
    if any(not np.array_equal(turned[name], row[name]) for name in row):
        return turned
    return {name: _changed(array) for name, array in row.items()}


def agree(one: Sequence[OutputTensor], other: Sequence[OutputTensor], tolerance: float) -> bool:
    """Tell whether two answers are the same but for rounding. Pure."""
    return all(_agrees(a, b, tolerance) for a, b in zip(one, other, strict=True))


def _agrees(one: OutputTensor, other: OutputTensor, tolerance: float) -> bool:
    if one.array.shape != other.array.shape:
        return False
    if one.datatype not in FLOATS:
        return bool(np.array_equal(one.array, other.array))
    values, others = one.array.astype(np.float64), other.array.astype(np.float64)
    finite = np.abs(values[np.isfinite(values)])
    largest = float(finite.max(initial=0.0))
    return bool(np.allclose(others, values, rtol=0.0, atol=tolerance * largest + 1e-9, equal_nan=True))


def _changed(array: Array) -> Array:
    if array.dtype == object:
        return np.array([item * 2 for item in array.ravel().tolist()], dtype=object).reshape(array.shape)
    return array * array.dtype.type(0.5) if np.issubdtype(array.dtype, np.floating) else array.copy()
