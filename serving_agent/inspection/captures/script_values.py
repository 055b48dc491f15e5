"""Operators of TorchScript on its own lists, dicts and texts, which have no kernels to call. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final


def _appended(items: list[Any], item: Any) -> list[Any]:
    items.append(item)
    return items


def _extended(items: list[Any], more: list[Any]) -> list[Any]:
    items.extend(more)
    return items


def _sorted(items: list[Any], reverse: Any = None, *, key: None = None) -> None:
    items.sort(key=key, reverse=bool(reverse))


def _set(holder: Any, key: Any, value: Any) -> Any:
    holder[key] = value
    return holder


def _deleted(holder: Any, key: Any) -> None:
    del holder[key]


def _got(mapping: dict[Any, Any], key: Any, default: Any = None) -> Any:
    return mapping.get(key, default)


def _cut(items: Any, start: int | None, end: int | None, step: int = 1) -> Any:
    return items[start:end:step]


def _popped(holder: Any, *where: Any) -> Any:
    return holder.pop(*where)


def _formatted(text: str, *values: Any) -> str:
    return text.format(*values)


def _ignored(*said: Any) -> None:
    del said


def _raised(message: str, *kind: Any) -> None:
    raise RuntimeError(message or "".join(map(str, kind)))


OPERATORS: Final[dict[str, Callable[..., Any]]] = {
    "aten::__getitem__": lambda holder, key: holder[key],
    "aten::_set_item": _set,
    "aten::__contains__": lambda holder, item: item in holder,
    "aten::len": len,
    "aten::append": _appended,
    "aten::extend": _extended,
    "aten::insert": lambda items, place, item: items.insert(place, item),
    "aten::pop": _popped,
    "aten::remove": lambda items, item: items.remove(item),
    "aten::sort": _sorted,
    "aten::clear": lambda holder: holder.clear(),
    "aten::reverse": lambda items: items.reverse(),
    "aten::Delete": _deleted,
    "aten::copy": lambda holder: holder.copy(),
    "aten::list": list,
    "aten::dict": dict,
    "aten::keys": list,
    "aten::values": lambda mapping: list(mapping.values()),
    "aten::items": lambda mapping: list(mapping.items()),
    "aten::get": _got,
    "aten::slice": _cut,
    "aten::add": lambda one, other: one + other,
    "aten::add_": _extended,
    "aten::__is__": lambda one, other: one is other,
    "aten::__isnot__": lambda one, other: one is not other,
    "aten::format": _formatted,
    "aten::warn": _ignored,
    "prim::unchecked_cast": lambda value: value,
    "prim::unchecked_unwrap_optional": lambda value: value,
    "aten::_unwrap_optional": lambda value: value,
    "prim::Uninitialized": lambda: None,
    "prim::RaiseException": _raised,
    "prim::Print": _ignored,
    "prim::ListConstruct": lambda *items: list(items),
    "prim::TupleConstruct": lambda *items: items,
    "prim::ListUnpack": tuple,
    "prim::TupleUnpack": tuple,
    "prim::DictConstruct": lambda *pairs: dict(zip(pairs[::2], pairs[1::2], strict=True)),
    "prim::TupleIndex": lambda items, place: items[place],
}
"""Kind of a node → the same on Python's values."""
ON_CONTAINERS: Final = frozenset(
    {"aten::add", "aten::add_", "aten::slice", "aten::len", "aten::copy", "aten::sort", "aten::values"}
)
"""Those of them that tensors have too: these are only for lists, dicts and texts."""
UNPACKED: Final = frozenset({"prim::ListUnpack", "prim::TupleUnpack"})
"""Those that return each element as an output of its own."""


def on_values(kind: str, inputs: list[Any]) -> Callable[..., Any] | None:
    """Return the operator of *kind* for *inputs*; None where a kernel of torch takes them."""
    found = OPERATORS.get(kind)
    if kind in ON_CONTAINERS and not (inputs and isinstance(inputs[0], list | dict | str | tuple)):
        return None
    return found
