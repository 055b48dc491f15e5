"""What each gate says of what was gathered: tables, without agents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from control_plane.domain.golden import GoldenItem
from control_plane.domain.optimization import Budget
from control_plane.gates import answers, catalog, equivalence, golden_set, memory, signature, smoke, warm_up
from control_plane.gates.asking import Answer, Refused, Reply, batches
from control_plane.gates.base import Outcome
from control_plane.gates.equivalence import Agreement, Drift
from control_plane.gates.golden_set import Compared
from control_plane.gates.memory import Memory
from control_plane.gates.paired import Paired
from control_plane.gates.scene import Golden, Scene, Side, example, made_up
from control_plane.gates.signature import Signatures
from control_plane.gates.smoke import Smoke
from control_plane.gates.warm_up import Latency, Round
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.messages import OutputTensor

X = TensorSpec("x", "FP32", (-1, 3))
LOGITS = TensorSpec("logits", "FP32", (-1, 4))
PLAIN = Signature((X,), (LOGITS,))
GIB = 1024**3


def side(ref: str) -> Side:
    return Side(ref=ref, labels=(), agents=(), signature=PLAIN)


SCENE = Scene(endpoint="digits", replicas=1, stable=side("m@1"), candidate=side("m@2"), golden=None)
ITEM = GoldenItem(inputs={"x": [1, 2, 3]}, label="1")


def answer(*values: float, name: str = "logits", datatype: str = "FP32") -> Answer:
    return Answer((OutputTensor(name, datatype, np.array([values], np.float32)),), 0.01)


def test_catalogue_lists_every_gate_once_and_they_are_described() -> None:
    gates = catalog.gates()
    assert [gate.name for gate in gates] == [
        "signature", "smoke-test", "memory", "warm-up", "golden-set", "equivalence",
    ]  # fmt: skip
    assert all(gate.title for gate in gates)
    assert [gate.name for gate in gates if gate.always] == ["smoke-test"]


# signature


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (Signature((X,), (TensorSpec("logits", "FP32", (-1, 5)),)), "logits: FP32[-1,4] became FP32[-1,5]"),
        (Signature((TensorSpec("x", "FP64", (-1, 3)),), (LOGITS,)), "x: FP32[-1,3] became FP64[-1,3]"),
        (Signature((TensorSpec("y", "FP32", (-1, 3)),), (LOGITS,)), "input x is gone; input y is new"),
        (None, "no agent of the candidate tells"),
    ],
)
def test_other_signature_fails(candidate: Signature | None, words: str) -> None:
    finding = signature.GATE.decide(Signatures(PLAIN, candidate))
    assert finding.outcome is Outcome.FAILED
    assert words in finding.sentence


def test_same_signature_in_another_order_passes() -> None:
    two = Signature((X, TensorSpec("y", "FP32", (-1,))), (LOGITS,))
    turned = Signature(two.inputs[::-1], two.outputs)
    assert signature.GATE.decide(Signatures(two, turned)).outcome is Outcome.PASSED


# smoke test


@pytest.mark.parametrize(
    ("seen", "outcome", "words"),
    [
        (Smoke({"a": None, "b": None}, made_up=False), Outcome.PASSED, "all 2 agents answer"),
        (Smoke({"a": None, "b": "boom"}, made_up=False), Outcome.FAILED, "agent b fails on an example"),
        (Smoke({}, made_up=False), Outcome.FAILED, "no ready agent"),
        (Smoke({"a": "boom"}, made_up=True), Outcome.FAILED, "a made-up input: boom"),
        (Smoke({"a": "boom"}, True, "boom too"), Outcome.NOT_APPLICABLE, "neither stable"),
    ],
)
def test_smoke_test(seen: Smoke, outcome: Outcome, words: str) -> None:
    finding = smoke.GATE.decide(seen)
    assert finding.outcome is outcome
    assert words in finding.sentence


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer(1, 2), None),
        (answer(1, float("nan")), "output 'logits' holds NaN"),
        (answer(1, float("-inf")), "output 'logits' holds NaN"),
        (Refused(500, "it broke"), "answered 500: it broke"),
        (Refused(0, "no such socket"), "no such socket"),
    ],
)
def test_problem_of_a_reply(reply: Reply, words: str | None) -> None:
    problem = smoke.problem_of(reply)
    assert problem is None if words is None else words in str(problem)


def test_input_is_made_up_only_for_want_of_a_real_one() -> None:
    assert example(SCENE) == ({"x": [0, 0, 0]}, True)
    assert example(replace(SCENE, examples=({"x": [1, 2, 3]},))) == ({"x": [1, 2, 3]}, False)


def test_made_up_inputs_have_one_of_what_may_have_any_size() -> None:
    specs = (TensorSpec("ids", "INT64", (-1, -1)), TensorSpec("text", "BYTES", (-1,)))
    assert made_up(specs) == {"ids": [0], "text": ""}
    assert made_up((TensorSpec("on", "BOOL", (-1, 2, 1)),)) == {"on": [[False], [False]]}


# memory


def fitting(**changes: object) -> Memory:
    plain = Memory(agents=(GIB, 2 * GIB), wanted=2, limit=8 * GIB, available=8 * GIB, total=16 * GIB)
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "outcome", "words"),
    [
        (fitting(), Outcome.PASSED, "an agent takes 2,048 MiB; 2 of them leave 8,192 MiB"),
        (fitting(limit=2 * GIB), Outcome.FAILED, "of its limit of 2,048 MiB"),
        (fitting(limit=0), Outcome.PASSED, "takes"),
        (fitting(wanted=6), Outcome.FAILED, "with 6 of them the machine has 0 MiB left"),
        (fitting(available=GIB // 4), Outcome.FAILED, "256 MiB left"),
    ],
)
def test_memory(seen: Memory, outcome: Outcome, words: str) -> None:
    finding = memory.GATE.decide(seen)
    assert finding.outcome is outcome
    assert words in finding.sentence
    assert finding.figures["agent_bytes"] == 2 * GIB


# warm latency

EVEN = Round((0.010,) * 5, (0.011,) * 5)
SLOW = Round((0.010,) * 5, (0.030,) * 5)


@pytest.mark.parametrize(
    ("rounds", "outcome", "words"),
    [
        ((EVEN,), Outcome.PASSED, "median 11.0 ms against 10.0 ms of stable"),
        ((SLOW, EVEN), Outcome.PASSED, "median 11.0 ms"),
        ((SLOW, SLOW), Outcome.FAILED, "median 30.0 ms against 10.0 ms of stable: more than 2 times"),
        ((Round((0.001,) * 5, (0.004,) * 5),), Outcome.PASSED, "4.0 ms"),
        ((Round((), (0.1,)),), Outcome.NOT_APPLICABLE, "stable does not answer"),
        ((Round((0.1,), ()),), Outcome.FAILED, "answers none"),
    ],
    ids=["even", "slow once", "slow twice", "slow by less than matters", "no stable", "no candidate"],
)
def test_warm_latency(rounds: tuple[Round, ...], outcome: Outcome, words: str) -> None:
    finding = warm_up.GATE.decide(Latency(rounds))
    assert finding.outcome is outcome
    assert words in finding.sentence


def test_one_outlier_makes_nobody_slow() -> None:
    assert not Round((0.01,) * 5, (0.01, 0.01, 0.011, 3.0, 0.01)).is_slow


@pytest.mark.parametrize(
    "delayed",
    [
        Round((0.002,) * 15, (0.002,) * 5 + (0.012,) * 10),
        Round((0.002,) * 10 + (0.011,) * 5, (0.012,) * 15),
    ],
    ids=["most of the candidate's requests", "some of stable's too"],
)
def test_a_busy_machine_that_delays_one_side_makes_nobody_slow(delayed: Round) -> None:
    """So long take two versions of about equal speed beside four busy processes on two cores."""
    stable, candidate = delayed.medians
    assert candidate > warm_up.FACTOR * stable
    assert candidate - stable >= warm_up.SLACK_S
    assert not delayed.is_slow


def test_what_is_slow_throughout_is_slow_on_a_busy_machine_too() -> None:
    assert Round((0.002,) * 13 + (0.03,) * 2, (0.012,) * 12 + (0.002,) * 3).is_slow


def test_warm_latency_needs_fresh_inputs_where_answers_are_cached() -> None:
    few = replace(SCENE, cached=True, examples=({"x": [1, 2, 3]},) * 5)
    assert "caches answers" in str(warm_up.GATE.inapplicable(few))
    assert warm_up.GATE.inapplicable(replace(few, cached=False)) is None
    assert warm_up.GATE.inapplicable(replace(few, examples=few.examples * 2)) is None


# golden set


def compared(both: int, lost: int, won: int, neither: int = 0, **more: object) -> Compared:
    given = Compared(paired=Paired(both, lost, won, neither), source="golden set g", margin=0.05)
    return replace(given, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "outcome", "words"),
    [
        (compared(100, 0, 0), Outcome.PASSED, "100.0% right against 100.0% of stable on 100 items"),
        (compared(95, 1, 4), Outcome.PASSED, "it loses at most 4.3%"),
        (compared(20, 0, 0), Outcome.PASSED, "too few items to prove a loss within 5.0%"),
        (compared(90, 2, 2, 6), Outcome.PASSED, "too few items"),
        (compared(90, 3, 1, 6), Outcome.FAILED, "at most 8.5%, and 5.0% is let through"),
        (compared(960, 10, 5, 25), Outcome.PASSED, "loses at most 1.7%"),
        (compared(19, 1, 0), Outcome.FAILED, "loses at most"),
        (compared(0, 95, 0, 5), Outcome.FAILED, "0.0% right against 95.0%"),
        (compared(100, 0, 0, broken=2), Outcome.FAILED, "NaN or infinite outputs on 2 of 100 items"),
        (compared(0, 0, 0, 100, classless=True), Outcome.FAILED, "reference outputs"),
        (compared(0, 0, 0, 9, classless=True, named=False), Outcome.NOT_APPLICABLE, "reference outputs"),
        (compared(90, 10, 0, unanswered=7, first_error="boom"), Outcome.FAILED, "7 were not answered (boom)"),
        ("the golden set is not stored", Outcome.FAILED, "not stored"),
    ],
)
def test_golden_set(seen: Compared | str, outcome: Outcome, words: str) -> None:
    finding = golden_set.GATE.decide(seen)
    assert finding.outcome is outcome
    assert words in finding.sentence


def test_golden_figures_say_all_that_the_decision_rests_on() -> None:
    figures = golden_set.GATE.decide(compared(95, 1, 4)).figures
    assert (figures["items"], figures["lost"], figures["won"]) == (100, 1, 4)
    assert (figures["stable_accuracy"], figures["candidate_accuracy"]) == (0.96, 0.99)
    assert figures["enough_items"] == 72


def test_golden_set_says_how_to_add_one() -> None:
    assert "signalbox golden add" in str(golden_set.GATE.inapplicable(SCENE))
    assert golden_set.GATE.inapplicable(replace(SCENE, golden_problem="it is not stored")) is None


@pytest.mark.parametrize(
    ("item", "reply", "right"),
    [
        (ITEM, answer(0, 1), True),
        (ITEM, answer(1, 0), False),
        (ITEM, Refused(500, ""), False),
        (ITEM, answer(0, 1, name="vector"), False),
        (GoldenItem(inputs={}, outputs={"logits": [1.0, 2.0]}), answer(1, 2.0005), True),
        (GoldenItem(inputs={}, outputs={"logits": [1.0, 2.0]}), answer(1, 2.1), False),
        (GoldenItem(inputs={}, outputs={"logits": [1.0, 2.0]}), answer(1, float("nan")), False),
        (GoldenItem(inputs={}, outputs={"logits": [1.0]}), answer(1, 2), False),
        (GoldenItem(inputs={}, outputs={"other": [1.0]}), answer(1), False),
        (GoldenItem(inputs={}, outputs={"logits": [0.0, 0.0]}), answer(0, 1e-9), True),
    ],
)
def test_what_is_right(item: GoldenItem, reply: Reply, right: bool) -> None:
    assert answers.is_right(item, reply, ()) is right


def test_class_names_are_the_models_own() -> None:
    item = GoldenItem(inputs={}, label="cat")
    assert answers.is_right(item, answer(0, 1), ("dog", "cat"))
    assert not answers.is_right(item, answer(0, 1), ("cat", "dog"))


def test_texts_are_compared_letter_by_letter() -> None:
    said = Answer((OutputTensor("text", "BYTES", np.array([b"yes"], dtype=object)),), 0.01)
    assert answers.meets({"text": "yes"}, said.outputs)
    assert not answers.meets({"text": "no"}, said.outputs)


# equivalence


def agreeing(items: int, agreed: int, **more: Any) -> Agreement:
    return Agreement("int8", items=items, agreed=agreed, **more)


def labelled(stable_right: int, candidate_right: int, **more: Any) -> Agreement:
    """Of 100 inputs whose right answers are known both say the same on 99."""
    right = {"labelled": 100, "stable_right": stable_right, "candidate_right": candidate_right}
    return agreeing(100, 99, **{"budget": Budget(), **right, **more})


@pytest.mark.parametrize(
    ("seen", "outcome", "words"),
    [
        (agreeing(598, 598), Outcome.PASSED, "on 598 of 598 inputs; with 95 % confidence on at least 99.50%"),
        (agreeing(100, 100), Outcome.PASSED, "598 inputs would prove 99.5%"),
        (agreeing(100, 99), Outcome.FAILED, "99.5% is needed"),
        (agreeing(5000, 4990), Outcome.PASSED, "4990 of 5000"),
        (agreeing(5000, 4970), Outcome.FAILED, "99.5% is needed"),
        (agreeing(0, 0), Outcome.NOT_APPLICABLE, "none of the inputs"),
        (labelled(98, 98), Outcome.PASSED, "right on 98 of 100 labelled inputs, stable on 98"),
        (labelled(98, 97), Outcome.FAILED, "right on 97 of 100 labelled inputs, stable on 98"),
        (labelled(98, 98, broken=1), Outcome.FAILED, "99.5% is needed"),
        (labelled(98, 98, budget=None), Outcome.FAILED, "99.5% is needed"),
        (agreeing(100, 99, budget=Budget(min_agreement=0.95)), Outcome.PASSED, "99 of 100"),
    ],
    ids=[
        "proven", "few and unanimous", "few and not", "many", "too few of many", "none", "as many right",
        "fewer right", "broken", "judged by no lab", "budget of its own",
    ],
)  # fmt: skip
def test_equivalence(seen: Agreement, outcome: Outcome, words: str) -> None:
    finding = equivalence.GATE.decide(seen)
    assert finding.outcome is outcome
    assert words in finding.sentence


def test_equivalence_is_for_optimised_children_of_stable() -> None:
    assert "not an optimised variant" in str(equivalence.GATE.inapplicable(SCENE))
    optimised = replace(SCENE, optimisation="int8")
    assert "neither golden items nor example" in str(equivalence.GATE.inapplicable(optimised))
    golden = Golden(items=(ITEM,), source="s", named=True)
    assert equivalence.GATE.inapplicable(replace(optimised, golden=golden)) is None


@pytest.mark.parametrize(
    ("stable", "candidate", "same"),
    [
        (answer(1, 2), answer(1, 9), True),
        (answer(1, 2), answer(2, 1), False),
        (answer(1, 2), answer(1, float("nan")), False),
        (answer(1, 2), Refused(500, ""), False),
        (answer(1, 2, name="y"), answer(1, 2.03, name="y"), True),
        (answer(1, 2, name="y"), answer(1, 2.06, name="y"), False),
        (answer(1, 2, name="y"), answer(1, name="y"), False),
        (answer(1, 2, name="y"), answer(1, 2, name="z"), False),
    ],
)
def test_agreement(stable: Answer, candidate: Reply, same: bool) -> None:
    assert equivalence.agree(stable, candidate, (), ()) is same


def test_drift_of_the_largest_numbers_stays_plain_json() -> None:
    drift = Drift()
    drift.add(np.array([1e308, -1e308]), np.array([-1e308, 1e308]))
    assert all(np.isfinite(figure) for figure in drift.figures().values())
    assert answers.relative_difference(np.array([1e308]), np.array([-1e308])) == 2.0


def test_drift_is_measured_by_error_and_angle() -> None:
    drift = Drift()
    drift.add(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    drift.add(np.array([1.0, 0.0]), np.array([1.0, 0.0]))
    assert drift.figures() == {"max_error": 1.0, "mean_error": 0.5, "min_cosine": 0.0}


# batches


def test_batches_are_small_and_of_one_shape() -> None:
    rows = [{"x": [0] * size} for size in (3, 3, 3, 2, 3)]
    assert [len(batch) for batch in batches(rows, most=2)] == [2, 1, 1, 1]
    assert [row for batch in batches(rows, most=2) for row in batch] == rows
