"""Where two runs on one input come apart: pairs of points, their figures, and the first divergence. Pure.

Figures of a pair are computed over the elements that are finite on both sides. SQNR is the energy of A's
values over the energy of the difference, in dB: +6 dB is half the error, 140 dB about what float32 rounds.

The rule, over pairs in A's order, in which a module comes after what it holds:

1. **broken**: the first pair whose shapes differ, or that hold other NaN or infinities (`one_sided`).
2. **falls**: the first pair that falls FALL_DB or more below every pair before it, where that noise counts as
   EXPECTED_DB at best: 8-bit noise of 35 to 50 dB is everywhere, adds up slowly, and is no fault. A pair with
   only equal ones before it falls below LOST_DB, which is one part of error in ten.
3. **changes**: the first pair that differs at all (below EQUAL_DB) after equal ones, where both layers are of
   one kind and datatype: something was put into that very layer.

A pair that was matched in order alone, and after which the next is FALL_DB better again, was most likely
matched wrongly: it is passed over. Whichever of 1 and 2 comes first wins; 3 is asked where neither is found.
Otherwise there is no divergence, only `first_difference`. Pairs whose values are all zero in A have no SQNR:
they may be the first difference, and are passed over otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

EQUAL_DB: Final = 100.0
"""At and above it two tensors are equal up to rounding."""
EXPECTED_DB: Final = 40.0
"""Noise less than this is taken for as much when later pairs are measured against it."""
FALL_DB: Final = 10.0
"""A fall that no gradual noise makes at one layer."""
ANSWERS: Final = ("predict", "postprocess")
"""Stages whose tensors answer the request; the last that both sides reached holds the answer."""
LOST_DB: Final = 10.0
"""SQNR below which a first different pair is a fault whatever it is made of."""

MatchedBy = Literal["module", "id", "order", "stage"]
Rule = Literal["broken", "falls", "changes"]


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of one point of A, beside that of B."""

    name: str
    """Module path or node name, as A calls it; for tensors of a stage `stage/name`."""
    module: str = ""
    """Module path; empty where none is known."""
    a: str
    """`Point.id` in A; the stage's name for its tensors."""
    b: str
    """`Point.id` in B."""
    index_a: int
    """Place of the point in A's points; -1 for a tensor of a stage."""
    index_b: int
    tensor: int = 0
    """Place of the tensor among the point's outputs."""
    matched_by: MatchedBy
    same_kind: bool = False
    """Whether both layers are made of the same operators, and their outputs of one datatype."""
    problem: str = ""
    """Why there are no figures: shapes differ, or elements were not kept. Empty where there are."""
    shapes_differ: bool = False
    one_sided: bool = False
    """Whether some element is NaN, +Inf or -Inf on one side and anything else on the other."""
    equal: bool = False
    """Whether all elements are equal as numbers, whatever their datatypes (NaN equals NaN)."""
    max_abs: float | None = None
    """Largest |A - B|."""
    mean_abs: float | None = None
    cosine: float | None = None
    """Of the two as vectors; None where one is all zero."""
    sqnr_db: float | None = None
    """None where there is no difference, or A is all zero."""


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """The first pair that stands out."""

    pair: int
    """Place in `Comparison.pairs`."""
    rule: Rule
    sentence: str
    """For people, with the figures it rests on."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs side by side."""

    pairs: tuple[Pair, ...]
    """Of points, in A's order."""
    stages: tuple[Pair, ...]
    """Of what stages produced, in order."""
    only_a: tuple[str, ...]
    """`Point.id`s that have no counterpart."""
    only_b: tuple[str, ...]
    first_difference: int | None
    """Place in `pairs` of the first that differs by more than rounding."""
    divergence: Divergence | None
    sentence: str
    """What it comes to, for people: names the divergence, or says that none stands out."""


def diverge(pairs: Sequence[Pair]) -> tuple[int | None, Divergence | None]:
    """(first difference, first divergence) among *pairs*, which are in A's order."""
    first = next((place for place, pair in enumerate(pairs) if differs(pair)), None)
    sudden = _broken_or_fallen(pairs)
    if sudden is not None or first is None:
        return first, sudden
    pair = pairs[first]
    if first > 0 and pair.same_kind:
        how = "A is all zero" if pair.sqnr_db is None else f"SQNR is {decibels(pair.sqnr_db)}"
        sentence = f"{how}, and everything before it is equal"
        return first, Divergence(pair=first, rule="changes", sentence=sentence)
    return first, None


