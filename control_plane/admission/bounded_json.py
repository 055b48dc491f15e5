"""Strict JSON of bounded size: no duplicate keys, no NaN, no depth that breaks the parser."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from control_plane.admission.base import ReceivedFile, Refusal
from control_plane.admission.reasons import ReasonCode

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_NODES: Final = 1_000_000
"""Values in one document; parsing so many takes up to 160 MB beyond the text."""


def parse(data: bytes, file: str) -> dict[str, Any]:
    """Return the object that *data* holds; *file* names it in refusals. Raises Refusal."""
    return _object(parse_any(data, file), file)


def parse_any(data: bytes, file: str) -> dict[str, Any] | list[Any]:
    """Return the object or array that *data* holds; *file* names it in refusals. Raises Refusal."""
    _check_nodes(data, file)
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _broken(file, str(error) or "it is nested too deep") from None
    if not isinstance(value, dict | list):
        raise _broken(file, "it does not hold an object or array")
    return value


def parse_file(file: ReceivedFile, limit: int = MAX_BYTES) -> dict[str, Any]:
    """Return the object in *file*. Raises Refusal, also when it is larger than *limit* bytes."""
    return _object(parse_file_any(file, limit), file.path)


def parse_file_any(file: ReceivedFile, limit: int = MAX_BYTES) -> dict[str, Any] | list[Any]:
    """Return the object or array in *file*. Raises Refusal, also when it is larger than *limit* bytes."""
    if file.size_bytes > limit:
        raise Refusal(
            ReasonCode.TOO_LARGE_TO_READ,
            f"{file.path} has {file.size_bytes} bytes; JSON of more than {limit} bytes is not read",
            "Upload only the files that the model needs.",
            file=file.path,
        )
    return parse_any(file.head(limit), file.path)


def _object(value: dict[str, Any] | list[Any], file: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise _broken(file, "it does not hold an object")


def _check_nodes(data: bytes, file: str) -> None:
    """Bound the values in *data* before they are made: each but the first follows one of three characters."""
    nodes = sum(map(data.count, (b"[", b"{", b",")))
    if nodes > MAX_NODES:
        raise Refusal(
            ReasonCode.TOO_LARGE_TO_READ,
            f"{file} holds {nodes} values; JSON of more than {MAX_NODES} is not read",
            "Upload only the files that the model needs.",
            file=file,
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _broken(file: str, why: str) -> Refusal:
    return Refusal(
        ReasonCode.BROKEN_JSON,
        f"{file} is not valid JSON: {why[:200]}",
        "Save the model again; do not edit its files by hand.",
        file=file,
    )
