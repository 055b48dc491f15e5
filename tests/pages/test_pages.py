"""Every page on an empty and on a filled registry, and what its buttons write."""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec
import pytest
import streamlit as st
from sqlalchemy.orm import Session
from streamlit.testing.v1 import AppTest

from control_plane.registry import session as sessions
from control_plane.registry.tables import Agent, Job, Upload
from control_plane.services import endpoints, events, jobs, uploads, versions
from control_plane.services.context import Context
from control_plane.ui.components.upload import resumable
from serving_agent.contract.options import Batching, Cache, Execution, ServingOptions
from serving_agent.contract.signature import Signature
from tests.fakes import seeded
from tests.pages.conftest import PAGES, OpenPage

ALL_PAGES = sorted(path.stem for path in PAGES.glob("*.py") if path.stem != "__init__")


def words(app: AppTest) -> str:
    """Everything a page says in HTML, in one text."""
    assert not app.exception
    return " ".join(str(block.proto.body) for block in app.get("html"))


@pytest.mark.parametrize("page", ALL_PAGES)
def test_every_page_opens_on_an_empty_registry(page: str, empty: Context, open_page: OpenPage) -> None:
    said = words(open_page(page))
    assert "Something went wrong" not in said
    assert "sb-lead" in said


@pytest.mark.parametrize("page", ALL_PAGES)
def test_every_page_opens_on_a_filled_registry(page: str, filled: Context, open_page: OpenPage) -> None:
    assert "Something went wrong" not in words(open_page(page))


def test_an_empty_overview_offers_the_first_steps(empty: Context, open_page: OpenPage) -> None:
    app = open_page("overview")
    assert "Upload a model" in words(app)
    app.button(key="load-example").click().run()
    assert [job.kind for job in jobs.search(empty).items] == ["example"]
    assert "Training the example" in words(app)


def test_the_example_is_offered_again_once_its_versions_are_deleted(
    empty: Context, open_page: OpenPage
) -> None:
    refs = [seeded.add_version(empty, "digits", content=bytes([i])) for i in range(2)]
    job_id = jobs.submit(empty, "example", subject="digits", params={}, actor="ana").id
    with sessions.write(empty.engine) as session:
        row = session.get_one(Job, job_id)
        row.state, row.result, row.finished_at = "succeeded", {"versions": refs}, time.time()
    assert "The example is ready" in words(open_page("overview"))
    for ref in refs:
        versions.delete(empty, ref, actor="ana")
    st.cache_data.clear()
    app = open_page("overview")
    assert "The example is ready" not in words(app)
    app.button(key="load-example").click().run()
    assert jobs.search(empty).total == 2


@pytest.mark.parametrize("tab", ["Overview", "Playground", "Agents", "Metrics", "Use it", "Events"])
def test_every_tab_of_an_endpoint_opens(tab: str, filled: Context, open_page: OpenPage) -> None:
    said = words(open_page("endpoints", name="digits", tab=tab))
    assert "Something went wrong" not in said
    assert ">digits<" in said


def test_a_failed_start_shows_reason_and_log(filled: Context, open_page: OpenPage) -> None:
    said = words(open_page("endpoints", name="ranker"))
    assert "needs more memory than the limit" in said
    assert "you tried to allocate 512 MiB" in said


def test_scaling_writes_the_goal(filled: Context, open_page: OpenPage) -> None:
    app = open_page("endpoints", name="digits")
    revision = endpoints.get(filled, "digits").revision
    app.number_input(key=f"scale-{revision}").set_value(3).run()
    app.button(key="scale-go").click().run()
    assert endpoints.get(filled, "digits").replicas == 3
    assert events.search(filled, page_size=1).items[0].actor == "local"


def test_a_conflict_is_shown_and_nothing_is_overwritten(filled: Context, open_page: OpenPage) -> None:
    app = open_page("endpoints", name="digits")
    revision = endpoints.get(filled, "digits").revision
    endpoints.scale(filled, "digits", 5, actor="bo")
    app.number_input(key=f"scale-{revision}").set_value(3)
    app.button(key="scale-go").click().run()
    assert endpoints.get(filled, "digits").replicas == 5
    assert "bo" in words(app)
    assert "sb-problem" in words(app)


