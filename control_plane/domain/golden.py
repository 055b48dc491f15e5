"""Golden sets: fixed inputs of a model with what is right for them, read and checked. Pure.

A file holds either one JSON list of items or one item a line (JSON Lines). An item is

    {"inputs": {"image": [[[0.0, …]]]}, "label": "7"}
    {"inputs": {"x": [1.0, 2.0]}, "outputs": {"y": [3.0]}}

`inputs` and `outputs` hold tensors by name as nested lists of one row, without the batch dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from control_plane.domain.details import MAX_LABEL_CHARS
from control_plane.errors import InvalidInputError, TooLargeError
from serving_agent import validation
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.errors import AgentError
from serving_agent.messages import JsonData, WireTensor
from serving_agent.predict_codec import nesting

MAX_ITEMS: Final = 10_000
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_NAME_CHARS: Final = 100
_FORM: Final = 'Write items as {"inputs": {…}, "label": "…"} or {"inputs": {…}, "outputs": {…}}.'


class GoldenItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input, and its right class or the outputs to be met."""

    inputs: dict[str, Any]
    label: str | None = None
    outputs: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenSetView:
    """A stored golden set, without its items."""

    model: str
    digest: str
    """`sha256:<hex>` of its items as canonical JSON."""
    name: str
    items: int
    labelled: int
    """Items with a label."""
    with_outputs: int
    """Items with reference outputs."""
    created_by: str
    created_at: float


def parse(content: bytes) -> tuple[GoldenItem, ...]:
    """Read a golden file. Raises InvalidInputError saying where it is wrong, TooLargeError beyond a bound."""
    if len(content) > MAX_BYTES:
        raise TooLargeError(f"a golden set may have {MAX_BYTES // 1024**2} MiB at most")
    if content.lstrip()[:1] == b"[":
        return _checked_count(_decoded(content, tuple[GoldenItem, ...], "the file"))
    lines = [line for line in content.splitlines() if line.strip()]
    _check_count(len(lines))
    return tuple(_decoded(line, GoldenItem, f"item {at}") for at, line in enumerate(lines, 1))


def items_of(values: Sequence[Any]) -> tuple[GoldenItem, ...]:
    """*values*, plain JSON, as items. Raises InvalidInputError, TooLargeError."""
    _check_count(len(values))
    try:
        return msgspec.convert(list(values), tuple[GoldenItem, ...])
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"the golden set: {error}", next_step=_FORM) from error


def check(items: Sequence[GoldenItem], signature: Signature, labels: Sequence[str]) -> None:
    """See that every item fits *signature* and says what is right. Raises InvalidInputError.

    labels: the classes' names, where the model has some: a label must be one of them.
    """
    named = frozenset(labels)
    for at, item in enumerate(items, 1):
        try:
            _check_item(item, signature, named)
        except AgentError as error:
            raise InvalidInputError(f"item {at}: {error}", next_step=_FORM) from error
        except InvalidInputError as error:
            raise InvalidInputError(f"item {at}: {error.message}", next_step=error.next_step) from error
    kinds = {item.label is None for item in items}
    if len(kinds) > 1 and any(item.outputs is None for item in items):
        raise InvalidInputError(
            "some items have a label and others none",
            next_step="Give every item a label, or every item reference outputs.",
        )


def check_name(name: str) -> str:
    """Return *name* if it is a printable line. Raises InvalidInputError."""
    if not name.strip() or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise InvalidInputError(f"a golden set's name has 1 to {MAX_NAME_CHARS} printable characters")
    return name


def plain(items: Sequence[GoldenItem]) -> list[dict[str, Any]]:
    """*items* as they are stored and hashed: plain JSON with every key."""
    return [{"inputs": item.inputs, "label": item.label, "outputs": item.outputs} for item in items]


def row(values: Mapping[str, Any], specs: Sequence[TensorSpec]) -> tuple[WireTensor, ...]:
    """One row's *values* as tensors of a request, in the order of *values*.

    An unknown name keeps an empty type: validation refuses it and names the known ones.
    """
    types = {spec.name: spec.datatype for spec in specs}
    return tuple(
        WireTensor(name, types.get(name, ""), nesting([value]), JsonData([value]))
        for name, value in values.items()
    )


def _check_item(item: GoldenItem, signature: Signature, labels: frozenset[str]) -> None:
    validation.decode_inputs(signature, row(item.inputs, signature.inputs), "reject")
    if item.label is None and not item.outputs:
        raise InvalidInputError("there is neither a label nor an output", next_step=_FORM)
    if item.label is not None:
        _check_label(item.label, labels)
    if item.outputs:
        wanted = tuple(spec for spec in signature.outputs if spec.name in item.outputs)
        if unknown := sorted(set(item.outputs) - {spec.name for spec in wanted}):
            names = ", ".join(repr(spec.name) for spec in signature.outputs)
            raise InvalidInputError(f"the model has no output {unknown[0]!r}; it has {names}")
        validation.decode_inputs(Signature(wanted, ()), row(item.outputs, wanted), "reject")


def _check_label(label: str, labels: frozenset[str]) -> None:
    if not label or len(label) > MAX_LABEL_CHARS or not label.isprintable():
        raise InvalidInputError(f"a label has 1 to {MAX_LABEL_CHARS} printable characters")
    if labels and label not in labels:
        some = ", ".join(sorted(labels)[:10])
        raise InvalidInputError(f"{label!r} is no class of the model", next_step=f"Its classes are {some}.")


def _decoded(content: bytes, kind: Any, what: str) -> Any:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(f"{what} cannot be read: {error}", next_step=_FORM) from error


def _checked_count(items: tuple[GoldenItem, ...]) -> tuple[GoldenItem, ...]:
    _check_count(len(items))
    return items


def _check_count(count: int) -> None:
    if not count:
        raise InvalidInputError("the golden set is empty", next_step=_FORM)
    if count > MAX_ITEMS:
        raise TooLargeError(f"a golden set may have {MAX_ITEMS} items at most, not {count}")
