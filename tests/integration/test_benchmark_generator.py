"""The benchmark's load generator against servers that answer rightly, wrongly, in pieces, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from benchmarks.serving import load
from benchmarks.serving.load import Load
from benchmarks.serving.peers.base import Target, Wire
from benchmarks.serving.wire import GRPC_PATH, ReplyError
from benchmarks.serving.workloads import LARGE, TINY, Workload

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the generator is C")

Reply = Callable[[int, np.ndarray], bytes]
"""From the number of the request and its input to the whole HTTP reply."""
EXPECTED = TINY.requests() * 2


@pytest.fixture(autouse=True, scope="module")
def generator() -> None:
    load.build()


def json_body(values: np.ndarray) -> bytes:
    return b'{"model_name":"m","outputs":[{"name":"y","data": %s}]}' % str(values.tolist()).encode()


def http(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def right(_: int, x: np.ndarray) -> bytes:
    return http(json_body(x * 2))


def chunked(_: int, x: np.ndarray) -> bytes:
    body = json_body(x * 2)
    parts = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:]))
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n"


def rounded_otherwise(number: int, x: np.ndarray) -> bytes:
    return http(json_body(x * 2 * (1 + 1e-7 * (number % 3))))


def of_another_request(number: int, x: np.ndarray) -> bytes:
    return http(json_body(x * 2 if number < 40 else TINY.requests()[0] * 2))


def failing(number: int, x: np.ndarray) -> bytes:
    return right(number, x) if number < 40 else http(b'{"error": "busy"}', "503 Service Unavailable")


def without_array(number: int, x: np.ndarray) -> bytes:
    return right(number, x) if number < 40 else http(b'{"outputs": []}')


def hanging_up(number: int, x: np.ndarray) -> bytes:
    return right(number, x) if number < 40 else b""


@contextlib.asynccontextmanager
async def http_server(reply: Reply) -> AsyncIterator[Target]:
    """Serve `{"x": …}`-free requests in the protocol's JSON; an empty reply closes the connection."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                text = (await reader.readexactly(length)).decode()
                values = text.split('"data":[')[1].split("]")[0].split(",")
                answer = reply(count, np.array([float(value) for value in values], np.float32))
                count += 1
                if not answer:
                    break
                writer.write(answer[:9])
                await writer.drain()
                writer.write(answer[9:])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Target(rest=f"127.0.0.1:{server.sockets[0].getsockname()[1]}")


async def measure(
    target: Target, folder: Path, wire: Wire = "oip_json", workload: Workload = TINY, seconds: float = 0.3
) -> load.Figures:
    expected = workload.requests() * 2
    settings = Load(concurrency=3, warm_up_s=0.05, seconds=seconds, core=0)
    return await asyncio.to_thread(load.measure, wire, target, workload, expected, settings, folder / "load")


@pytest.mark.parametrize("reply", [right, chunked])
async def test_counts_right_answers(reply: Reply, tmp_path: Path) -> None:
    async with http_server(reply) as target:
        figures = await measure(target, tmp_path)
    assert figures.answers > 40
    assert figures.different == 0
    assert 0 < figures.p50_us <= figures.p90_us <= figures.p99_us <= figures.max_us
    assert figures.rps == pytest.approx(figures.answers / 0.3)


async def test_answers_in_other_digits_are_judged_by_value(tmp_path: Path) -> None:
    async with http_server(rounded_otherwise) as target:
        figures = await measure(target, tmp_path)
    assert figures.different > 0


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (of_another_request, "off by"),
        (failing, "not a 200: HTTP/1.1 503"),
        (without_array, "no array in the reply"),
        (hanging_up, "closed the connection"),
    ],
)
async def test_one_wrong_answer_is_seen(reply: Reply, why: str, tmp_path: Path) -> None:
    async with http_server(reply) as target:
        with pytest.raises(ReplyError, match=why):
            await measure(target, tmp_path)


@contextlib.asynccontextmanager
async def grpc_server(scale: Callable[[int], float | None]) -> AsyncIterator[Target]:
    """Answer `x * scale(number)`; None: fail the call."""
    count = 0

    async def infer(request: service_pb2.ModelInferRequest, context: grpc.aio.ServicerContext) -> object:
        nonlocal count
        factor = scale(count)
        count += 1
        if factor is None:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
        x = np.frombuffer(request.raw_input_contents[0], np.float32)
        return service_pb2.ModelInferResponse(raw_output_contents=[(x * np.float32(factor)).tobytes()])

    service, method = GRPC_PATH.strip("/").split("/")
    handler = grpc.unary_unary_rpc_method_handler(
        infer,
        request_deserializer=service_pb2.ModelInferRequest.FromString,
        response_serializer=service_pb2.ModelInferResponse.SerializeToString,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Target(grpc=f"127.0.0.1:{port}")
    finally:
        await server.stop(None)


@pytest.mark.parametrize("workload", [TINY, LARGE])
async def test_speaks_grpc_also_with_messages_larger_than_the_window(
    workload: Workload, tmp_path: Path
) -> None:
    async with grpc_server(lambda _: 2.0) as target:
        figures = await measure(target, tmp_path, "grpc", workload, seconds=0.5)
    assert figures.answers > 10
    assert figures.different == 0


@pytest.mark.parametrize(("later", "why"), [(3.0, "off by"), (None, "the call ended without a message")])
async def test_one_wrong_call_is_seen(later: float | None, why: str, tmp_path: Path) -> None:
    async with grpc_server(lambda number: 2.0 if number < 40 else later) as target:
        with pytest.raises(ReplyError, match=why):
            await measure(target, tmp_path, "grpc")
