"""Options that hold more than one word: `key=value`, tensors, sizes. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
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


def network(builder: str | None, arguments: str | None, config: Path | None) -> dict[str, Any] | None:
    """Read the network of bare weights: a class with its arguments, or a configuration's file.

    None where nothing is given. Raises InvalidInputError.
    """
    if builder and config:
        raise InvalidInputError("name the network by --architecture or by --config, not by both")
    if config is not None:
        return {"config": _object("--config", _text(config))}
    if builder is None and arguments is not None:
        raise InvalidInputError(
            "--arguments belong to a network", next_step="Add --architecture module:Class."
        )
    if builder is None:
        return None
    return {"class": builder, "arguments": _object("--arguments", arguments) if arguments else {}}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}") from None


def _object(option: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{option} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInputError(f"{option} is no JSON object", next_step='Write for example {"hidden": 128}.')
    return value


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
