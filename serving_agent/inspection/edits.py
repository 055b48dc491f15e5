"""Elements overwritten in the middle of a run."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from serving_agent.contract.inspection import Edit
from serving_agent.inspection import structures

SHOWN: Final = 12
"""Names that a message gives; the rest are counted."""


class EditError(Exception):
    """An edit that names nothing, or that its tensor cannot take; the message says what there is."""


class Edits:
    """Applies each edit once, at its point."""

    def __init__(self, edits: Sequence[Edit]) -> None:
        self._at: dict[str, list[Edit]] = defaultdict(list)
        for edit in edits:
            self._at[edit.point].append(edit)

    def __contains__(self, point: str) -> bool:
        return point in self._at

    @property
    def waiting(self) -> tuple[str, ...]:
        """The points whose edits were not applied."""
        return tuple(self._at)

    def apply(self, point: str, value: Any) -> Any:
        """Return *value* with what the edits of *point* say. Raises EditError."""
        for edit in self._at.pop(point, ()):
            value = edited(value, edit)
        return value


def edited(value: Any, edit: Edit) -> Any:
    """Return *value* with one edit; the tensor is changed in memory of its own. Raises EditError."""
    names = [name for name, _ in structures.leaves(value)]
    place = _place(edit, names)
    return structures.replaced(value, place, lambda tensor: _overwritten(tensor, edit))


def listed(names: Sequence[str]) -> str:
    """*names*, the first of them, for a message."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "nothing") + more


def _place(edit: Edit, names: list[str]) -> int:
    if isinstance(edit.tensor, str):
        if edit.tensor in names:
            return names.index(edit.tensor)
    elif 0 <= edit.tensor < len(names):
        return edit.tensor
    raise EditError(f"{edit.point} has no tensor {edit.tensor!r} to edit; it has {listed(names)}")


def _overwritten(tensor: Any, edit: Edit) -> Any:
    if isinstance(tensor, bool | int | float):
        _check_index(edit, ())
        return type(tensor)(_as_element(edit, "bool" if isinstance(tensor, bool) else _kind_of(tensor)))
    _check_index(edit, tuple(tensor.shape))
    where = tuple(slice(None) if index is None else index for index in edit.index)
    if isinstance(tensor, np.ndarray):
        if tensor.dtype == object:
            raise EditError(f"{edit.point}: texts cannot be edited in place; change the input instead")
        return _of_array(tensor, where, edit)
    return _of_tensor(tensor, where, edit)


def _of_array(array: np.ndarray[Any, Any], where: tuple[Any, ...], edit: Edit) -> np.ndarray[Any, Any]:
    changed = array.copy()
    if array.dtype.kind in "iu":
        bounds = np.iinfo(array.dtype)
        _check_bounds(edit, int(bounds.min), int(bounds.max))
    with np.errstate(over="ignore"):
        changed[where] = _as_element(edit, "float" if array.dtype.kind == "f" else "int")
    return changed


def _of_tensor(tensor: Any, where: tuple[Any, ...], edit: Edit) -> Any:
    import torch

    if tensor.is_quantized:
        if tensor.qscheme() != torch.per_tensor_affine:
            raise EditError(f"{edit.point}: a tensor that is quantised by channels cannot be edited")
        if not math.isfinite(edit.number):
            raise EditError(f"{edit.point}: a quantised tensor holds no {edit.number:g}")
        plain = tensor.dequantize()
        plain[where] = edit.number
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's own, about the end of such tensors
            return torch.quantize_per_tensor(plain, tensor.q_scale(), tensor.q_zero_point(), tensor.dtype)
    changed = tensor.detach().clone()
    if tensor.is_floating_point() or tensor.is_complex():
        changed[where] = edit.number
        return changed
    if tensor.dtype == torch.bool:
        changed[where] = bool(_as_element(edit, "bool"))
        return changed
    bounds = torch.iinfo(tensor.dtype)
    _check_bounds(edit, bounds.min, bounds.max)
    changed[where] = int(_as_element(edit, "int"))
    return changed


def _check_index(edit: Edit, shape: tuple[int, ...]) -> None:
    fits = len(edit.index) <= len(shape) and all(
        index is None or 0 <= index < size for index, size in zip(edit.index, shape, strict=False)
    )
    if not fits or (edit.index and len(edit.index) != len(shape)):
        shown = ["all" if index is None else index for index in edit.index]
        raise EditError(
            f"{edit.point}: {shown} is no place in a tensor of shape {list(shape)}; give one number from 0 "
            "for each dimension, or null for all of it"
        )


def _as_element(edit: Edit, kind: str) -> float:
    if kind == "bool" and math.isfinite(edit.number):
        return bool(edit.number)
    if kind == "float":
        return edit.number
    if not math.isfinite(edit.number) or edit.number != int(edit.number):
        raise EditError(f"{edit.point}: {edit.number:g} is no whole number, which this tensor holds")
    return int(edit.number)


def _check_bounds(edit: Edit, low: int, high: int) -> None:
    if not low <= edit.number <= high:
        raise EditError(f"{edit.point}: {edit.number:g} does not fit a tensor of integers {low} to {high}")


def _kind_of(number: float) -> str:
    return "int" if isinstance(number, int) else "float"
