"""Figures of tensors against numpy's own, for all kinds of elements."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving_agent.contract.inspection import BINS
from serving_agent.inspection import statistics

KINDS = ("float16", "float32", "float64", "int8", "int64", "uint8", "uint32", "bool")


def of_any_kind():
    shapes = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6)
    return st.sampled_from(KINDS).flatmap(lambda kind: arrays.arrays(np.dtype(kind), shapes))


@given(of_any_kind())
def test_they_are_those_of_numpy(array):
    seen = statistics.figures(array)
    exact = array.astype(np.float64).reshape(-1)
    finite = exact[np.isfinite(exact)]
    assert seen.elements == array.size
    assert seen.zeros == int((exact == 0).sum())
    assert (seen.nan, seen.inf) == (int(np.isnan(exact).sum()), int(np.isinf(exact).sum()))
    if not finite.size:
        assert (seen.low, seen.high, seen.mean, seen.std, seen.histogram) == (None,) * 5
        return
    assert (seen.low, seen.high) == (finite.min(), finite.max())
    scale = max(abs(finite).max(), 5e-324)
    assert seen.mean / scale == pytest.approx((finite / scale).mean(), abs=1e-9)
    assert seen.std / scale == pytest.approx((finite / scale).std(), abs=1e-9)
    assert seen.histogram.low == seen.low
    assert seen.histogram.high == seen.high
    assert len(seen.histogram.counts) == BINS
    assert sum(seen.histogram.counts) == finite.size


@given(st.lists(st.integers(0, BINS - 1), min_size=1, max_size=200))
def test_each_element_is_counted_in_its_bin(bins):
    """Elements in the middle of their bins, and the two ends, so that rounding decides nothing."""
    array = np.array([0.0, BINS, *(place + 0.5 for place in bins)])
    counts = statistics.figures(array).histogram.counts
    expected = np.bincount([0, BINS - 1, *bins], minlength=BINS)
    assert list(counts) == expected.tolist()


def test_large_tensors_are_read_in_pieces_with_the_same_result():
    array = np.random.default_rng(0).normal(3.0, 2.0, 2 * statistics.PIECE + 17).astype(np.float32)
    array[5], array[-1], array[statistics.PIECE] = np.nan, np.inf, 0.0
    seen = statistics.figures(array)
    finite = array[np.isfinite(array)].astype(np.float64)
    assert (seen.nan, seen.inf, seen.zeros) == (1, 1, 1)
    assert seen.mean == pytest.approx(finite.mean(), rel=1e-12)
    assert seen.std == pytest.approx(finite.std(), rel=1e-12)
    counts, _ = np.histogram(finite, BINS, (finite.min(), finite.max()))
    assert list(seen.histogram.counts) == pytest.approx(counts.tolist(), abs=1)


def test_a_constant_has_one_full_bin():
    seen = statistics.figures(np.full(7, 2.5, dtype=np.float32))
    assert (seen.low, seen.high, seen.mean, seen.std) == (2.5, 2.5, 2.5, 0.0)
    assert seen.histogram.counts == (7, *(0,) * (BINS - 1))
