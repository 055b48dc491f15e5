"""The optimisation lab's pages: the form of a version, jobs in every state, a search with its trials."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import streamlit as st

from control_plane.domain.optimization import Objective
from control_plane.domain.optimization_orders import AUTOTUNE, OPTIMIZE, REGISTER
from control_plane.services import endpoints, events, jobs, optimization, rollouts
from control_plane.services.context import Context
from control_plane.ui import current
from tests.fakes import seeded, seeded_optimization
from tests.pages.conftest import OpenPage
from tests.pages.test_pages import words


@pytest.fixture(scope="module")
def lab_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Context, dict[str, str]]]:
    """A registry with a job of the lab in every state, which nobody changes."""
    ctx = seeded.open_home(tmp_path_factory.mktemp("lab"))
    seeded.fill(ctx)
    ids = seeded_optimization.fill(ctx)
    seeded_optimization.register(ctx, ids["accepted"], 1)
    seeded_optimization.register(ctx, ids["rejected"], 1)
    yield ctx, ids
    ctx.engine.dispose()


@pytest.fixture
def ids(lab_home: tuple[Context, dict[str, str]]) -> Iterator[dict[str, str]]:
    """Ids of the jobs by name, while the pages work on that registry."""
    ctx, made = lab_home
    current.use(ctx)
    yield made
    st.cache_data.clear()


STATES = {
    "searching": ("Autotune digits@1 for latency", "screen dynamic-int8 (9 of 12)", "11 trials", "★ best"),
    "searched": ("Nothing that is left to try", "9 min of 10 min used", "Static int8", "Others are faster."),
    "accepted": ("ACCEPTED", "3.40×", "3.90× smaller", "600 of 600 rows", "torchao"),
    "rejected": ("REJECTED", "right on 280 of 600", "No benefit", "asks for a reason"),
    "building": ("measure at batch 32", "60 %", "left"),
    "queued": ("jobs that measure run one at a time", "next in the queue"),
    "failed": ("aten::foo has no ONNX counterpart", "Try another method."),
}


@pytest.mark.parametrize("name", STATES)
def test_every_state_of_a_job_has_its_rendering(name: str, ids: dict[str, str], open_page: OpenPage) -> None:
    app = open_page("optimization", job=ids[name])
    said = words(app)
    assert "Something went wrong" not in said
    for part in STATES[name]:
        assert part in said, part
    assert [button.key for button in app.button if button.key == "job-retry"] == (
        ["job-retry"] if name == "failed" else []
    )


def test_an_empty_lab_says_what_to_do(empty: Context, open_page: OpenPage) -> None:
    assert "load the example on the Overview page" in words(open_page("optimization"))


def test_without_a_version_one_is_chosen_and_jobs_are_listed(
    ids: dict[str, str], open_page: OpenPage
) -> None:
    app = open_page("optimization")
    assert "Latest jobs" in words(app)
    (choice,) = app.selectbox
    assert choice.value is None
    choice.set_value("digits@2").run()
    assert app.query_params["version"] == "digits@2"
    assert "Measured here" in words(app)
    assert "Jobs of digits@2" not in words(app), "none of it yet"


def test_a_search_is_started_with_what_was_typed(filled: Context, open_page: OpenPage) -> None:
    app = open_page("optimization", version="digits@1")
    said = words(app)
    for part in ("To try each method once takes about", "100 of them labelled", "Tries the"):
        assert part in said, part
    app.number_input(key="autotune-digits@1-minutes").set_value(2.5)
    app.button_group(key="autotune-digits@1-objective").set_value(Objective.THROUGHPUT)
    app.text_input(key="autotune-digits@1-batches").set_value("8, 1")
    app.number_input(key="autotune-digits@1-agreement").set_value(98.0)
    app.button(key="autotune-start").click().run()  # typed and pressed in one go
    (job,) = jobs.search(filled, kind=AUTOTUNE).items
    asked = optimization.search_of(filled, job.id)
    assert (asked.ref, asked.objective, asked.minutes) == ("digits@1", "throughput", 2.5)
    assert app.query_params["job"] == job.id
    assert "version" not in app.query_params
    assert "Nothing was tried yet" in words(app)
    app.button(key="job-cancel").click().run()
    assert jobs.get(filled, job.id).state == "cancelled"


def test_one_method_is_started_with_its_parameters(filled: Context, open_page: OpenPage) -> None:
    app = open_page("optimization", version="digits@1", method="l1-pruning")
    assert "Takes about" in words(app)
    app.number_input(key="optimize-digits@1-l1-pruning-amount").set_value(0.4).run()
    app.button(key="optimize-start").click().run()
    (job,) = jobs.search(filled, kind=OPTIMIZE).items
    assert job.subject == "digits@1 by l1-pruning"
    assert app.query_params["job"] == job.id


def test_what_does_not_apply_is_there_with_its_reason(filled: Context, open_page: OpenPage) -> None:
    app = open_page("optimization", version="digits@1", method="dynamic-int8")
    said = words(app)
    assert "dynamic-int8 cannot be used here" in said
    assert said.count("torchscript") >= 2
    assert any("do not apply to digits@1" in box.label for box in app.expander)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [("batches", "1, x", "no list of batch sizes"), ("batches", "4096", "ascending sizes from 1 to 1024")],
)
def test_what_cannot_be_started_says_why(
    key: str, value: str, problem: str, filled: Context, open_page: OpenPage
) -> None:
    app = open_page("optimization", version="digits@1")
    app.text_input(key=f"autotune-digits@1-{key}").set_value(value).run()
    assert problem in words(app)
    assert app.button(key="autotune-start").disabled


def test_a_trial_is_chosen_by_the_address_or_the_list(ids: dict[str, str], open_page: OpenPage) -> None:
    app = open_page("optimization", job=ids["searched"], trial="5")
    assert "REJECTED" in words(app)
    app.selectbox(key="trial-5").set_value(8).run()
    assert app.query_params["trial"] == "8"
    assert "REJECTED" not in words(app)
    assert not [button for button in app.button if str(button.key).startswith("register-")]


def test_a_trial_is_registered_with_one_click(filled: Context, open_page: OpenPage) -> None:
    made = seeded_optimization.fill(filled)
    app = open_page("optimization", job=made["searched"], trial="2")
    app.button(key="register-2").click().run()
    assert optimization.trial(filled, made["searched"], 2).registering_job == (
        jobs.search(filled, kind=REGISTER).items[0].id
    )
    assert any("Registering" in bar.proto.text for bar in app.get("progress"))
    ref = seeded_optimization.register(filled, made["searched"], 2)
    said = open_page("optimization", job=made["searched"], trial="2")
    assert not [button for button in said.button if str(button.key).startswith("register-")]
    links = {link.proto.label for link in said.get("page_link")}
    assert links >= {f"Open {ref}", "Deploy", "Roll out at digits", "Compare"}


def test_a_job_that_optimises_nothing_is_a_sentence(filled: Context, open_page: OpenPage) -> None:
    other = jobs.search(filled, kind="example").items[0]
    assert "optimises nothing" in words(open_page("optimization", job=other.id))
    assert "There is no job" in words(open_page("optimization", job="0" * 32))


def test_versions_show_how_they_were_made(ids: dict[str, str], open_page: OpenPage) -> None:
    listed = open_page("versions").dataframe[0].value
    assert list(listed["Optimised"])[:2] == ["✕ l1-pruning · rejected", "✓ dynamic-int8 · accepted"]
    said = words(open_page("versions", id="digits@4"))
    assert "REJECTED" in said
    assert "l1-pruning · rejected" in said
    assert "report.timings" not in said, "the card tells it, not the list of the source"
    assert "dynamic-int8 · accepted" in words(open_page("versions", id="digits@1")), "in the tree"


def test_jobs_are_filtered_by_kind_and_lead_to_the_report(ids: dict[str, str], open_page: OpenPage) -> None:
    app = open_page("jobs")
    app.selectbox(key="kind").set_value(AUTOTUNE).run()
    said = words(app)
    assert said.count("Autotune digits@1 for latency") == 2
    assert "Optimise digits@1" not in said
    one = open_page("jobs", id=ids["accepted"])
    assert "Open the report" in [link.proto.label for link in one.get("page_link")]


def test_what_was_rejected_is_served_with_a_reason_only(filled: Context, open_page: OpenPage) -> None:
    made = seeded_optimization.fill(filled)
    ref = seeded_optimization.register(filled, made["rejected"], 1)
    app = open_page("endpoints", deploy=ref)
    assert f"{ref} was rejected when it was optimised" in words(app)
    app.text_input(key=f"deploy-name-{ref.partition('@')[0]}").set_value("risky").run()
    app.button(key="deploy-go").click().run()
    assert "so it is not deployed to risky" in words(app)
    app.text_input(key=f"deploy-waiver-{ref}").set_value("a demonstration").run()
    app.button(key="deploy-go").click().run()
    assert endpoints.get(filled, "risky").version_ref == ref
    waived = next(
        each for each in events.search(filled, subject=ref).items if each.action == "version.waived"
    )
    assert "a demonstration" in waived.message
    draft = open_page("rollouts", new="digits", candidate=ref)
    assert f"{ref} was rejected when it was optimised" in words(draft)
    changes = words(draft).partition("What changes")[2]
    assert re.search(r"Optimised.{0,400}l1-pruning · rejected", changes, re.DOTALL)
    draft.text_input(key=f"draft-waiver-{ref}").set_value("a demonstration").run()
    draft.button(key="rollout-start").click().run()
    assert rollouts.list_all(filled, endpoint="digits").items[0].candidate_ref == ref
