"""Which requests an agent keeps for the debugger: few, bounded, redacted, and never at a request's cost."""

import numpy as np
import pytest

from serving_agent.contract.options import Sampling
from serving_agent.contract.signature import TensorSpec
from serving_agent.errors import ModelError
from serving_agent.messages import InferRequest, OutputTensor
from serving_agent.request_samples import RequestSamples

SPECS = (TensorSpec("x", "FP32", (-1, 2)), TensorSpec("secret", "FP32", (-1, 1)))
INPUTS = {"x": np.array([[1, 2]], np.float32), "secret": np.array([[7]], np.float32)}
ANSWER = (OutputTensor("y", "FP32", np.array([[3]], np.float32)),)


class Clock:
    def __init__(self):
        self.now_s = 60_000.0

    def __call__(self):
        return self.now_s


def ask(samples, number=0, inputs=INPUTS, outcome=ANSWER):
    """Whether the request was taken up."""
    record = samples.begin(InferRequest("m", "", (), request_id=f"request {number}"), inputs, SPECS)
    if record is not None:
        record(outcome)
    return record is not None


def kept(samples, after=0, limit=1000):
    return samples.page(after, limit, with_inputs=True).captures


def test_nothing_is_kept_unless_it_is_wanted():
    samples = RequestSamples(Sampling(), ())
    assert not samples.is_on
    assert not ask(samples)
    assert not kept(samples)


@pytest.mark.parametrize("asked", [3, 500])
def test_at_most_so_many_a_minute(asked):
    clock = Clock()
    samples = RequestSamples(Sampling(per_minute=20), (), clock)
    assert sum(ask(samples, number) for number in range(asked)) == min(asked, 20)
    clock.now_s += 180
    assert ask(samples, 1), "a quiet minute later nothing is left out"


def test_a_sample_holds_inputs_and_answer_but_not_what_is_redacted():
    samples = RequestSamples(Sampling(per_minute=9, redact=("secret",)), ())
    ask(samples)
    (one,) = kept(samples)
    x, secret = one.inputs
    assert np.frombuffer(x.data, np.float32).tolist() == [1, 2]
    assert (secret.name, secret.shape, secret.data) == ("secret", (1, 1), None)
    assert np.frombuffer(one.outputs[0].data, np.float32).tolist() == [3]
    assert one.rollout == ""


def test_redacted_outputs_have_no_data():
    samples = RequestSamples(Sampling(per_minute=9, redact=("y",)), ())
    ask(samples)
    assert [each.data for each in kept(samples)[0].outputs] == [None]


def test_a_redacted_input_does_not_cost_the_others_their_room():
    samples = RequestSamples(Sampling(per_minute=9, redact=("secret",)), ())
    ask(samples, inputs={**INPUTS, "secret": np.zeros((1, 1_000_000), np.float32)})
    assert kept(samples)[0].inputs[0].data is not None


def test_a_failed_request_is_kept_with_its_error():
    samples = RequestSamples(Sampling(per_minute=9), ())
    ask(samples, outcome=ModelError("boom"))
    (one,) = kept(samples)
    assert (one.error, one.outputs) == ("model_failed", ())


def test_old_samples_are_forgotten():
    clock = Clock()
    samples = RequestSamples(Sampling(per_minute=9, keep_hours=0.5), (), clock)
    ask(samples)
    clock.now_s += 1799
    assert len(kept(samples)) == 1
    clock.now_s += 2
    assert not kept(samples)


def test_what_cannot_be_kept_does_not_fail_the_request():
    samples = RequestSamples(Sampling(per_minute=9), ())
    assert not ask(samples, inputs={"x": INPUTS["x"]})
    assert not kept(samples)
