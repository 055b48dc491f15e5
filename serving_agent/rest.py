"""The REST transport: a plain ASGI application over the dataplane.

Routes are matched by splitting the path: the set is small and fixed. Error bodies are `{"error": sentence}`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import orjson

from serving_agent import predict_codec, rest_codec
from serving_agent.body import ClientGoneError, answer_unless_gone, read_body
from serving_agent.contract import wire
from serving_agent.dataplane import DataPlane
from serving_agent.errors import HTTP_STATUS, AgentError, MethodError, NotFoundError, UnavailableError

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

TRANSPORT: Final = "rest"
METRICS_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
RETRY_AFTER_S: Final = 1
"""What a 503 tells clients to wait, in seconds: a queue drains and a rollout moves on in that time."""


@dataclass(frozen=True, slots=True)
class Response:
    """One answer."""

    body: bytes
    status: int = 200
    content_type: bytes = rest_codec.JSON_TYPE
    headers: Headers = field(default=())


class RestApp:
    """The ASGI application of one agent."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane
        manifest = dataplane.manifest
        self._version = str(manifest.version)
        self._identity: Headers = (
            (wire.VERSION_HEADER.encode(), manifest.version_ref.encode()),
            (wire.DIGEST_HEADER.encode(), manifest.digest.encode()),
        )

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        path = scope["path"].rstrip("/") or "/"
        try:
            response = await self._answer(scope, path, receive)
        except ClientGoneError:
            return
        await self._send(response, send)

    async def _answer(self, scope: MutableMapping[str, Any], path: str, receive: Receive) -> Response:
        if inference := self._inference(path):
            return await self._run_inference(inference, scope, receive)
        try:
            return self._get(scope["method"], path)
        except AgentError as error:
            return error_response(error)
        except Exception:
            logger.exception("a request could not be answered")
            return internal_error()

    def _inference(self, path: str) -> Inference | None:
        if path == "/predict":
            return Inference(self._dataplane.manifest.endpoint, "", self._predict)
        match path.split("/"):
            case ["", "v2", "models", model, "infer"]:
                return Inference(model, "", self._infer)
            case ["", "v2", "models", model, "versions", version, "infer"]:
                return Inference(model, version, self._infer)
        return None

    async def _run_inference(
        self, inference: Inference, scope: MutableMapping[str, Any], receive: Receive
    ) -> Response:
        """Answer one inference request, counted once whatever becomes of it."""
        status = 499  # nginx's code for a client that went away before its answer
        with self._dataplane.health.running():
            try:
                response = await self._guarded(inference, scope, receive)
                status = response.status
            finally:
                self._dataplane.metrics.answered(TRANSPORT, status)
        return Response(
            response.body, response.status, response.content_type, (*self._identity, *response.headers)
        )

    async def _guarded(
        self, inference: Inference, scope: MutableMapping[str, Any], receive: Receive
    ) -> Response:
        try:
            if scope["method"] != "POST":
                raise MethodError("this route takes POST")
            self._dataplane.check_model(inference.model, inference.version)
            headers: dict[bytes, bytes] = dict(scope["headers"])
            body = await read_body(headers, receive, self._dataplane.manifest.limits.max_request_bytes)
            return await answer_unless_gone(inference.answer(inference, headers, body), receive)
        except AgentError as error:
            return error_response(error)
        except (ClientGoneError, asyncio.CancelledError):
            raise
        except Exception:
            logger.exception("a request could not be answered")
            return internal_error()

    async def _infer(self, inference: Inference, headers: dict[bytes, bytes], body: bytes) -> Response:
        length = headers.get(wire.JSON_LENGTH_HEADER.encode())
        text = None if length is None else length.decode("latin-1")
        decoded = rest_codec.decode(body, text, inference.model, inference.version)
        reply = await self._dataplane.infer(
            dataclasses.replace(decoded.request, timeout_s=timeout_s(headers))
        )
        encoded = rest_codec.encode(reply, inference.model, self._version, decoded)
        if encoded.json_length is None:
            return Response(encoded.body)
        size = str(encoded.json_length).encode()
        return Response(
            encoded.body,
            content_type=rest_codec.BINARY_TYPE,
            headers=((wire.JSON_LENGTH_HEADER.encode(), size),),
        )

    async def _predict(self, inference: Inference, headers: dict[bytes, bytes], body: bytes) -> Response:
        self._dataplane.health.check_answering()
        request = predict_codec.decode(body, inference.model, self._dataplane.signature)
        reply = await self._dataplane.infer(dataclasses.replace(request, timeout_s=timeout_s(headers)))
        return Response(predict_codec.encode(reply))

    def _get(self, method: str, path: str) -> Response:
        answer = self._reader(path.split("/"))
        if answer is None:
            raise NotFoundError("no such route")
        if method != "GET":
            raise MethodError("this route takes GET")
        return answer()

    def _reader(self, parts: list[str]) -> Callable[[], Response] | None:
        match parts:
            case ["", "health"]:
                return lambda: Response(msgspec.json.encode(self._dataplane.health.status()))
            case ["", "ready"]:
                return lambda: self._readiness("ready")
            case ["", "metrics"]:
                return lambda: Response(self._dataplane.metrics.render(), content_type=METRICS_TYPE)
            case ["", "v2", *rest]:
                return self._protocol_reader(rest)
        return None

    def _protocol_reader(self, parts: list[str]) -> Callable[[], Response] | None:
        match parts:
            case []:
                return lambda: json_response(self._dataplane.server_metadata())
            case ["health", "live"]:
                return lambda: json_response({"live": True})
            case ["health", "ready"]:
                return lambda: self._readiness("ready")
            case ["models", model, "versions", version, *rest]:
                return self._model_reader(model, version, rest)
            case ["models", model, *rest]:
                return self._model_reader(model, "", rest)
        return None

    def _model_reader(self, model: str, version: str, rest: list[str]) -> Callable[[], Response] | None:
        match rest:
            case []:
                return lambda: json_response(self._dataplane.model_metadata(model, version))
            case ["config"]:
                return lambda: json_response(self._dataplane.model_config(model, version))
            case ["ready"]:
                return lambda: self._model_readiness(model, version)
        return None

    def _readiness(self, key: str) -> Response:
        health = self._dataplane.health
        return json_response({key: health.is_ready, "phase": health.phase}, 200 if health.is_ready else 503)

    def _model_readiness(self, model: str, version: str) -> Response:
        ready = self._dataplane.model_ready(model, version)
        return json_response({"name": model, "ready": ready}, 200 if ready else 503)

    async def _send(self, response: Response, send: Send) -> None:
        headers = [
            (b"content-type", response.content_type),
            (b"content-length", str(len(response.body)).encode()),
            *response.headers,
        ]
        if self._dataplane.health.phase == "draining":
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})


@dataclass(frozen=True, slots=True)
class Inference:
    """An inference route: the model it names and how its body is answered."""

    model: str
    version: str
    answer: Callable[[Inference, dict[bytes, bytes], bytes], Awaitable[Response]]


def timeout_s(headers: dict[bytes, bytes]) -> float | None:
    """Return how long the gateway still waits, in seconds, where it says so."""
    text = headers.get(wire.TIMEOUT_HEADER.encode(), b"")
    return int(text) / 1000 if text.isdigit() else None


def json_response(value: Any, status: int = 200) -> Response:
    """Return *value* as a JSON answer."""
    return Response(orjson.dumps(value), status)


def error_response(error: AgentError) -> Response:
    """Return the answer to a request that failed with *error*."""
    retry = ((b"retry-after", str(RETRY_AFTER_S).encode()),) if isinstance(error, UnavailableError) else ()
    return Response(orjson.dumps({"error": str(error)}), HTTP_STATUS[error.code], headers=retry)


def internal_error() -> Response:
    """Return the answer to a request that the agent itself failed on; the log holds the traceback."""
    return Response(orjson.dumps({"error": "the agent failed on this request; its log tells more"}), 500)
