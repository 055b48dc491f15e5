"""Timed intervals of one thread as a tree, and trees as flame views. Pure.

An interval lies in the latest one that began before it and has not ended; where clocks make two overlap, the
inner one is cut at the outer one's end, so that self times of a tree always add up to its root's length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from serving_agent.contract.profile import FlameNode

SMALLEST_SHARE: Final = 0.002
"""Boxes below this share of the whole are taken together: nobody can read them."""
MOST_NODES: Final = 1500
OTHER: Final = "(smaller ones)"


@dataclass(frozen=True, slots=True)
class Interval:
    """What was seen: times in any one unit."""

    name: str
    start: float
    end: float
    kind: str = ""


@dataclass(slots=True)
class Node:
    """An interval and those inside it."""

    name: str
    kind: str
    start: float
    end: float
    children: list[Node] = field(default_factory=list)

    @property
    def total(self) -> float:
        """How long it took."""
        return self.end - self.start

    @property
    def own(self) -> float:
        """How long it took without its children."""
        return max(0.0, self.total - sum(child.total for child in self.children))


@dataclass(slots=True)
class Merged:
    """All calls of one name at one place of the tree."""

    name: str
    kind: str
    calls: int = 0
    own: float = 0.0
    total: float = 0.0
    children: dict[tuple[str, str], Merged] = field(default_factory=dict)


def nested(intervals: Iterable[Interval]) -> list[Node]:
    """Return the roots of *intervals*, in order of their beginnings; lengths below zero count as zero."""
    ordered = sorted(intervals, key=lambda each: (each.start, -each.end))
    roots: list[Node] = []
    open_: list[Node] = []
    for each in ordered:
        while open_ and open_[-1].end <= each.start:
            open_.pop()
        end = max(each.start, each.end)
        if open_:
            end = min(end, open_[-1].end)
        node = Node(each.name, each.kind, each.start, end)
        (open_[-1].children if open_ else roots).append(node)
        open_.append(node)
    return roots


def without(nodes: Iterable[Node], is_noise: Callable[[Node], bool]) -> list[Node]:
    """Return *nodes* without the noisy ones, whose children take their place; a root is never noise.

    What a dropped node took itself becomes its parent's own time.
    """
    return [
        Node(node.name, node.kind, node.start, node.end, list(_kept(node.children, is_noise)))
        for node in nodes
    ]


def _kept(nodes: Iterable[Node], is_noise: Callable[[Node], bool]) -> Iterator[Node]:
    for node in nodes:
        children = list(_kept(node.children, is_noise))
        if is_noise(node):
            yield from children
        else:
            yield Node(node.name, node.kind, node.start, node.end, children)


def walk(nodes: Iterable[Node]) -> Iterator[Node]:
    """Yield every node, outer ones first."""
    for node in nodes:
        yield node
        yield from walk(node.children)


def merged(nodes: Iterable[Node], scale: float = 1.0) -> list[Merged]:
    """Return *nodes* with equal names at equal places taken together; *scale* turns their unit to seconds."""
    roots: dict[tuple[str, str], Merged] = {}
    _merge(nodes, roots, scale)
    return list(roots.values())


def _merge(nodes: Iterable[Node], into: dict[tuple[str, str], Merged], scale: float) -> None:
    for node in nodes:
        found = into.setdefault((node.kind, node.name), Merged(node.name, node.kind))
        found.calls += 1
        found.own += node.own * scale
        found.total += node.total * scale
        _merge(node.children, found.children, scale)


def stacked(stacks: Iterable[tuple[Sequence[str], float, int]], kind: str = "function") -> list[Merged]:
    """Return the tree of *stacks*: each outermost frame first, its weight in seconds, its samples."""
    roots: dict[tuple[str, str], Merged] = {}
    for frames, weight, count in stacks:
        into = roots
        node: Merged | None = None
        for name in frames:
            node = into.setdefault((kind, name), Merged(name, kind))
            node.total += weight
            node.calls += count
            into = node.children
        if node is not None:
            node.own += weight
    return list(roots.values())


def flattened(
    roots: Sequence[Merged], smallest: float = SMALLEST_SHARE, most: int = MOST_NODES
) -> tuple[FlameNode, ...]:
    """Return *roots* as a flat list, largest first at each place.

    Children below the share *smallest* of the whole, and those beyond *most* boxes, are taken together as one
    box, so that self times add up as before. Larger boxes are taken in first.
    """
    whole = sum(root.total for root in roots)
    nodes: list[FlameNode] = []
    level: list[tuple[int, list[Merged]]] = [(-1, list(roots))]
    while level:
        below: list[tuple[int, list[Merged]]] = []
        for parent, siblings in level:
            large = [each for each in siblings if each.total >= smallest * whole and each.total > 0]
            large.sort(key=lambda each: -each.total)
            large = large[: max(0, most - len(nodes))]
            for each in large:
                nodes.append(_node(each, parent))
                below.append((len(nodes) - 1, list(each.children.values())))
            kept = {id(each) for each in large}
            small = [each for each in siblings if id(each) not in kept]
            if rest := sum(each.total for each in small):
                calls = sum(each.calls for each in small)
                nodes.append(
                    FlameNode(name=OTHER, parent=parent, self_s=rest, total_s=rest, calls=calls, kind="other")
                )
        level = below
    return tuple(nodes)


def _node(each: Merged, parent: int) -> FlameNode:
    return FlameNode(
        name=each.name,
        parent=parent,
        self_s=each.own,
        total_s=each.total,
        calls=each.calls,
        kind=each.kind,
    )
