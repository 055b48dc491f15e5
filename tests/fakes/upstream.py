"""Small real servers to put behind the gateway: HTTP and gRPC on Unix sockets, in processes of their own.

As a program: `python -m tests.fakes.upstream FOLDER AGENT VERSION DELAY_S BEHAVIOUR` serves
FOLDER/AGENT.{rest,grpc}. BEHAVIOUR of every answer but to health checks: `answer`, `503`, or `reset` (the
connection is closed instead). Every request for `/seen…` leaves a line of JSON in FOLDER/AGENT.seen.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import grpc
import uvicorn

from control_plane.gateway.traffic_plan import Replica
from serving_agent.contract import proto

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Behaviour = Literal["answer", "503", "reset"]


@dataclass
class Upstream:
    """One running agent's stand-in."""

    replica: Replica
    version: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


def replica_at(folder: Path, agent: str) -> Replica:
    return Replica(agent, f"unix:{folder / agent}.rest", f"unix:{folder / agent}.grpc")


def start(
    folder: Path, agent: str, version: str, delay_s: float = 0.0, behaviour: Behaviour = "answer"
) -> Upstream:
    """Start a server and return once both its sockets are bound."""
    arguments = (str(folder), agent, version, str(delay_s), behaviour)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.upstream", *arguments], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout as lines:
        assert lines.readline() == b"ready\n", "the upstream did not start"
    return Upstream(replica_at(folder, agent), version, process)


def seen(folder: Path, agent: str) -> list[dict[str, str]]:
    """Headers of all requests for `/seen…` that reached *agent*, in order of arrival."""
    path = folder / f"{agent}.seen"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Application:
    """ASGI: answers every path with what it received; `/events` streams; `/fail` answers 500."""

    def __init__(self, folder: Path, agent: str, version: str, delay_s: float, behaviour: Behaviour) -> None:
        self.folder = folder
        self.agent = agent
        self.version = version
        self.delay_s = delay_s
        self.behaviour = behaviour

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = await _read(receive)
        if scope["path"] == "/events":
            await self._events(send)
            return
        if scope["path"] != "/ready":
            await asyncio.sleep(self.delay_s)
            self._note(scope)
        if self.behaviour == "reset" and scope["path"] != "/ready":
            await _cut(receive, send)
            return
        await self._answer(
            send,
            self._status(scope["path"]),
            {
                "path": scope["path"],
                "query": scope["query_string"].decode(),
                "length": len(body),
                "headers": _headers(scope),
            },
        )

    def _status(self, path: str) -> int:
        if self.behaviour == "503" and path != "/ready":
            return 503
        return 500 if path == "/fail" else 200

    def _note(self, scope: Scope) -> None:
        if scope["path"].startswith("/seen"):
            with (self.folder / f"{self.agent}.seen").open("a") as file:
                file.write(json.dumps({"path": scope["path"], **_headers(scope)}) + "\n")

    async def _answer(self, send: Send, status: int, seen: dict[str, Any]) -> None:
        headers = [(b"content-type", b"application/json"), (b"x-signalbox-version", self.version.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        body = {"agent": self.agent, "version": self.version, **seen}
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    async def _events(self, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
            await asyncio.sleep(0.3)
        await send({"type": "http.response.body", "body": b""})


async def _cut(receive: Receive, send: Send) -> None:
    cycle: Any = getattr(send, "__self__")  # noqa: B009  ASGI itself cannot close a connection
    cycle.transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in scope["headers"]}


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


class Service(grpc.GenericRpcHandler):
    """gRPC: ModelInfer and ModelReady name the version that answered; health is SERVING."""

    def __init__(self, version: str) -> None:
        self.version = version

    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        answer = getattr(self, f"_{method}", None)
        return grpc.unary_unary_rpc_method_handler(answer) if answer else None

    async def _ModelInfer(self, request: bytes, context: Any) -> bytes:  # noqa: N802
        asked = proto.message_class("ModelInferRequest").FromString(request)
        reply = proto.message_class("ModelInferResponse")(
            model_name=asked.model_name, model_version=self.version
        )
        return bytes(reply.SerializeToString())

    async def _ModelReady(self, request: bytes, context: Any) -> bytes:  # noqa: N802
        return b"\x08\x01"

    async def _ServerLive(self, request: bytes, context: Any) -> bytes:  # noqa: N802
        return b"\x08\x01"

    async def _Check(self, request: bytes, context: Any) -> bytes:  # noqa: N802
        return b"\x08\x01"


async def serve(folder: Path, agent: str, version: str, delay_s: float, behaviour: Behaviour) -> None:
    grpc_server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 * 1024 * 1024)])
    grpc_server.add_generic_rpc_handlers((Service(version),))
    grpc_server.add_insecure_port(f"unix:{folder / agent}.grpc")
    await grpc_server.start()
    config = uvicorn.Config(
        Application(folder, agent, version, delay_s, behaviour),
        uds=f"{folder / agent}.rest",
        log_level="error",
        lifespan="off",
        timeout_keep_alive=75,
    )
    await _Announcing(config).serve()
    await grpc_server.stop(0)


class _Announcing(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets=sockets)
        print("ready", flush=True)


if __name__ == "__main__":
    _, *words, chosen = sys.argv
    asyncio.run(serve(Path(words[0]), words[1], words[2], float(words[3]), cast(Behaviour, chosen)))
