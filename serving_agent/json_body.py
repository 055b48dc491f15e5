"""JSON bodies: strict, without repeated names, and with long lists of numbers straight into arrays. Pure.

simdjson parses. In a body of LARGE bytes or more, lists of numbers become `Numbers` without a Python object
for each element, which would take most of the time of a large request.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
import simdjson

from serving_agent.datatypes import Array
from serving_agent.errors import InvalidRequestError, TooLargeError

LARGE: Final = 4096
"""Bodies of fewer bytes are read into plain lists, which is faster for them."""
FEW_NUMBERS: Final = 64
"""Lists of fewer numbers, such as shapes, stay lists."""
MANY_LISTS: Final = 1024
"""Lists of one level beyond which their sizes are not looked at one by one."""
NUMBER_CHARACTERS: Final = b"0123456789+-.eE"
MANY_NAMES: Final = 64
"""Names of one object beyond which it is read by Python's own parser: simdjson's look-up walks over them."""
NUMBER_ERRORS: Final = ("BIGINT_ERROR", "NUMBER_ERROR")
"""What simdjson says of integers beyond 64 bits, and of what is no number at all."""
CONTAINERS: Final = (dict, list)
ELEMENTS: Final = (simdjson.Object, simdjson.Array)
MOST_LISTS: Final = 2**20
"""Most lists of a body that are read the plain way, with a Python object for each."""
MOST_PLAIN_BYTES: Final = 8 * 1024 * 1024
"""Largest JSON that is left to Python's own parser, which runs nothing else meanwhile."""
LONGEST: Final = 2**24 - 1
"""simdjson counts a list's elements no further than this, and its Python binding writes beyond its memory
when it converts one that has more: such lists are refused before."""
KINDS: Final = (("i", np.dtype(np.int64)), ("u", np.dtype(np.uint64)), ("d", np.dtype(np.float64)))
"""simdjson's buffers, from the narrowest: an integer that a double cannot hold stays exact."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """A JSON list of numbers, nested or not.

    (Or of values that `predecoding` has made an array of: that one is of the tensor's datatype already.)
    """

    values: Array
    """All of them, row-major: int64, uint64 or float64, the first that holds every one."""
    sizes: tuple[int, ...]
    """Sizes of the nested lists, outermost first."""

    @property
    def lists(self) -> int:
        """How many JSON lists they were in."""
        count, level = 1, 1
        for size in self.sizes[:-1]:
            level *= size
            count += level
        return count


def parse(body: bytes | bytearray) -> dict[str, Any]:
    """Return the JSON object in *body*; its long lists of numbers may be `Numbers`.

    Raises InvalidRequestError where it is not JSON, not an object, or has an object with a repeated name, and
    TooLargeError for a list of LONGEST elements.
    (Objects in a list that does not begin with one are not looked into: no request has such a list.)
    """
    try:
        return _parsed(body)
    except RecursionError:
        raise InvalidRequestError("the body's JSON is nested too deeply") from None
    except (ValueError, RuntimeError) as error:
        raise InvalidRequestError(f"the body is not JSON: {_first_sentence(error)}") from None


def _parsed(body: bytes | bytearray) -> dict[str, Any]:
    try:
        root = simdjson.Parser().parse(body)
    except (ValueError, RuntimeError) as error:
        if not str(error).startswith(NUMBER_ERRORS):
            raise
        root = _with_large_integers(body)
    if isinstance(root, dict):
        return root
    if not isinstance(root, simdjson.Object):
        raise InvalidRequestError("the body must be a JSON object")
    if len(body) >= LARGE:
        return _with_numbers(root, body)
    value: dict[str, Any] = root.as_dict()
    _check_names(root, value)
    return value


def _with_large_integers(body: bytes | bytearray) -> Any:
    """Return the value in *body*, with integers beyond 64 bits: JavaScript writes doubles up to 1e21 so."""
    _check_size(len(body), "a body with integers beyond 64 bits")
    orjson.loads(body)  # strict where json is not: NaN, lone surrogates, encodings other than UTF-8
    return json.loads(body, object_pairs_hook=_unique)


def _with_numbers(root: Any, body: bytes | bytearray) -> dict[str, Any]:
    """Return *root* with `Numbers`, but plain where they would hide a list among the numbers.

    simdjson flattens `[1, [2]]` as it does `[1, 2]`; such a list shows as one bracket too many. (So does a
    bracket in a string; then the plain way is taken for nothing.)
    """
    lists = body.count(b"[")
    value: dict[str, Any] = _converted(root, lists)
    return value if _lists(value) == lists else _plain(root, lists)


def _converted(element: Any, lists: int) -> Any:
    if isinstance(element, simdjson.Object):
        return _named(element, _converted, lists)
    if not isinstance(element, simdjson.Array):
        return element
    if len(element) > 0 and isinstance(element[0], simdjson.Object):
        return [_converted(item, lists) for item in element]
    _check_length(element)
    numbers = _numbers(element)
    return _plain(element, lists) if numbers is None else numbers


def _plain(element: Any, lists: int) -> Any:
    """Return *element* without `Numbers`; *lists* is how many there are in the body at most."""
    if lists > MOST_LISTS:
        raise TooLargeError(
            f"the body has more than {MOST_LISTS} lists, and they are no regular array of numbers; "
            "send the tensor in binary form or over gRPC"
        )
    return _unpacked(element, lists)


def _unpacked(element: Any, lists: int) -> Any:
    """Return *element* as plain values; not by simdjson's `as_list`, which is not safe for long lists."""
    if isinstance(element, simdjson.Array):
        _check_length(element)
        return [_unpacked(item, lists) if isinstance(item, ELEMENTS) else item for item in element]
    return _named(element, _unpacked, lists) if isinstance(element, simdjson.Object) else element


def _check_length(array: Any) -> None:
    if len(array) >= LONGEST:
        raise TooLargeError(
            f"a list in the body has {LONGEST} or more elements; send a tensor of that size in binary form "
            "or over gRPC"
        )


def _check_size(size: int, what: str) -> None:
    if size > MOST_PLAIN_BYTES:
        raise TooLargeError(f"{what} may have {MOST_PLAIN_BYTES} bytes at most")


def _named(element: Any, convert: Callable[[Any, int], Any], lists: int) -> dict[str, Any]:
    """Return an object with its members converted; not by its `items`, which would do so itself."""
    if len(element) > MANY_NAMES:
        text = element.mini
        _check_size(len(text), f"an object of more than {MANY_NAMES} names")
        parsed: dict[str, Any] = json.loads(text, object_pairs_hook=_unique)
        return parsed
    names = list(element)
    if len(set(names)) != len(names):
        raise _repeated(names)
    return {name: convert(_at(element, name), lists) for name in names}


def _at(element: Any, name: str) -> Any:
    if "\0" in name:  # simdjson looks up what is in front of it
        raise InvalidRequestError("a name in the body's JSON holds the character U+0000")
    return element[name]


def _numbers(array: Any) -> Numbers | None:
    """Return *array* as numbers; None where it holds anything else, few of them, or is ragged."""
    sizes = _sizes(array)
    if sizes is None or math.prod(sizes) < FEW_NUMBERS:
        return None
    for kind, dtype in KINDS:
        try:
            values = np.frombuffer(array.as_buffer(of_type=kind), dtype=dtype)
        except (TypeError, ValueError):  # another kind of value; a number out of its range
            continue
        numbers = Numbers(values, sizes)
        return numbers if values.size == math.prod(sizes) and _is_regular(array, numbers) else None
    return None


def _sizes(array: Any) -> tuple[int, ...] | None:
    """Return the sizes of nested lists along their first elements; None where a number is not the last."""
    sizes: list[int] = []
    while isinstance(array, simdjson.Array):
        if len(array) == 0:
            return None
        _check_length(array)
        sizes.append(len(array))
        array = array[0]
    return tuple(sizes) if isinstance(array, int | float) else None


def _is_regular(array: Any, numbers: Numbers) -> bool:
    """Tell whether the lists of each level of *array* are of one size, as *numbers* has it.

    Few lists are looked at one by one; of many the brackets and commas are compared with those of a regular
    array, which takes no object for each list.
    """
    if numbers.lists > MANY_LISTS:
        structure: bytes = array.mini.translate(None, NUMBER_CHARACTERS)
        return structure.count(b"[") == numbers.lists and structure == _structure(numbers.sizes)
    level = [array]
    for size in numbers.sizes[:-1]:
        if any(len(item) != size for item in level):
            return False
        level = [item for parent in level for item in parent]
        if not all(isinstance(item, simdjson.Array) for item in level):
            return False
    return all(len(item) == numbers.sizes[-1] for item in level)


def _structure(sizes: tuple[int, ...]) -> bytes:
    """Return the brackets and commas of nested lists of *sizes*."""
    inner = b""
    for size in reversed(sizes):
        inner = b"[" + (inner + b",") * (size - 1) + inner + b"]"
    return inner


def _lists(value: Any) -> int:
    """Return how many lists *value* holds, or fewer where a list does not begin with a container."""
    if isinstance(value, Numbers):
        return value.lists
    if isinstance(value, dict):
        return sum(map(_lists, value.values()))
    if not isinstance(value, list):
        return 0
    return 1 + (sum(map(_lists, value)) if value and isinstance(value[0], CONTAINERS) else 0)


def _check_names(element: Any, value: Any) -> None:
    if isinstance(value, dict):
        if len(element) != len(value):
            raise _repeated(list(element))
        for name, item in value.items():
            if isinstance(item, CONTAINERS):
                _check_names(_at(element, name), item)
    elif value and isinstance(value[0], dict):
        for inner, item in zip(element, value, strict=True):
            if isinstance(item, CONTAINERS):
                _check_names(inner, item)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _repeated([name for name, _ in pairs])
    return value


def _repeated(names: list[str]) -> InvalidRequestError:
    ((name, _),) = Counter(names).most_common(1)
    return InvalidRequestError(f"the name {name[:80]!r} is given twice in one JSON object")


def _first_sentence(error: Exception) -> str:
    return str(error).partition(". ")[0].rstrip(".")[:200]
