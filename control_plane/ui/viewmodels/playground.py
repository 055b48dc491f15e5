"""The playground: a form from a signature, the request it makes, and the answer as something to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Literal, TypeGuard

from control_plane.domain.views import Example, Prediction
from control_plane.errors import InvalidInputError
from control_plane.ui.viewmodels.picture import data_url, picture_shape
from serving_agent.contract.signature import Signature, TensorSpec

FieldKind = Literal["number", "integer", "flag", "text", "json"]
MAX_BARS: Final = 12
MAX_VALUES: Final = 32
_FLOATS: Final = frozenset({"FP16", "BF16", "FP32", "FP64"})


@dataclass(frozen=True, slots=True)
class Field:
    """One input of the form; *value* is the text a JSON or text field starts with."""

    name: str
    kind: FieldKind
    label: str
    value: str


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One example to pick: *picture* is a data URL, or None when it is no picture."""

    index: int
    title: str
    picture: str | None


@dataclass(frozen=True, slots=True)
class Bar:
    """One value of a result: *share* in [0, 1] is its length, *text* the value in words."""

    label: str
    share: float
    text: str
    best: bool
    negative: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """An answer to look at: bars for a distribution or a vector, otherwise a table or JSON."""

    ok: bool
    sentence: str
    bars: tuple[Bar, ...]
    table: dict[str, list[Any]] | None
    body: dict[str, Any]
    predicted: str | None = None
    """The most likely class, when the answer is a distribution over classes."""


def fields(signature: Signature) -> tuple[Field, ...]:
    """The form's inputs, in the order of the model's own arguments."""
    return tuple(
        Field(spec.name, _kind(spec), f"{spec.name} · {spec.datatype} {shape_words(spec)}", _start(spec))
        for spec in signature.inputs
    )


def shape_words(spec: TensorSpec) -> str:
    """A shape for people: [-1, 1, 8, 8] → "[batch, 1, 8, 8]"; other free sizes are "any"."""
    names = ["any" if size == -1 else str(size) for size in spec.shape]
    if spec.shape and spec.shape[0] == -1:
        names[0] = "batch"
    return f"[{', '.join(names)}]"


def _row_shape(spec: TensorSpec) -> tuple[int, ...]:
    """Shape of one row: without the batch, with 1 for every free size."""
    sizes = spec.shape[1:] if spec.shape and spec.shape[0] == -1 else spec.shape
    return tuple(1 if size == -1 else size for size in sizes)


def _kind(spec: TensorSpec) -> FieldKind:
    if prod(_row_shape(spec)) != 1:
        return "json"
    if spec.datatype == "BYTES":
        return "text"
    if spec.datatype == "BOOL":
        return "flag"
    return "number" if spec.datatype in _FLOATS else "integer"


def _start(spec: TensorSpec) -> str:
    if _kind(spec) == "text":
        return ""
    return json.dumps(zeros(spec))


def zeros(spec: TensorSpec) -> Any:
    """One row of neutral values in the shape of *spec*, as nested lists (a scalar if it has no sizes)."""
    value: Any = {"BYTES": "", "BOOL": False}.get(spec.datatype, 0.0 if spec.datatype in _FLOATS else 0)
    for size in reversed(_row_shape(spec)):
        value = [value] * size
    return value


