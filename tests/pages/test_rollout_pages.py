"""Rollouts' pages: the list, every state of one, its buttons, and the draft."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import streamlit as st

from control_plane.domain.rollout import RolloutState
from control_plane.services import endpoints, rollouts
from control_plane.services.context import Context
from control_plane.ui import current
from tests.fakes import seeded, seeded_rollouts
from tests.pages.conftest import OpenPage
from tests.pages.test_pages import words

PROBLEM = 'class="sb-problem'
STATES = {
    "waiver": ("AWAITING A SECOND PERSON", "nothing runs until somebody else approves", "the golden set"),
    "starting": ("STARTING", "Waits for capacity"),
    "preflight": ("PREFLIGHT", "Waits for the gates"),
    "shifting": ("SHIFTING", "The gateway is taking over 25 %"),
    "baking": ("HOLD", "not decided yet", "baking 2:22 / 5:00", "6,012 / 100 requests", "25 % of requests"),
    "ready": ("PROMOTE", "every guardrail is safe", "A person promotes each step"),
    "nodata": ("NO DATA", "no request reached digits@2"),
    "stale": ("NO DATA", "Evidence is 3 min", "Nothing is promoted on old evidence"),
    "approval": ("PROMOTE", "waits for a person", "50 % of requests follow"),
    "held": ("HOLD", "Held by a person", "held 2:22"),
    "final": ("PROMOTE", "Rollback is armed", "100 % of requests"),
    "shadow": ("HOLD", "20 % copied", "copies of 20 %"),
    "bluegreen": ("PREVIEW", "promoting it switches every request at once"),
    "rolling": ("ROLLING BACK", seeded_rollouts.WORSE[1:]),
    "rolled": ("ROLLED BACK", "digits@2 is kept for", "ended at 1:01", "Report"),
    "completed": ("COMPLETED", "digits@1 stays warm for", "Report"),
    "aborted": ("ABORTED", "The wrong version was chosen", "Report"),
    "superseded": ("SUPERSEDED", "Report"),
    "failed": ("FAILED", "71 % right", "ended before traffic", "Report"),
}


@pytest.fixture
def seeded_ids(filled: Context) -> dict[str, str]:
    """Ids of a rollout in every state, by name."""
    return seeded_rollouts.fill(filled)


@pytest.fixture(scope="module")
def gallery_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Context, dict[str, str]]]:
    """A registry with a rollout in every state, which nobody changes."""
    ctx = seeded.open_home(tmp_path_factory.mktemp("gallery"))
    seeded.fill(ctx)
    yield ctx, seeded_rollouts.fill(ctx)
    ctx.engine.dispose()


@pytest.fixture
def gallery(gallery_home: tuple[Context, dict[str, str]]) -> Iterator[dict[str, str]]:
    """Ids of the gallery's rollouts by name, while the pages work on it."""
    ctx, ids = gallery_home
    current.use(ctx)
    yield ids
    st.cache_data.clear()


@pytest.mark.parametrize("name", STATES)
def test_every_state_has_its_rendering(name: str, gallery: dict[str, str], open_page: OpenPage) -> None:
    said = words(open_page("rollouts", id=gallery[name]))
    assert "Something went wrong" not in said
    for part in STATES[name]:
        assert part.lower() in said.lower(), part


def test_an_empty_list_says_what_to_do(empty: Context, open_page: OpenPage) -> None:
    assert "Press Start a rollout" in words(open_page("rollouts"))


def test_the_list_is_filtered_by_the_address(gallery: dict[str, str], open_page: OpenPage) -> None:
    everything = words(open_page("rollouts"))
    assert ">digits<" in everything
    failed = words(open_page("rollouts", state="failed"))
    assert ">r-failed<" in failed
    assert ">digits<" not in failed
    assert words(open_page("rollouts", state="no-such-state")).count('class="sb-card-title"') == 20


def test_choosing_a_state_goes_into_the_address(gallery: dict[str, str], open_page: OpenPage) -> None:
    app: Any = open_page("rollouts", page="2")
    control = app.button_group(key="rollout-filter")
    assert "Rolled back 1" in [option.content for option in control.proto.options]
    control.set_value("rolled-back").run()
    assert "rolled-back" in app.query_params["state"]
    assert "page" not in app.query_params
    assert ">r-rolled<" in words(app)


def test_old_rollouts_are_on_later_pages(filled: Context, open_page: OpenPage) -> None:
    for number in range(21):
        seeded_rollouts.add(filled, f"p-{number}", RolloutState.ABORTED, age_s=1000 - number, reason="x")
    assert ">p-0<" not in words(open_page("rollouts"))
    assert ">p-0<" in words(open_page("rollouts", page="2"))


