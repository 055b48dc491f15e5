"""Values of `rollout` options: lists of shares, guardrail and policy changes. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from control_plane.errors import InvalidInputError


def weights(text: str) -> list[float]:
    """Shares from `0.05,0.25,1.0`. Raises InvalidInputError."""
    try:
        return [float(each) for each in text.split(",")]
    except ValueError as error:
        raise InvalidInputError(
            f"--steps {text!r} is no list of numbers", next_step="Write for example 0.05,0.25,1.0."
        ) from error


def guardrails(pairs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Changes by guardrail from `NAME.FIELD=VALUE`. Raises InvalidInputError."""
    changes: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        name, dot, field = key.rpartition(".")
        if not (equals and dot and name and field):
            raise InvalidInputError(
                f"--guardrail {pair!r} is not usable",
                next_step="Write NAME.FIELD=VALUE, for example errors.tolerance=0.002.",
            )
        changes.setdefault(name.strip(), {})[field.strip()] = plain(value)
    return changes


def policy(pairs: Iterable[str]) -> dict[str, Any]:
    """Changes of a policy from `FIELD=VALUE`; `sticky` is none, header:NAME or cookie:NAME.

    Raises InvalidInputError.
    """
    changes: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (equals and name.strip()):
            raise InvalidInputError(
                f"--set {pair!r} is not usable", next_step="Write FIELD=VALUE, for example warm_s=600."
            )
        field = name.strip().replace("-", "_")
        changes[field] = sticky(value) if field == "sticky" else plain(value)
    return changes


def sticky(text: str) -> dict[str, str] | None:
    """`header:NAME` or `cookie:NAME`; None for `none`. Raises InvalidInputError."""
    if text.strip() == "none":
        return None
    kind, colon, name = text.strip().partition(":")
    if kind not in ("header", "cookie") or not colon or not name:
        raise InvalidInputError(
            f"sticky={text} is not usable", next_step="Write header:NAME, cookie:NAME or none."
        )
    return {"kind": kind, "name": name}


def plain(text: str) -> Any:
    """A number, true, false or text as it stands; None for `none`."""
    word = text.strip()
    if word == "none":
        return None
    try:
        value = json.loads(word)
    except ValueError:
        return word
    return value if isinstance(value, bool | int | float) else word
