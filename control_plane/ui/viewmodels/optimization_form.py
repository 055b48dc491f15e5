"""The form of a new optimisation job: parameters' JSON schema → fields; what was typed → values. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from control_plane.domain.optimization import Budget, Conditions
from control_plane.domain.optimization_views import CalibrationChoice, CalibrationWish, LabView, MethodView
from control_plane.errors import InvalidInputError
from control_plane.ui.viewmodels import quantities

Kind = Literal["number", "integer", "choice", "switch", "names", "text", "json"]
SEGMENT_CHARS: Final = 18
"""Choices whose names have so many characters together are drawn side by side, longer ones as a list."""
_STRICT: Final = 1e-6
"""Distance of a bound that must not be reached, as a share of it."""


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter of a method as a widget."""

    name: str
    label: str
    """With the unit, where there is one."""
    help: str
    kind: Kind
    default: Any
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple[Any, ...] = ()
    optional: bool = False
    """Whether it may be left empty."""

    @property
    def short(self) -> bool:
        """Whether all its choices have room side by side."""
        return sum(len(str(choice)) for choice in self.choices) <= SEGMENT_CHARS


def fields(schema: Mapping[str, Any]) -> tuple[Field, ...]:
    """The fields of a parameter model, in its order; *schema* is its JSON schema."""
    defs = schema.get("$defs", {})
    return tuple(_field(name, prop, defs) for name, prop in schema.get("properties", {}).items())


def _field(name: str, prop: Mapping[str, Any], defs: Mapping[str, Any]) -> Field:
    shape, optional = _shape(prop, defs)
    kind = _kind(shape)
    label = str(prop.get("title") or shape.get("title") or name.replace("_", " ").capitalize())
    unit = prop.get("unit")
    low, high = _bounds(shape, whole=kind == "integer")
    return Field(
        name=name,
        label=f"{label}, {unit}" if unit else label,
        help=str(prop.get("description") or shape.get("description") or ""),
        kind=kind,
        default=prop.get("default"),
        low=low,
        high=high,
        step=_step(shape, kind, low, high),
        choices=_choices(shape),
        optional=optional,
    )


def _shape(prop: Mapping[str, Any], defs: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The property with references resolved, without an alternative "null", and whether it had one."""
    alternatives = [each for each in prop.get("anyOf", ()) if each.get("type") != "null"]
    optional = len(alternatives) < len(prop.get("anyOf", ()))
    merged = {**prop, **(alternatives[0] if len(alternatives) == 1 else {})}
    if "$ref" in merged:
        merged = {**defs.get(str(merged["$ref"]).rpartition("/")[2], {}), **prop}
    return merged, optional


def _kind(shape: Mapping[str, Any]) -> Kind:
    if "enum" in shape or "const" in shape:
        return "choice"
    if shape.get("type") == "array" and shape.get("items", {}).get("type") == "string":
        return "names"
    kinds: dict[Any, Kind] = {"number": "number", "integer": "integer", "boolean": "switch", "string": "text"}
    return kinds.get(shape.get("type"), "json")


def _choices(shape: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(shape.get("enum", (shape["const"],) if "const" in shape else ()))


def _bounds(shape: Mapping[str, Any], *, whole: bool) -> tuple[float | None, float | None]:
    """The least and the largest value that are allowed."""
    low, high = shape.get("minimum"), shape.get("maximum")
    above, below = shape.get("exclusiveMinimum"), shape.get("exclusiveMaximum")
    if above is not None:
        low = above + 1 if whole else above + _STRICT * max(1.0, abs(above))
    if below is not None:
        high = below - 1 if whole else below - _STRICT * max(1.0, abs(below))
    return low, high


def _step(shape: Mapping[str, Any], kind: Kind, low: float | None, high: float | None) -> float | None:
    if "multipleOf" in shape:
        return float(shape["multipleOf"])
    if kind == "integer":
        return 1
    if kind != "number":
        return None
    narrow = low is not None and high is not None and high - low <= 1
    return 0.05 if narrow else 0.5


def values(shown: Iterable[Field], typed: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed, as a method takes it; what was left empty stays out. Raises InvalidInputError."""
    found = {field.name: _value(field, typed.get(field.name)) for field in shown}
    return {name: value for name, value in found.items() if value is not None}


def _value(field: Field, typed: Any) -> Any:
    if typed is None or typed == "":
        if field.optional or field.default is not None or field.kind == "text":
            return None
        raise InvalidInputError(f"{field.label} is empty", next_step="Give it a value.")
    if field.kind == "integer":
        return int(typed)
    if field.kind == "number":
        return round(float(typed), 9)
    if field.kind == "names":
        return [str(name).strip() for name in typed if str(name).strip()]
    return _json(field, typed) if field.kind == "json" else typed


def _json(field: Field, typed: Any) -> Any:
    try:
        return json.loads(str(typed))
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"{field.label} is no JSON: {error}", next_step="Write a JSON value."
        ) from None