@pytest.mark.parametrize(("key", "goal"), [("stop", "stopped"), ("delete", "deleted")])
def test_stop_and_delete(key: str, goal: str, filled: Context, open_page: OpenPage) -> None:
    app = open_page("endpoints", name="digits")
    app.button(key=key).click().run()
    assert endpoints.get(filled, "digits").goal == goal


def test_deploying_a_version(filled: Context, open_page: OpenPage) -> None:
    app = open_page("endpoints", deploy="digits@2")
    assert app.selectbox(key="deploy-version").value == "digits@2"
    app.text_input(key="deploy-name-digits").set_value("fresh").run()
    app.number_input(key="deploy-replicas").set_value(2).run()
    app.button(key="deploy-go").click().run()
    made = endpoints.get(filled, "fresh")
    assert (made.version_ref, made.replicas, made.handler) == ("digits@2", 2, "image-classification")


def test_the_name_typed_just_before_the_click_is_deployed_to(filled: Context, open_page: OpenPage) -> None:
    before = {view.name for view in endpoints.list_all(filled)}
    app = open_page("endpoints", deploy="digits@2")
    app.text_input(key="deploy-name-digits").set_value("typed")
    app.button(key="deploy-go").click().run()
    assert {view.name for view in endpoints.list_all(filled)} - before == {"typed"}
    assert "typed" in app.query_params["name"]


def test_deploying_to_an_existing_name_starts_with_its_settings(filled: Context, open_page: OpenPage) -> None:
    endpoints.deploy(filled, "digits", "digits@1", actor="ana", memory_bytes=512 * 1024**2, handler="tensor")
    app = open_page("endpoints", deploy="digits@2")
    app.text_input(key="deploy-name-digits").set_value("digits").run()
    app.button(key="deploy-go").click().run()
    view = endpoints.get(filled, "digits")
    assert (view.version_ref, view.replicas, view.handler) == ("digits@2", 2, "tensor")
    assert view.memory_bytes == 512 * 1024**2


def test_an_endpoint_being_deleted_counts_as_new(filled: Context, open_page: OpenPage) -> None:
    endpoints.delete(filled, "digits", actor="ana")
    app = open_page("endpoints", deploy="digits@2")
    app.text_input(key="deploy-name-digits").set_value("digits").run()
    assert "Clients will call" in words(app)
    app.button(key="deploy-go").click().run()
    view = endpoints.get(filled, "digits")
    assert (view.goal, view.version_ref, view.replicas) == ("running", "digits@2", 1)


def test_a_bad_endpoint_name_is_explained(filled: Context, open_page: OpenPage) -> None:
    app = open_page("endpoints", deploy="digits@2")
    app.text_input(key="deploy-name-digits").set_value("Not A Name").run()
    app.button(key="deploy-go").click().run()
    assert "is not usable" in words(app)


def test_redeploying_another_version(filled: Context, open_page: OpenPage) -> None:
    app = open_page("endpoints", name="digits")
    revision = endpoints.get(filled, "digits").revision
    app.selectbox(key=f"redeploy-version-{revision}").set_value("digits@2").run()
    app.button(key="redeploy-go").click().run()
    view = endpoints.get(filled, "digits")
    assert (view.version_ref, view.serving_ref, view.replicas) == ("digits@2", "digits@1", 2)


def test_serving_options_are_chosen_and_shown(filled: Context, open_page: OpenPage) -> None:
    app = open_page("endpoints", deploy="digits@2")
    app.text_input(key="deploy-name-digits").set_value("fast").run()
    app.number_input(key="deploy-max_rows").set_value(64)
    app.text_input(key="deploy-buckets").set_value("1, 8, 64")
    app.toggle(key="deploy-adaptive").set_value(True)
    app.number_input(key="deploy-cache_mib").set_value(64.0)
    app.selectbox(key="deploy-autocast").set_value("bf16")
    app.number_input(key="deploy-max_concurrency").set_value(100)
    app.button(key="deploy-go").click().run()
    chosen = endpoints.get(filled, "fast").options
    assert chosen == ServingOptions(
        batching=Batching(max_rows=64, buckets=(1, 8, 64), adaptive=True),
        cache=Cache(max_bytes=64 * 1024**2),
        execution=Execution(autocast="bf16"),
        max_concurrency=100,
    )
    said = words(open_page("endpoints", name="fast"))
    assert "up to 64 rows, padded to 1, 8, 64, refuses what would be late" in said
    assert "64 MiB, answers kept for 60 s" in said


