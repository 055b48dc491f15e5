"""Client code for one endpoint that works as pasted: curl, grpcurl, httpx, tritonclient over HTTP and gRPC.

Protocol: Open Inference Protocol v2 (github.com/kserve/open-inference-protocol) and the plain
`POST /predict`. The gateway finds the endpoint by path (`/e/<name>/…`, `/v2/models/<name>/…`) or by the
gRPC metadata `x-endpoint`.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from serving_agent.contract.signature import Signature, TensorSpec

MAX_LITERAL_CHARS: Final = 4000
"""Longer inputs are not written out: the snippet makes a tensor of zeros of that shape itself."""
_NUMPY: Final = {
    "BOOL": "np.bool_", "UINT8": "np.uint8", "UINT16": "np.uint16", "UINT32": "np.uint32",
    "UINT64": "np.uint64",
    "INT8": "np.int8", "INT16": "np.int16", "INT32": "np.int32", "INT64": "np.int64", "FP16": "np.float16",
    "BF16": "np.float32", "FP32": "np.float32", "FP64": "np.float64", "BYTES": "np.object_",
}  # fmt: skip
"""Element types of arrays that tritonclient takes for each datatype (it narrows float32 to BF16 itself)."""
_CONTENTS: Final = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
"""Field of `InferTensorContents` that holds each datatype; FP16 and BF16 have none and go as raw bytes."""
_STRUCT: Final = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h",
    "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
"""`struct` codes of the datatypes' little-endian elements."""
_FLOATS: Final = frozenset({"FP16", "BF16", "FP32", "FP64"})


@dataclass(frozen=True, slots=True)
class Snippet:
    """One way to call an endpoint: *language* is what a highlighter calls it ("bash" or "python")."""

    title: str
    language: str
    needs: str
    """What must be installed, as a command or a sentence."""
    code: str


class _Tensor(NamedTuple):
    spec: TensorSpec
    shape: tuple[int, ...]
    value: Any
    """Nested lists of the whole tensor, batch of one; None when too long to write out."""


def snippets(
    endpoint: str, gateway_url: str, web_url: str, signature: Signature, row: Mapping[str, Any]
) -> tuple[Snippet, ...]:
    """Every way to call *endpoint* with *row* (one row by input name, without the batch dimension).

    gateway_url, web_url: `http://host:port`; the web address serves the descriptor that grpcurl needs. Pure.
    """
    tensors = [_tensor(spec, row[spec.name]) for spec in signature.inputs]
    body = _body_source(tensors)
    address = urlsplit(gateway_url).netloc
    triton = {kind: _triton(endpoint, address, tensors, kind) for kind in ("http", "grpc")}
    grpcurl = _grpcurl(endpoint, address, web_url, tensors)
    return (
        Snippet(
            "curl",
            "bash",
            "needs curl" if body.short else "needs curl and python3",
            _curl(endpoint, gateway_url, body),
        ),
        Snippet("httpx", "python", "pip install httpx", _httpx(endpoint, gateway_url, body)),
        Snippet("tritonclient HTTP", "python", 'pip install "tritonclient[http]" numpy', triton["http"]),
        Snippet("tritonclient gRPC", "python", 'pip install "tritonclient[grpc]" numpy', triton["grpc"]),
        Snippet("grpcurl", "bash", "needs grpcurl and curl, in bash or zsh", grpcurl),
    )


def _tensor(spec: TensorSpec, row: Any) -> _Tensor:
    batched = bool(spec.shape) and spec.shape[0] == -1
    value = _rounded([row] if batched else row)
    written = value if len(json.dumps(value)) <= MAX_LITERAL_CHARS else None
    return _Tensor(spec, _shape_of(value, len(spec.shape)), written)


def _rounded(value: Any) -> Any:
    """Six significant figures are what FP32 can tell apart; more only makes the code long."""
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _shape_of(value: Any, rank: int) -> tuple[int, ...]:
    shape: list[int] = []
    for _ in range(rank):
        shape.append(len(value))
        value = value[0] if value else []
    return tuple(shape)


class _Body(NamedTuple):
    python: str
    """A Python expression of the request body."""
    json: str | None
    """The body as JSON, or None when too long to write out."""

    @property
    def short(self) -> bool:
        return self.json is not None


def _body_source(tensors: list[_Tensor]) -> _Body:
    if all(tensor.value is not None for tensor in tensors):
        batches = {tensor.spec.name: tensor.value for tensor in tensors}
        body = {"input": next(iter(batches.values())) if len(batches) == 1 else batches}
        return _Body(repr(body), json.dumps(body))
    sources = {tensor.spec.name: _nested_source(tensor) for tensor in tensors}
    if len(sources) == 1:
        return _Body('{"input": ' + next(iter(sources.values())) + "}", None)
    named = ", ".join(f"{name!r}: {source}" for name, source in sources.items())
    return _Body('{"input": {' + named + "}}", None)


def _nested_source(tensor: _Tensor) -> str:
    """A Python expression for nested lists: the values, or list multiplication of a neutral one."""
    if tensor.value is not None:
        return repr(tensor.value)
    source = _neutral(tensor.spec)
    for size in reversed(tensor.shape):
        source = f"[{source}] * {size}" if size > 1 else f"[{source}]"
    return source


