"""The gRPC transport: `inference.GRPCInferenceService` and `grpc.health.v1.Health` over the dataplane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2_grpc

from serving_agent import grpc_codec, repository
from serving_agent.contract import proto, wire
from serving_agent.dataplane import DataPlane
from serving_agent.decode_thread import DecodeThread
from serving_agent.grpc_health import HealthService
from serving_agent.grpc_inference import Inference, identity_of
from serving_agent.grpc_refusal import Metadata, abort, refusal_of

SERVICES: Final = ("", wire.GRPC_SERVICE)
"""Names under which the health service knows this agent: the whole server and the inference service."""

Fields = dict[str, Any]
Answer = Callable[[Any], Fields]
"""A request message to the fields of its response; raises AgentError."""
Call = Callable[[bytes, Any], Awaitable[bytes | None]]


class GrpcServer:
    """The gRPC face of one agent, on the running loop."""

    def __init__(self, dataplane: DataPlane, decode_thread: DecodeThread) -> None:
        self._dataplane = dataplane
        self._health = HealthService(SERVICES, lambda: dataplane.health.is_ready)
        self._inference = Inference(dataplane, decode_thread)
        self._server = grpc.aio.server(options=server_options(dataplane.manifest.limits.max_request_bytes))
        self._server.add_generic_rpc_handlers((self._handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self, address: str) -> None:
        """Listen on *address*, in gRPC's notation. Raises RuntimeError where it cannot be bound."""
        self._server.add_insecure_port(address)
        await self._server.start()

    def tell_readiness(self) -> None:
        """Have the health service tell its clients at once whether to come here."""
        self._health.tell()

    async def stop(self, grace_s: float) -> None:
        """Take no new calls and return once the running ones have ended or *grace_s* has passed.

        Streams, which would go on, end once what they have sent is answered.
        """
        self._inference.end_streams()
        self._health.end()
        await self._server.stop(grace_s)

    def _handlers(self) -> grpc.GenericRpcHandler:
        answers: dict[str, Answer] = {
            "ServerLive": lambda _: {"live": True},
            "ServerReady": lambda _: {"ready": self._dataplane.health.is_ready},
            "ModelReady": self._model_ready,
            "ServerMetadata": lambda _: self._dataplane.server_metadata(),
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._refuse_load,
            "RepositoryModelUnload": self._refuse_unload,
            "SystemSharedMemoryStatus": check_region,
            "CudaSharedMemoryStatus": check_region,
            # what is not registered is unregistered already: stock clients begin with this
            "SystemSharedMemoryUnregister": lambda _: {},
            "CudaSharedMemoryUnregister": lambda _: {},
            **{name: refused(name) for name in repository.REFUSED_CALLS},
        }
        identity = identity_of(self._dataplane.manifest)
        # messages are parsed and written by the handlers, so that a malformed one is answered with a sentence
        methods = {
            name: grpc.unary_unary_rpc_method_handler(call_of(name, answer, identity))
            for name, answer in answers.items()
        }
        methods["ModelInfer"] = grpc.unary_unary_rpc_method_handler(self._inference.infer)
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._inference.stream)
        return grpc.method_handlers_generic_handler(wire.GRPC_SERVICE, methods)

    def _model_ready(self, request: Any) -> Fields:
        return {"ready": self._dataplane.model_ready(request.name, request.version)}

    def _model_metadata(self, request: Any) -> Fields:
        return self._dataplane.model_metadata(request.name, request.version)

    def _model_config(self, request: Any) -> Fields:
        return {"config": self._dataplane.model_config(request.name, request.version)}

    def _model_statistics(self, request: Any) -> Fields:
        return self._dataplane.model_statistics(request.name, request.version)

    def _repository_index(self, request: Any) -> Fields:
        return {"models": self._dataplane.repository_index(ready_only=request.ready)}

    def _refuse_load(self, request: Any) -> Fields:
        repository.refuse_change(self._dataplane.manifest, "load", request.model_name)

    def _refuse_unload(self, request: Any) -> Fields:
        repository.refuse_change(self._dataplane.manifest, "unload", request.model_name)


def call_of(name: str, answer: Answer, identity: Metadata) -> Call:
    """Return the handler of the unary method *name*: bytes in, bytes out, errors as gRPC statuses.

    *identity* goes with every answer.
    """
    request_class, response_class = (proto.message_class(f"{name}{end}") for end in ("Request", "Response"))

    async def call(data: bytes, context: Any) -> bytes | None:
        try:
            fields = answer(grpc_codec.parse(request_class(), data))
            response = bytes(response_class(**fields).SerializeToString())
        except Exception as error:  # noqa: BLE001 - this is the edge of a call; refusal_of logs it
            await abort(context, refusal_of(error), identity)
            return None
        context.set_trailing_metadata(identity)
        return response

    return call


def refused(name: str) -> Answer:
    """Return the answer of a method that agents refuse."""
    return lambda _: repository.refuse_call(name)


def check_region(request: Any) -> Fields:
    """Answer a question about shared-memory regions. Raises NotFoundError for a named one."""
    repository.check_region(request.name)
    return {"regions": {}}


def server_options(max_request_bytes: int) -> tuple[tuple[str, int], ...]:
    """Return channel options: bounded requests, and no second server on the same port.

    Responses are not bounded: a model may well answer more than it was asked.
    """
    return (
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
        ("grpc.max_metadata_size", 16 * 1024),
    )
