"""Exact bounds on shares, against the binomial's tails summed term by term."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain import binomial
from control_plane.domain.acceptance import enough_rows
from control_plane.domain.optimization import Budget
from control_plane.gates.paired import ALPHA, Paired, enough_items

ALPHAS = st.sampled_from([0.001, 0.025, 0.05, 0.2])


def brute(count: int, total: int, share: float) -> float:
    """P(X ≤ count), summed term by term to 60 digits."""
    with localcontext(prec=60):
        p = Decimal(share)
        terms = (math.comb(total, k) * power(p, k) * power(1 - p, total - k) for k in range(count + 1))
        return float(sum(terms, Decimal(0)))


def power(base: Decimal, exponent: int) -> Decimal:
    return base**exponent if exponent else Decimal(1)  # also of 0


@st.composite
def counted(draw: st.DrawFn, most: int = 60) -> tuple[int, int]:
    total = draw(st.integers(1, most))
    return draw(st.integers(0, total)), total


@given(counted(), st.floats(0, 1))
def test_tail_is_the_sum_of_its_terms(seen: tuple[int, int], share: float) -> None:
    count, total = seen
    assert binomial.at_most(count, total, share) == pytest.approx(brute(count, total, share), abs=1e-12)


@given(counted(), ALPHAS)
def test_upper_bound_is_where_the_tail_has_alpha(seen: tuple[int, int], alpha: float) -> None:
    count, total = seen
    bound = binomial.upper(count, total, alpha)
    assert count / total <= bound <= 1
    if count < total:
        assert brute(count, total, bound) <= alpha * (1 + 1e-9)
        assert brute(count, total, max(0.0, bound - 1e-6)) > alpha


@given(counted(), ALPHAS)
def test_lower_bound_mirrors_the_upper_one(seen: tuple[int, int], alpha: float) -> None:
    count, total = seen
    bound = binomial.lower(count, total, alpha)
    assert 0 <= bound <= count / total
    if count:
        assert 1 - brute(count - 1, total, bound) == pytest.approx(alpha, rel=1e-6)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.5, 0.97])
@pytest.mark.parametrize(("total", "alpha"), [(20, 0.05), (60, 0.025)])
def test_upper_bound_is_too_small_with_probability_alpha_at_most(
    share: float, total: int, alpha: float
) -> None:
    missed = [k for k in range(total + 1) if binomial.upper(k, total, alpha) < share]
    chance = sum(math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in missed)
    assert chance <= alpha + 1e-12


@pytest.mark.parametrize(
    ("count", "total", "alpha", "expected"),
    [(0, 100, 0.025, 0.036217), (1, 100, 0.05, 0.046559), (5, 50, 0.025, 0.218135), (10, 10, 0.05, 1.0)],
)
def test_upper_bound_has_the_values_of_published_tables(
    count: int, total: int, alpha: float, expected: float
) -> None:
    assert binomial.upper(count, total, alpha) == pytest.approx(expected, abs=2e-5)


def test_bounds_of_many_items_are_exact_and_quick() -> None:
    bound = binomial.upper(150, 10_000, 0.025)
    assert brute(150, 10_000, bound) == pytest.approx(0.025, rel=1e-6)


@given(st.tuples(*[st.integers(0, 40)] * 4).filter(any))
def test_loss_bound_holds_what_was_seen(parts: tuple[int, int, int, int]) -> None:
    paired = Paired(*parts)
    seen = (paired.lost - paired.won) / paired.items
    assert seen == pytest.approx(paired.stable_share - paired.candidate_share)
    assert seen - 1e-12 <= paired.loss_bound <= 1


@pytest.mark.parametrize("margin", [0.01, 0.05, 0.2])
def test_enough_items_are_just_enough(margin: float) -> None:
    enough = enough_items(margin)
    assert Paired(enough, 0, 0, 0).loss_bound <= margin + 1e-12
    assert Paired(enough - 1, 0, 0, 0).loss_bound > margin


def test_598_agreements_prove_what_an_optimised_variant_needs() -> None:
    least = Budget().min_agreement
    enough = enough_rows(least)
    assert enough == 598
    assert binomial.lower(enough, enough, ALPHA) >= least
    assert binomial.lower(enough - 1, enough - 1, ALPHA) < least