@pytest.mark.parametrize(
    ("name", "key", "state"),
    [
        ("ready", "rollout-promote", "shifting"),
        ("baking", "rollout-hold", "held"),
        ("held", "rollout-resume", "baking"),
        ("approval", "rollout-approve", "shifting"),
        ("baking", "rollout-abort", "rolling_back"),
        ("baking", "rollout-rollback", "rolling_back"),
        ("starting", "rollout-rollback", "rolling_back"),
        ("stale", "rollout-rollback", "rolling_back"),
        ("completed", "rollout-rollback", "rolling_back"),
        ("ready", "rollout-promote-full", "shifting"),
        ("final", "rollout-promote", "completed"),
    ],
)
def test_buttons_act(
    name: str, key: str, state: str, filled: Context, seeded_ids: dict[str, str], open_page: OpenPage
) -> None:
    if name in ("final", "completed"):
        endpoint = {"final": "r-final", "completed": "r-completed"}[name]
        ref = "digits@1" if name == "final" else "digits@2"
        seeded.deploy(filled, endpoint, ref, phases=("ready",))
    app = open_page("rollouts", id=seeded_ids[name])
    app.text_input(key=f"rollout-reason-{seeded_ids[name]}").set_value("as planned")
    app.button(key=key).click().run()
    assert PROBLEM not in words(app)
    assert rollouts.get(filled, seeded_ids[name]).state == state
    event = rollouts.history(filled, seeded_ids[name]).items[0]
    assert event.actor == "local"
    assert "as planned" in event.message
    assert all(field.value == "" for field in app.text_input)


def test_roll_back_is_never_disabled(gallery: dict[str, str], open_page: OpenPage) -> None:
    for name in ("waiver", "starting", "preflight", "shifting", "baking", "nodata", "held", "final"):
        assert not open_page("rollouts", id=gallery[name]).button(key="rollout-rollback").disabled


def test_a_stale_tab_does_nothing_but_say_who_moved_it(
    filled: Context, seeded_ids: dict[str, str], open_page: OpenPage
) -> None:
    app = open_page("rollouts", id=seeded_ids["ready"])
    rollouts.act(filled, seeded_ids["ready"], "promote", actor="bo")
    before = rollouts.get(filled, seeded_ids["ready"])
    app.button(key="rollout-promote").click().run()
    assert rollouts.get(filled, seeded_ids["ready"]).revision == before.revision
    said = words(app)
    assert "moved by bo" in said
    app.run()
    assert "moved by bo" in words(app), "it stays until it is put away"
    app.button(key="rollout-refused").click().run()
    assert "moved by bo" not in words(app)


def test_going_against_the_evidence_asks_for_a_reason(
    filled: Context, seeded_ids: dict[str, str], open_page: OpenPage
) -> None:
    app = open_page("rollouts", id=seeded_ids["baking"])
    app.button(key="rollout-promote").click().run()
    assert "needs a reason" in words(app)
    assert rollouts.get(filled, seeded_ids["baking"]).state == "baking"


def test_the_bake_can_be_extended(filled: Context, seeded_ids: dict[str, str], open_page: OpenPage) -> None:
    app = open_page("rollouts", id=seeded_ids["baking"])
    app.button(key="rollout-extend").click().run()
    assert rollouts.get(filled, seeded_ids["baking"]).steps[2].bake_s == 600
    assert "baking 2:22 / 10:00" in words(app)


def test_tiles_say_values_interval_and_evidence(gallery: dict[str, str], open_page: OpenPage) -> None:
    said = words(open_page("rollouts", id=gallery["baking"]))
    for part in ("0.42 %", "0.51 %", "+0.09 pp", "−0.31 … +0.49 pp", "62 %", "n = 6,012 candidate"):
        assert part in said, part
    assert 'class="sb-tile dim"' in said


def test_disagreements_are_shown_with_both_answers(gallery: dict[str, str], open_page: OpenPage) -> None:
    said = words(open_page("rollouts", id=gallery["shadow"]))
    assert said.count('class="sb-disagreement"') == 4
    assert "largest |Δ| of logits 0.93" in said
    assert "data:image/png" in said


def test_a_superseded_rollout_links_to_the_newer(gallery: dict[str, str], open_page: OpenPage) -> None:
    app: Any = open_page("rollouts", id=gallery["superseded"])
    links = [link.proto for link in app.get("page_link")]
    newer = [link for link in links if "Open the newer one" in link.label]
    assert newer
    assert gallery["newer"] in newer[0].query_string


