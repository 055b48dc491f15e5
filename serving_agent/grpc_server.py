"""The gRPC transport: `inference.GRPCInferenceService` and `grpc.health.v1.Health` over the dataplane."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from serving_agent import grpc_codec
from serving_agent.contract import proto, wire
from serving_agent.dataplane import DataPlane
from serving_agent.errors import GRPC_STATUS, HTTP_STATUS, AgentError

logger = logging.getLogger(__name__)

TRANSPORT: Final = "grpc"
SERVICES: Final = ("", wire.GRPC_SERVICE)
"""Names under which the health service knows this agent: the whole server and the inference service."""

Answer = Callable[[Any, Any], Awaitable[Any]]


class HealthService(health.aio.HealthServicer):  # type: ignore[misc]  # grpc_health has no types
    """The standard health service; while the model hangs on a request it sends clients elsewhere."""

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        super().__init__()
        self._is_ready = is_ready

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name is the protocol's
        """Answer what was set last, but never SERVING while the agent is not ready."""
        response = await super().Check(request, context)
        serving = health_pb2.HealthCheckResponse.SERVING
        if response.status == serving and not self._is_ready():
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)
        return response


class GrpcServer:
    """The gRPC face of one agent, on the running loop."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane
        self._health = HealthService(lambda: dataplane.health.is_ready)
        self._identity = (
            (wire.VERSION_HEADER, dataplane.manifest.version_ref),
            (wire.DIGEST_HEADER, dataplane.manifest.digest),
        )
        self._server = grpc.aio.server(options=server_options(dataplane.manifest.limits.max_request_bytes))
        self._server.add_generic_rpc_handlers((self._handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self, address: str) -> None:
        """Listen on *address*, in gRPC's notation. Raises RuntimeError where it cannot be bound."""
        await self.set_serving(serving=False)
        self._server.add_insecure_port(address)
        await self._server.start()

    async def set_serving(self, *, serving: bool) -> None:
        """Tell the clients of the health service whether to come here."""
        status = health_pb2.HealthCheckResponse
        for service in SERVICES:
            await self._health.set(service, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        """Take no new calls and return once the running ones have ended or *grace_s* has passed."""
        await self._server.stop(grace_s)

    def _handlers(self) -> grpc.GenericRpcHandler:
        answers: dict[str, Answer] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "RepositoryIndex": self._repository_index,
        }
        methods = {name: self._method(name, self._guarded(answer)) for name, answer in answers.items()}
        methods["ModelInfer"] = self._method("ModelInfer", self._model_infer)
        return grpc.method_handlers_generic_handler(wire.GRPC_SERVICE, methods)

    def _method(self, name: str, answer: Answer) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=proto.message_class(f"{name}Request").FromString,
            response_serializer=proto.message_class(f"{name}Response").SerializeToString,
        )

    def _guarded(self, answer: Answer) -> Answer:
        async def call(request: Any, context: Any) -> Any:
            try:
                return await answer(request, context)
            except AgentError as error:
                await abort(context, error)

        return call

    async def _server_live(self, request: Any, context: Any) -> Any:
        del request, context
        return proto.message_class("ServerLiveResponse")(live=True)

    async def _server_ready(self, request: Any, context: Any) -> Any:
        del request, context
        return proto.message_class("ServerReadyResponse")(ready=self._dataplane.health.is_ready)

    async def _model_ready(self, request: Any, context: Any) -> Any:
        del context
        ready = self._dataplane.model_ready(request.name, request.version)
        return proto.message_class("ModelReadyResponse")(ready=ready)

    async def _server_metadata(self, request: Any, context: Any) -> Any:
        del request, context
        return proto.message_class("ServerMetadataResponse")(**self._dataplane.server_metadata())

    async def _model_metadata(self, request: Any, context: Any) -> Any:
        del context
        metadata = self._dataplane.model_metadata(request.name, request.version)
        return proto.message_class("ModelMetadataResponse")(**metadata)

    async def _model_config(self, request: Any, context: Any) -> Any:
        del context
        config = self._dataplane.model_config(request.name, request.version)
        return proto.message_class("ModelConfigResponse")(config=config)

    async def _repository_index(self, request: Any, context: Any) -> Any:
        del context
        health, manifest = self._dataplane.health, self._dataplane.manifest
        response = proto.message_class("RepositoryIndexResponse")()
        if health.is_ready or not request.ready:
            state = "READY" if health.is_ready else "UNAVAILABLE"
            response.models.add(name=manifest.endpoint, version=str(manifest.version), state=state)
        return response

    async def _model_infer(self, request: Any, context: Any) -> Any:
        """Answer one inference request, counted once whatever becomes of it."""
        status = 499  # nginx's code for a client that went away before its answer
        context.set_trailing_metadata(self._identity)
        with self._dataplane.health.running():
            try:
                response = await self._infer(request, context)
                status = 200
                return response
            except AgentError as error:
                status = HTTP_STATUS[error.code]
                await abort(context, error)
            except asyncio.CancelledError:
                raise
            except Exception:
                status = 500
                logger.exception("a request could not be answered")
                await context.abort(
                    grpc.StatusCode.INTERNAL, "the agent failed on this request; its log tells more"
                )
            finally:
                self._dataplane.metrics.answered(TRANSPORT, status)

    async def _infer(self, message: Any, context: Any) -> Any:
        dataplane = self._dataplane
        dataplane.check_model(message.model_name, message.model_version)
        request = grpc_codec.decode(message, timeout_s=context.time_remaining())
        reply = await dataplane.infer(request)
        return grpc_codec.encode(reply, message.model_name, str(dataplane.manifest.version))


def server_options(max_request_bytes: int) -> tuple[tuple[str, int], ...]:
    """Return channel options: bounded messages, and no second server on the same port."""
    return (
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.max_send_message_length", max_request_bytes),
        ("grpc.so_reuseport", 0),
        ("grpc.max_metadata_size", 16 * 1024),
    )


async def abort(context: Any, error: AgentError) -> None:
    """End the call with *error*'s status and sentence; always raises."""
    await context.abort(grpc.StatusCode[GRPC_STATUS[error.code]], str(error))
