"""Which point of one run belongs to which of the other. Pure.

1. **By id**: equal ids in equal modules; of graph nodes only where the operator is the same too.
2. **By module**: the last points of equal modules, which hold that module's output. Between a network and a
   graph only where shapes are equal: graphs do not always know where a module ends.
3. **In order**: what is left between two such matches, where shapes are equal and both hold floats. Operators
   that are called alike come first; between a network and a graph others may be matched too.

Variants often wrap the network (`network.layers.0` for `layers.0`): modules that hold nearly everything are
taken off the names first, where that makes more of them equal. A layer that was fused with what follows it
(`LinearReLU`, a folded BatchNorm) is matched with the last layer that went into it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Final

from control_plane.domain.divergence import MatchedBy
from serving_agent.contract.inspection import InspectedRun, Point
from serving_agent.datatypes import FLOATS

MAX_IN_ORDER: Final = 400
"""Points of one side between two matches that are matched in order at most: it takes the square of them."""
MOST_WRAPPERS: Final = 4
"""Modules around the network that are looked for on each side."""
WRAPS: Final = 0.8
"""Share of all named points that a wrapping module holds."""
FUSES: Final = ("relu", "batchnorm")
"""Layers that are fused into the one before them."""
IDLE: Final = ("dropout", "identity")
"""Layers that do nothing when a model is served: other engines do not have them."""
MOST_FUSED: Final = 7
"""Points that are looked at for them."""
_WORD: Final = re.compile(r"[a-z]+")
_ALIKE: Final = {
    "gemm": "linear", "addmm": "linear", "convolution": "conv", "view": "reshape", "flatten": "reshape",
}  # fmt: skip
"""Other names of one operator."""


@dataclass(frozen=True, slots=True)
class Match:
    """Places of two points that belong together."""

    a: int
    b: int
    by: MatchedBy


def align(a: InspectedRun, b: InspectedRun) -> tuple[Match, ...]:
    """Matches in A's order; every point is in one at most."""
    ours, theirs = _unwrapped(a, b)
    named = _by_id(ours, theirs)
    named += _by_module(ours, theirs, named)
    found = _without_fused(ours, theirs, named)
    ordered = _in_order(ours, theirs, found, named)
    found += _without_folded(ours, theirs, found + ordered)
    return tuple(sorted(found, key=lambda match: match.a))


class _Side:
    """One run, as names without what wraps the network."""

    def __init__(self, run: InspectedRun, wrapper: str = "") -> None:
        self.level = run.level
        self.points = run.points
        self.ids = [_without(wrapper, point.id) for point in run.points]
        self.modules = [_without(wrapper, point.module) for point in run.points]

    @cached_property
    def captured(self) -> list[int]:
        """Places of points that have outputs."""
        return [place for place, point in enumerate(self.points) if point.outputs]

    @cached_property
    def last_of(self) -> dict[str, int]:
        """Module → place of its last point."""
        return {self.modules[place]: place for place in self.captured if self.modules[place]}

    @cached_property
    def leaves(self) -> list[int]:
        """Places of points that hold no others and are floats: what can be matched in order."""
        around = {outer for module in self.modules for outer in _around(module)[:-1]}
        return [
            place
            for place in self.captured
            if self.points[place].outputs[0].datatype in FLOATS
            and not self.points[place].kind.lower().startswith(IDLE)
            and not (self.modules[place] in around and _is_module(self.points[place]))
            and not (not self.points[place].module and self.level == "module")
        ]


def _unwrapped(a: InspectedRun, b: InspectedRun) -> tuple[_Side, _Side]:
    """Both sides with the wrappers taken off that leave most modules equal."""
    best: tuple[int, _Side, _Side] | None = None
    for one in (_Side(a, wrapper) for wrapper in ("", *_wrappers(a))):
        for other in (_Side(b, wrapper) for wrapper in ("", *_wrappers(b))):
            common = len(one.last_of.keys() & other.last_of.keys())
            if best is None or common > best[0]:
                best = (common, one, other)
    return (best[1], best[2]) if best is not None else (_Side(a), _Side(b))