def test_redeploying_keeps_the_options_there_are(filled: Context, open_page: OpenPage) -> None:
    odd = {
        "cache": {"max_bytes": 1_000_003, "ttl_s": 0.5},
        "batching": {"max_delay_ms": 0.25, "buckets": [3]},
    }
    before = endpoints.deploy(filled, "digits", "digits@1", actor="ana", options=odd)
    app = open_page("endpoints", name="digits")
    app.button(key="redeploy-go").click().run()
    after = endpoints.get(filled, "digits")
    assert (after.options, after.revision) == (before.options, before.revision)


@pytest.mark.parametrize(
    ("text", "says"),
    [("1; 2", "no list of numbers"), ("8, 4", "ascending sizes"), ("64", "from 1 to max_rows")],
)
def test_unusable_buckets_are_explained(text: str, says: str, filled: Context, open_page: OpenPage) -> None:
    app = open_page("endpoints", deploy="digits@2")
    app.text_input(key="deploy-name-digits").set_value("fast").run()
    app.text_input(key="deploy-buckets").set_value(text)
    app.button(key="deploy-go").click().run()
    assert says in words(app)
    assert "fast" not in {view.name for view in endpoints.list_all(filled)}


@pytest.mark.parametrize("tab", ["Overview", "Agents"])
def test_self_test_and_effect_stand_beside_agents(tab: str, filled: Context, open_page: OpenPage) -> None:
    with sessions.write(filled.engine) as session:
        sick = session.query(Agent).filter_by(phase="ready").order_by(Agent.id).first()
        assert sick is not None
        sick.health_check = {
            "state": "unhealthy",
            "since": time.time() - 90,
            "last_error": "output 'logits' of the test inference holds NaN",
            "last_error_at": time.time() - 30,
            "failing": True,
        }
    said = words(open_page("endpoints", name="digits", tab=tab))
    assert ">Degraded<" in said
    assert ">Unhealthy<" in said
    assert ">Healthy<" in said
    assert re.search(r"The self-test has failed for 1 min 3\d s: output", said)
    assert "1.7x faster than without options (5.10 ms → 3 ms), finite answers differ by at most 0.003" in said


def test_an_unknown_thing_is_a_sentence(filled: Context, open_page: OpenPage) -> None:
    for page, query in (
        ("endpoints", {"name": "nope"}),
        ("versions", {"id": "nope@7"}),
        ("jobs", {"id": "x"}),
        ("upload", {"id": "x"}),
    ):
        said = words(open_page(page, **query))
        assert "sb-problem" in said, page
        assert "Something went wrong" not in said


def test_versions_are_paged_on_the_server(empty: Context, open_page: OpenPage) -> None:
    for i in range(53):
        seeded.add_version(empty, "many", content=str(i).encode())
    first = open_page("versions")
    assert len(first.dataframe[0].value) == 50
    last = open_page("versions", page="99")
    assert list(last.dataframe[0].value["Version"]) == ["many@3", "many@2", "many@1"]


def test_search_is_in_the_address(filled: Context, open_page: OpenPage) -> None:
    app = open_page("versions", q="candidate")
    assert list(app.dataframe[0].value["Version"]) == ["digits@2"]


def test_a_versions_labels_change_from_its_page(filled: Context, open_page: OpenPage) -> None:
    app = open_page("versions", id="digits@2")
    app.text_input(key="new-alias").set_value("staging")
    app.button(key="set-alias").click().run()
    app.text_input(key="new-tag").set_value("owner=ana")
    app.button(key="set-tag").click().run()
    app.button(key="tag-stage").click().run()
    detail = versions.get(filled, "digits@2")
    assert (detail.aliases, detail.tags) == (("staging",), {"owner": "ana"})


def test_deleting_a_served_version_is_refused_with_the_place(filled: Context, open_page: OpenPage) -> None:
    app = open_page("versions", id="digits@1")
    app.button(key="version-delete").click().run()
    assert "served by digits" in words(app)
    assert versions.get(filled, "digits@1").ref == "digits@1"


