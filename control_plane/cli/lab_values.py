"""Values of options of `optimize` and `autotune`. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from control_plane.cli.client import Client, Json
from control_plane.errors import InvalidInputError

_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h)")
_MINUTES: Final = {"s": 1 / 60, "m": 1.0, "h": 60.0}
STORED: Final = ("examples", "captures")
"""Sources of calibration rows that are no file."""


def minutes(text: str) -> float:
    """Minutes of `90s`, `10m` or `1.5h`. Raises InvalidInputError."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise InvalidInputError(
            f"--budget {text!r} is no time", next_step="Write for example 90s, 10m or 1h."
        )
    return float(found[1]) * _MINUTES[found[2]]


def batches(text: str) -> list[int]:
    """Sizes of `1,32`. Raises InvalidInputError."""
    try:
        return [int(each) for each in text.split(",")]
    except ValueError as error:
        raise InvalidInputError(
            f"--batches {text!r} is no list", next_step="Write for example 1,32."
        ) from error


def params(pairs: Iterable[str]) -> dict[str, Any]:
    """Parameters of `NAME=VALUE`, a value being JSON or else text. Raises InvalidInputError."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise InvalidInputError(
                f"--param {pair!r} is not usable", next_step="Write NAME=VALUE, for example engine=onednn."
            )
        found[name.strip()] = _plain(value.strip())
    return found


def job(
    version: str,
    *,
    threads: int | None,
    sizes: str | None,
    budget: dict[str, float | None],
    calibrated_by: Json | None,
    **more: Any,
) -> Json:
    """The body that asks for a job, *more* being the kind's own part; without what was not said."""
    said = {
        "version": version,
        **more,
        "conditions": _given({"threads": threads, "batches": batches(sizes) if sizes else None}),
        "budget": _given(budget),
        "calibration": calibrated_by,
    }
    return {name: value for name, value in said.items() if value is not None}


def calibration(api: Client, version: str, source: str | None) -> Json | None:
    """The body's part on what calibrates: `examples`, `captures`, or a file, which is sent first."""
    if source is None:
        return None
    if source in STORED:
        return {"source": source}
    file = Path(source)
    if not file.is_file():
        raise InvalidInputError(
            f"--calibration {source}: there is no such file",
            next_step=f"Name a file, or {' or '.join(STORED)}.",
        )
    kept = api.send("/optimization/calibration", file.read_bytes(), version=version)
    return {"source": "upload", "digest": kept["digest"]}


def _given(values: Json) -> Json | None:
    """Those of *values* that were said; None for none."""
    return {name: value for name, value in values.items() if value is not None} or None


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
