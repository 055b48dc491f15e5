"""Which nodes of a graph make up one call of a module, and which of their values it returns. Pure."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Final, NamedTuple

NO_MODULE: Final = "_empty_nn_module_stack_from_metadata_hook"
"""What torch calls the module of nodes that it adds itself."""
OUTSIDE: Final = -1
"""In the place of a node: the graph's own outputs."""


class Level(NamedTuple):
    """One module that a node lies in."""

    key: str
    """Of the call: calls of one module differ in it, where the graph tells them apart."""
    path: str
    kind: str
    """Class of the module."""


@dataclass(frozen=True, slots=True)
class Part:
    """One node of a graph."""

    stack: tuple[Level, ...]
    """The modules that it lies in, outermost first."""
    users: Set[int]
    """Places of the nodes that read what it gives, OUTSIDE among them where the graph returns it."""


@dataclass(slots=True)
class Group:
    """One call of a module."""

    path: str
    kind: str
    depth: int
    members: set[int] = field(default_factory=set)
    """Places of its nodes."""

    @property
    def last(self) -> int:
        """The node after which it has returned."""
        return max(self.members)


def groups(parts: Sequence[Part], partial: Sequence[Level] = ()) -> list[Group]:
    """Return the calls of modules in a graph, inner ones first.

    partial: modules of which the graph holds only a part, because it lies in another one itself.
    """
    found: dict[tuple[str, ...], Group] = {}
    left_out = {tuple(level.key for level in partial[: end + 1]) for end in range(len(partial))}
    for place, part in enumerate(parts):
        for depth, level in enumerate(part.stack):
            keys = tuple(each.key for each in part.stack[: depth + 1])
            if keys not in left_out:
                found.setdefault(keys, Group(level.path, level.kind, depth)).members.add(place)
    return sorted(found.values(), key=lambda group: -group.depth)


def returned(group: Group, parts: Sequence[Part]) -> list[int]:
    """Return the nodes of *group* whose values others read, in order of running."""
    return sorted(place for place in group.members if parts[place].users - group.members)


def is_whole(group: Group, parts: Sequence[Part]) -> bool:
    """Whether what *group* returns can be told: all that reads it is known to be of another module.

    Engines that rewrite a graph put nodes into it that belong to no module, and may have replaced the last
    node of one.
    """
    strangers = any(
        user != OUTSIDE and not parts[user].stack
        for place in returned(group, parts)
        for user in parts[place].users
    )
    return len(group.members) == 1 or not strangers