def test_an_upload_asks_for_acceptance_and_signature(filled: Context, open_page: OpenPage) -> None:
    waiting = next(view for view in uploads.recent(filled).items if view.state == "needs input")
    app = open_page("upload", id=waiting.id)
    assert "This file is a program" in words(app)
    assert app.button(key="answer").disabled
    app.checkbox(key=f"accept-program-{waiting.id}").check().run()
    app.text_input(key=f"signature-shape-0-{waiting.id}").set_value("-1, 1, 8, 8").run()
    app.button(key="answer").click().run()
    answered = uploads.get(filled, waiting.id)
    assert (answered.state, answered.program_accepted_by) == ("checking", "local")
    assert answered.signature is not None
    assert answered.signature.inputs[0].shape == (-1, 1, 8, 8)


def _named_inputs(session: Session, upload_id: str) -> str:
    """Another upload like *upload_id*, whose file names its inputs; its id."""
    like = session.get_one(Upload, upload_id)
    values = {
        column.key: getattr(like, column.key) for column in Upload.__table__.columns if column.key != "id"
    }
    found = {**like.found, "signature": msgspec.to_builtins(Signature(seeded.DIGITS.inputs, ()))}
    other = Upload(**{**values, "model_name": "other", "found": found})
    session.add(other)
    session.flush()
    return other.id


def test_answers_to_one_upload_do_not_leak_into_the_next(filled: Context, open_page: OpenPage) -> None:
    first = next(view for view in uploads.recent(filled).items if view.state == "needs input")
    with sessions.write(filled.engine) as session:
        second_id = _named_inputs(session, first.id)
    app = open_page("upload", id=first.id)
    app.checkbox(key=f"accept-program-{first.id}").check().run()
    app.text_input(key=f"signature-shape-0-{first.id}").set_value("-1, 3").run()
    app.button(key="signature-add").click().run()
    app.query_params["id"] = second_id
    app.run()
    assert app.button(key="answer").disabled
    assert not app.checkbox(key=f"accept-program-{second_id}").value
    assert [box.value for box in app.text_input] == ["image", "-1, 1, 8, 8"]


def test_a_refused_upload_names_file_reason_and_way_out(filled: Context, open_page: OpenPage) -> None:
    refused = next(view for view in uploads.recent(filled).items if view.state == "rejected")
    said = words(open_page("upload", id=refused.id))
    for part in ("model.bin", "is a pickle", "Save it as TorchScript"):
        assert part in said


def test_a_running_job_can_be_cancelled(filled: Context, open_page: OpenPage) -> None:
    running = jobs.search(filled, state="running").items[0]
    app = open_page("jobs", id=running.id)
    app.button(key="job-cancel").click().run()
    assert any("cancel" in event.action for event in events.search(filled, page_size=3).items)


def test_names_are_never_html(empty: Context, open_page: OpenPage) -> None:
    ref = seeded.add_version(empty, "digits")
    versions.set_tag(empty, ref, "note", "<img src=x onerror=alert(1)>", actor="<b>eve</b>")
    for page, query in (("activity", {}), ("versions", {"id": ref}), ("overview", {})):
        said = words(open_page(page, **query))
        assert "<img src=x" not in said
        assert "<b>eve" not in said


def test_unreachable_gateway_in_the_playground(filled: Context, open_page: OpenPage) -> None:
    app: Any = open_page("endpoints", name="digits", tab="Playground")
    app.button(key="run").click().run()
    assert "sb-problem" in words(app)


@pytest.mark.parametrize("text", ["[1, 2]", "3", "null", "{"])
def test_only_a_json_object_is_sent(text: str, filled: Context, open_page: OpenPage) -> None:
    app = open_page("endpoints", name="digits", tab="Playground", input="JSON")
    assert app.button(key="run")
    app.text_area(key="json-body").set_value(text).run()
    assert "Write an object like" in words(app)
    assert "run" not in [button.key for button in app.button]


def test_an_empty_file_that_never_arrived_is_sent_when_resuming(empty: Context) -> None:
    upload = uploads.create(empty, model="m", files=[("empty.txt", 0), ("model.pt", 4)], actor="ana")
    files: Any = resumable(upload)["files"]
    assert [file["done"] for file in files] == [False, False]
