"""Evidence of a rollout: tiles, gates, disagreements, and the marks of its charts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.views import DisagreementView, EventView, GateView
from control_plane.ui.viewmodels import rollout_evidence
from tests.fakes.rollout_view import NOW, VIEW


def reading(**changes: Any) -> dict[str, Any]:
    figure = {
        "stable": 0.004,
        "candidate": 0.005,
        "difference": 0.001,
        "low": -0.003,
        "high": 0.005,
        "unit": "share",
    }
    return {
        "name": "errors",
        "title": "server errors",
        "outcome": "undecided",
        "sentence": "server errors: not decided yet",
        "worse": 0.1,
        "safe": 0.5,
        "figure": figure,
        "stable_n": 1000,
        "candidate_n": 300,
        "tolerance": 0.0,
        "max_regression": 0.01,
        "observe_only": False,
        "more_requests": 310,
        **changes,
    }


def test_a_tile_has_units_everywhere() -> None:
    tile = rollout_evidence.tiles([reading()])[0]
    assert (tile.title, tile.sentence) == ("Server errors", "not decided yet")
    assert (tile.stable, tile.candidate, tile.difference) == ("0.40 %", "0.50 %", "+0.1 pp")
    assert tile.interval == "−0.3 … +0.5 pp"
    assert tile.counts == "n = 300 candidate, 1,000 stable · about 310 requests to go"
    assert tile.allowed == "no tolerance · safe excludes +1 pp"


def test_what_is_worse_comes_first_and_what_does_not_apply_last() -> None:
    found = rollout_evidence.tiles(
        [reading(name=outcome, outcome=outcome) for outcome in ("not_applicable", "safe", "worse", "no_data")]
    )
    assert [tile.badge.word for tile in found] == ["Worse", "Safe", "No data", "Not at this step"]
    assert [tile.dimmed for tile in found] == [False, False, False, True]


def test_figures_that_are_not_known_are_no_zeros() -> None:
    empty = dict.fromkeys(("stable", "candidate", "difference", "low", "high")) | {"unit": "s"}
    tile = rollout_evidence.tiles([reading(figure=empty, more_requests=None)])[0]
    assert (tile.stable, tile.difference, tile.interval, tile.scale) == ("–", "–", "", None)
    half = {**empty, "low": -0.002}
    assert rollout_evidence.tiles([reading(figure=half)])[0].interval == "from −2 ms"


finite = st.floats(-1, 1)


@given(finite, finite, finite, st.floats(0, 2), st.floats(0, 2))
def test_an_interval_stays_on_its_scale(
    low: float, high: float, point: float, worse: float, safe: float
) -> None:
    low, high = sorted((low, high))
    figure = {**reading()["figure"], "low": low, "high": high, "difference": point}
    tile = rollout_evidence.tiles([reading(figure=figure, worse=worse, safe=safe)])[0]
    assert tile.scale is not None
    assert 0 <= tile.scale.low <= tile.scale.high <= 1
    assert 0 <= tile.scale.point <= 1
    assert 0 <= tile.worse <= 1
    assert 0 <= tile.safe <= 1


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.0008, "s", "+0.8 ms"),
        (-0.25, "share", "−25 pp"),
        (0.0, "share", "±0 pp"),
        (0.031, "PSI", "+0.031 PSI"),
    ],
)
def test_differences_carry_sign_and_unit(value: float, unit: str, words: str) -> None:
    assert rollout_evidence.difference_words(value, unit) == words


def test_gates_are_rows_with_figures() -> None:
    gate = GateView(
        name="golden", title="Golden set", outcome="passed", sentence="ok", figures={"items": 360}
    )
    row = rollout_evidence.gate_rows([gate])[0]
    assert (row["Gate"], row["Outcome"].word, row["Found"]) == ("Golden set", "Passed", "ok · items 360")


def differing(inputs: Any) -> rollout_evidence.Disagreement:
    answers = {"stable": {"logits": [[0.1, 0.9]]}, "candidate": {"logits": [[0.8, 0.2]]}, "measure": "|Δ|"}
    found = DisagreementView(
        id="d",
        at=NOW,
        request_id="q",
        distance=0.7,
        inputs=inputs,
        answers=answers,
        debug_link="/debugger?a=b",
    )
    return rollout_evidence.disagreements([found], NOW)[0]


def test_disagreements_show_pictures_where_inputs_are_some() -> None:
    plane = [[0.0, 0.5, 1.0, 0.2]] * 4
    for inputs in ({"image": [[plane]]}, {"image": [plane]}):
        assert str(differing(inputs).picture).startswith("data:image/png")
    text = differing({"text": ["hello"]})
    assert (text.picture, text.inputs) == (None, '{"text": ["hello"]}')
    assert differing(None).inputs == "too large to keep"
    assert (text.stable, text.candidate) == ("largest at 1: 0.9", "largest at 0: 0.8")
    assert text.link == "/debugger?a=b"


@given(
    st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=4))
)
def test_any_input_can_be_previewed(value: Any) -> None:
    assert len(differing({"x": value}).inputs) <= 160


def event(at: float, weight: float | None, **details: Any) -> EventView:
    return EventView(
        1, at, "ana", "rollout.advanced", "endpoint/digits", "moved", {"weight": weight, **details}
    )


def test_marks_stand_where_the_weight_changed() -> None:
    events = [event(3.0, 0.25), event(2.0, 0.05), event(1.0, 0.05), event(0.5, None)]
    assert rollout_evidence.step_marks(events) == [{"x": 1000, "text": "5 %"}, {"x": 3000, "text": "25 %"}]


def test_limits_stand_above_stable() -> None:
    shown = replace(VIEW, readings=(reading(), reading(name="latency", max_regression=0.3)))
    lines = [
        {"labels": {"endpoint": "digits", "version": "digits@1"}, "x": [1, 2, 3], "y": [0.01, None, 0.02]},
        {"labels": {"endpoint": "digits", "version": "digits@2"}, "x": [1], "y": [9.0]},
    ]
    found = rollout_evidence.limit_marks(shown, {"panels": [{"id": "latency_p99", "lines": lines}]})
    assert found["error_rate"][0]["y"] == pytest.approx(0.014)
    assert found["latency_p99"][0]["y"] == pytest.approx(0.015 * 1.3)
    assert rollout_evidence.limit_marks(VIEW, {}) == {}


def test_charts_reach_back_to_the_beginning() -> None:
    assert rollout_evidence.chart_range_s(VIEW, NOW) == 900
    assert rollout_evidence.chart_range_s(VIEW, NOW + 1e7) == 86400


def test_reasons_stand_beside_events_once() -> None:
    rows = rollout_evidence.event_rows(
        [event(1.0, 0.1, reason="too slow"), event(1.0, 0.1, reason="moved")], None
    )
    assert [row["Event"] for row in rows] == ["moved (too slow)", "moved"]
