"""Rows to calibrate with, read and checked. Pure.

A file holds them as golden sets do (one JSON list, or JSON Lines, of `{"inputs": {…}}`; labels and outputs
may be there and are not used), or as `.npz`: one array an input, the first axis counting rows.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from control_plane.domain import golden
from control_plane.errors import InvalidInputError, TooLargeError
from serving_agent import tensors, validation
from serving_agent.contract.signature import Signature
from serving_agent.errors import AgentError

MAX_BYTES: Final = golden.MAX_BYTES
MAX_ROWS: Final = golden.MAX_ITEMS
USED_ROWS: Final = 512
"""Rows that calibrate at most, spread evenly over what there is: more only take longer."""
COMPARED_ROWS: Final = 1024
"""Rows that answers are compared on at most, spread evenly over what there is."""
FORM: Final = (
    'Write rows as {"inputs": {…}}, one a line or as one JSON list, or as .npz with one array an input.'
)
_ZIP: Final = b"PK\x03\x04"

Row = dict[str, Any]
"""Inputs of one row by name, as nested lists without the batch dimension."""


def parse(content: bytes) -> list[Row]:
    """Rows of a file. Raises InvalidInputError saying where it is wrong, TooLargeError beyond a bound."""
    if len(content) > MAX_BYTES:
        raise TooLargeError(f"calibration rows may have {MAX_BYTES // 1024**2} MiB at most")
    rows = _from_npz(content) if content.startswith(_ZIP) else _from_json(content)
    if not rows:
        raise InvalidInputError("there is no row to calibrate with: the file is empty", next_step=FORM)
    if len(rows) > MAX_ROWS:
        raise TooLargeError(f"there may be {MAX_ROWS} rows at most, not {len(rows)}")
    return rows


def check(rows: Sequence[Mapping[str, Any]], signature: Signature) -> None:
    """See that every row is one that an agent would take. Raises InvalidInputError naming row and input."""
    if not rows:
        raise InvalidInputError("there is no row to calibrate with", next_step=FORM)
    for at, row in enumerate(rows, 1):
        problem = misfit(row, signature)
        if problem:
            raise InvalidInputError(f"row {at}: {problem}", next_step=FORM)


def misfit(row: Mapping[str, Any], signature: Signature) -> str | None:
    """Why an agent would not take *row*, naming the input; None where it would."""
    try:
        arrays = validation.decode_inputs(signature, golden.row(row, signature.inputs), "reject")
    except AgentError as error:
        return str(error)
    for spec in signature.inputs:
        if not tensors.is_finite(arrays[spec.name], spec.datatype):
            return f"input {spec.name!r} holds NaN or infinite values"
    return None


def spread(rows: Sequence[Any], most: int) -> list[Any]:
    """At most *most* of *rows*, evenly spread, in their order."""
    if len(rows) <= most:
        return list(rows)
    return [rows[at * len(rows) // most] for at in range(most)]


def single_rows(batch: Mapping[str, Any]) -> list[Row]:
    """The rows of a request's inputs, which have the batch dimension. Empty where they do not match."""
    sizes = {len(values) if isinstance(values, list) else 0 for values in batch.values()}
    if len(sizes) != 1:
        return []
    return [{name: values[at] for name, values in batch.items()} for at in range(sizes.pop())]


def _from_json(content: bytes) -> list[Row]:
    if content.strip() in (b"", b"[]"):
        return []
    try:
        return [item.inputs for item in golden.parse(content)]
    except InvalidInputError as error:
        rows = _with_nan(content)
        if rows is None:
            raise InvalidInputError(error.message.replace("item", "row"), next_step=FORM) from error
        return rows


def _with_nan(content: bytes) -> list[Row] | None:
    """Rows of a file that is JSON but for NaN and infinities, which Python writes; None for any other.

    Checking them then names the row and the input.
    """
    try:
        text = content.decode()
        lines = [text] if text.lstrip()[:1] == "[" else [line for line in text.split("\n") if line.strip()]
        read = [json.loads(line) for line in lines]
        listed = read[0] if text.lstrip()[:1] == "[" else read
        rows = [item["inputs"] for item in listed]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return rows if all(isinstance(row, dict) for row in rows) else None


def _from_npz(content: bytes) -> list[Row]:
    arrays = _arrays(content)
    sizes = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise InvalidInputError(f"the arrays have different numbers of rows: {told}", next_step=FORM)
    rows = next(iter(sizes.values()), 0)
    return [{name: _plain(array[at]) for name, array in arrays.items()} for at in range(rows)]


def _arrays(content: bytes) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            if sum(member.file_size for member in packed.infolist()) > MAX_BYTES:
                raise TooLargeError(f"calibration rows may have {MAX_BYTES // 1024**2} MiB at most")
        with np.load(io.BytesIO(content), allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError) as error:
        raise InvalidInputError(f"the .npz file cannot be read: {error}", next_step=FORM) from error


def _plain(value: Any) -> Any:
    """One row of an array as nested lists; bytes as text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray) and value.dtype.kind == "S":
        return np.char.decode(value, "utf-8", "replace").tolist()
    return value.tolist() if hasattr(value, "tolist") else value
