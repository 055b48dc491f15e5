"""The model before its first client: which inputs it is run with, at which sizes, and what options change."""

import json

import numpy as np
import pytest
import torch

from serving_agent import examples, warm_up
from serving_agent.contract.options import Batching, Execution
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.errors import ModelError, StartError
from serving_agent.model_server import ModelServer, sample_inputs
from tests.fakes.handlers import ROWS, Computing, context_of, rows_of

OPEN = Signature((TensorSpec("x", "FP32", (-1, -1)),), (TensorSpec("y", "FP32", (-1,)),))


SIZE = ValueError("size")


def only(size, error=SIZE, signature=OPEN):
    """A model of rows of *size* numbers, and the shapes it was asked for."""
    shapes = []

    def compute(inputs):
        shapes.append(inputs["x"].shape)
        if inputs["x"].shape[1] != size:
            raise error
        return {"y": inputs["x"][:, 0]}

    return Computing(compute, signature), shapes


def test_samples_fit_the_signature_and_are_the_same_every_time():
    signature = Signature(
        (
            TensorSpec("i", "FP16", (-1, 3, -1)),
            TensorSpec("n", "UINT8", (2,)),
            TensorSpec("t", "BYTES", (-1,)),
            TensorSpec("b", "BOOL", (-1, 4)),
        ),
        (),
    )
    samples = sample_inputs(signature, 8)
    assert {name: array.shape for name, array in samples.items()} == {
        "i": (1, 3, 8), "n": (2,), "t": (1,), "b": (1, 4)
    }  # fmt: skip
    assert samples["i"].std() > 0.5
    assert samples["t"].tolist() == [b"signal"]
    assert samples["b"].dtype == np.bool_
    assert all(np.array_equal(sample_inputs(signature, 8)[name], array) for name, array in samples.items())


def test_a_size_is_looked_for_where_the_signature_leaves_it_open():
    server, shapes = only(32)
    row = warm_up.first_row(server, None)
    assert row["x"].shape == (1, 32)
    assert shapes == [(1, 8)] + [(1, 32)] * warm_up.RUNS


def test_a_model_that_no_guess_suits_is_taken_as_it_is():
    server, shapes = only(5)
    assert warm_up.first_row(server, None) is None
    assert shapes == [(1, size) for size in warm_up.OPEN_SIZES]


def test_a_failure_with_declared_sizes_or_for_want_of_memory_is_the_models():
    declared = Signature((TensorSpec("x", "FP32", (-1, 5)),), OPEN.outputs)
    with pytest.raises(ValueError, match="size"):
        warm_up.first_row(only(4, signature=declared)[0], None)
    with pytest.raises(MemoryError):
        warm_up.first_row(only(32, MemoryError())[0], None)


def test_examples_are_run_as_they_are_and_their_failure_is_the_models():
    server, shapes = only(3)
    given = {"x": np.ones((1, 3), np.float32)}
    assert warm_up.first_row(server, given) is given
    assert shapes == [(1, 3)] * warm_up.RUNS
    with pytest.raises(ValueError, match="size"):
        warm_up.first_row(server, {"x": np.ones((1, 4), np.float32)})


def test_a_model_without_outputs_is_refused():
    server = Computing(lambda _: {}, Signature(ROWS.inputs, ()))
    with pytest.raises(ModelError, match="declares no outputs"):
        warm_up.first_row(server, None)


def double(inputs):
    return {"y": inputs["x"] * 2}


def test_every_bucket_is_warmed_with_copies_of_the_row():
    seen = []
    server = Computing(lambda inputs: (seen.append(inputs["x"][:, 0].tolist()), double(inputs))[1])
    warm_up.warm_batches(server, rows_of(7.0), Batching(buckets=(2, 4)))
    assert server.runs == [1] + [2] * warm_up.RUNS + [4] * warm_up.RUNS
    assert {number for firsts in seen for number in firsts} == {7.0}


@pytest.mark.parametrize(
    ("batching", "row_s", "sizes"),
    [
        (Batching(), 0.001, (32,)),
        (Batching(max_rows=64), warm_up.LARGE_BATCH_S / 64, (64,)),
        (Batching(max_rows=64), warm_up.LARGE_BATCH_S / 63, ()),
        (Batching(max_rows=1), 0.0, ()),
        (Batching(buckets=(1, 8)), 99.0, (1, 8)),
    ],
)
def test_sizes_are_the_buckets_or_the_largest_batch_unless_it_takes_long(batching, row_s, sizes):
    assert tuple(warm_up.sizes(batching, row_s)) == sizes


class Module(torch.nn.Module):
    def forward(self, x):
        return x * 1.001


class Held(ModelServer):
    """Keeps a module in the place of an opened artefact."""

    def __init__(self, module=None):
        self.context = context_of(
            Signature((TensorSpec("x", "FP32", (-1, 2, 2, 2)),), (TensorSpec("y", "FP32", (-1, 2, 2, 2)),))
        )
        self.model = self
        self.module = module or torch.nn.Conv2d(2, 2, 1)

    def __call__(self, inputs):
        return {"y": self.module(inputs["x"])}


def test_options_are_measured_against_the_model_as_it_was_stored():
    torch.manual_seed(0)
    server = Held()
    row = warm_up.first_row(server, None)
    effect = warm_up.optimise(server, Execution(channels_last=True, autocast="bf16"), row)
    assert server.context.execution == Execution(channels_last=True, autocast="bf16")
    assert server.module.weight.is_contiguous(memory_format=torch.channels_last)
    assert effect.plain_s > 0
    assert effect.optimized_s > 0
    assert 0 < effect.largest_difference < 0.1, "bf16 keeps about three digits"


def test_without_a_row_options_are_applied_but_not_measured():
    server = Held()
    assert warm_up.optimise(server, Execution(channels_last=True), None) is None
    assert server.context.execution.channels_last


def test_options_that_do_not_apply_are_refused():
    with pytest.raises(StartError, match="keeps the artefact's module"):
        warm_up.optimise(Computing(double), Execution(channels_last=True), None)
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        scripted = torch.jit.script(Module())
    with pytest.raises(StartError, match="does not apply to TorchScript"):
        warm_up.optimise(Held(scripted), Execution(compile=True), None)


# example inputs


def written(tmp_path, content):
    path = tmp_path / "examples.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_examples_are_read_by_name(tmp_path):
    read = examples.read(written(tmp_path, {"x": [[1.5, 2.0]]}), ROWS)
    assert read["x"].tolist() == [[1.5, 2.0]]
    assert read["x"].dtype == np.float32


@pytest.mark.parametrize(
    "content",
    ["not JSON", [], {"z": [[1.0, 2.0]]}, {"x": [[1.0]]}, {}, {"x": [["a", "b"]]}, '{"x": 1, "x": 2}'],
)
def test_examples_that_do_not_fit_are_left_aside(tmp_path, content, caplog):
    assert examples.read(written(tmp_path, content), ROWS) is None
    assert "the example inputs cannot be used" in caplog.text


def test_there_may_be_no_examples(tmp_path):
    assert examples.read(None, ROWS) is None
    assert examples.read(tmp_path / "missing.json", ROWS) is None
