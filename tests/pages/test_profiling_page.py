"""The profiling page: the form, the list, a report in every state, every view, and a comparison."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import streamlit as st
from sqlalchemy import select

from control_plane.domain.job import Lane
from control_plane.registry import session as sessions
from control_plane.registry.tables import Agent
from control_plane.services import jobs, profile_folders, profiling
from control_plane.services.context import Context
from control_plane.ui import current
from tests.fakes import seeded, seeded_profiles
from tests.pages.conftest import OpenPage
from tests.pages.test_pages import words


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Context, dict[str, str]]]:
    """A registry with a profile in every state, which nobody changes."""
    ctx = seeded.open_home(tmp_path_factory.mktemp("profiles"))
    seeded.fill(ctx)
    yield ctx, seeded_profiles.fill(ctx)
    ctx.engine.dispose()


@pytest.fixture
def ids(profiled: tuple[Context, dict[str, str]]) -> Iterator[dict[str, str]]:
    """Ids of the profiles by name, while the pages work on that registry."""
    ctx, made = profiled
    current.use(ctx)
    yield made
    st.cache_data.clear()


TABS = {
    "Flame": ("Stages of a request", "Predict", "Whole request"),
    "Operators": ("Layers", "of 10 watched requests together"),
    "Functions": ("cProfile, of 10 requests",),
    "Sweep": ("The knee is at 8 rows", "8 · knee", "Peak memory"),
}


@pytest.mark.parametrize("tab", TABS)
def test_every_view_of_a_report(tab: str, ids: dict[str, str], open_page: OpenPage) -> None:
    app = open_page("profiling", run=ids["before"], tab=tab)
    said = words(app)
    for part in ("largest cost is the layer encoder.1", "Largest cost", *TABS[tab]):
        assert part in said, part
    captions = " ".join(each.value for each in app.caption)
    assert "torch.profiler 2.50×" in captions
    assert "Own times add up to 98.0%" in captions


def test_another_report_is_laid_beside(ids: dict[str, str], open_page: OpenPage) -> None:
    app = open_page("profiling", run=ids["after"], tab="Compare")
    app.selectbox(key="profiling-with").set_value(ids["before"]).run()
    said = words(app)
    assert "A: before, 5 ms a request. B: after, 9 ms: +4 ms (1.80×)." in said
    for part in ("Slower", "+3 ms", "3.00×", "Same"):
        assert part in said, part
    assert app.query_params["with"] == ids["before"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("failed", "it takes no such rows"), ("queued", "Queued"), ("running", "Running")],
)
def test_every_state_has_its_rendering(
    name: str, said: str, ids: dict[str, str], open_page: OpenPage
) -> None:
    app = open_page("profiling", run=ids[name])
    assert said in words(app)
    assert [button.key for button in app.button if button.key == "profiling-cancel"] == (
        [] if name == "failed" else ["profiling-cancel"]
    )


def test_a_profile_without_its_files_can_be_deleted(filled: Context, open_page: OpenPage) -> None:
    gone = seeded_profiles.add(filled, seeded_profiles.report())
    (profile_folders.of_report(filled.settings, gone) / "report.json").unlink()
    app = open_page("profiling", run=gone)
    assert "are gone" in words(app)
    app.button(key="profiling-delete").click().run()
    assert profiling.search(filled).total == 0


def test_profiles_are_listed_and_searched(ids: dict[str, str], open_page: OpenPage) -> None:
    del ids
    app = open_page("profiling")
    assert "9 ms a request · most in encoder.1" in words(app)
    app.text_input(key="q").set_value("before").run()
    said = words(app)
    assert ">before" in said
    assert ">after" not in said
    assert "There is no profile" in words(open_page("profiling", run="0" * 32))


def test_profiles_are_taken_as_the_form_says(filled: Context, open_page: OpenPage) -> None:
    app = open_page("profiling", version="digits@1")
    app.number_input(key="profiling-batch").set_value(4)
    app.button(key="profiling-start").click().run()
    (view,) = profiling.search(filled).items
    assert (view.ref, view.asked.batch, view.state) == ("digits@1", 4, "queued")
    assert app.query_params["run"] == view.id
    app.button(key="profiling-cancel").click().run()
    assert profiling.get(filled, view.id).state == "cancelled"
    app.button(key="profiling-delete").click().run()
    assert profiling.search(filled).total == 0
    live = open_page("profiling", endpoint="digits")
    live.button(key="profiling-start").click().run()
    assert "No agent of digits is ready" in words(live)
    with sessions.write(filled.engine) as session:
        for agent in session.scalars(select(Agent)):
            agent.rest_address = "127.0.0.1:1"
    live.button(key="profiling-start").click().run()
    (view,) = profiling.search(filled).items
    assert jobs.get(filled, view.job_id).lane == Lane.LIVE
    assert (view.ref, view.endpoint, view.asked.requests) == ("digits@1", "digits", 200)
    assert "agent of digits" in words(live)
