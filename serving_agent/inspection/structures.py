"""The tensors in whatever a layer returns: tuples, mappings, dataclasses, caches; found, and replaced."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import partial
from typing import Any, Final

import numpy as np

DEEPEST: Final = 6
"""Levels of nesting that are looked into."""
MOST: Final = 4096
"""Tensors of one value that are looked at."""


def leaves(value: Any) -> list[tuple[str, Any]]:
    """Return every tensor, array and number in *value* with its name: `0`, `logits`, `cache.0.keys`, ...

    A value that is a tensor itself is called `output`.
    """
    if is_leaf(value):
        return [("output", value)]
    found = []
    for leaf in _walk(value, "", 0):
        found.append(leaf)
        if len(found) == MOST:
            break
    return found


def is_leaf(value: Any) -> bool:
    """Whether *value* is a tensor, an array or a number."""
    import torch

    return isinstance(value, torch.Tensor | np.ndarray | bool | int | float)


def replaced(value: Any, place: int, change: Callable[[Any], Any]) -> Any:
    """Return *value* with *change* applied to its leaf at *place*, by the order of `leaves`.

    Tuples, mappings and dataclasses are made anew; objects that torch keeps state in, as caches of keys and
    values, are changed where they are.
    """
    if is_leaf(value):
        return change(value)
    counter = iter(range(place + 1))

    def visit(part: Any, depth: int) -> Any:
        if is_leaf(part):
            return change(part) if next(counter, -1) == place else part
        if depth >= DEEPEST:
            return part
        for _, inner, put in _parts(part):
            new = visit(inner, depth + 1)
            if new is not inner:
                return put(new)
        return part

    return visit(value, 0)


def _walk(value: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    if is_leaf(value):
        yield prefix, value
    elif depth < DEEPEST:
        for name, inner, _ in _parts(value):
            yield from _walk(inner, f"{prefix}.{name}" if prefix else name, depth + 1)


def _parts(value: Any) -> Iterator[tuple[str, Any, Callable[[Any], Any]]]:
    """Yield name, part, and a function that returns *value* with another part in its place."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            name = field.name
            yield name, getattr(value, name, None), partial(_with_field, value, name)
    elif isinstance(value, Mapping):
        for key in list(value):
            yield str(key), value[key], partial(_with_item, value, key)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield str(index), inner, partial(_with_element, value, index)
    else:
        for index, layer in enumerate(_cache_layers(value)):
            for name in ("keys", "values"):
                inner = getattr(layer, name, None)
                yield f"{index}.{name}", inner, partial(_with_attribute, value, layer, name)


def _cache_layers(value: Any) -> list[Any]:
    """The layers of a cache of keys and values, as transformers has them; none where it is no cache."""
    layers = getattr(value, "layers", None)
    return layers if isinstance(layers, list) and hasattr(value, "get_seq_length") else []


def _with_field(value: Any, name: str, new: Any) -> Any:
    return dataclasses.replace(value, **{name: new})


def _with_item(value: Mapping[Any, Any], key: Any, new: Any) -> Any:
    copied = value.copy() if hasattr(value, "copy") else dict(value)
    if not isinstance(copied, MutableMapping):
        copied = dict(copied)
    copied[key] = new
    return copied


def _with_element(value: list[Any] | tuple[Any, ...], index: int, new: Any) -> Any:
    elements = [*value[:index], new, *value[index + 1 :]]
    if isinstance(value, list):
        return elements
    return type(value)(*elements) if hasattr(value, "_fields") else type(value)(elements)


def _with_attribute(whole: Any, layer: Any, name: str, new: Any) -> Any:
    setattr(layer, name, new)
    return whole
