"""Running batches: the same answers as alone, padding never shows, and failures stay with their own."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_agent.batch_runner import BatchRunner
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.errors import InvalidRequestError, ModelError, ModelMemoryError
from serving_agent.model_server import ModelServer
from serving_agent.work import Answer
from tests.fakes.handlers import Computing, context_of, rows_of, work_for

TEXTS = Signature((TensorSpec("x", "BYTES", (-1,)),), (TensorSpec("y", "BYTES", (-1,)),))
BUCKETS = st.sets(st.integers(1, 24), max_size=3).map(lambda sizes: tuple(sorted(sizes)))
NUMBERS = st.floats(-1e3, 1e3, width=32)
REQUESTS = st.lists(st.lists(NUMBERS, min_size=1, max_size=4), min_size=1, max_size=6)


class Network:
    """A small network with fixed weights, in the place of an opened artefact."""

    def __init__(self):
        torch.manual_seed(0)
        self.module = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))

    def __call__(self, inputs):
        return {"y": self.module(inputs["x"])}


def torch_server():
    server = ModelServer()
    server.context = context_of(Computing(dict).context.signature)
    server.model = Network()
    return server


def double(inputs):
    return {"y": inputs["x"] * 2}


def run(server, works, buckets=()):
    """The outcomes in the order of *works*, and how often the model answered."""
    executions = list(BatchRunner(server, buckets, 64 * 2**20).run(works))
    outcomes = [pair for executed in executions for pair in executed.outcomes]
    assert [work for work, _ in outcomes] == works
    return [outcome for _, outcome in outcomes], executions


def array_of(answer):
    assert isinstance(answer, Answer), answer
    (output,) = answer.outputs
    return output.array


@settings(max_examples=60, deadline=None)
@given(REQUESTS, BUCKETS)
def test_batched_answers_of_a_network_equal_unbatched_ones(requests, buckets):
    server = torch_server()
    works = [work_for(rows_of(*firsts)) for firsts in requests]
    together, executions = run(server, works, buckets)
    assert [executed.rows for executed in executions] == [sum(map(len, requests))]
    for work, answer in zip(works, together, strict=True):
        (alone,), _ = run(server, [work])
        np.testing.assert_allclose(array_of(answer), array_of(alone), rtol=1e-5, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(REQUESTS, BUCKETS)
def test_each_member_gets_its_own_rows_and_padding_never_shows(requests, buckets):
    server = Computing(double)
    answers, _ = run(server, [work_for(rows_of(*firsts)) for firsts in requests], buckets)
    for firsts, answer in zip(requests, answers, strict=True):
        assert np.array_equal(array_of(answer), rows_of(*firsts)["x"] * 2)
    rows = sum(map(len, requests))
    assert server.runs == [min((size for size in buckets if size >= rows), default=rows)]


@given(st.lists(st.lists(st.binary(max_size=4), min_size=1, max_size=3), min_size=1, max_size=4), BUCKETS)
def test_texts_share_batches_too(requests, buckets):
    server = Computing(lambda inputs: {"y": np.array([item + b"!" for item in inputs["x"]], object)}, TEXTS)
    arrays = [np.fromiter(items, dtype=object) for items in requests]
    answers, _ = run(server, [work_for({"x": array}) for array in arrays], buckets)
    assert [array_of(answer).tolist() for answer in answers] == [
        [item + b"!" for item in items] for items in requests
    ]


def test_a_single_request_is_padded_and_cut_again():
    server = Computing(double)
    (answer,), (executed,) = run(server, [work_for(rows_of(1.0, 2.0, 3.0))], (1, 8))
    assert array_of(answer)[:, 0].tolist() == [2.0, 4.0, 6.0]
    assert (server.runs, executed.rows) == ([8], 3)


def test_without_a_group_a_request_is_run_as_it_came():
    server = Computing(lambda inputs: {"y": inputs["x"][:1]})
    (answer,), _ = run(server, [work_for(rows_of(1.0, 2.0), group=None)], (1, 8))
    assert array_of(answer).shape == (1, 2)
    assert server.runs == [2]


def test_times_and_parameters_are_those_of_the_batch():
    seen = []
    server = Computing(lambda inputs: (seen.append(server.parameters), double(inputs))[1])
    works = [work_for(rows_of(1.0), parameters=(("beam", 2),)) for _ in range(2)]
    answers, (executed,) = run(server, works)
    assert seen == [(("beam", 2),)]
    assert all(answer.stages is executed.stages for answer in answers)
    assert answers[0].queue_s > answers[1].queue_s > 0
    assert executed.stages.total_s > 0


def picky(error):
    def compute(inputs):
        if (inputs["x"][:, 0] < 0).any():
            raise error
        return double(inputs)

    return compute


@pytest.mark.parametrize(
    "error",
    [ValueError("secret /srv/x"), SystemExit(3), KeyboardInterrupt(), MemoryError(), ModelError("own")],
)
@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=5), BUCKETS)
def test_a_member_that_makes_the_model_raise_fails_alone(error, bad, buckets):
    server = Computing(picky(error))
    works = [work_for(rows_of(-1.0 if is_bad else float(place))) for place, is_bad in enumerate(bad)]
    outcomes, executions = run(server, works, buckets)
    for place, (is_bad, outcome) in enumerate(zip(bad, outcomes, strict=True)):
        if is_bad:
            assert isinstance(outcome, ModelError)
            assert "secret" not in str(outcome)
        else:
            assert array_of(outcome)[0, 0] == 2.0 * place
    assert [executed.stages is None for executed in executions] == (bad if any(bad) else [False])


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (
            ValueError("secret"),
            ModelError,
            "the model failed on this input (ValueError); the agent's log tells more",
        ),
        (
            SystemExit(1),
            ModelError,
            "the model failed on this input (SystemExit); the agent's log tells more",
        ),
        (MemoryError(), ModelMemoryError, "the model needs more memory than the limit of 64 MiB"),
        (ModelError("no face found"), ModelError, "no face found"),
        (InvalidRequestError("too short"), InvalidRequestError, "too short"),
    ],
)
def test_failures_are_told_in_a_sentence(error, kind, sentence):
    (outcome,), _ = run(Computing(picky(error)), [work_for(rows_of(-1.0))])
    assert (type(outcome), str(outcome)) == (kind, sentence)


@pytest.mark.parametrize(
    "compute",
    [
        lambda inputs: {"y": inputs["x"].sum(axis=0, keepdims=True)},
        lambda inputs: {"y": inputs["x"][inputs["x"][:, 0] > 0]},
    ],
)
def test_a_model_that_does_not_answer_row_by_row_runs_each_request_alone(compute):
    server = Computing(compute)
    works = [work_for(rows_of(*firsts)) for firsts in ((1.0,), (-2.0, 3.0), (4.0,))]
    outcomes, executions = run(server, works)
    assert [array_of(outcomes[place])[0, 0] for place in (0, 2)] == [1.0, 4.0]
    assert str(outcomes[1]) == "the model did not return one output row for each of 2 input rows"
    assert server.runs == [4, 1, 2, 1]
    assert [executed.stages is None for executed in executions] == [False, True, False]


def test_such_a_model_fails_where_it_is_padded_rather_than_answer_for_the_padding():
    server = Computing(lambda inputs: {"y": inputs["x"].sum(axis=0, keepdims=True)})
    (outcome,), _ = run(server, [work_for(rows_of(1.0))], (4,))
    assert str(outcome) == "the model did not return one output row for each of 4 input rows"


def test_outputs_that_break_the_signature_fail_their_request():
    (outcome,), _ = run(Computing(lambda inputs: {"y": inputs["x"][:, :1]}), [work_for(rows_of(1.0))])
    assert "signature declares [-1, 2]" in str(outcome)


def test_members_that_have_left_are_not_run_again():
    """The good ones hear of their answers run by run, while one that left meanwhile is not run at all."""
    seen = []

    def compute(inputs):
        seen.append(len(inputs["x"]))
        if (inputs["x"] == 2.0).any():
            raise RuntimeError("cannot take 2")
        return double(inputs)

    works = [work_for(rows_of(value), lambda outcome: None) for value in (1.0, 2.0, 3.0)]
    executions = BatchRunner(Computing(compute), (), None).run(works)
    first = next(executions)
    assert [work for work, _ in first.outcomes] == [works[0]]
    works[1].is_settled = True
    assert [work for executed in executions for work, _ in executed.outcomes] == [works[2]]
    assert seen == [3, 1, 1]