def parse_field(field: Field, text: str) -> Any:
    """The value typed into a JSON field. Raises InvalidInputError that names the place."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInputError(
            f"{field.name} is not JSON: {error}",
            next_step="Write numbers as nested lists, like [[0.0, 1.5]].",
        ) from error


def wrap(spec: TensorSpec, value: Any) -> Any:
    """A form value in the shape of one row: 3.0 for FP32[-1,1] becomes [3.0]."""
    if isinstance(value, list):
        return value
    for _ in _row_shape(spec):
        value = [value]
    return value


def request_body(signature: Signature, row: Mapping[str, Any]) -> dict[str, Any]:
    """The body of `POST /predict` for one row: `{"input": [row]}`, or by name when there are several."""
    specs = signature.inputs
    batch = {spec.name: [row[spec.name]] if _batched(spec) else row[spec.name] for spec in specs}
    return {"input": batch[specs[0].name] if len(specs) == 1 else batch}


def _batched(spec: TensorSpec) -> bool:
    return bool(spec.shape) and spec.shape[0] == -1


def example_row(signature: Signature, examples: Sequence[Example], index: int = 0) -> dict[str, Any]:
    """One row to try: an example where there is one, otherwise neutral values."""
    if examples:
        known = examples[min(max(index, 0), len(examples) - 1)].inputs
        return {spec.name: known.get(spec.name, zeros(spec)) for spec in signature.inputs}
    return {
        spec.name: zeros(spec) if spec.datatype != "BYTES" else wrap(spec, "hello")
        for spec in signature.inputs
    }


def thumbnails(signature: Signature, examples: Sequence[Example], limit: int) -> tuple[Thumbnail, ...]:
    """The first *limit* examples, drawn where an input is a picture."""
    pictured = next(((spec, shape) for spec in signature.inputs if (shape := picture_shape(spec))), None)
    return tuple(
        Thumbnail(
            index,
            f"Example {index + 1}" + (f", labelled {example.label}" if example.label is not None else ""),
            data_url(example.inputs.get(pictured[0].name), pictured[1]) if pictured else None,
        )
        for index, example in enumerate(examples[:limit])
    )


def result(prediction: Prediction, labels: Sequence[str]) -> Result:
    """What to show of an answer for one row. Never raises: an unexpected body is shown as JSON."""
    body = prediction.body
    if prediction.status >= 400:
        return Result(False, _error_sentence(body, prediction.status), (), None, body)
    outputs = _first_row(body.get("predictions"))
    classes = _class_bars(outputs, labels)
    if classes:
        return Result(True, f"{classes[0].label} · {classes[0].text}", classes, None, body, classes[0].label)
    values = _value_bars(outputs)
    if values:
        best = next(bar for bar in values if bar.best)
        return Result(True, f"highest at {best.label} · {best.text}", values, None, body)
    return Result(True, "Answered", (), _table(outputs), body)


def _error_sentence(body: Mapping[str, Any], status: int) -> str:
    error = body.get("error")
    if isinstance(error, Mapping):
        error = error.get("message")
    return str(error) if error else f"The gateway answered with status {status}."


def _first_row(predictions: Any) -> Any:
    if isinstance(predictions, Mapping):
        return {name: _first_row(value) for name, value in predictions.items()}
    return predictions[0] if isinstance(predictions, list) and predictions else predictions


def _class_bars(outputs: Any, labels: Sequence[str]) -> tuple[Bar, ...]:
    """Probabilities by class, largest first."""
    shares = outputs.get("probabilities") if isinstance(outputs, Mapping) else None
    if not _is_vector(shares) or not all(0 <= value <= 1.0001 for value in shares):
        return ()
    ranked = sorted(enumerate(shares), key=lambda pair: -pair[1])[:MAX_BARS]
    return tuple(
        Bar(
            labels[i] if i < len(labels) else f"class {i}",
            min(1.0, float(value)),
            f"{value * 100:.1f} %",
            rank == 0,
        )
        for rank, (i, value) in enumerate(ranked)
    )


def _value_bars(outputs: Any) -> tuple[Bar, ...]:
    """The only output's values by index, each as long as its share of the largest magnitude."""
    vector = next(iter(outputs.values())) if isinstance(outputs, Mapping) and len(outputs) == 1 else outputs
    if not _is_vector(vector) or not 2 <= len(vector) <= MAX_VALUES:
        return ()
    scale = max(abs(value) for value in vector) or 1.0
    best = max(range(len(vector)), key=lambda i: vector[i])
    return tuple(
        Bar(str(i), abs(value) / scale, f"{value:.4g}", i == best, negative=value < 0)
        for i, value in enumerate(vector)
    )


def _is_vector(values: Any) -> TypeGuard[list[float]]:
    """Whether *values* is a list of finite numbers, with at least one."""
    return isinstance(values, list) and bool(values) and all(_is_number(value) for value in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300


def _table(outputs: Any) -> dict[str, list[Any]] | None:
    """Columns of a flat answer, or None when it is nested deeper than one level."""
    columns = dict(outputs) if isinstance(outputs, Mapping) else {"output": outputs}
    if any(value is None for value in columns.values()):
        return None
    lists = {str(name): value if isinstance(value, list) else [value] for name, value in columns.items()}
    if any(isinstance(item, list | dict) for values in lists.values() for item in values):
        return None
    if len({len(values) for values in lists.values()}) != 1:
        return None
    return lists
