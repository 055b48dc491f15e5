"""Checks of REST without a client library: what stock clients never send, and what they do not show."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import httpx
import numpy as np

from benchmarks.conformance import checks, models
from benchmarks.conformance.checks import SENTENCE, Check, Json, Run
from benchmarks.conformance.clients import Session
from benchmarks.conformance.infer_requests import logits

LENGTH: Final = "Inference-Header-Content-Length"
INFER: Final = f"/v2/models/{models.DIGITS}/infer"
UNPACK: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "identity": bytes,
}
Headers = dict[str, str]


def _body(**changes: Any) -> dict[str, Any]:
    image = models.images()
    tensor = {"name": "image", "datatype": "FP32", "shape": list(image.shape), "data": image.ravel().tolist()}
    return {"inputs": [tensor | changes]}


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()


def _binary(size: int | None = None, *, wish: bool = True) -> tuple[bytes, int]:
    """Return a body with raw data and the length of its head; *size* is what the head says of the data."""
    data = models.images().tobytes()
    body = _body(parameters={"binary_data_size": len(data) if size is None else size})
    del body["inputs"][0]["data"]
    if wish:
        body["parameters"] = {"binary_data_output": True}
    head = _json(body)
    return head + data, len(head)


def _seen(reply: httpx.Response) -> Json:
    """Return status, and the answer or whether the error has the protocol's shape."""
    if reply.status_code != 200:
        return {"refused": str(reply.status_code), "error": _has_error_shape(reply), SENTENCE: reply.text}
    return {"logits": _logits(reply)}


def _has_error_shape(reply: httpx.Response) -> bool:
    try:
        body = reply.json()
    except ValueError:
        return False
    return isinstance(body, dict) and set(body) == {"error"} and isinstance(body["error"], str)


def _logits(reply: httpx.Response) -> Json:
    length = int(reply.headers.get(LENGTH, len(reply.content)))
    (output,) = json.loads(reply.content[:length])["outputs"]
    raw = reply.content[length:]
    return checks.tensor(_floats(raw if raw else output["data"]).reshape(output["shape"]))


def _floats(data: bytes | list[float]) -> models.Array:
    return np.frombuffer(data, "<f4") if isinstance(data, bytes) else np.array(data, dtype=np.float32)


async def _post(session: Session, content: bytes, headers: Headers | None = None, path: str = INFER) -> Json:
    return _seen(await session.client.post(path, content=content, headers=headers or {}))


async def _post_binary(session: Session, content_type: str | None = None, **changes: Any) -> Json:
    content, length = _binary()
    named = {"content-type": content_type} if content_type else {}
    return await _post(session, content, {LENGTH: str(length)} | named | changes)


async def _announced(session: Session, length: str) -> Json:
    content, _ = _binary()
    return await _post(session, content, {LENGTH: length})


async def _binary_size(session: Session, size: int) -> Json:
    content, length = _binary(size)
    return await _post(session, content, {LENGTH: str(length)})


async def _compressed_binary(session: Session) -> Json:
    content, length = _binary()
    return await _post(session, gzip.compress(content), {LENGTH: str(length), "content-encoding": "gzip"})


async def _reply_encoding(session: Session, accept: str) -> Json:
    """Return how the reply came, and its content unpacked by hand."""
    async with session.client.stream(
        "POST", INFER, content=_json(_body()), headers={"accept-encoding": accept}
    ) as reply:
        packed = b"".join([chunk async for chunk in reply.aiter_raw()])
    encoding = reply.headers.get("content-encoding", "identity")
    (output,) = json.loads(UNPACK[encoding](packed))["outputs"]
    return {"encoding": encoding, "logits": checks.tensor(_floats(output["data"]))}


async def _binary_reply_headers(session: Session) -> Json:
    content, length = _binary()
    reply = await session.client.post(INFER, content=content, headers={LENGTH: str(length)})
    return {
        "type": reply.headers.get("content-type"),
        "announced": LENGTH in reply.headers,
        "size": json.loads(reply.content[: int(reply.headers[LENGTH])])["outputs"][0]["parameters"],
    }