def _wrappers(run: InspectedRun) -> list[str]:
    """Modules that hold nearly all others, the outermost first."""
    named = [point.module for point in run.points if point.module]
    longest = max(named, key=len, default="")
    return [
        outer
        for outer in _around(longest)[:-1][:MOST_WRAPPERS]
        if sum(name == outer or name.startswith(f"{outer}.") for name in named) >= WRAPS * len(named)
    ]


def _by_id(a: _Side, b: _Side) -> list[Match]:
    if a.level != b.level:
        return []
    theirs = {b.ids[place]: place for place in b.captured}
    found = []
    for place in a.captured:
        other = theirs.get(a.ids[place])
        if other is None or b.modules[other] != a.modules[place]:
            continue
        if a.level == "module" or b.points[other].kind == a.points[place].kind:
            found.append(Match(place, other, "id"))
    return found


def _by_module(a: _Side, b: _Side, found: Sequence[Match]) -> list[Match]:
    taken_a, taken_b = {match.a for match in found}, {match.b for match in found}
    matches = [
        Match(place, b.last_of[module], "module")
        for module, place in a.last_of.items()
        if module in b.last_of and place not in taken_a and b.last_of[module] not in taken_b
    ]
    return [
        match
        for match in matches
        if a.level == b.level or _shapes(a.points[match.a]) == _shapes(b.points[match.b])
    ]


def _without_fused(a: _Side, b: _Side, found: Sequence[Match]) -> list[Match]:
    """*found* with fused layers moved on to the last layer of the other side that went into them."""
    partner_of_a = {match.a: match.b for match in found}
    partner_of_b = {match.b: match.a for match in found}
    kept = []
    for match in found:
        ahead_a = _fused_into(b, match.b, a, match.a, partner_of_a)
        ahead_b = _fused_into(a, match.a, b, match.b, partner_of_b)
        if ahead_a is not None and ahead_a != match.a:
            if ahead_a not in partner_of_a:
                kept.append(replace(match, a=ahead_a))
        elif ahead_b is not None and ahead_b != match.b:
            if ahead_b not in partner_of_b:
                kept.append(replace(match, b=ahead_b))
        else:
            kept.append(match)
    return kept


def _fused_into(fused: _Side, at: int, plain: _Side, start: int, partners: Mapping[int, int]) -> int | None:
    """Place of the last layer of *plain*, from *start* on, that went into the point of *fused* at *at*.

    None where nothing was fused; layers that the other side has too were not, unless they do nothing there.
    """
    last: int | None = None
    said = fused.points[at].kind.lower()
    for place in range(start + 1, min(start + MOST_FUSED, len(plain.points))):
        fuses = _fuses(plain.points[place])
        if fuses is None:
            break
        partner = partners.get(place)
        does_nothing = partner is not None and fused.points[partner].kind == "Identity"
        is_named = partner is None and fuses in said and fuses not in plain.points[start].kind.lower()
        is_folded = fuses == "batchnorm" and plain.modules[place] not in fused.modules
        if not (does_nothing or is_named or is_folded):
            break
        last = place
    return last


def _without_folded(a: _Side, b: _Side, found: Sequence[Match]) -> list[Match]:
    """Those of *found* that were matched in order, but for layers into which a BatchNorm of one side went."""
    taken_a, taken_b = {match.a for match in found}, {match.b for match in found}
    return [
        match
        for match in found
        if match.by == "order" and not (_is_folded(a, match.a, taken_a) or _is_folded(b, match.b, taken_b))
    ]


def _is_folded(side: _Side, at: int, taken: Collection[int]) -> bool:
    """Whether a BatchNorm follows that has no counterpart, so that the other side has it in this layer."""
    after = range(at + 1, min(at + MOST_FUSED, len(side.points)))
    place = next(
        (place for place in after if side.modules[place] != side.modules[at] or not side.modules[at]), at
    )
    return _fuses(side.points[place]) == "batchnorm" and place != at and place not in taken


def _fuses(point: Point) -> str | None:
    """Which of FUSES it is."""
    kind = point.kind.lower().replace("_", "")
    return next((each for each in FUSES if each in kind and point.outputs), None)


