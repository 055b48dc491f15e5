"""Checks of inference that must succeed: every datatype and every way tensors travel."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Any, Final

import numpy as np

from benchmarks.conformance import checks, models
from benchmarks.conformance.checks import Check, Json
from benchmarks.conformance.clients import TIMEOUT_S, Protocol, Session
from benchmarks.conformance.infer_requests import (
    add_input,
    answer,
    classify,
    image_input,
    logits,
    types_inputs,
    wanted,
)
from serving_agent.contract.signature import DATATYPES

RAW_ONLY: Final = frozenset({"FP16", "BF16"})
"""Datatypes that Triton does not take or give as JSON."""
ALGORITHMS: Final = ("gzip", "deflate")
FORMS: Final = ((True, True), (True, False), (False, True), (False, False))
"""Whether the tensor in question goes in, and comes out, as raw bytes."""


async def _datatype(session: Session, datatype: str, *, binary_in: bool, binary_out: bool) -> Json:
    """Send every datatype, the one in question in the form in question, and ask for it alone."""
    name = models.output_name(datatype)
    result = await session.ask(
        "infer",
        models.TYPES,
        types_inputs(session, "" if binary_in else datatype),
        outputs=[wanted(session, name, binary=binary_out)],
    )
    return answer(result, name)


def _rotated(datatype: str) -> Json:
    return checks.tensor(models.rotated(models.values(datatype)))


def _rest_datatypes() -> list[Check]:
    words = {True: "binary", False: "json"}
    return [
        Check(
            f"http/infer/{datatype}/{words[binary_in]}-{words[binary_out]}",
            "http",
            models.TYPES,
            partial(_datatype, datatype=datatype, binary_in=binary_in, binary_out=binary_out),
            expected=None if datatype in RAW_ONLY and not (binary_in and binary_out) else _rotated(datatype),
        )
        for datatype in DATATYPES
        for binary_in, binary_out in FORMS
        if not (datatype == "BF16" and not binary_in)  # the client itself refuses
    ]


def _grpc_datatypes() -> list[Check]:
    return [
        Check(
            f"grpc/infer/{datatype}",
            "grpc",
            models.TYPES,
            partial(_datatype, datatype=datatype, binary_in=True, binary_out=True),
            expected=_rotated(datatype),
        )
        for datatype in DATATYPES
    ]


async def _all_outputs(session: Session) -> Json:
    result = await session.ask("infer", models.TYPES, types_inputs(session))
    return {datatype: answer(result, models.output_name(datatype)) for datatype in DATATYPES}


async def _mixed_order(session: Session) -> Json:
    """Send the inputs backwards, every other one as JSON, and ask for two outputs, one in each form."""
    sent = [
        add_input(
            session,
            models.input_name(datatype),
            datatype,
            models.values(datatype),
            binary=place % 2 == 0 or datatype in RAW_ONLY,
        )
        for place, datatype in enumerate(reversed(DATATYPES))
    ]
    text, number = models.output_name("BYTES"), models.output_name("INT8")
    outputs = [wanted(session, text, binary=True), wanted(session, number, binary=False)]
    result = await session.ask("infer", models.TYPES, sent, outputs=outputs)
    listed = sorted(output["name"] for output in _as_json(result)["outputs"])
    return {"listed": listed, **{name: answer(result, name) for name in (text, number)}}


def _as_json(result: Any) -> dict[str, Any]:
    response = result.get_response()
    if isinstance(response, dict):
        return response
    return {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "id": response.id,
        "outputs": [{"name": output.name} for output in response.outputs],
    }


async def _identity(session: Session) -> Json:
    """Return what the answer says about itself."""
    result = await session.ask(
        "infer", models.DIGITS, [image_input(session)], model_version="1", request_id="r-7"
    )
    return {key: _as_json(result).get(key) for key in ("model_name", "model_version", "id")}


async def _json_both_ways(session: Session) -> Json:
    outputs = [wanted(session, "logits", binary=False)]
    return answer(
        await session.ask("infer", models.DIGITS, [image_input(session, binary=False)], outputs=outputs)
    )


async def _many_at_once(session: Session) -> Json:
    """Send requests of one image each at the same time; each must get its own answer."""
    if session.flavour == "sync":
        results = await asyncio.to_thread(_async_infers, session)
    else:
        calls = [session.ask("infer", models.DIGITS, [_one_image(session, row)]) for row in range(4)]
        results = await asyncio.gather(*calls)
    return [answer(result) for result in results]


def _one_image(session: Session, row: int) -> Any:
    return add_input(session, "image", "FP32", models.images()[row : row + 1])


def _async_infers(session: Session) -> list[Any]:
    """Use the synchronous clients' own way of not waiting: a handle over REST, a callback over gRPC."""
    if session.protocol == "http":
        handles = [session.client.async_infer(models.DIGITS, [_one_image(session, row)]) for row in range(4)]
        return [handle.get_result() for handle in handles]
    return [_with_callback(session, row) for row in range(4)]


