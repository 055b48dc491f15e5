"""Requests' arrays as one batch and its outputs as theirs again, in every datatype."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_agent import batch
from serving_agent.contract.signature import DATATYPES, Signature, TensorSpec
from serving_agent.datatypes import NUMPY_TYPE
from serving_agent.messages import OutputTensor

ROWS = st.lists(st.integers(1, 5), min_size=1, max_size=5)


def array_of(datatype, shape, seed):
    random = np.random.default_rng(seed)
    if datatype == "BYTES":
        items = np.empty(shape, dtype=object)
        items.reshape(-1)[:] = [random.bytes(size) + b"\0" for size in random.integers(0, 4, items.size)]
        return items
    return random.integers(0, 100, shape).astype(NUMPY_TYPE[datatype])


@given(
    st.lists(st.sampled_from(DATATYPES), min_size=1, max_size=3),
    st.lists(st.integers(1, 3), max_size=2),
    ROWS,
    st.integers(0, 6),
)
def test_what_is_joined_is_split_again_and_padding_repeats_the_last_row(datatypes, inner, rows, padding):
    specs = [(f"x{place}", datatype) for place, datatype in enumerate(datatypes)]
    members = [
        {name: array_of(datatype, (count, *inner), (place, count)) for name, datatype in specs}
        for place, count in enumerate(rows)
    ]
    total = sum(rows) + padding
    joined = batch.join(members, total)
    for name, datatype in specs:
        assert joined[name].shape == (total, *inner)
        assert joined[name].dtype == NUMPY_TYPE[datatype]
        for row in joined[name][sum(rows) :]:
            assert np.array_equal(row, members[-1][name][-1])
    outputs = [OutputTensor(name, datatype, joined[name]) for name, datatype in specs]
    assert batch.holds_rows(outputs, total)
    parts = batch.split(outputs, rows)
    assert len(parts) == len(members)
    for part, member in zip(parts, members, strict=True):
        assert [(output.name, output.datatype) for output in part] == specs
        assert all(np.array_equal(output.array, member[output.name]) for output in part)


def test_a_single_request_is_not_copied_unless_it_is_padded():
    member = {"x": np.ones((2, 3), np.float32)}
    assert batch.join([member], 2)["x"] is member["x"]
    assert batch.join([member], 4)["x"].tolist() == [[1.0] * 3] * 4


@given(st.integers(1, 100), st.sets(st.integers(1, 64)).map(sorted))
def test_padding_goes_to_the_smallest_bucket_that_holds_the_rows(rows, buckets):
    larger = [size for size in buckets if size >= rows]
    assert batch.padded_rows(rows, buckets) == min(larger, default=rows)


@pytest.mark.parametrize("shape", [(), (3, 1), (1,)])
def test_outputs_of_other_shapes_hold_no_rows(shape):
    good = OutputTensor("y", "FP32", np.zeros((2, 4), np.float32))
    assert batch.holds_rows([good], 2)
    assert not batch.holds_rows([good, OutputTensor("z", "FP32", np.zeros(shape, np.float32))], 2)


@pytest.mark.parametrize(
    ("inputs", "outputs", "batchable"),
    [
        ([(-1, 4)], [(-1, 10)], True),
        ([(-1,), (-1, -1)], [(-1,)], True),
        ([(-1, 4), (4,)], [(-1, 10)], False),
        ([(-1, 4)], [(-1, 10), (1,)], False),
        ([(2, 4)], [(-1,)], False),
        ([()], [(-1,)], False),
        ([], [(-1,)], False),
        ([(-1, 4)], [], True),
    ],
)
def test_every_tensor_must_have_rows_for_requests_to_share_a_batch(inputs, outputs, batchable):
    signature = Signature(
        tuple(TensorSpec(f"x{place}", "FP32", shape) for place, shape in enumerate(inputs)),
        tuple(TensorSpec(f"y{place}", "FP32", shape) for place, shape in enumerate(outputs)),
    )
    assert batch.is_batchable(signature) == batchable
