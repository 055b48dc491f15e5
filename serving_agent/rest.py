"""The REST transport over the dataplane: routes, headers, statuses. Errors are `{"error": sentence}`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
import orjson

from serving_agent import (
    body,
    internal_pages,
    openapi,
    predecoding,
    predict_codec,
    repository,
    rest_codec,
    tracing,
)
from serving_agent.client_timeout import timeout_s
from serving_agent.contract import profile, wire
from serving_agent.dataplane import DataPlane
from serving_agent.decode_thread import DecodeThread
from serving_agent.errors import (
    HTTP_STATUS,
    AgentError,
    MethodError,
    NotFoundError,
    TooManyError,
    UnavailableError,
)
from serving_agent.http_message import Headers, Response, header_lines
from serving_agent.http_protocol import Exchange
from serving_agent.messages import InferReply, InferRequest

logger = logging.getLogger(__name__)

TRANSPORT: Final = "rest"
METRICS_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
RETRY_AFTER_S: Final = 1
"""What a 503 or 429 tells clients to wait, in seconds: a queue drains and a rollout moves on in that time."""
TRACEPARENT: Final = tracing.TRACEPARENT.encode()
ROLLOUT: Final = wire.ROLLOUT_HEADER.encode()
REQUEST_ID: Final = wire.REQUEST_ID_HEADER.encode()
JSON_LENGTH: Final = wire.JSON_LENGTH_HEADER.encode()
CLIENT_GONE: Final = 499
"""nginx's code for a client that went away before its answer."""

Encode = Callable[[InferReply], Response]
Decoded = tuple[InferRequest, Encode]
Page = Callable[[], Response]


class Inference(msgspec.Struct, frozen=True):
    """An inference route: the model it names and how its body is read."""

    model: str
    version: str
    decode: Callable[[Inference, Exchange], Decoded]
    takes_binary: bool = True
    """Whether binary tensors may follow the JSON."""