def test_the_draft_starts_a_rollout(filled: Context, open_page: OpenPage) -> None:
    app = open_page("rollouts", new="digits", candidate="digits@2")
    assert "What changes" in words(app)
    app.text_input(key="draft-weights").set_value("5, 50")
    app.number_input(key="draft-bake").set_value(30.0)
    app.number_input(key="draft-requests").set_value(20).run()
    app.multiselect[0].set_value(["1 · 5 %"]).run()
    app.button(key="rollout-start").click().run()
    assert PROBLEM not in words(app)
    started = rollouts.of_endpoint(filled, "digits")
    assert [step.weight for step in started.steps] == [0.05, 0.5, 1.0]
    assert {(step.bake_s, step.min_requests) for step in started.steps} == {(30.0, 20)}
    assert [step.approval for step in started.steps] == [True, False, False]
    assert started.id in app.query_params["id"]
    assert "STARTING" in words(app)


def test_what_is_typed_just_before_the_click_counts(filled: Context, open_page: OpenPage) -> None:
    app = open_page("rollouts", new="digits", candidate="digits@2")
    app.number_input(key="draft-bake").set_value(30.0)
    app.button(key="rollout-start").click().run()
    assert {step.bake_s for step in rollouts.of_endpoint(filled, "digits").steps} == {30.0}


@pytest.mark.parametrize(("text", "says"), [("many", "no list of percentages"), ("50, 5", "must not fall")])
def test_unusable_steps_are_explained(text: str, says: str, filled: Context, open_page: OpenPage) -> None:
    app = open_page("rollouts", new="digits")
    app.text_input(key="draft-weights").set_value(text).run()
    assert says in words(app)
    assert app.button(key="rollout-start").disabled


def test_a_second_rollout_is_refused_with_the_reason(filled: Context, open_page: OpenPage) -> None:
    rollouts.start(filled, "digits", "digits@2", actor="ana")
    app = open_page("rollouts", new="digits", candidate="digits@2")
    app.button(key="rollout-start").click().run()
    assert "has to wait" in words(app)
    app.toggle(key="draft-supersede").set_value(True).run()
    app.button(key="rollout-start").click().run()
    assert rollouts.of_endpoint(filled, "digits").created_by == "local"


@pytest.mark.parametrize(("strategy", "steps"), [("blue-green", 2), ("shadow", 1)])
def test_other_strategies(strategy: str, steps: int, filled: Context, open_page: OpenPage) -> None:
    app: Any = open_page("rollouts", new="digits", candidate="digits@2")
    app.button_group(key="draft-strategy").set_value(strategy).run()
    app.button(key="rollout-start").click().run()
    started = rollouts.of_endpoint(filled, "digits")
    assert (started.strategy, len(started.steps)) == (strategy, steps)


def test_a_draft_without_anything_to_roll_out_says_so(empty: Context, open_page: OpenPage) -> None:
    assert "No endpoint is running" in words(open_page("rollouts", new="new"))
    ref = seeded.add_version(empty, "lonely")
    seeded.deploy(empty, "lonely", ref, phases=("ready",))
    assert "There is no other version" in words(open_page("rollouts", new="lonely"))


def test_other_pages_point_at_rollouts(filled: Context, open_page: OpenPage) -> None:
    rollout_id = seeded_rollouts.add(filled, "digits", RolloutState.AWAITING_APPROVAL)
    assert "Rollout in progress: digits@1 → digits@2" in words(open_page("endpoints", name="digits"))
    st.cache_data.clear()
    said = words(open_page("overview"))
    assert "Awaiting approval" in said
    assert endpoints.get(filled, "digits").name
    version: Any = open_page("versions", id="digits@2")
    targets = [link.proto.query_string for link in version.get("page_link")]
    assert any("new=digits" in target and "candidate=digits" in target for target in targets)
    assert rollout_id


def test_a_report_can_be_downloaded(filled: Context, seeded_ids: dict[str, str], open_page: OpenPage) -> None:
    app: Any = open_page("rollouts", id=seeded_ids["rolled"])
    assert {each.proto.label for each in app.get("download_button")} == {"Markdown", "JSON"}
    assert (
        json.loads(rollouts.report(filled, seeded_ids["rolled"], "json"))["rollout"]["state"] == "rolled_back"
    )


def test_names_and_reasons_are_never_html(filled: Context, open_page: OpenPage) -> None:
    evil = "<img src=x onerror=alert(1)>"
    judged = seeded_rollouts.verdict("WAIT", evil)
    judged["readings"][0]["sentence"] = evil
    rollout_id = seeded_rollouts.add(filled, "digits", RolloutState.BAKING, judged=judged)
    for query in ({"id": rollout_id}, {}):
        assert "<img src=x" not in words(open_page("rollouts", **query))


def test_an_unknown_rollout_is_a_sentence(empty: Context, open_page: OpenPage) -> None:
    said = words(open_page("rollouts", id="nope"))
    assert "There is no rollout" in said
    assert "Something went wrong" not in said
