"""Rollouts in words: which verdict, which step, which button."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.rollout import ENDED, Command, RolloutState
from control_plane.domain.views import RolloutView
from control_plane.ui.viewmodels import rollout_detail
from control_plane.ui.viewmodels import rollouts as views
from tests.fakes.rollout_view import NOW, VIEW, steps


def view(state: RolloutState, **changes: Any) -> RolloutView:
    over = state in ENDED
    base = {"state": state.value, "phase": state.value, "ended_at": NOW - 60 if over else None}
    return replace(VIEW, **{**base, "steps": steps(2, ended=over), **changes})


def notes(shown: RolloutView) -> str:
    return " ".join(f"{note.title} {note.words}" for note in rollout_detail.notes(shown, NOW, stale_s=30))


# --- words ---


@given(st.floats(0, 1e6))
def test_a_running_time_reads_like_a_clock(seconds: float) -> None:
    parts = [int(part) for part in views.span(seconds).split(":")]
    total = sum(part * 60**power for power, part in enumerate(reversed(parts)))
    assert total == int(seconds)


@given(st.floats(0, 1))
def test_shares_have_their_unit(share: float) -> None:
    assert views.percent(share).endswith(" %")
    assert abs(float(views.percent(share)[:-2]) - share * 100) <= 0.5


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("held by a person", "Held by a person."),
        ("digits@2 is stable now", "digits@2 is stable now."),
        ("p95 latency rose", "p95 latency rose."),
        ("digits is frozen!", "digits is frozen!"),
        ("", ""),
    ],
)
def test_sentences_keep_names_as_they_are(words: str, shown: str) -> None:
    assert views.sentence(VIEW, words) == shown


def test_every_state_belongs_to_one_group_and_has_a_badge() -> None:
    for state in RolloutState:
        assert sum(state in group.states for group in views.GROUPS) == 1
        assert views.state_badge(state).word
    assert views.group("no such").slug == "all"
    counts = {"completed": 2, "aborted": 1, "superseded": 1}
    assert [views.group_label(views.group(slug), counts) for slug in ("all", "aborted")] == [
        "All 4",
        "Aborted 2",
    ]


def test_attention_is_for_what_waits_and_what_went_wrong_lately() -> None:
    waiting = view(RolloutState.AWAITING_APPROVAL, endpoint="a")
    held = view(RolloutState.BAKING, endpoint="b", holds=("operator",))
    fine = view(RolloutState.BAKING, endpoint="c")
    fresh = view(RolloutState.ROLLED_BACK, endpoint="d")
    replaced = view(RolloutState.ROLLED_BACK, endpoint="c")
    old = view(RolloutState.FAILED, endpoint="e", ended_at=NOW - 2 * 86400)
    found = views.attention([waiting, held, fine], [fresh, replaced, old], NOW)
    assert [item.subject for item in found] == ["a", "b", "d"]
    assert found[2].link == "/rollouts?id=r1"


# --- banner and notes ---


@pytest.mark.parametrize(
    ("verdict", "word"),
    [("PASS", "PROMOTE"), ("WAIT", "HOLD"), ("FAIL", "ROLL BACK"), ("NO_DATA", "NO DATA")],
)
def test_the_verdict_is_the_banner_while_requests_flow(verdict: str, word: str) -> None:
    banner = rollout_detail.banner(replace(VIEW, verdict=verdict))
    assert banner.badge.word == word
    assert banner.sentence.startswith("Latency is not decided yet.")
    assert banner.place == "step 2 of 3 · 25 % of requests · started by ana"


@pytest.mark.parametrize("state", list(RolloutState))
def test_every_state_has_a_banner_with_a_sentence(state: RolloutState) -> None:
    banner = rollout_detail.banner(view(state))
    assert banner.badge.word.isupper()
    assert banner.sentence.endswith(".")


def test_a_hold_wins_over_the_verdict_and_names_the_window() -> None:
    assert "Held by a person" in rollout_detail.banner(replace(VIEW, holds=("operator",))).sentence
    frozen = replace(VIEW, holds=("freeze",), frozen="digits is frozen until Monday")
    assert rollout_detail.banner(frozen).badge.word == "HOLD"
    assert rollout_detail.banner(frozen).sentence.startswith("digits is frozen until Monday.")


def test_a_preview_is_no_verdict() -> None:
    banner = rollout_detail.banner(replace(VIEW, weight=0.0, verdict="PASS", strategy="blue-green"))
    assert (banner.badge.word, "switches every request" in banner.sentence) == ("PREVIEW", True)


def test_old_evidence_and_a_dead_controller_are_said_with_their_age() -> None:
    assert notes(VIEW) == ""
    assert "Evidence is 2 min old" in notes(replace(VIEW, verdict_at=NOW - 120))
    assert "No controller for 42.0 s" in notes(replace(VIEW, controller_age_s=42.0))
    settled = view(RolloutState.ABORTED, controller_age_s=42.0)
    assert notes(settled) == ""


def test_what_is_kept_warm_counts_down() -> None:
    assert "digits@1 stays warm for 12:10" in notes(view(RolloutState.COMPLETED, warm_until=NOW + 730))
    assert "digits@2 is kept for 0:30" in notes(view(RolloutState.ROLLED_BACK, warm_until=NOW + 30))
    assert notes(view(RolloutState.COMPLETED, warm_until=NOW - 1)) == ""
    assert "Rollback is armed" in notes(view(RolloutState.FINAL))


# --- strip and buttons ---


def test_the_strip_tells_time_and_requests_of_the_present_step() -> None:
    done, now, ahead = rollout_detail.strip(VIEW)
    assert (done.state, done.place) == ("done", "passed")
    assert (now.state, now.place, now.detail) == ("now", "baking 2:22 / 5:00", "604 / 100 requests")
    assert now.share == pytest.approx(142 / 300)
    assert (ahead.state, ahead.title, ahead.detail) == ("next", "100 %", "5:00 · 100 requests")


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (RolloutState.ROLLED_BACK, "failed"),
        (RolloutState.ABORTED, "ended"),
        (RolloutState.STARTING, "next"),
        (RolloutState.COMPLETED, "done"),
    ],
)
def test_the_strip_of_other_states(state: RolloutState, kind: str) -> None:
    over = state in ENDED
    shown = view(state, steps=steps(4) if state is RolloutState.COMPLETED else steps(2, ended=True))
    assert rollout_detail.strip(shown)[1].state == kind
    assert over or rollout_detail.strip(shown)[2].state == "next"


@given(st.sets(st.sampled_from(list(Command))), st.sampled_from(list(RolloutState)))
def test_buttons_are_those_the_state_machine_allows(commands: set[Command], state: RolloutState) -> None:
    shown = view(state, commands=tuple(commands))
    offered = {button.command for button in rollout_detail.buttons(shown)}
    assert offered <= set(commands)
    assert (Command.HOLD in offered) == (Command.HOLD in commands)
    assert (Command.RESUME in offered) == (Command.RESUME in commands)
    forward = {Command.APPROVE, Command.PROMOTE} & set(commands)
    assert bool(forward & offered) == bool(forward)


def test_promote_names_the_next_weight_and_asks_for_a_reason_against_the_evidence() -> None:
    promote = rollout_detail.buttons(VIEW)[0]
    assert (promote.label, promote.primary, promote.shortcut) == ("Promote to 100 %", False, "P")
    assert promote.help is not None
    passed = rollout_detail.buttons(replace(VIEW, verdict="PASS"))[0]
    assert (passed.primary, passed.help) == (True, None)
    last = rollout_detail.buttons(replace(VIEW, next_weight=None))[0]
    assert last.label == "Finish now"
    switch = rollout_detail.buttons(replace(VIEW, weight=0.0))[0]
    assert switch.label == "Switch all traffic"


def test_confirmations_name_version_and_digest() -> None:
    for words in (
        rollout_detail.promote_fully_question(VIEW),
        rollout_detail.abort_question(VIEW),
        rollout_detail.rollback_help(VIEW),
    ):
        assert "digits@" in words
        assert "sha256:" in words


def test_traffic_says_decided_and_observed() -> None:
    assert rollout_detail.traffic(VIEW).words == "decided 25 %, observed 24.8 % in the last minute"
    assert "none seen" in rollout_detail.traffic(replace(VIEW, observed_weight=None)).words
    assert "copies of 20 %" in rollout_detail.traffic(replace(VIEW, weight=0.0, mirror=0.2)).words


def test_testers_get_the_header_where_it_is_allowed() -> None:
    assert "x-signalbox-version" not in rollout_detail.preview_code(VIEW, "http://g/e/digits")
    code = rollout_detail.preview_code(replace(VIEW, tester_header=True), "http://g/e/digits")
    assert "-H 'x-signalbox-version: digits@2' http://g/e/digits/predict" in code
