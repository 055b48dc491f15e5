"""Drafts of rollouts: what is typed as a plan, and what is to be expected of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.rollout import Guardrail, Step, Strategy, default_steps
from control_plane.errors import InvalidInputError
from control_plane.ui.viewmodels import rollout_draft, rollout_prediction


@pytest.mark.parametrize(
    ("text", "shares"), [("5, 10, 100", (0.05, 0.1, 1.0)), ("5 %; 12.5%,", (0.05, 0.125))]
)
def test_weights_are_percentages(text: str, shares: tuple[float, ...]) -> None:
    assert rollout_draft.parse_weights(text) == shares


@pytest.mark.parametrize("text", ["", " , ", "five", "5 10"])
def test_what_is_no_list_of_percentages_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        rollout_draft.parse_weights(text)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=8))
def test_weights_survive_being_typed(percents: list[int]) -> None:
    shares = rollout_draft.parse_weights(", ".join(map(str, percents)))
    assert [round(share * 100) for share in shares] == percents


def test_approvals_follow_the_chosen_steps() -> None:
    plan = default_steps(Strategy.CANARY)
    titles = rollout_draft.step_titles(plan)
    assert titles[:2] == ["1 · 5 %", "2 · 10 %"]
    assert rollout_draft.approvals(plan, [titles[1]]) == (False, True, False, False, False, False)
    assert rollout_draft.approvals(plan, []) is False
    assert [step.title for step in rollout_draft.preview((Step(weight=0.0, mirror=0.2),))] == ["20 % copied"]


GUARDRAILS = (Guardrail("errors", 0.002, 0.01, 0.5), Guardrail("latency", 0.0, 0.3, 0.2))


def test_only_changed_guardrails_are_patched() -> None:
    rows = rollout_draft.guardrail_rows(GUARDRAILS, {"errors": "server errors", "latency": "latency"})
    assert [row["In"] for row in rows] == ["pp", "% slower"]
    assert rollout_draft.guardrail_patches(rows, [dict(row) for row in rows]) == {}
    changed = [{**rows[0], "Regression": 2.0, "Observe only": True}, rows[1]]
    patches = rollout_draft.guardrail_patches(rows, changed)
    assert patches == {"errors": {"max_regression": 0.02, "observe_only": True}}
    with pytest.raises(InvalidInputError, match="Tolerance is empty"):
        rollout_draft.guardrail_patches(rows, [rows[0], {**rows[1], "Tolerance": None}])


PREDICTED: dict[str, Any] = {
    "traffic": {"rate": 3.0, "error_rate": 0.005, "p50_s": 0.02, "p95_s": 0.05},
    "origin": {"rate": "measured", "error_rate": "assumed", "p50_s": "given", "p95_s": "given"},
    "warnings": ["step 1 (5 %) takes about 3.0 h at this rate"],
    "prediction": {
        "total_median_s": None,
        "total_p90_s": 7300.0,
        "steps": [{"weight": 0.05, "mirror": 0.0, "median_s": 310.0, "p90_s": None, "median_requests": 1234}],
        "regressions": [
            {
                "kind": "errors",
                "size": 0.005,
                "median_s": 95.0,
                "p90_s": 130.0,
                "median_requests": 443,
                "caught": 0.98,
            },
            {
                "kind": "latency",
                "size": 0.2,
                "median_s": None,
                "p90_s": None,
                "median_requests": None,
                "caught": 0.4,
            },
        ],
    },
}


def test_a_prediction_says_what_it_rests_on() -> None:
    assert rollout_prediction.traffic_words(PREDICTED) == (
        "At 3.0/s (measured lately), 0.50 % errors (assumed), p50 20 ms (as typed), p95 50 ms (as typed)."
    )
    assert rollout_prediction.warnings(PREDICTED) == ("Step 1 (5 %) takes about 3.0 h at this rate.",)
    assert rollout_prediction.total_words(PREDICTED) == "All steps: not within days, 90 % within 2 h 1 min."


def test_a_prediction_is_rows() -> None:
    assert rollout_prediction.step_rows(PREDICTED) == [
        {
            "Step": "5 %",
            "Takes": "5 min 10 s",
            "90 % within": "not within days",
            "Candidate requests": "1,234",
        }
    ]
    errors, latency = rollout_prediction.regression_rows(PREDICTED)
    assert (errors["If it is worse by"], errors["Caught at all"]) == ("+0.5 pp errors", "98 %")
    assert (latency["If it is worse by"], latency["Its requests"]) == ("20 % slower", "–")
