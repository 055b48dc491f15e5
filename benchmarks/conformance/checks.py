"""What a check is, what it observes, and when two observations are the same.

An observation is JSON: what a client can tell of one call. A call that was refused is
`{"refused": status}`, with the sentence under `"sentence"`, which no comparison looks at.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
import httpx
import numpy as np
from tritonclient.utils import InferenceServerException

from benchmarks.conformance.clients import FLAVOURS, TIMEOUT_S, Protocol, Session
from benchmarks.conformance.models import Array

Json = Any
Run = Callable[[Session], Awaitable[Json]]

SENTENCE: Final = "sentence"
"""Key of an observation that holds words for people."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is asked of every target.

    name: unique. model: which one it is about. expected: what every target must answer; None where only
    Triton can tell. only: the one flavour of the client that can ask this; empty for all.
    """

    name: str
    protocol: Protocol
    model: str
    run: Run
    expected: Json = None
    only: str = ""

    @property
    def flavours(self) -> tuple[str, ...]:
        """The flavours of the client that ask this."""
        return (self.only,) if self.only else FLAVOURS[self.protocol]


async def observe(check: Check, session: Session) -> Json:
    """Return what *check* sees; never raises for what a server did, an answer without its parts included."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await check.run(session)
    except InferenceServerException as error:
        return refusal(error)
    except grpc.RpcError as error:  # tritonclient's asyncio streams let it through
        return {"refused": str(error.code()), SENTENCE: str(error.details())}
    except TimeoutError:
        return {"failed": "no answer in time"}
    except (
        httpx.HTTPError,
        OSError,
        ValueError,
        LookupError,
    ) as error:
        return {"failed": type(error).__name__, SENTENCE: str(error)}


def refusal(error: InferenceServerException) -> Json:
    """Return the observation of a refused call: `{"refused": status, "sentence": words}`."""
    return {"refused": error.status(), SENTENCE: error.message()}


def tensor(array: Array) -> Json:
    """Return *array* as an observation: its type, shape and flat data; BYTES as Latin-1, NaN as a string."""
    kind = "BYTES" if array.dtype.kind in "OSU" else array.dtype.name
    return {"type": kind, "shape": list(array.shape), "data": [_plain(item) for item in array.ravel()]}


def _plain(item: Any) -> Any:
    if isinstance(item, str):
        item = item.encode()
    if isinstance(item, bytes):
        return item.decode("latin-1")
    if isinstance(item, np.bool_ | np.integer):
        return item.item()
    value = float(item)
    return value if math.isfinite(value) else str(value)


def same(left: Json, right: Json) -> bool:
    """Tell whether two observations are equal, sentences apart, numbers bit by bit. Pure."""
    if isinstance(left, dict) and isinstance(right, dict):
        keys = (left.keys() | right.keys()) - {SENTENCE}
        return all(key in left and key in right and same(left[key], right[key]) for key in keys)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, float) and isinstance(right, float):
        return left == right and math.copysign(1.0, left) == math.copysign(1.0, right)
    return type(left) is type(right) and bool(left == right)
