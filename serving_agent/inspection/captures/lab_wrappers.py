"""Modules that the optimisation lab puts around a network before it writes it as a program. Pure.

They order and cast tensors and are nothing of the network's own: without them its layers have the same paths
in a variant as in the version that it was made of.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

WRAPPERS: Final = {"InOrder": "network", "Positional": "module", "Edges": "inner"}
"""Class → name that it has for what it is around."""


def around(chain: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the names of the wrappers' only modules, outermost first.

    chain: path and class of the whole program, and of modules each in the one before.
    """
    found: list[str] = []
    for path, kind in chain:
        if kind not in WRAPPERS or path != ".".join(found):
            break
        found.append(WRAPPERS[kind])
    return tuple(found)


def around_all(paths: Iterable[str]) -> tuple[str, ...]:
    """Return what all *paths* begin with as far as it is wrappers', for graphs that know no classes."""
    found: list[str] = []
    rest = [path.split(".") for path in paths]
    while rest and all(len(path) > 1 for path in rest):
        first = {path[0] for path in rest}
        if len(first) != 1 or not first <= set(WRAPPERS.values()):
            break
        found += first
        rest = [path[1:] for path in rest]
    return tuple(found)