async def _json_reply_headers(session: Session) -> Json:
    reply = await session.client.post(INFER, content=_json(_body()))
    return {"type": reply.headers.get("content-type"), "announced": LENGTH in reply.headers}


async def _get(session: Session, path: str) -> Json:
    reply = await session.client.get(path)
    return {"status": reply.status_code, SENTENCE: reply.text}


async def _health_body(session: Session, path: str) -> Json:
    reply = await session.client.get(path)
    return {"status": reply.status_code, "json": reply.content.startswith(b"{")}


BODIES: Final[dict[str, bytes]] = {
    "malformed": b'{"inputs": [',
    "not-an-object": b"[1, 2]",
    "empty": b"",
    "no-inputs": b"{}",
    "empty-inputs": b'{"inputs": []}',
    "too-few-elements": _json(_body(data=[1.0, 2.0])),
    "too-many-elements": _json(_body(data=[0.5] * 257)),
    "strings": _json(_body(data=["a"] * 256)),
    "no-shape": _json({"inputs": [{"name": "image", "datatype": "FP32", "data": [1.0]}]}),
    "no-data": _json({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8]}]}),
    "negative-shape": _json(_body(shape=[-4, 1, 8, 8])),
    "unknown-datatype": _json(_body(datatype="FP31")),
}
"""Bodies that no server can answer."""


def _answered() -> list[Check]:
    nested = _body(data=models.images().tolist())
    version = f"/v2/models/{models.DIGITS}/versions/1/infer"
    runs: dict[str, Run] = {
        "flat": partial(_post, content=_json(_body())),
        "nested": partial(_post, content=_json(nested)),
        "version-in-path": partial(_post, content=_json(_body()), path=version),
        "json-called-binary": partial(
            _post, content=_json(_body()), headers={"content-type": "application/octet-stream"}
        ),
        "binary": _post_binary,
        "binary-called-json": partial(_post_binary, content_type="application/json"),
        "binary-compressed": _compressed_binary,
        "gzip": partial(_post, content=gzip.compress(_json(_body())), headers={"content-encoding": "gzip"}),
        "deflate": partial(
            _post, content=zlib.compress(_json(_body())), headers={"content-encoding": "deflate"}
        ),
    }
    return [
        Check(f"raw/{name}", "raw", models.DIGITS, run, {"logits": logits()}) for name, run in runs.items()
    ]


def _refused() -> list[Check]:
    runs: dict[str, Run] = {name: partial(_post, content=body) for name, body in BODIES.items()}
    runs |= {
        f"header-length/{length}": partial(_announced, length=length) for length in ("1000000", "-1", "ten")
    }
    runs |= {f"binary-size/{size}": partial(_binary_size, size=size) for size in (0, 1020, 1028, -4)}
    runs["corrupt-gzip"] = partial(
        _post, content=b"\x1f\x8b not really", headers={"content-encoding": "gzip"}
    )
    return [Check(f"raw/refused/{name}", "raw", models.DIGITS, run) for name, run in runs.items()]


def _others() -> list[Check]:
    encodings = [
        Check(
            f"raw/reply-{name}",
            "raw",
            models.DIGITS,
            partial(_reply_encoding, accept=accept),
            None,
        )
        for name, accept in (("gzip", "gzip"), ("deflate", "deflate"), ("identity", "identity"))
    ]
    runs: dict[str, Run] = {
        "binary-reply-headers": _binary_reply_headers,
        "json-reply-headers": _json_reply_headers,
        "live-body": partial(_health_body, path="/v2/health/live"),
        "ready-body": partial(_health_body, path="/v2/health/ready"),
        "model-ready": partial(_get, path=f"/v2/models/{models.DIGITS}/ready"),
        "get-infer": partial(_get, path=INFER),
        "root-slash": partial(_get, path="/v2/"),
    }
    return [*encodings, *(Check(f"raw/{name}", "raw", models.DIGITS, run) for name, run in runs.items())]


CHECKS: Final = (*_answered(), *_refused(), *_others())
