"""The upper bound: as little as a Python server can do between socket and model. Not a server to use.

REST: a bare ASGI application under uvicorn with uvloop and httptools; orjson; no validation, no queue, no
batching, no metrics; the model runs on the event loop. gRPC: grpc.aio with the protocol's messages, alike.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import grpc
import numpy as np
import orjson
import uvicorn
from torch_model import infer, load  # type: ignore[import-not-found] # beside this file
from tritonclient.grpc import service_pb2

MODEL = load()
JSON_LENGTH = b"inference-header-content-length"


async def app(scope: Any, receive: Any, send: Any) -> None:
    body = await _body(receive)
    json_length = next((value for name, value in scope["headers"] if name == JSON_LENGTH), None)
    if json_length is None:
        reply, headers = _json(body), [(b"content-type", b"application/json")]
    else:
        head, raw = _binary(body, int(json_length))
        reply, headers = head + raw, [(JSON_LENGTH, b"%d" % len(head))]
    headers.append((b"content-length", b"%d" % len(reply)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": reply})


async def _body(receive: Any) -> bytes:
    message = await receive()
    if not message["more_body"]:
        return bytes(message["body"])
    parts = [message["body"]]
    while message["more_body"]:
        message = await receive()
        parts.append(message["body"])
    return b"".join(parts)


def _json(body: bytes) -> bytes:
    tensor = orjson.loads(body)["inputs"][0]
    y = infer(MODEL, np.array(tensor["data"], np.float32).reshape(tensor["shape"]))
    return _reply({"name": "y", "shape": y.shape, "datatype": "FP32", "data": y.reshape(-1)})


def _binary(body: bytes, json_length: int) -> tuple[bytes, bytes]:
    shape = orjson.loads(body[:json_length])["inputs"][0]["shape"]
    y = infer(MODEL, np.frombuffer(bytearray(body[json_length:]), np.float32).reshape(shape))
    raw = y.tobytes()
    parameters = {"binary_data_size": len(raw)}
    return _reply({"name": "y", "shape": y.shape, "datatype": "FP32", "parameters": parameters}), raw


def _reply(output: dict[str, Any]) -> bytes:
    return orjson.dumps({"model_name": "bench", "outputs": [output]}, option=orjson.OPT_SERIALIZE_NUMPY)


async def model_infer(request: Any, _context: Any) -> Any:
    shape = list(request.inputs[0].shape)
    y = infer(MODEL, np.frombuffer(bytearray(request.raw_input_contents[0]), np.float32).reshape(shape))
    reply = service_pb2.ModelInferResponse(model_name="bench", raw_output_contents=[y.tobytes()])
    reply.outputs.add(name="y", datatype="FP32", shape=y.shape)
    return reply


async def serve() -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 1 << 26)])
    handler = grpc.unary_unary_rpc_method_handler(
        model_infer,
        request_deserializer=service_pb2.ModelInferRequest.FromString,
        response_serializer=service_pb2.ModelInferResponse.SerializeToString,
    )
    service = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler})
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"127.0.0.1:{os.environ['BENCH_GRPC_PORT']}")
    await server.start()
    await uvicorn.Server(
        uvicorn.Config(
            app,
            port=int(os.environ["BENCH_PORT"]),
            http="httptools",
            loop="uvloop",
            lifespan="off",
            log_level="warning",
            access_log=False,
        )
    ).serve()
    await server.stop(0)


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
