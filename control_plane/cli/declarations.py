"""Options that hold more than one word: `key=value`, tensors, sizes. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from control_plane.errors import InvalidInputError
from serving_agent.contract.signature import TensorSpec

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB)?")
_UNIT_BYTES: Final = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def metadata(pairs: Iterable[str]) -> dict[str, Any]:
    """Read `key=value` pairs; a value that is JSON (a number, true, a list) is taken as such."""
    details: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise InvalidInputError(f"--meta {pair!r} is not key=value")
        details[key] = _value(value)
    return details


def tensor(text: str) -> TensorSpec:
    """Read `name:DATATYPE:sizes`, e.g. `image:FP32:-1,1,8,8`. Raises InvalidInputError."""
    try:
        name, datatype, sizes = text.rsplit(":", 2)
        return TensorSpec(name, datatype.upper(), tuple(int(size) for size in sizes.split(",")))
    except ValueError as error:
        raise InvalidInputError(
            f"--input {text!r} is not usable: {error}",
            next_step="Write NAME:DATATYPE:SIZES, for example image:FP32:-1,1,8,8.",
        ) from error


def size_bytes(text: str) -> int:
    """Read a size: `2GiB`, `512 MiB` or plain bytes. Raises InvalidInputError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidInputError(f"--memory {text!r} is not a size", next_step="Write for example 2GiB.")
    return int(float(match[1]) * _UNIT_BYTES[match[2] or "B"])


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