def differs(pair: Pair) -> bool:
    """Whether it differs by more than rounding."""
    if pair.sqnr_db is None:  # A is all zero, or there is no difference
        return is_broken(pair) or (not pair.problem and not pair.equal and bool(pair.max_abs))
    return is_broken(pair) or pair.sqnr_db < EQUAL_DB


def is_broken(pair: Pair) -> bool:
    """Whether the two cannot be the same at all."""
    return pair.shapes_differ or pair.one_sided


def told(
    pairs: Sequence[Pair], first: int | None, found: Divergence | None, stages: Sequence[Pair] = ()
) -> str:
    """What a comparison comes to, in one sentence without a full stop: of layers, and of the answer."""
    answer = _answer(stages)
    return _layers(pairs, first, found) + (f"; {answer}" if answer else "")


def _layers(pairs: Sequence[Pair], first: int | None, found: Divergence | None) -> str:
    if found is not None:
        return f"They diverge at {pairs[found.pair].name}: {found.sentence}"
    if not pairs:
        return "No layer of one has a counterpart in the other"
    compared = [pair for pair in pairs if not pair.problem]
    if not compared:
        return "No layer could be compared"
    if first is None:
        which = "that both have" if len(compared) == len(pairs) else "that could be compared"
        return f"All layers {which} are equal" + ("" if _all_equal(compared) else " up to rounding")
    figures = [pair for pair in compared if pair.sqnr_db is not None]
    said = f"No layer stands out: they first differ at {pairs[first].name}"
    if pairs[first].sqnr_db is None:
        said += ", which is all zero in A"
    if not figures:
        return said
    worst = min(figures, key=lambda pair: _known(pair.sqnr_db))
    return f"{said}, and are farthest apart at {worst.name} with {decibels(_known(worst.sqnr_db))} SQNR"


def _answer(stages: Sequence[Pair]) -> str:
    """How far apart the answers are; empty where either has none, or it cannot be compared."""
    last = stages[-1].a if stages else ""
    pairs = [pair for pair in stages if pair.a == last]
    if last not in ANSWERS:
        return ""
    if any(pair.shapes_differ for pair in pairs):
        return "the answers have other shapes"
    if any(pair.one_sided for pair in pairs):
        return "the answers hold other NaN or infinities"
    levels = [pair.sqnr_db for pair in pairs if pair.sqnr_db is not None]
    if levels:
        return f"the SQNR of the answer is {decibels(min(levels))}"
    if any(differs(pair) for pair in pairs):
        return "the answers differ"
    return "the answers are equal" if _all_equal(pairs) else ""


def _all_equal(pairs: Sequence[Pair]) -> bool:
    return all(pair.equal for pair in pairs)


def decibels(value: float) -> str:
    """`38.2 dB`."""
    return f"{value:.1f} dB"


def _broken_or_fallen(pairs: Sequence[Pair]) -> Divergence | None:
    lowest: float | None = None
    for place, pair in enumerate(pairs):
        if is_broken(pair):
            return Divergence(pair=place, rule="broken", sentence=_how_broken(pair))
        if pair.sqnr_db is None or pair.sqnr_db >= EQUAL_DB:
            continue
        limit = LOST_DB if lowest is None else min(lowest, EXPECTED_DB) - FALL_DB
        if pair.sqnr_db <= limit and _comes_back(pairs, place):
            continue
        if pair.sqnr_db <= limit:
            sentence = _how_fallen(pair.sqnr_db, lowest, pairs[:place])
            return Divergence(pair=place, rule="falls", sentence=sentence)
        lowest = pair.sqnr_db if lowest is None else min(lowest, pair.sqnr_db)
    return None


def _comes_back(pairs: Sequence[Pair], place: int) -> bool:
    """Whether a pair that was matched in order is most likely none: the next one is well again."""
    after = next((pair.sqnr_db for pair in pairs[place + 1 :] if pair.sqnr_db is not None), None)
    here = pairs[place].sqnr_db
    if pairs[place].matched_by != "order" or after is None or here is None:
        return False
    return after >= here + FALL_DB


def _how_broken(pair: Pair) -> str:
    if pair.shapes_differ:
        return pair.problem
    return "some of its elements are NaN or infinite on one side, and something else on the other"


def _how_fallen(sqnr_db: float, lowest: float | None, before: Sequence[Pair]) -> str:
    if lowest is None:
        where = "everything before it is equal" if before else "nothing runs before it"
        if any(map(differs, before)):
            where = "A is all zero wherever they differ before it"
        return f"SQNR is {decibels(sqnr_db)}, and {where}"
    return f"SQNR falls to {decibels(sqnr_db)}, and is {decibels(lowest)} or more everywhere before it"


def _known(value: float | None) -> float:
    return float("inf") if value is None else value
