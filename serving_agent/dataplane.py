"""What an agent can be asked: ready, metadata, configuration, infer. Both transports call this alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from serving_agent import repository, response_cache, statistics, validation
from serving_agent.batch import Inputs, copied
from serving_agent.contract import wire
from serving_agent.contract.manifest import Manifest
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.errors import (
    AgentError,
    NotFoundError,
    NotReadyError,
    OverloadedError,
    QueueFullError,
    TooManyError,
)
from serving_agent.health import Health
from serving_agent.inference_thread import InferenceThread
from serving_agent.measurements import Measurements, StageTimes
from serving_agent.messages import InferReply, InferRequest, OutputTensor
from serving_agent.metrics import Metrics, cuda_bytes, resident_bytes
from serving_agent.profiling.live import LiveProfiler
from serving_agent.request_samples import RequestSamples
from serving_agent.response_cache import ResponseCache
from serving_agent.rollout_recorder import Record, RolloutRecorder
from serving_agent.tracing import tracer_for
from serving_agent.work import Answer, Outcome, Work

logger = logging.getLogger(__name__)

PLATFORM: Final = {
    "torchscript": "pytorch_libtorch",
    "exported_program": "pytorch_exported_program",
    "huggingface": "huggingface_transformers",
    "onnx": "onnxruntime_onnx",
    "aot_inductor": "pytorch_aot_inductor",
    "compiled": "pytorch_compiled",
}
"""Format → `platform` in the model's metadata; any other format is its own name."""

T = TypeVar("T")
Specs = tuple[TensorSpec, ...]
Done = Callable[[InferReply | AgentError], None]
"""Told what becomes of a request, once, on the loop's thread."""
Told = Callable[[Outcome], None]
"""Told what the model made of it."""


