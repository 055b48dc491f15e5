"""ModelInfer and ModelStreamInfer: one inference message in, one answer out, counted once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc

from serving_agent import body, grpc_codec, predecoding
from serving_agent.client_timeout import timeout_s
from serving_agent.contract import proto, wire
from serving_agent.contract.manifest import Manifest
from serving_agent.dataplane import DataPlane
from serving_agent.decode_thread import DecodeThread
from serving_agent.grpc_refusal import Metadata, Refusal, abort, refusal_of
from serving_agent.grpc_stream import AnswerStream
from serving_agent.messages import InferRequest
from serving_agent.tracing import TRACEPARENT

TRANSPORT: Final = "grpc"
CLIENT_GONE: Final = 499
"""nginx's code for a client that went away before its answer."""
MAX_STREAM_REQUESTS: Final = 64
"""Requests of one stream that are worked on at once, unless the agent's own bounds are lower."""
PACKED_FROM_BYTES: Final = 1024
"""Smaller responses are not worth compressing."""
ROLLOUT: Final = wire.ROLLOUT_HEADER.encode()
REQUEST_ID: Final = wire.REQUEST_ID_HEADER.encode()
READ_METADATA: Final = frozenset({
    wire.TIMEOUT_HEADER,
    wire.GATEWAY_TIMEOUT_HEADER,
    wire.ROLLOUT_HEADER,
    wire.REQUEST_ID_HEADER,
    TRACEPARENT,
})  # fmt: skip
"""Keys of metadata that say something of a request."""
COMPRESSION: Final = {b"gzip": grpc.Compression.Gzip, b"deflate": grpc.Compression.Deflate}


@dataclass(frozen=True, slots=True)
class Call:
    """What one call brings beside its message."""

    waits_s: float | None
    """How long its client waits, in seconds; None without a deadline."""
    metadata: Mapping[bytes, bytes]
    """The call's text metadata: it may hold another limit of the wait, and a trace context."""


@dataclass(frozen=True, slots=True)
class Names:
    """What an answer repeats of its request; empty where that could not be read."""

    id: str = ""
    model_name: str = ""
    model_version: str = ""


class Inference:
    """Answers the inference calls of one agent."""

    def __init__(self, dataplane: DataPlane, decode_thread: DecodeThread) -> None:
        manifest = dataplane.manifest
        self._dataplane = dataplane
        self._decode_thread = decode_thread
        self._version = str(manifest.version)
        self._identity = identity_of(manifest)
        self._max_running = min(
            MAX_STREAM_REQUESTS,
            manifest.limits.max_queue,
            manifest.options.max_concurrency or MAX_STREAM_REQUESTS,
        )
        self._request_class = proto.message_class("ModelInferRequest")
        self._streams: set[AnswerStream] = set()
        self._is_ending = False

    async def infer(self, data: bytes, context: Any) -> bytes | None:
        """Answer ModelInfer; a refused request aborts the call."""
        answer, _ = await self._answer(data, call_of(context))
        if isinstance(answer, Refusal):
            await abort(context, answer, self._identity)
            return None
        context.set_trailing_metadata(self._identity)
        if len(answer) >= PACKED_FROM_BYTES:
            await compress_as_asked(context)
        return answer

    async def stream(self, _: Any, context: Any) -> None:
        """Answer ModelStreamInfer until its client ends it, or `end_streams` does."""
        context.set_trailing_metadata(self._identity)
        await compress_as_asked(context)

        async def answer(data: bytes) -> bytes:
            return await self._stream_answer(data, call_of(context))

        stream = AnswerStream(context, answer, self._max_running)
        self._streams.add(stream)
        if self._is_ending:
            stream.end()
        try:
            await stream.serve()
        finally:
            self._streams.discard(stream)

    def end_streams(self) -> None:
        """Take no more requests from open streams: they end once what they have sent is answered."""
        self._is_ending = True
        for stream in self._streams:
            stream.end()

    async def _stream_answer(self, data: bytes, call: Call) -> bytes:
        answer, names = await self._answer(data, call, is_streamed=True)
        if isinstance(answer, Refusal):
            return grpc_codec.refusal_on_stream(names, answer.sentence)
        return grpc_codec.on_stream(answer)

    async def _answer(
        self, data: bytes, call: Call, *, is_streamed: bool = False
    ) -> tuple[bytes | Refusal, Names]:
        """Return the response to the request in *data*, counted whatever becomes of it, and its names."""
        status, error, names = CLIENT_GONE, None, Names()
        self._dataplane.health.begin_request()
        try:
            message = grpc_codec.parse(self._request_class(), data)
            names = Names(message.id, message.model_name, message.model_version)
            request = await self._decoded(message, len(data), call)
            del message  # its tensors are not kept until the answer
            reply = await self._dataplane.infer(request)
            response = grpc_codec.encode(reply, names.model_name, self._version, is_streamed=is_streamed)
            status = 200
        except Exception as failure:  # noqa: BLE001 - this is the edge of a request; refusal_of logs it
            refusal = refusal_of(failure)
            failure.__traceback__ = None  # its frames hold the request, and this one holds it
            status, error = refusal.http_status, refusal.error
            return refusal, names
        else:
            return response, names
        finally:
            self._dataplane.health.end_request()
            self._dataplane.measurements.answer(TRANSPORT, status, error)

    async def _decoded(self, message: Any, size: int, call: Call) -> InferRequest:
        """Return the request in *message* of *size* bytes, of a large one read on another thread."""
        dataplane = self._dataplane
        dataplane.check_model(message.model_name, message.model_version)
        dataplane.health.check_answering()
        if size < predecoding.LARGE:
            return decoded(message, call)
        dataplane.check_concurrency()
        return await self._decode_thread.run(partial(decoded_fully, message, call))


def identity_of(manifest: Manifest) -> Metadata:
    """Return the metadata that tells which version answers."""
    return ((wire.VERSION_HEADER, manifest.version_ref), (wire.DIGEST_HEADER, manifest.digest))


def call_of(context: Any) -> Call:
    """Return what is to be known of the call of *context*."""
    told = {
        key.encode(): value.encode() for key, value in context.invocation_metadata() if key in READ_METADATA
    }
    return Call(context.time_remaining(), told)


def decoded(message: Any, call: Call) -> InferRequest:
    """Return the request in *message*. Raises InvalidRequestError."""
    limits = [limit for limit in (call.waits_s, timeout_s(call.metadata)) if limit is not None]
    request = grpc_codec.decode(message, min(limits, default=None))
    request.traceparent = call.metadata.get(TRACEPARENT.encode(), b"").decode()
    request.rollout = call.metadata.get(ROLLOUT, b"").decode()
    request.request_id = call.metadata.get(REQUEST_ID, b"").decode()
    return request


def decoded_fully(message: Any, call: Call) -> InferRequest:
    """Return the request in *message*, its tensors made arrays already; any thread's."""
    request = decoded(message, call)
    request.inputs = predecoding.with_arrays(request.inputs)
    return request


async def compress_as_asked(context: Any) -> None:
    """Compress the responses of a call whose metadata names an encoding, as HTTP's `accept-encoding` does.

    gRPC itself has no way to ask: it does not show the application how a client compresses its own messages.
    """
    for key, value in context.invocation_metadata():
        if key == "accept-encoding" and (encoding := body.wanted_encoding(value.encode())):
            context.set_compression(COMPRESSION[encoding])
            # the initial metadata names the encoding; left to itself, grpc.aio sends it without
            await context.send_initial_metadata(())
            return
