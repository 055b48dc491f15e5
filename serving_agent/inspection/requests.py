"""The order's inputs, read as an agent reads a request."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from serving_agent import parameters, validation
from serving_agent.contract.inspection import InspectionOrder, TensorSummary
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.datatypes import Array
from serving_agent.errors import ClientError, InvalidRequestError
from serving_agent.inspection.summaries import Summaries
from serving_agent.messages import Parameters, RawData, WireTensor


@dataclass(frozen=True, slots=True)
class Request:
    """What goes into the pipeline."""

    inputs: dict[str, Array]
    parameters: Parameters
    seconds: float
    """What reading it took."""


def read(order: InspectionOrder, signature: Signature) -> Request:
    """Return the request that an agent would make of the order's inputs for *signature*, what clients see.

    Raises ClientError where it refuses them.
    """
    started = time.perf_counter()
    wire = []
    for each in order.inputs:
        if each.data is None:
            raise InvalidRequestError(f"input {each.name!r} was captured without its data")
        wire.append(WireTensor(each.name, each.datatype, each.shape, RawData(each.data)))
    inputs = validation.decode_inputs(signature, wire, order.nan_policy)
    own = parameters.own(order.parameters)
    return Request(inputs, own, time.perf_counter() - started)


def as_sent(order: InspectionOrder, summaries: Summaries) -> tuple[TensorSummary, ...]:
    """Return summaries of those inputs that can be read by what they say of themselves."""
    found = []
    for each in order.inputs:
        try:
            spec = TensorSpec(each.name, each.datatype, (-1,) * len(each.shape))
            wire = WireTensor(each.name, each.datatype, each.shape, RawData(each.data or b""))
            array: Array = validation.decode_inputs(Signature((spec,), ()), (wire,), "pass")[each.name]
        except (ClientError, ValueError):
            continue
        found.append(summaries.of(each.name, np.asarray(array)))
    return tuple(found)