# --- measuring and budget ---


def batches(text: str) -> tuple[int, ...]:
    """Batch sizes as typed: "32, 1" → (1, 32). Raises InvalidInputError."""
    parts = [part for part in text.replace(";", ",").replace(" ", ",").split(",") if part]
    try:
        sizes = tuple(sorted({int(part) for part in parts}))
    except ValueError as error:
        raise InvalidInputError(
            f"{text[:80]!r} is no list of batch sizes", next_step="Write them like 1, 8, 32."
        ) from error
    if not sizes:
        raise InvalidInputError("there is no batch size to measure at", next_step="Write e.g. 1, 32.")
    return sizes


def conditions(*, batch_text: str, threads: int, rounds: int) -> Conditions:
    """How to measure, from what was typed. Raises InvalidInputError."""
    try:
        return Conditions(batches=batches(batch_text), threads=threads, rounds=rounds)
    except ValueError as error:
        raise InvalidInputError(str(error), next_step="Correct it under Measuring and limits.") from error


def budget(*, agreement_percent: float, drop_points: float, speedup: float, shrink: float) -> Budget:
    """What a variant may lose and must win, from percentages and ratios. Raises InvalidInputError."""
    try:
        return Budget(
            min_agreement=round(agreement_percent / 100, 9),
            max_metric_drop=round(drop_points / 100, 9),
            min_speedup=speedup,
            min_shrink=shrink,
        )
    except ValueError as error:
        raise InvalidInputError(str(error), next_step="Correct it under Measuring and limits.") from error


# --- calibration ---


def calibration_words(choice: CalibrationChoice) -> str:
    """One place that rows come from, with how many there are."""
    return f"{choice.title} · {quantities.count(choice.rows, 'row')}" if choice.rows else choice.title


def first_usable(choices: Sequence[CalibrationChoice]) -> int:
    """Place of the first choice that has rows and no problem; 0 where there is none."""
    return next((at for at, each in enumerate(choices) if each.rows and each.problem is None), 0)


def wish(choice: CalibrationChoice | None, digest: str | None) -> CalibrationWish | None:
    """Which rows to calibrate with. Raises InvalidInputError while they cannot be used."""
    if choice is None:
        return None
    if choice.source == "upload":
        if digest is None:
            raise InvalidInputError(
                "no calibration rows were uploaded", next_step="Choose a file, or calibrate with other rows."
            )
        return CalibrationWish(source="upload", digest=digest)
    if choice.problem is not None:
        raise InvalidInputError(choice.problem, next_step="Calibrate with other rows.")
    return CalibrationWish(source=choice.source)


# --- what is known beforehand ---


def estimate_words(method: MethodView) -> str:
    """How long a job with *method* may take, and how that is known."""
    return f"Takes about {_about(method.estimate_s)}, from {method.estimated_from}."


def search_words(lab: LabView) -> str:
    """What a search does, and how long it needs to try everything once."""
    applying = [method for method in lab.methods if method.inapplicable is None]
    once = sum(method.estimate_s for method in applying)
    return (
        f"Tries the {quantities.count(len(applying), 'method')} that apply with parameters worth trying: all "
        "of them roughly at first, the best ones in full. The best that keeps to the limits is registered by "
        f"itself. To try each method once takes about {_about(once)}."
    )


def _about(seconds: float) -> str:
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 60 else quantities.duration(whole)


def holdout_words(lab: LabView) -> str:
    """What answers are compared on, in a sentence."""
    if not lab.holdout.rows:
        return (
            f"Answers are compared on {lab.holdout.source}. Add examples or a golden set to compare them on "
            "real rows."
        )
    labelled = f", {lab.holdout.labelled:,} of them labelled" if lab.holdout.labelled else ""
    return f"Answers are compared on {lab.holdout.source}{labelled}."


def machine_words(machine: Mapping[str, Any]) -> str:
    """The machine on one line: processor, cores, memory, GPUs."""
    parts = [str(machine.get("cpu") or "unknown processor"), quantities.count(int(machine["cores"]), "core")]
    if machine.get("memory_bytes"):
        parts.append(quantities.size(machine["memory_bytes"]))
    parts += [_gpu(gpu) for gpu in machine.get("gpus") or ()]
    return ", ".join(parts)


def _gpu(gpu: Any) -> str:
    return str(gpu[0]) if isinstance(gpu, list | tuple) and gpu else str(gpu)
