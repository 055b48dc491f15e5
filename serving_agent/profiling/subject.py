"""The version that is profiled: opened exactly as an agent opens it, and asked one request at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from serving_agent import device, pipeline, rest_codec, warm_up
from serving_agent.batch import Inputs, copied, is_batchable
from serving_agent.contract.profile import ProfileOrder
from serving_agent.contract.signature import TensorSpec
from serving_agent.datatypes import NUMPY_TYPE, Array
from serving_agent.errors import InvalidRequestError, ModelError
from serving_agent.formats import catalog as formats
from serving_agent.handlers import catalog as handlers
from serving_agent.measurements import StageTimes
from serving_agent.messages import InferReply
from serving_agent.model_server import ModelContext, ModelServer
from serving_agent.profiling import memory

OPEN_SIZE: Final = 16
"""Size of made-up inputs where the signature leaves one open besides the rows."""
JSON_FORM: Final = rest_codec.ReplyForm(named=None, default=False)
BINARY_FORM: Final = rest_codec.ReplyForm(named=None, default=True)
Mark = Callable[[str], AbstractContextManager[Any]]
"""Gives the context that a stage runs in, by its name."""
HOOKS: Final = ("preprocess", "predict", "postprocess")

_NO_MARK: Final[AbstractContextManager[None]] = nullcontext()


class Asked(msgspec.Struct, frozen=True):
    """One request: its stages, and its answer written as a client would get it."""

    stages: StageTimes
    encode_s: float
    wall_s: float


class Subject:
    """An opened version and its input."""

    def __init__(self, order: ProfileOrder) -> None:
        """Open it. Raises StartError, and what the model's own code raises."""
        self.device = device.resolve(order.device)
        memory.limit(self.device, order.memory_bytes)
        self.held_before = memory.held_bytes(self.device)
        started = time.perf_counter()
        server: ModelServer = handlers.get(order.handler, order.allowed_handlers)()
        server.context = ModelContext(
            artifact_dir=Path(order.folder),
            format=formats.get(order.format),
            signature=server.served_signature(order.signature, order.labels),
            model_signature=order.signature,
            labels=order.labels,
            device=self.device,
        )
        server.load_model(server.context)
        if not order.execution.is_default:
            warm_up.optimise(server, order.execution, None)
        self.server = server
        self.load_s = time.perf_counter() - started
        self._rows = order.rows
        self._encodes_json = True
        self._mark: Mark = _no_mark

    @property
    def is_batchable(self) -> bool:
        """Whether a request may have any number of rows."""
        return is_batchable(self.server.signature())

    def inputs(self, rows: int) -> Inputs:
        """Return one request of *rows* rows; of what cannot be batched, one as it is.

        Raises InvalidRequestError where the given rows do not fit the signature.
        """
        if not self._rows:
            sample = self.server.sample_inputs(OPEN_SIZE)
            return _repeated(sample, rows) if self.is_batchable else sample
        chosen = alike(self._rows)
        specs = self.server.signature().inputs
        if not self.is_batchable:
            return {spec.name: _array([chosen[0]], spec)[0] for spec in specs}
        taken = list(islice(cycle(chosen), rows))
        return {spec.name: _array(taken, spec) for spec in specs}

    def ask(self, inputs: Inputs) -> Asked:
        """Run one request through the pipeline and write its answer. Raises what the model raises."""
        fresh = copied(inputs)  # outside the clock: an agent has the arrays too
        started = time.perf_counter()
        run = pipeline.run(self.server, fresh)
        self._synchronise()
        ran = time.perf_counter()
        with self._mark("encode"):
            self._encode(InferReply("", run.outputs))
        ended = time.perf_counter()
        return Asked(run.stages, ended - ran, ended - started)

    def _encode(self, reply: InferReply) -> None:
        """Write the answer in JSON; in binary form where JSON cannot hold it (NaN)."""
        if self._encodes_json:
            try:
                rest_codec.encode(reply, "model", "1", JSON_FORM)
            except ModelError:
                self._encodes_json = False
            else:
                return
        rest_codec.encode(reply, "model", "1", BINARY_FORM)

    def _synchronise(self) -> None:
        if self.device != "cpu":
            import torch

            torch.cuda.synchronize(self.device)

    @contextmanager
    def marked(self, mark: Mark) -> Iterator[None]:
        """Within this, each stage runs in the context that *mark* gives for its name."""
        self._mark = mark
        plain = {name: getattr(self.server, name) for name in HOOKS}
        for name, hook in plain.items():
            setattr(self.server, name, _within(mark, name, hook))
        try:
            yield
        finally:
            self._mark = _no_mark
            for name in HOOKS:
                delattr(self.server, name)  # the class's own shows again


def _no_mark(name: str) -> AbstractContextManager[Any]:
    del name
    return _NO_MARK


def _within(mark: Mark, name: str, hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def call(values: Any) -> Any:
        with mark(name):
            return hook(values)

    return call


def alike(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows whose tensors have the commonest shapes: only they fit into one batch."""
    groups: dict[tuple[tuple[int, ...], ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(_shape(row[name]) for name in sorted(row)), []).append(row)
    return max(groups.values(), key=len)


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        return ()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidRequestError(f"a row is no regular array: {error}") from None
    return () if array.dtype.kind in "UO" and array.ndim == 0 else array.shape


def _array(rows: Sequence[Mapping[str, Any]], spec: TensorSpec) -> Array:
    try:
        values = [row[spec.name] for row in rows]
        if spec.datatype != "BYTES":
            return np.stack([np.asarray(value, dtype=NUMPY_TYPE[spec.datatype]) for value in values])
        return np.array(_encoded(values), dtype=object)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise InvalidRequestError(f"the rows do not fit the input {spec}: {error}") from None


def _encoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_encoded(each) for each in value]
    return value.encode() if isinstance(value, str) else value


def _repeated(sample: Mapping[str, Array], rows: int) -> Inputs:
    return {name: np.repeat(array, rows, axis=0) for name, array in sample.items()}