class RestApp:
    """Answers the exchanges of one agent's HTTP server."""

    def __init__(self, dataplane: DataPlane, decode_thread: DecodeThread) -> None:
        self._dataplane = dataplane
        self._decode_thread = decode_thread
        manifest = dataplane.manifest
        self._version = str(manifest.version)
        self._identity = header_lines({
            wire.VERSION_HEADER: manifest.version_ref,
            wire.DIGEST_HEADER: manifest.digest,
        })  # fmt: skip
        self._own_route = f"/v2/models/{manifest.endpoint}/infer"
        self._own_inference = Inference(manifest.endpoint, "", self._infer)

    def __call__(self, exchange: Exchange) -> None:
        """Answer *exchange*, now or once the model has."""
        inference = self._inference(exchange.path)
        if inference is not None:
            self._run(inference, exchange)
        elif exchange.path == profile.ROUTE and not internal_pages.came_through_gateway(exchange.headers):
            self._profile(exchange)
        else:
            exchange.answer(self._page(exchange), self._identity)

    def _profile(self, exchange: Exchange) -> None:
        """Answer once the profile has been taken, or at once where it cannot be."""
        try:
            self._dataplane.profiler.answer(exchange, self._respond)
        except Exception as failure:  # noqa: BLE001 - this is the edge of a request; failed logs it
            self._respond(exchange, failure)

    def _respond(self, exchange: Exchange, outcome: Response | Exception) -> None:
        response = failed(outcome)[0] if isinstance(outcome, Exception) else outcome
        exchange.answer(response, self._identity)

    # inference

    def _inference(self, path: str) -> Inference | None:
        if path == self._own_route:
            return self._own_inference
        match path.split("/"):
            case ["", "predict"]:
                return Inference(self._dataplane.manifest.endpoint, "", self._predict, takes_binary=False)
            case ["", "v2", "models", model, "infer"]:
                return Inference(model, "", self._infer)
            case ["", "v2", "models", model, "versions", version, "infer"]:
                return Inference(model, version, self._infer)
        return None

    def _run(self, inference: Inference, exchange: Exchange) -> None:
        """Answer one inference, counted once whatever becomes of it."""
        self._dataplane.health.begin_request()
        exchange.on_gone = partial(self._count, CLIENT_GONE)
        self._attempt(exchange, partial(self._submit, inference, exchange))

    def _attempt(self, exchange: Exchange, step: Callable[[], None]) -> None:
        """Take *step*, and answer *exchange* where it fails."""
        try:
            step()
        except Exception as failure:  # noqa: BLE001 - this is the edge of a request; failed logs it
            response, error = failed(failure)
        else:
            return
        self._finish(exchange, response, error)

    def _submit(self, inference: Inference, exchange: Exchange) -> None:
        if exchange.error is not None:
            raise exchange.error
        if exchange.method != b"POST":
            raise MethodError("this route takes POST", "POST")
        self._dataplane.check_model(inference.model, inference.version)
        self._dataplane.health.check_answering()
        if is_slow(inference, exchange):
            self._decode_aside(inference, exchange)
        else:
            self._queue(exchange, inference.decode(inference, exchange))

    def _decode_aside(self, inference: Inference, exchange: Exchange) -> None:
        """Have a large request read on another thread, then go on with it."""
        self._dataplane.check_concurrency()
        decoding = self._decode_thread.run(partial(decoded_fully, inference, exchange))
        exchange.on_gone = partial(self._forget_decoding, decoding)
        decoding.add_done_callback(partial(self._queue_decoded, exchange))

    def _queue_decoded(self, exchange: Exchange, decoding: asyncio.Future[Decoded]) -> None:
        if decoding.cancelled():
            return
        decoding.exception()  # has been looked at, also where nobody waits for it any more
        if not exchange.is_over:
            exchange.on_gone = partial(self._count, CLIENT_GONE)
            self._attempt(exchange, lambda: self._queue(exchange, decoding.result()))

    def _queue(self, exchange: Exchange, decoded: Decoded) -> None:
        request, encode = decoded
        exchange.body = b""  # the arrays hold what they need of it
        work = self._dataplane.submit(request, partial(self._answer, exchange, encode))
        if work is not None:
            exchange.on_gone = partial(self._forget, work)

    def _answer(self, exchange: Exchange, encode: Encode, outcome: InferReply | AgentError) -> None:
        error: AgentError | None = None
        try:
            response = self._reply(exchange, encode, outcome)
        except Exception as failure:  # noqa: BLE001 - this is the edge of a request; failed logs it
            response, error = failed(failure)
        self._finish(exchange, response, error)

    def _reply(self, exchange: Exchange, encode: Encode, outcome: InferReply | AgentError) -> Response:
        if isinstance(outcome, AgentError):
            raise outcome
        return self._packed(exchange, encode(outcome))

    def _finish(self, exchange: Exchange, response: Response, error: AgentError | None = None) -> None:
        """Send the answer and count it; without effect where the exchange is over and counted."""
        if exchange.is_over:
            return
        try:
            exchange.answer(response, self._identity)
        finally:
            self._count(response.status, error)

    def _forget_decoding(self, decoding: asyncio.Future[Decoded]) -> None:
        decoding.cancel()
        self._count(CLIENT_GONE)

    def _forget(self, work: Any) -> None:
        self._dataplane.cancel(work)
        self._count(CLIENT_GONE)

    def _count(self, status: int, error: AgentError | None = None) -> None:
        self._dataplane.health.end_request()
        self._dataplane.measurements.answer(TRANSPORT, status, error)

    def _infer(self, inference: Inference, exchange: Exchange) -> Decoded:
        length = exchange.headers.get(JSON_LENGTH)
        text = None if length is None else length.decode("latin-1")
        decoded = rest_codec.decode(self._unpacked(exchange), text, inference.model, inference.version)
        request = self._timed(decoded.request, exchange)
        return request, partial(self._encode, inference.model, decoded.form)

    def _encode(self, model: str, form: rest_codec.ReplyForm, reply: InferReply) -> Response:
        encoded = rest_codec.encode(reply, model, self._version, form)
        if encoded.json_length is None:
            return Response(encoded.parts)
        size = str(encoded.json_length).encode()
        headers = ((JSON_LENGTH, size),)
        return Response(encoded.parts, content_type=rest_codec.BINARY_TYPE, headers=headers)

    def _predict(self, inference: Inference, exchange: Exchange) -> Decoded:
        signature = self._dataplane.signature
        request = predict_codec.decode(self._unpacked(exchange), inference.model, signature)
        return self._timed(request, exchange), lambda reply: Response((predict_codec.encode(reply),))

    def _unpacked(self, exchange: Exchange) -> body.Body:
        encoding = exchange.headers.get(b"content-encoding")
        if encoding is None:
            return exchange.body
        return body.unpack(exchange.body, encoding, self._dataplane.manifest.limits.max_request_bytes)

    def _packed(self, exchange: Exchange, response: Response) -> Response:
        encoding = body.wanted_encoding(exchange.headers.get(b"accept-encoding", b""))
        if encoding is None:
            return response
        packed = body.pack(response.body, encoding)
        headers = (*response.headers, (b"content-encoding", encoding))
        return Response((packed,), response.status, response.content_type, headers)

    def _timed(self, request: InferRequest, exchange: Exchange) -> InferRequest:
        limits = [limit for limit in (request.timeout_s, timeout_s(exchange.headers)) if limit is not None]
        request.arrived_s = exchange.arrived_s
        request.timeout_s = min(limits, default=None)
        request.traceparent = exchange.headers.get(TRACEPARENT, b"").decode("latin-1")
        request.rollout = exchange.headers.get(ROLLOUT, b"").decode("latin-1")
        request.request_id = exchange.headers.get(REQUEST_ID, b"").decode("latin-1")
        return request

    # everything else

    def _page(self, exchange: Exchange) -> Response:
        try:
            if exchange.error is not None:
                raise exchange.error
            return self._routed(exchange)
        except Exception as failure:  # noqa: BLE001 - this is the edge of a request; failed logs it
            return failed(failure)[0]

    def _routed(self, exchange: Exchange) -> Response:
        parts = exchange.path.split("/")
        if parts[:3] == ["", "v2", "repository"]:
            return self._repository(exchange, parts[3:])
        page = self._reader(parts, exchange)
        if page is None:
            raise NotFoundError("no such route")
        if exchange.method not in (b"GET", b"HEAD"):
            raise MethodError("this route takes GET", "GET, HEAD")
        return page()

    def _repository(self, exchange: Exchange, parts: list[str]) -> Response:
        if exchange.method != b"POST":
            raise MethodError("this route takes POST", "POST")
        match parts:
            case ["index"]:
                ready_only = repository.wants_ready_only(bytes(self._unpacked(exchange)))
                return json_response(self._dataplane.repository_index(ready_only=ready_only))
            case ["models", model, "load" | "unload" as change]:
                repository.refuse_change(self._dataplane.manifest, change, model)
        raise NotFoundError("no such route")

    def _reader(self, parts: list[str], exchange: Exchange) -> Page | None:
        match parts:
            case ["", "internal", "captures"] if not internal_pages.came_through_gateway(exchange.headers):
                return lambda: internal_pages.captures(self._dataplane.recorder, exchange.target)
            case ["", "internal", "samples"] if not internal_pages.came_through_gateway(exchange.headers):
                return lambda: internal_pages.samples(self._dataplane.samples, exchange.target)
            case ["", "health"]:
                return lambda: Response((msgspec.json.encode(self._dataplane.health.status()),))
            case ["", "ready"]:
                return lambda: self._readiness("ready")
            case ["", "metrics"]:
                return lambda: Response((self._dataplane.metrics.render(),), content_type=METRICS_TYPE)
            case ["", "openapi.json"]:
                return lambda: json_response(
                    openapi.describe(self._dataplane.manifest, self._dataplane.signature)
                )
            case ["", "v2", *rest]:
                return self._protocol_reader(rest)
        return None

    def _protocol_reader(self, parts: list[str]) -> Page | None:
        match parts:
            case []:
                return lambda: json_response(self._dataplane.server_metadata())
            case ["health", "live"]:
                return lambda: json_response({"live": True})
            case ["health", "ready"]:
                return lambda: self._readiness("ready")
            case ["models", "stats"]:
                return lambda: json_response(self._dataplane.model_statistics("", ""))
            case ["models", model, "versions", version, *rest]:
                return self._model_reader(model, version, rest)
            case ["models", model, *rest]:
                return self._model_reader(model, "", rest)
        return None

    def _model_reader(self, model: str, version: str, rest: list[str]) -> Page | None:
        match rest:
            case []:
                return lambda: json_response(self._dataplane.model_metadata(model, version))
            case ["config"]:
                return lambda: json_response(self._dataplane.model_config(model, version))
            case ["stats"]:
                return lambda: json_response(self._dataplane.model_statistics(model, version))
            case ["ready"]:
                return lambda: self._model_readiness(model, version)
        return None

    def _readiness(self, key: str) -> Response:
        health = self._dataplane.health
        return json_response({key: health.is_ready, "phase": health.phase}, 200 if health.is_ready else 503)

    def _model_readiness(self, model: str, version: str) -> Response:
        ready = self._dataplane.model_ready(model, version)
        return json_response({"name": model, "ready": ready}, 200 if ready else 503)