class DataPlane:
    """Answers requests for the one model of a manifest; lives on the I/O loop's thread."""

    def __init__(
        self,
        manifest: Manifest,
        health: Health,
        thread: InferenceThread,
        measurements: Measurements,
    ) -> None:
        self.manifest = manifest
        self.health = health
        self.measurements = measurements
        self._thread = thread
        self._cache = ResponseCache(manifest.options.cache)
        self.metrics = Metrics(manifest, health, measurements, self._cache, thread)
        sampling = manifest.options.sampling
        self.recorder = RolloutRecorder(measurements, manifest.labels, sampling.redact)
        self.samples = RequestSamples(sampling, manifest.labels)
        self.profiler = LiveProfiler(health, measurements)
        self.tracer = tracer_for(manifest)
        self._signature: Signature | None = None
        self._shares_batches = False

    def open(self, signature: Signature, *, shares_batches: bool) -> None:
        """Take the signature that clients see, and whether requests may share a batch."""
        self._signature = signature
        self._shares_batches = shares_batches

    @property
    def signature(self) -> Signature:
        """What clients see. Raises NotReadyError until the model is open."""
        if self._signature is None:
            raise NotReadyError(f"the model is not ready: the agent is {self.health.phase}")
        return self._signature

    def check_model(self, name: str, version: str) -> None:
        """Raise NotFoundError unless this agent serves *version* (empty for any) of endpoint *name*."""
        if name != self.manifest.endpoint:
            raise NotFoundError(f"no model {name!r} here; this agent serves {self.manifest.endpoint!r}")
        if version and version != str(self.manifest.version):
            raise NotFoundError(
                f"no version {version!r} of {name!r} here; this agent serves version {self.manifest.version}"
            )

    def model_ready(self, name: str, version: str) -> bool:
        """Tell whether the model answers and new clients are welcome. Raises NotFoundError."""
        self.check_model(name, version)
        return self.health.is_ready

    def server_metadata(self) -> dict[str, Any]:
        """Return the reply of `GET /v2`."""
        return {
            "name": wire.SERVER_NAME,
            "version": self.manifest.version_ref,
            "extensions": list(wire.EXTENSIONS),
        }

    def model_metadata(self, name: str, version: str) -> dict[str, Any]:
        """Return the reply of `GET /v2/models/{name}`. Raises NotFoundError or NotReadyError."""
        self.check_model(name, version)
        signature = self.signature
        return {
            "name": name,
            "versions": [str(self.manifest.version)],
            "platform": self.platform,
            "inputs": [_metadata(spec) for spec in signature.inputs],
            "outputs": [_metadata(spec) for spec in signature.outputs],
        }

    def model_config(self, name: str, version: str) -> dict[str, Any]:
        """Return Triton's model configuration, which NVIDIA's clients ask for.

        Where requests share batches `max_batch_size` is the largest one's rows, and the dimensions are those
        of one row; 0 says that they include the rows. Raises NotFoundError or NotReadyError.
        """
        self.check_model(name, version)
        signature = self.signature
        batched = self._shares_batches
        config: dict[str, Any] = {
            "name": name,
            "platform": self.platform,
            "max_batch_size": self.manifest.options.batching.max_rows if batched else 0,
            "input": [_config(spec, batched=batched) for spec in signature.inputs],
            "output": [_config(spec, batched=batched) for spec in signature.outputs],
        }
        return config | ({"dynamic_batching": {}} if batched else {})

    def model_statistics(self, name: str, version: str) -> dict[str, Any]:
        """Return Triton's statistics of model *name*, empty for whichever. Raises NotFoundError."""
        self.check_model(name or self.manifest.endpoint, version)
        memory_bytes = {"rss": resident_bytes(), "cuda": cuda_bytes()}
        return statistics.model_statistics(self.manifest, self.measurements, memory_bytes)

    def repository_index(self, *, ready_only: bool) -> list[dict[str, str]]:
        """Return the reply of Triton's repository index."""
        health = self.health
        return repository.index(
            self.manifest, is_ready=health.is_ready, reason=health.phase, ready_only=ready_only
        )

    @property
    def platform(self) -> str:
        """The protocol's name for the artefact's format."""
        return PLATFORM.get(self.manifest.format, self.manifest.format)

    async def infer(self, request: InferRequest) -> InferReply:
        """Return the reply to *request*; cancelling the caller drops the work if it has not begun.

        Raises what `submit` raises, DeadlineError, and ModelError.
        """
        answered: asyncio.Future[InferReply] = asyncio.get_running_loop().create_future()
        request.is_written_later = True
        work = self.submit(request, partial(_resolve, answered))
        try:
            return await answered
        finally:
            if work is not None:
                self.cancel(work)

    def check_concurrency(self) -> None:
        """Raise TooManyError while there are more requests than the agent takes at once."""
        try:
            self.health.check_concurrency()
        except TooManyError:
            self.profiler.failed()
            raise

    def submit(self, request: InferRequest, done: Done) -> Work | None:
        """Check *request*, queue it and return its work; *done* is called once with the wanted outputs.

        Where the cache holds the answer *done* is called before this returns None. Raises NotFoundError,
        NotReadyError, TooManyError, InvalidRequestError, TooLargeError, QueueFullError, OverloadedError.
        """
        try:
            return self._accept(request, done)
        except (QueueFullError, OverloadedError):
            self.profiler.failed()
            raise

    def _accept(self, request: InferRequest, done: Done) -> Work | None:
        self.check_model(request.model, request.version)
        self.health.check_answering()
        self.check_concurrency()
        signature = self.signature
        wanted = validation.select_outputs(signature, request.outputs)
        inputs = validation.decode_inputs(
            signature, request.inputs, self.manifest.nan_policy, self.manifest.limits.max_elements
        )
        request.inputs = ()  # the arrays hold what is needed of them
        record = self._recorded(request, inputs, signature.inputs, wanted)
        if self._cache.is_on:
            return self._submit_cached(request, inputs, wanted, done, record)
        return self._queue(request, inputs, partial(self._reply, request, wanted, done), record)

    async def infer_plainly(self, inputs: Inputs) -> tuple[OutputTensor, ...]:
        """Return all outputs for *inputs*, past cache and request counts: the health checker's way.

        Raises QueueFullError, OverloadedError, DeadlineError, ModelError.
        """
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        test = InferRequest("", "", ())
        work = self._queue(test, copied(inputs), partial(_resolve, answered), is_test=True)
        try:
            return (await answered).outputs
        finally:
            self.cancel(work)

    def cancel(self, work: Work) -> None:
        """Forget *work*: its client has gone."""
        self._thread.cancel(work)

    def _recorded(self, request: InferRequest, inputs: Inputs, specs: Specs, wanted: Specs) -> Told | None:
        """Return what is told of the outcome where *request* is part of a rollout, or kept as a sample."""
        records = []
        if request.rollout:
            records.append(self.recorder.begin(request, inputs, specs))
        if self.samples.is_on and (sample := self.samples.begin(request, inputs, specs)):
            records.append(sample)
        return partial(_record, records, wanted) if records else None

    def _submit_cached(
        self, request: InferRequest, inputs: Inputs, wanted: Specs, done: Done, record: Told | None
    ) -> Work | None:
        names = [spec.name for spec in wanted]
        key = response_cache.key(self.manifest.digest, inputs, names, request.parameters)
        outputs = self._cache.get(key, time.monotonic())
        if outputs is None:
            self.measurements.cache_misses += 1
            return self._queue(request, inputs, partial(self._keep, key, request, wanted, done), record)
        self.measurements.cache_hit(time.perf_counter() - request.arrived_s)
        done(InferReply(request.id, outputs))
        if record is not None:
            record(Answer(outputs, 0.0, StageTimes()))
        return None

    def _keep(self, key: bytes, request: InferRequest, wanted: Specs, done: Done, outcome: Outcome) -> None:
        self._reply(request, wanted, done, outcome)
        if isinstance(outcome, Answer):
            self._cache.put(key, selected(outcome.outputs, wanted), time.monotonic())

    def _queue(
        self,
        request: InferRequest,
        inputs: Inputs,
        done: Told,
        record: Told | None = None,
        *,
        is_test: bool = False,
    ) -> Work:
        own_s = self.manifest.limits.request_timeout_s
        timeout_s = own_s if request.timeout_s is None else min(own_s, request.timeout_s)
        shapes = tuple(array.shape[1:] for array in inputs.values())
        work = Work(
            inputs=inputs,
            rows=next(iter(inputs.values())).shape[0] if self._shares_batches else 1,
            group=(shapes, repr(request.parameters))
            if self._shares_batches
            else None,  # 1, 1.0 and true differ
            parameters=request.parameters,
            submitted_s=time.perf_counter(),
            timeout_s=timeout_s,
            deadline_s=request.arrived_s + timeout_s,
            done=done,
            record=record,
            is_test=is_test,
        )
        self._thread.submit(work)
        return work

    def _reply(self, request: InferRequest, wanted: Specs, done: Done, outcome: Outcome) -> None:
        if isinstance(outcome, AgentError):
            self.measurements.failed_after(time.perf_counter() - request.arrived_s)
            self.profiler.failed()
            done(outcome)
        else:
            answered_s = time.perf_counter()
            self.measurements.request.observe(answered_s - request.arrived_s)
            done(InferReply(request.id, selected(outcome.outputs, wanted)))
            if self.profiler.is_on:
                sent_s = None if request.is_written_later else time.perf_counter()
                self.profiler.took(request.arrived_s, answered_s, sent_s, outcome)
        if self.tracer is not None:
            self.tracer.record(request, outcome)


def selected(outputs: Sequence[OutputTensor], wanted: Specs) -> tuple[OutputTensor, ...]:
    """Return the *wanted* ones of *outputs*, in the order wanted."""
    if len(outputs) == len(wanted) == 1:
        return tuple(outputs)
    by_name = {output.name: output for output in outputs}
    return tuple(by_name[spec.name] for spec in wanted)


def _record(records: Sequence[Record], wanted: Specs, outcome: Outcome) -> None:
    """Have *outcome* recorded as its client gets it. Never raises: the client has its answer."""
    for record in records:
        try:
            record(selected(outcome.outputs, wanted) if isinstance(outcome, Answer) else outcome)
        except Exception:
            logger.exception("an answer could not be recorded")


def _resolve(future: asyncio.Future[T], outcome: T | AgentError) -> None:
    if future.done():
        return
    if isinstance(outcome, AgentError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def config_datatype(datatype: str) -> str:
    """Return the name that Triton's model configuration has for *datatype*."""
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def _config(spec: TensorSpec, *, batched: bool) -> dict[str, Any]:
    dims = spec.shape[1:] if batched else spec.shape
    return {"name": spec.name, "data_type": config_datatype(spec.datatype), "dims": list(dims)}
