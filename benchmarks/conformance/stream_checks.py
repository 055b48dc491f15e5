"""Checks of ModelStreamInfer: several requests and answers on one gRPC call."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, Final

from benchmarks.conformance import checks, models
from benchmarks.conformance.checks import SENTENCE, Check, Json
from benchmarks.conformance.clients import TIMEOUT_S, Session
from benchmarks.conformance.infer_requests import add_input, answer, image_input

Request = dict[str, Any]
Answers = list[tuple[Any, Any]]

FINAL: Final = "triton_final_response"
"""Parameter of the last answer to a request, where the client asks for it."""


async def stream(session: Session, requests: Sequence[Request]) -> Answers:
    """Send *requests* on one stream and return as many (result, error) pairs, in the order of arrival."""
    if session.flavour == "aio":
        return await _stream_aio(session, requests)
    return await asyncio.to_thread(_stream_sync, session, requests)


def _stream_sync(session: Session, requests: Sequence[Request]) -> Answers:
    seen: queue.Queue[tuple[Any, Any]] = queue.Queue()
    session.client.start_stream(callback=lambda result, error: seen.put((result, error)))
    try:
        for request in requests:
            session.client.async_stream_infer(**request)
        return [_next(seen) for _ in requests]
    except queue.Empty:
        raise TimeoutError from None
    finally:
        session.client.stop_stream(cancel_requests=True)


def _next(seen: queue.Queue[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Return what came next; raise the error that ended the stream: unlike one answer's, it has a status."""
    result, error = seen.get(timeout=TIMEOUT_S / 2)
    if error is not None and error.status() is not None:
        raise error
    return result, error


async def _stream_aio(session: Session, requests: Sequence[Request]) -> Answers:
    answered = asyncio.Event()

    async def sent() -> AsyncIterator[Request]:
        for request in requests:
            yield request
        await answered.wait()  # keep this half of the stream open until then

    replies = session.client.stream_infer(sent())
    try:
        return [await anext(replies) for _ in requests]
    finally:
        answered.set()
        replies.cancel()


def _image(session: Session, row: int, **more: Any) -> Request:
    image = models.images()[row : row + 1]
    return {
        "model_name": models.DIGITS,
        "inputs": [add_input(session, "image", "FP32", image)],
        "request_id": f"r-{row}",
        **more,
    }


def _seen(result: Any, error: Any) -> Json:
    if error is not None:
        return {"refused": True, SENTENCE: error.message()}
    return {"id": result.get_response().id, "logits": answer(result)}


async def _three(session: Session) -> Json:
    answers = await stream(session, [_image(session, row) for row in range(3)])
    return [_seen(*pair) for pair in answers]


async def _survives_a_refusal(session: Session) -> Json:
    """Send a bad request between two good ones: the stream goes on."""
    bad = _image(session, 1, model_version="9")
    answers = await stream(session, [_image(session, 0), bad, _image(session, 2)])
    seen = [_seen(*pair) for pair in answers]
    return sorted(seen, key=lambda each: each.get("id", ""))


async def _final(session: Session) -> Json:
    """Ask for the mark on the last answer, which the asyncio client cannot."""
    ((result, error),) = await stream(session, [_image(session, 0, enable_empty_final_response=True)])
    if error is not None:
        return _seen(result, error)
    parameters = result.get_response().parameters
    return {"logits": answer(result), "final": FINAL in parameters and parameters[FINAL].bool_param}


async def _ends(session: Session) -> Json:
    """Close one stream in good order and open another on the same channel."""
    first = await _three(session)
    second = await _three(session)
    return checks.same(first, second)


async def _refused(session: Session, model: str) -> Json:
    request = {"model_name": model, "inputs": [image_input(session)]}
    ((result, error),) = await stream(session, [request])
    return [_seen(result, error)]


def _answers(rows: Sequence[int]) -> Json:
    return [{"id": f"r-{row}", "logits": checks.tensor(models.logits()[row : row + 1])} for row in rows]


CHECKS: Final = (
    *(
        Check(f"grpc/stream/{name}", "grpc", models.DIGITS, run, expected)
        for name, run, expected in (
            ("three", _three, _answers(range(3))),
            ("after-a-refusal", _survives_a_refusal, [{"refused": True}, *_answers((0, 2))]),
            ("again", _ends, True),
            ("unknown-model", partial(_refused, model="another"), [{"refused": True}]),
        )
    ),
    Check("grpc/stream/final-mark", "grpc", models.DIGITS, _final, None, only="sync"),
)