def is_slow(inference: Inference, exchange: Exchange) -> bool:
    """Tell whether reading the request takes long; a wrong length of its JSON part is found out quickly."""
    content = exchange.body
    is_packed = exchange.headers.get(b"content-encoding", b"identity") != b"identity"
    length = exchange.headers.get(JSON_LENGTH) if inference.takes_binary else None
    if length is None or is_packed or len(content) < predecoding.LARGE:
        return predecoding.is_slow(content, len(content), is_packed=is_packed)
    size = rest_codec.json_length(length.decode("latin-1"), len(content))
    return predecoding.is_slow(content, size, is_packed=False)


def decoded_fully(inference: Inference, exchange: Exchange) -> Decoded:
    """Return the request and how its reply is written, its tensors made arrays already; any thread's."""
    request, encode = inference.decode(inference, exchange)
    request.inputs = predecoding.with_arrays(request.inputs)
    return request, encode


def failed(error: Exception) -> tuple[Response, AgentError | None]:
    """Return how *error* is answered and counted; what is no AgentError is the agent's own and logged."""
    if isinstance(error, AgentError):
        # the frames of its traceback hold the request, and its catcher's holds it: a cycle that lives on
        return error_response(error), error.with_traceback(None)
    logger.error("a request could not be answered", exc_info=error)
    return internal_error(), None


def json_response(value: Any, status: int = 200) -> Response:
    """Return *value* as a JSON answer."""
    return Response((orjson.dumps(value),), status)


def error_response(error: AgentError) -> Response:
    """Return the answer to a request that failed with *error*."""
    headers: Headers = ()
    if isinstance(error, UnavailableError | TooManyError):
        headers = ((b"retry-after", str(RETRY_AFTER_S).encode()),)
    elif isinstance(error, MethodError):
        headers = ((b"allow", error.allowed.encode()),)
    return Response((orjson.dumps({"error": str(error)}),), HTTP_STATUS[error.code], headers=headers)


def internal_error() -> Response:
    """Return the answer to a request that the agent itself failed on; the log holds the traceback."""
    return Response((orjson.dumps({"error": "the agent failed on this request; its log tells more"}),), 500)
