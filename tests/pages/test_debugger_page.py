"""The debugger's pages: the form of a new run, runs in every state, and steps through one."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from control_plane.domain.debugging import CaptureView, ExampleSource, InputView, JsonSource
from control_plane.errors import NotFoundError
from control_plane.services import debug_folders, debugger, jobs, rollouts
from control_plane.services.context import Context
from control_plane.ui import current
from tests.fakes import seeded, seeded_debugger, seeded_rollouts
from tests.pages.conftest import OpenPage
from tests.pages.test_pages import words


@pytest.fixture(scope="module")
def looked_into(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Context, dict[str, str]]]:
    """A registry with a run of the debugger in every state, which nobody changes."""
    ctx = seeded.open_home(tmp_path_factory.mktemp("debugger"))
    seeded.fill(ctx)
    yield ctx, seeded_debugger.fill(ctx)
    ctx.engine.dispose()


@pytest.fixture
def ids(looked_into: tuple[Context, dict[str, str]]) -> Iterator[dict[str, str]]:
    """Ids of the runs by name, while the pages work on that registry."""
    ctx, made = looked_into
    current.use(ctx)
    yield made
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.fixture
def two(empty: Context) -> Context:
    """A registry with two versions, and no more."""
    for content in (b"first", b"second"):
        seeded.add_version(empty, "digits", content=content, examples=8)
    return empty


STATES = {
    "plain": ("baseline", "Done", "on example 4 of digits@1", "kept 30 days more", "Layer 1 of 8"),
    "nan": ("NaN or Inf", "Layer 1 of 8"),
    "compared": ("digits@1 beside digits@2", "They diverge at fc1", "Diverges", "matched by"),
    "wrong": ("Stopped in preprocess", "got [1, 1, 8, 9]", "validation.py:41 in check_shape", "not reached"),
    "none": ("An ONNX graph runs in one piece", "1 tensor in 0.80 ms"),
    "unkept": ("8 layers, all finite", "Its elements were not kept"),
    "edited": ("act [0, 3] = 5", "logits[9]", "Before", "+1.706", "Edited"),
    "tokens": ("digits@1 beside digits@2", "Layer 1 of 4"),
    "running": ("Running", "digits@1 beside digits@2"),
    "queued": ("Waiting",),
    "failed": ("Failed", "needs more than 256 MiB", "Use a smaller input."),
}


@pytest.mark.parametrize("name", STATES)
def test_every_state_of_a_run_has_its_rendering(name: str, ids: dict[str, str], open_page: OpenPage) -> None:
    app = open_page("debugger", run=ids[name])
    said = words(app)
    assert "Something went wrong" not in said
    for part in STATES[name]:
        assert part in said or part in _summary(name, ids), part
    assert bool([each for each in app.button if each.key == "debugger-cancel"]) == (
        name in ("running", "queued")
    )


def _summary(name: str, ids: dict[str, str]) -> str:
    return debugger.view(current.context(), ids[name]).summary


def test_what_is_not_there_is_said(two: Context, open_page: OpenPage) -> None:
    assert "There is no debugger run" in words(open_page("debugger", run="0" * 32))
    run_id = seeded_debugger.plain(two)
    (debug_folders.of_run(two.settings, run_id) / "a" / "run.json").unlink()
    gone = open_page("debugger", run=run_id)
    assert f"The files of debugger run {run_id} are gone" in words(gone)
    assert [button.key for button in gone.button if button.key == "debugger-delete"]


def test_an_empty_debugger_says_what_to_do(empty: Context, open_page: OpenPage) -> None:
    assert "load the example on the Overview page" in words(open_page("debugger"))


def test_a_run_is_begun_with_what_was_chosen(two: Context, open_page: OpenPage) -> None:
    app = open_page("debugger", a="digits@1", b="digits@2", example="4")
    assert "No run yet" in words(app)
    assert app.selectbox(key="debugger-a-digits@1").value == "digits@1"
    app.text_input(key="debugger-name").set_value("int8 drift")
    app.button(key="debugger-start").click().run()
    (view,) = debugger.search(two).items
    assert (view.a, view.b, view.name) == ("digits@1", "digits@2", "int8 drift")
    assert view.input == "example 4 of digits@1"
    assert app.query_params["run"] == view.id
    assert "a" not in app.query_params
    assert "Waiting" in words(app)
    app.button(key="debugger-cancel").click().run()
    assert jobs.get(two, view.job_id).state == "cancelled"


def test_a_version_is_chosen_and_its_input_given_as_json(two: Context, open_page: OpenPage) -> None:
    app = open_page("debugger", json="[[[[0.5]]]]")
    assert "Choose the version to look into" in words(app)
    app.selectbox(key="debugger-a-None").set_value("digits@2").run()
    assert app.query_params["a"] == "digits@2"
    assert app.text_area(key="debugger-json-digits@2").value == "[[[[0.5]]]]"
    app.text_area(key="debugger-json-digits@2").set_value("[1,").run()
    assert "This is not JSON" in words(app)
    assert app.button(key="debugger-start").disabled
    app.text_area(key="debugger-json-digits@2").set_value('{"input": [[[[0.25]]]]}').run()
    app.button(key="debugger-start").click().run()
    (view,) = debugger.search(two).items
    assert view.inputs[0].shape == (1, 1, 1, 1)


def test_random_inputs_and_captured_ones(two: Context, open_page: OpenPage) -> None:
    app = open_page("debugger", a="digits@1", input="Random")
    app.number_input(key="debugger-seed").set_value(7).run()
    app.button(key="debugger-start").click().run()
    assert debugger.search(two).items[0].input == "random, seed 7"
    captured = open_page("debugger", a="digits@1", endpoint="digits")
    assert "No endpoint keeps requests that digits@1 can take" in words(captured)
    assert captured.button(key="debugger-start").disabled


def test_the_gallery_of_a_rollout_leads_to_both_versions(filled: Context, open_page: OpenPage) -> None:
    made = seeded_rollouts.fill(filled)
    rollout, found = next(
        (each, listed)
        for each in made.values()
        if (listed := rollouts.disagreements(filled, each)) and listed[0].inputs is not None
    )
    query = dict(part.split("=") for part in found[0].debug_link.partition("?")[2].split("&"))
    gallery = open_page("rollouts", id=rollout)
    assert "Open in debugger" in [link.proto.label for link in gallery.get("page_link")]
    app = open_page("debugger", **query)
    assert "answered differently" in words(app)
    app.button(key="debugger-start").click().run()
    (view,) = debugger.search(filled).items
    wanted = debugger.disagreement(filled, query["rollout"], query["disagreement"])
    assert (view.a, view.b) == (wanted.a, wanted.b)


def test_stepping_is_in_the_address(ids: dict[str, str], open_page: OpenPage) -> None:
    app = open_page("debugger", run=ids["nan"], layer="features.0")
    assert app.button(key="debugger-back").disabled
    app.button(key="debugger-next").click().run()
    assert app.query_params["layer"] == "features.1"
    assert "Layer 2 of 8" in words(app)
    app.button(key="debugger-last").click().run()
    assert app.query_params["layer"] == "Digits"
    app.button(key="debugger-nan").click().run()
    assert app.query_params["layer"] == "features.1"
    app.button(key="debugger-wrong-a-features.1-0").click().run()
    assert app.number_input(key="debugger-dim-a-features.1-0-1").value == 2
    assert app.text_input(key="debugger-edit-index-a-features.1-0").value == "[0, 2, 3, 4]"
    app.selectbox(key="debugger-jump-1").set_value("fc2").run()
    assert "Layer 7 of 8" in words(app)


def test_breakpoints_go_to_the_next_hit(ids: dict[str, str], open_page: OpenPage) -> None:
    app = open_page("debugger", run=ids["plain"], layer="features.0")
    for text, layer in (
        ("*ReLU", "features.1"),
        ("*ReLU", "act"),
        ("*ReLU", "features.1"),
        ("[1, 10]", "fc2"),
    ):
        app.text_input(key="break").set_value(text)
        app.button(key="debugger-continue").click().run()
        assert app.query_params["layer"] == layer
    app.text_input(key="break").set_value("nan")
    app.button(key="debugger-continue").click().run()
    assert "No layer meets nan" in words(app)
    app.text_input(key="break").set_value("[1, x]")
    app.button(key="debugger-continue").click().run()
    assert "is no breakpoint" in words(app)


def test_two_versions_and_where_they_part(ids: dict[str, str], open_page: OpenPage) -> None:
    app = open_page("debugger", run=ids["compared"])
    app.button(key="debugger-divergence").click().run()
    assert app.query_params["layer"] == "fc1"
    app.button_group(key="debugger-side").set_value("b").run()
    assert app.query_params["side"] == "b"
    assert "Layer 5 of 8 in digits@2" in words(app)
    assert "Edits of layers change version A" in words(app)


def test_an_element_is_set_and_the_run_goes_on(two: Context, open_page: OpenPage) -> None:
    run_id = seeded_debugger.plain(two)
    app = open_page("debugger", run=run_id, layer="act", view="Layers")
    app.text_input(key="break").set_value("nan")
    app.text_input(key="debugger-edit-index-a-act-0").set_value("[0, 99]")
    app.button(key="debugger-edit-a-act-0").click().run()
    assert "Dimension 1 has 16 places" in words(app)
    app.text_input(key="debugger-edit-index-a-act-0").set_value("[0, :]")
    app.text_input(key="debugger-edit-value-a-act-0").set_value("2.5")
    app.button(key="debugger-edit-a-act-0").click().run()
    view = debugger.view(two, app.query_params["run"])
    assert (view.parent_id, view.edits[0].point, view.edits[0].index) == (run_id, "act", (0, None))
    assert view.edits[0].value == 2.5
    assert app.query_params["layer"] == "act"


def test_stages_show_tensors_and_their_values(ids: dict[str, str], open_page: OpenPage) -> None:
    app = open_page("debugger", run=ids["compared"], view="Stages")
    said = words(app)
    for part in (
        "image",
        "1 × 1 × 8 × 8",
        "FP32",
        "A against B",
        "what goes into the network",
        "bit for bit",
    ):
        assert part in said, part
    app.toggle(key="debugger-values-a-inputs").set_value(True).run()
    app.toggle(key="debugger-values-b-preprocess").set_value(True).run()
    assert app.text_input(key="debugger-edit-index-a-inputs-image").value == "[0, 0, 0, 0]"
    assert "Something went wrong" not in words(app)


def test_tokens_of_language_models(ids: dict[str, str], open_page: OpenPage) -> None:
    app = open_page("debugger", run=ids["tokens"], view="Tokens")
    said = words(app)
    for part in ("farthest apart after position 2", "perplexity", "only here", "Attention"):
        assert part in said, part
    app.selectbox(key="debugger-token-0-2").set_value(4).run()
    assert app.query_params["token"] == "4"
    app.number_input(key="debugger-attention-head").set_value(1).run()
    assert "Something went wrong" not in words(app)


def test_runs_are_saved_found_and_deleted(two: Context, open_page: OpenPage) -> None:
    seeded_debugger.plain(two, name="other")
    run_id = seeded_debugger.plain(two, nan=True)
    app = open_page("debugger", run=run_id)
    app.text_input(key=f"debugger-rename-{run_id}").set_value("planted NaN")
    app.button(key="debugger-save").click().run()
    assert debugger.view(two, run_id).name == "planted NaN"
    app.button(key="debugger-nan").click().run()
    assert app.code[0].value == f"{two.settings.web_url}/debugger?run={run_id}&layer=features.1"
    listed = open_page("debugger")
    assert _listed(listed) == 2
    listed.text_input(key="q").set_value("planted").run()
    assert "planted NaN" in words(listed)
    assert _listed(listed) == 1
    app.button(key="debugger-again").click().run()
    assert debugger.view(two, app.query_params["run"]).parent_id == run_id
    gone = open_page("debugger", run=run_id, view="Stages", layer="fc1")
    gone.button(key="debugger-delete").click().run()
    assert "run" not in gone.query_params
    with pytest.raises(NotFoundError):
        debugger.view(two, run_id)


def _kept(number: int) -> CaptureView:
    image = InputView(name="image", datatype="FP32", shape=(1, 1, 8, 8))
    return CaptureView(
        endpoint="digits",
        agent="a1",
        seq=number,
        why="sampling",
        at=0.0,
        request_id=f"r-{number}",
        inputs=(image,),
        complete=True,
        error="",
    )


def _listed(app: AppTest) -> int:
    return len([link for link in app.get("page_link") if link.proto.label == "Open"])


def test_versions_and_the_playground_lead_here(
    filled: Context, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = open_page("debugger", a="digits@1", endpoint="digits")
    assert "The agents of digits keep no whole request now" in words(nothing)
    monkeypatch.setattr(debugger, "captures", lambda _ctx, _endpoint: (_kept(3), _kept(4)))
    app = open_page("debugger", a="digits@1", endpoint="digits", agent="a1", seq="4")
    assert app.selectbox(key="debugger-capture-digits-3").value == 1
    app.button(key="debugger-start").click().run()
    assert "keeps no request 4" in words(app), "agent and number are those of the request that was chosen"
    links = [link.proto for link in open_page("versions", id="digits@1").get("page_link")]
    (debug,) = [link for link in links if link.label == "Debug"]
    assert debug.query_string == "a=digits%401"
    playground = open_page("endpoints", name="digits", tab="Playground")
    (debug,) = [link.proto for link in playground.get("page_link") if link.proto.label == "Open in debugger"]
    assert debug.query_string == "a=digits%401&example=1"
    assert debugger.start(filled, "digits@1", ExampleSource(number=1), actor="ana").inputs
    assert debugger.start(filled, "digits@1", JsonSource(input=json.loads("[[[[1.0]]]]")), actor="ana").inputs
