"""KServe's own clients, asked from KServe's environment: `python kserve_probe.py REST_URL GRPC_ADDRESS`.

Reads the images, shape (n, 1, 8, 8), as JSON from standard input; writes what was seen, by check, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import numpy as np
from kserve import (  # type: ignore[import-not-found]  # lives in its own environment
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
)
from kserve.inference_client import RESTConfig  # type: ignore[import-not-found]  # as above
from kserve.protocol.infer_type import RequestedOutput  # type: ignore[import-not-found]  # as above

MODEL = "digits"
INPUT = "image"
OUTPUT = "logits"

Seen = dict[str, Any]


def request(images: Any, *, binary_in: bool, binary_out: bool) -> Any:
    """Return an inference request with all images."""
    tensor = InferInput(INPUT, list(images.shape), "FP32")
    tensor.set_data_from_numpy(images, binary_data=binary_in)
    wanted = [RequestedOutput(OUTPUT, {"binary_data": True})] if binary_out else None
    return InferRequest(MODEL, [tensor], request_id="k-1", request_outputs=wanted)


def answer(response: Any) -> Seen:
    """Return what was seen of a response."""
    array = response.get_output_by_name(OUTPUT).as_numpy()
    values = {"type": array.dtype.name, "shape": list(array.shape), "data": [float(x) for x in array.ravel()]}
    return {"id": response.id, "model": response.model_name, "logits": values}


async def seen(call: Callable[[], Awaitable[Any]]) -> Any:
    """Return the JSON of one call, or that it failed."""
    try:
        result = await call()
    except Exception as error:  # noqa: BLE001 - whatever the client raises is the observation
        return {"failed": type(error).__name__, "sentence": str(error)}
    return result if isinstance(result, bool | None) else answer(result)


async def rest(url: str, images: Any) -> Seen:
    """Ask over REST."""
    forms = {"json": (False, False), "binary": (True, True), "binary-in": (True, False)}
    sent = {name: request(images, binary_in=form[0], binary_out=form[1]) for name, form in forms.items()}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        found = {
            f"kserve/rest/{name}": await seen(partial(client.infer, url, each, model_name=MODEL))
            for name, each in sent.items()
        }
        found["kserve/rest/live"] = await seen(lambda: client.is_server_live(url))
        found["kserve/rest/ready"] = await seen(lambda: client.is_server_ready(url))
        found["kserve/rest/model-ready"] = await seen(lambda: client.is_model_ready(url, MODEL))
        found["kserve/rest/unknown-model-ready"] = await seen(lambda: client.is_model_ready(url, "another"))
    return found


async def grpc(address: str, images: Any) -> Seen:
    """Ask over gRPC."""
    async with InferenceGRPCClient(address, retries=0) as client:
        typed = request(images, binary_in=False, binary_out=False)
        return {
            "kserve/grpc/raw": await seen(
                lambda: client.infer(request(images, binary_in=True, binary_out=False))
            ),
            "kserve/grpc/typed": await seen(lambda: client.infer(typed)),
            "kserve/grpc/live": await seen(client.is_server_live),
            "kserve/grpc/ready": await seen(client.is_server_ready),
            "kserve/grpc/model-ready": await seen(lambda: client.is_model_ready(MODEL)),
        }


def main() -> None:
    """Ask everything and print what was seen."""
    rest_url, grpc_address = sys.argv[1:3]
    images = np.array(json.load(sys.stdin), dtype=np.float32)
    found = asyncio.run(rest(rest_url, images)) | asyncio.run(grpc(grpc_address, images))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
