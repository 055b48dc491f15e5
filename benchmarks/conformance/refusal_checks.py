"""Checks of calls that a server must refuse, through stock clients."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np

from benchmarks.conformance import models
from benchmarks.conformance.checks import Check, Json, Run
from benchmarks.conformance.clients import Protocol, Session
from benchmarks.conformance.infer_requests import add_input, answer, image_input, types_inputs, wanted


async def _ask(session: Session, method: str, *arguments: Any) -> Json:
    await session.ask(method, *arguments)
    return "answered"


async def _infer(session: Session, model: str, version: str = "") -> Json:
    return answer(await session.ask("infer", model, [image_input(session)], model_version=version))


async def _input(session: Session, name: str, datatype: str, array: models.Array) -> Json:
    return answer(await session.ask("infer", models.DIGITS, [add_input(session, name, datatype, array)]))


async def _twice(session: Session) -> Json:
    return answer(await session.ask("infer", models.DIGITS, [image_input(session), image_input(session)]))


async def _output(session: Session) -> Json:
    outputs = [wanted(session, "probabilities")]
    return answer(await session.ask("infer", models.DIGITS, [image_input(session)], outputs=outputs))


async def _missing_input(session: Session) -> Json:
    await session.ask("infer", models.TYPES, types_inputs(session)[1:])
    return "answered"


def _of(protocol: Protocol) -> list[Check]:
    image = models.images()
    runs: dict[str, Run] = {
        "unknown-model/infer": partial(_infer, model="another"),
        "unknown-version/infer": partial(_infer, model=models.DIGITS, version="9"),
        "version-no-number/infer": partial(_infer, model=models.DIGITS, version="latest"),
        "unknown-model/ready": partial(_ready, name="another"),
        "unknown-model/metadata": partial(_asking, method="get_model_metadata"),
        "unknown-model/config": partial(_asking, method="get_model_config"),
        "unknown-model/statistics": partial(_asking, method="get_inference_statistics"),
        "input/unknown": partial(_input, name="picture", datatype="FP32", array=image),
        "input/datatype": partial(_input, name="image", datatype="FP64", array=image.astype(np.float64)),
        "input/shape": partial(_input, name="image", datatype="FP32", array=image[..., :7].copy()),
        "input/rank": partial(_input, name="image", datatype="FP32", array=image[0]),
        "input/twice": _twice,
        "output/unknown": _output,
    }
    return [
        *(Check(f"{protocol}/refused/{name}", protocol, models.DIGITS, run) for name, run in runs.items()),
        Check(f"{protocol}/refused/input/missing", protocol, models.TYPES, _missing_input),
    ]


async def _ready(session: Session, name: str) -> Json:
    return await session.ask("is_model_ready", name)


async def _asking(session: Session, method: str) -> Json:
    return await _ask(session, method, "another")


CHECKS: Final = (*_of("http"), *_of("grpc"))