def _neutral(spec: TensorSpec) -> str:
    return {"BYTES": '""', "BOOL": "False"}.get(spec.datatype, "0.0" if spec.datatype in _FLOATS else "0")


def _quoted(text: str) -> str:
    """*text* as one single-quoted word of a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def _curl(endpoint: str, gateway_url: str, body: _Body) -> str:
    url = f"{gateway_url}/e/{endpoint}/predict"
    head = f"curl -sS {url} \\\n  -H 'content-type: application/json' \\\n"
    if body.json is not None:
        return head + f"  -d {_quoted(body.json)}"
    program = f"import json; print(json.dumps({body.python}))"
    return f"python3 -c {_quoted(program)} |\n" + head + "  --data-binary @-"


def _httpx(endpoint: str, gateway_url: str, body: _Body) -> str:
    return f"""import httpx

answer = httpx.post(
    "{gateway_url}/e/{endpoint}/predict",
    json={body.python},
    timeout=30,
)
answer.raise_for_status()
print(answer.json()["predictions"])
print("served by", answer.headers["x-signalbox-version"])"""


def _triton(endpoint: str, address: str, tensors: list[_Tensor], transport: str) -> str:
    inputs = "\n".join(_triton_input(i, tensor) for i, tensor in enumerate(tensors))
    names = ", ".join(f"input_{i}" for i in range(len(tensors)))
    outputs, name = ("answer.get_response().outputs", "output.name") if transport == "grpc" else (
        'answer.get_response()["outputs"]', 'output["name"]'
    )  # fmt: skip
    extra = f', headers={{"x-endpoint": "{endpoint}"}}' if transport == "grpc" else ""
    return f"""import numpy as np
import tritonclient.{transport} as triton

client = triton.InferenceServerClient("{address}")
{inputs}
answer = client.infer("{endpoint}", [{names}]{extra})
for output in {outputs}:
    print({name}, answer.as_numpy({name}))"""


def _triton_input(index: int, tensor: _Tensor) -> str:
    dtype = _NUMPY[tensor.spec.datatype]
    if tensor.value is not None:
        array = f"np.array({tensor.value!r}, dtype={dtype})"
    elif tensor.spec.datatype == "BYTES":
        array = f'np.full({list(tensor.shape)}, "", dtype={dtype})'
    else:
        array = f"np.zeros({list(tensor.shape)}, dtype={dtype})"
    made = f'triton.InferInput("{tensor.spec.name}", {list(tensor.shape)}, "{tensor.spec.datatype}")'
    return f"input_{index} = {made}\ninput_{index}.set_data_from_numpy({array})"


def _grpcurl(endpoint: str, address: str, web_url: str, tensors: list[_Tensor]) -> str:
    message: dict[str, Any] = {"model_name": endpoint, "inputs": [_grpc_input(tensor) for tensor in tensors]}
    if _raw(tensors):
        message["raw_input_contents"] = [_base64(_raw_bytes(tensor)) for tensor in tensors]
    else:
        for entry, tensor in zip(message["inputs"], tensors, strict=True):
            entry["contents"] = {_CONTENTS[tensor.spec.datatype]: _grpc_values(tensor)}
    return f"""grpcurl -plaintext \\
  -protoset <(curl -sS {web_url}/assets/open_inference.pb) \\
  -H 'x-endpoint: {endpoint}' \\
  -d {_quoted(json.dumps(message))} \\
  {address} inference.GRPCInferenceService/ModelInfer"""


def _grpc_input(tensor: _Tensor) -> dict[str, Any]:
    return {"name": tensor.spec.name, "datatype": tensor.spec.datatype, "shape": list(tensor.shape)}


def _raw(tensors: list[_Tensor]) -> bool:
    """gRPC takes either typed contents or raw bytes for all inputs of a request, never a mix."""
    return any(tensor.spec.datatype not in _CONTENTS for tensor in tensors)


def _flat(tensor: _Tensor) -> list[Any]:
    if tensor.value is None:
        size = 1
        for length in tensor.shape:
            size *= length
        neutral: Any = "" if tensor.spec.datatype == "BYTES" else 0
        return [neutral] * size
    flat: list[Any] = [tensor.value]
    for _ in tensor.shape:
        flat = [item for part in flat for item in part]
    return flat


def _grpc_values(tensor: _Tensor) -> list[Any]:
    flat = _flat(tensor)
    return [_base64(str(item).encode()) for item in flat] if tensor.spec.datatype == "BYTES" else flat


def _raw_bytes(tensor: _Tensor) -> bytes:
    """Little-endian elements as in the binary data extension of the protocol."""
    flat, datatype = _flat(tensor), tensor.spec.datatype
    if datatype == "BYTES":
        encoded = [str(item).encode() for item in flat]
        return b"".join(struct.pack("<I", len(item)) + item for item in encoded)
    if datatype == "BF16":
        return b"".join(struct.pack("<f", item)[2:] for item in flat)
    return struct.pack(f"<{len(flat)}{_STRUCT[datatype]}", *flat)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