def _with_callback(session: Session, row: int) -> Any:
    done, seen = threading.Event(), dict[str, Any]()

    def callback(result: Any, error: Any) -> None:
        seen.update(result=result, error=error)
        done.set()

    session.client.async_infer(models.DIGITS, [_one_image(session, row)], callback)
    if not done.wait(TIMEOUT_S):
        raise TimeoutError
    if seen["error"] is not None:
        raise seen["error"]
    return seen["result"]


async def _not_utf8(session: Session) -> Json:
    """Send BYTES that are no text, raw both ways."""
    odd = np.array([[b"\xff\xfe", b"\x00", bytes(range(256))]], dtype=object)
    sent = [
        add_input(
            session,
            models.input_name(datatype),
            datatype,
            odd if datatype == "BYTES" else models.values(datatype)[:1],
        )
        for datatype in DATATYPES
    ]
    name = models.output_name("BYTES")
    return answer(await session.ask("infer", models.TYPES, sent, outputs=[wanted(session, name)]), name)


async def _nan(session: Session) -> Json:
    image = models.images()[:1].copy()
    image[0, 0, 0, 0] = np.nan
    return answer(await session.ask("infer", models.DIGITS, [add_input(session, "image", "FP32", image)]))


async def _no_rows(session: Session) -> Json:
    empty = np.zeros((0, 1, 8, 8), dtype=np.float32)
    return answer(await session.ask("infer", models.DIGITS, [add_input(session, "image", "FP32", empty)]))


def _classifying(name: str, protocol: Protocol, **options: Any) -> Check:
    run = partial(classify, **options)
    return Check(f"{protocol}/infer/{name}", protocol, models.DIGITS, run, logits())


def _compressed(protocol: Protocol) -> list[Check]:
    options = (
        ("request_compression_algorithm", "response_compression_algorithm")
        if protocol == "http"
        else ("compression_algorithm",)
    )
    return [
        _classifying(f"{option.removesuffix('_algorithm')}-{algorithm}", protocol, **{option: algorithm})
        for option in options
        for algorithm in ALGORITHMS
    ]


def _compressed_with_endpoint() -> list[Check]:
    """The metadata tells our gateway where to send what it cannot read; Triton does not know it."""
    headers = {"x-endpoint": models.DIGITS}
    return [
        _classifying(
            f"compression-{algorithm}/with-endpoint", "grpc", compression_algorithm=algorithm, headers=headers
        )
        for algorithm in ALGORITHMS
    ]


def _of(protocol: Protocol) -> list[Check]:
    return [
        _classifying("digits", protocol),
        _classifying("version", protocol, model_version="1"),
        _classifying("parameters", protocol, parameters={"text": "a", "number": 3, "flag": True}),
        _classifying("timeout", protocol, timeout=10_000_000),
        *_compressed(protocol),
        Check(f"{protocol}/infer/identity", protocol, models.DIGITS, _identity),
        Check(
            f"{protocol}/infer/many-at-once",
            protocol,
            models.DIGITS,
            _many_at_once,
            [checks.tensor(models.logits()[row : row + 1]) for row in range(4)],
        ),
        Check(f"{protocol}/infer/all-outputs", protocol, models.TYPES, _all_outputs),
        Check(f"{protocol}/infer/mixed-order", protocol, models.TYPES, _mixed_order),
        Check(f"{protocol}/infer/not-utf8", protocol, models.TYPES, _not_utf8),
        Check(f"{protocol}/infer/nan", protocol, models.DIGITS, _nan),
        Check(f"{protocol}/infer/no-rows", protocol, models.DIGITS, _no_rows),
    ]


CHECKS: Final = (
    *_rest_datatypes(),
    *_grpc_datatypes(),
    *_of("http"),
    *_of("grpc"),
    *_compressed_with_endpoint(),
    Check("http/infer/json-both-ways", "http", models.DIGITS, _json_both_ways, logits()),
)