def _in_order(a: _Side, b: _Side, found: Sequence[Match], named: Sequence[Match]) -> list[Match]:
    """Matches between each two of *found* that follow one another on both sides.

    named: what was matched by name; nothing in those modules is matched again.
    """
    made = []
    known_a = {a.modules[match.a] for match in (*found, *named)} - {""}
    known_b = {b.modules[match.b] for match in (*found, *named)} - {""}
    for before, after in pairwise(_anchors(a, b, found)):
        ours = [at for at in a.leaves if before[0] < at < after[0] and a.modules[at] not in known_a]
        theirs = [at for at in b.leaves if before[1] < at < after[1] and b.modules[at] not in known_b]
        if ours and theirs and max(len(ours), len(theirs)) <= MAX_IN_ORDER:
            best = dict(_best(a, ours, b, theirs))
            made += [Match(x, _completed(b, y, theirs, best), "order") for x, y in best.items()]
    return made


def _completed(side: _Side, at: int, places: Sequence[int], best: Mapping[int, int]) -> int:
    """The last of *places* that belongs to the operator at *at*: graphs add a bias in a node of its own.

    Such nodes lie in one folder of names: `/fc/MatMul` and `/fc/Add`.
    """
    folder = side.ids[at].rpartition("/")[0]
    taken = set(best.values())
    for place in places[places.index(at) + 1 :]:
        is_part = folder and side.ids[place].rpartition("/")[0] == folder and place not in taken
        if not is_part or _shapes(side.points[place]) != _shapes(side.points[at]):
            break
        at = place
    return at


def _anchors(a: _Side, b: _Side, found: Sequence[Match]) -> Iterator[tuple[int, int]]:
    """(place in A, place in B) of matches that grow on both sides, with the ends."""
    last_b = -1
    yield -1, -1
    for match in sorted(found, key=lambda match: match.a):
        if match.b > last_b:
            last_b = match.b
            yield match.a, match.b
    yield len(a.points), len(b.points)


def _best(a: _Side, ours: Sequence[int], b: _Side, theirs: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The order-keeping matches that are worth most; among equal ones those that come late."""
    worth = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    least = 0 if a.level == b.level else 1
    score = [[_score(a.points[x], b.points[y], least) for y in theirs] for x in ours]
    for x, row in enumerate(score, 1):
        for y, gain in enumerate(row, 1):
            matched = worth[x - 1][y - 1] + gain if gain else 0
            worth[x][y] = max(matched, worth[x - 1][y], worth[x][y - 1])
    x, y = len(ours), len(theirs)
    while x and y:
        gain = score[x - 1][y - 1]
        if gain and worth[x][y] == worth[x - 1][y - 1] + gain:
            x, y = x - 1, y - 1
            yield ours[x], theirs[y]
        elif worth[x][y] == worth[x - 1][y]:
            x -= 1
        else:
            y -= 1


def _score(one: Point, other: Point, least: int) -> int:
    """How well two points go together: 0 where they cannot, *least* where only their shapes are equal."""
    if _shapes(one) != _shapes(other):
        return 0
    return 3 if _words(one.kind) & _words(other.kind) else least


def _shapes(point: Point) -> list[tuple[int, ...]]:
    return [tensor.shape for tensor in point.outputs]


def _words(kind: str) -> set[str]:
    """What an operator or a class is called, in small letters: {`linear`} for `aten::linear`."""
    name = kind.lower().removesuffix(".default").rpartition(":")[2].rpartition(".")[2]
    words = _WORD.findall(name)
    return {_ALIKE.get(word, word) for word in (*words, "".join(words))} - {"d"}


def _is_module(point: Point) -> bool:
    """Whether it is the output of a module, and no node inside one."""
    return point.id.partition("#")[0] == point.module


def _without(wrapper: str, name: str) -> str:
    """*name* as it is inside *wrapper*; the wrapper's own name is empty."""
    if not wrapper or not name.startswith(wrapper):
        return name
    rest = name[len(wrapper) :]
    return rest[1:] if rest[:1] == "." else "" if not rest else name


def _around(module: str) -> list[str]:
    """All that the module lies in, the outermost first, and itself."""
    parts = module.split(".") if module else []
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
