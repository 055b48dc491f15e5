"""Breakpoints: the next point of a run that meets a condition. Pure."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from control_plane.errors import InvalidInputError
from serving_agent.contract.inspection import Point, TensorSummary

FORMS: Final = "a name with * and ?, `nan`, `inf`, `nonfinite`, `|x| > 100`, or a shape like `[1, *, 64]`"
MAX_CHARS: Final = 300
_ABOVE: Final = re.compile(r"\|\s*x\s*\|\s*>\s*([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)")


class Condition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a point must meet: `kind` says which of the fields counts."""

    kind: Literal["name", "nan", "inf", "nonfinite", "above", "shape"]
    name: str = ""
    """For name: a glob on the point's id, its module or its kind."""
    bound: float = 0.0
    """For above: some element's magnitude is larger; an infinite one's is, NaN has none."""
    shape: tuple[int | None, ...] = ()
    """For shape: sizes of some output, None for any."""


def find(points: Sequence[Point], condition: Condition, after: int = -1) -> int | None:
    """Place of the first point behind place *after* that meets *condition*; None where there is none."""
    for place in range(max(0, after + 1), len(points)):
        if meets(points[place], condition):
            return place
    return None


def meets(point: Point, condition: Condition) -> bool:
    """Whether *point* meets *condition*."""
    if condition.kind == "name":
        named = (point.id, point.module, point.kind)
        return any(fnmatch.fnmatchcase(each, condition.name) for each in named)
    return any(_tensor_meets(tensor, condition) for tensor in point.outputs)


def parse(text: str) -> Condition:
    """The condition that *text* writes (FORMS). Raises InvalidInputError."""
    wanted = text.strip()
    if not wanted or len(wanted) > MAX_CHARS:
        raise _unreadable(text)
    words: dict[str, Literal["nan", "inf", "nonfinite"]] = {
        "nan": "nan", "inf": "inf", "nonfinite": "nonfinite", "nan or inf": "nonfinite",
    }  # fmt: skip
    if kind := words.get(wanted.lower()):
        return Condition(kind=kind)
    if above := _ABOVE.fullmatch(wanted):
        bound = float(above[1])
        if not math.isfinite(bound):
            raise _unreadable(text)
        return Condition(kind="above", bound=bound)
    if wanted[0] == "[":
        return Condition(kind="shape", shape=_shape(wanted))
    return Condition(kind="name", name=wanted)


def written(condition: Condition) -> str:
    """*condition* as `parse` reads it."""
    if condition.kind == "name":
        return condition.name
    if condition.kind == "above":
        return f"|x| > {condition.bound:g}"
    if condition.kind == "shape":
        return "[" + ", ".join("*" if size is None else str(size) for size in condition.shape) + "]"
    return condition.kind


def _tensor_meets(tensor: TensorSummary, condition: Condition) -> bool:
    if condition.kind == "nan":
        return tensor.nan > 0
    if condition.kind == "inf":
        return tensor.inf > 0
    if condition.kind == "nonfinite":
        return tensor.nan > 0 or tensor.inf > 0
    if condition.kind == "above":
        return tensor.inf > 0 or any(
            end is not None and abs(end) > condition.bound for end in (tensor.low, tensor.high)
        )
    return len(tensor.shape) == len(condition.shape) and all(
        want is None or want == size for want, size in zip(condition.shape, tensor.shape, strict=True)
    )


def _shape(text: str) -> tuple[int | None, ...]:
    if text[-1] != "]":
        raise _unreadable(text)
    sizes = [size.strip() for size in text[1:-1].split(",")] if text[1:-1].strip() else []
    if any(size not in ("*", "?", "-1") and not size.isdecimal() for size in sizes):
        raise _unreadable(text)
    return tuple(int(size) if size.isdecimal() else None for size in sizes)


def _unreadable(text: str) -> InvalidInputError:
    return InvalidInputError(f"{text[:80]!r} is no breakpoint", next_step=f"Write {FORMS}.")
