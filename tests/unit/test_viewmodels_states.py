"""Endpoints, uploads and jobs: which step, which word, which button."""

from dataclasses import replace
from typing import Any

import pytest

from control_plane.domain.endpoint import AgentPhase, EndpointGoal, EndpointHealth
from control_plane.domain.job import JobState
from control_plane.domain.upload import UploadState
from control_plane.domain.views import AgentView, EndpointView, JobView, Reason, UploadFile, UploadView
from control_plane.errors import InvalidInputError
from control_plane.ui.viewmodels import badges, endpoints, jobs, uploads
from serving_agent.contract.signature import Signature, TensorSpec

NOW = 1_000_000.0
AGENT = AgentView(
    id="k3x9",
    endpoint="digits",
    version_ref="digits@1",
    phase="starting",
    pid=None,
    device=None,
    timings_s={},
    reason=None,
    exit_code=None,
    log_tail=(),
    created_at=NOW - 3,
    ready_at=None,
    ended_at=None,
)
ENDPOINT = EndpointView(
    name="digits",
    goal="running",
    health="ready",
    sentence="1 of 1 agents ready.",
    version_ref="digits@1",
    serving_ref="digits@1",
    replicas=1,
    ready=1,
    handler="tensor",
    device="auto",
    threads=1,
    memory_bytes=None,
    revision=1,
    url="http://127.0.0.1:8080/e/digits",
    agents=(),
    created_by="ana",
    created_at=NOW,
    updated_at=NOW,
)
UPLOAD = UploadView(
    id="u1",
    model_name="digits",
    state="receiving",
    files=(UploadFile("a.pt", 100, 40, None),),
    size_bytes=100,
    received_bytes=40,
    format=None,
    program=False,
    signature=None,
    needs=(),
    reason=None,
    job_id=None,
    version_ref=None,
    program_accepted_by=None,
    created_by="ana",
    created_at=NOW,
    updated_at=NOW,
)
JOB = JobView(
    id="j1",
    kind="check",
    subject="digits",
    state="running",
    stage="try it",
    progress=0.64,
    time_left_s=3.2,
    result=None,
    reason=None,
    attempt=1,
    created_by="ana",
    created_at=NOW - 9,
    started_at=NOW - 8,
    finished_at=None,
)


def strip(agent: AgentView) -> list[tuple[str, str]]:
    return [(step.state, step.time) for step in endpoints.steps(agent, NOW)]


def test_steps_move_with_the_phase() -> None:
    assert [state for state, _ in strip(AGENT)] == ["now", "next", "next", "next"]
    loading = replace(AGENT, phase="loading", timings_s={"start": 0.04, "import": 1.6})
    assert strip(loading) == [("done", "1.6 s"), ("now", "1 s …"), ("next", ""), ("next", "")]
    ready = replace(
        AGENT,
        phase="ready",
        ready_at=NOW,
        timings_s={"start": 0.1, "import": 1.0, "load": 0.2, "warm": 0.02, "gateway": 0.1},
    )
    assert strip(ready) == [("done", "1.1 s"), ("done", "200 ms"), ("done", "20 ms"), ("done", "100 ms")]
    assert endpoints.time_to_ready(ready) == "3.0 s"


def test_a_failed_agent_shows_the_step_it_failed_in() -> None:
    failed = replace(AGENT, phase="failed", timings_s={"start": 0.1, "import": 1.0}, ended_at=NOW)
    assert [state for state, _ in strip(failed)] == ["done", "failed", "next", "next"]
    crashed_later = replace(
        failed, ready_at=NOW - 1, timings_s={"start": 0.1, "import": 1, "load": 1, "warm": 1}
    )
    assert [state for state, _ in strip(crashed_later)][-1] == "failed"


def test_failure_is_explained_until_the_endpoint_is_ready() -> None:
    failed = replace(AGENT, phase="failed")
    broken = replace(ENDPOINT, health="crash loop", agents=(failed,))
    assert endpoints.latest_failure(broken) is failed
    assert endpoints.latest_failure(replace(broken, health="ready")) is None
    waiting = replace(broken, agents=(AGENT, failed))
    assert endpoints.shown_strip(waiting) is AGENT


@pytest.mark.parametrize("goal", EndpointGoal)
def test_buttons_follow_the_goal(goal: EndpointGoal) -> None:
    able = endpoints.verbs(replace(ENDPOINT, goal=goal))
    assert able.start == (goal == "stopped")
    assert able.stop == able.restart == (goal == "running")
    assert able.delete == (goal != "deleted")


def test_versions_on_the_move_are_both_named() -> None:
    assert endpoints.version_words(replace(ENDPOINT, version_ref="digits@2")) == "digits@1 → digits@2"
    assert endpoints.version_words(replace(ENDPOINT, serving_ref=None)) == "digits@1"


def test_suggested_names_are_free() -> None:
    assert endpoints.suggested_name("digits@2", []) == "digits"
    assert endpoints.suggested_name("digits@2", ["digits", "digits-2"]) == "digits-3"
    assert endpoints.devices(2) == ("auto", "cpu", "cuda:0", "cuda:1")


def test_every_state_has_an_icon_and_a_word() -> None:
    for state in (*EndpointHealth, *AgentPhase, *JobState, *UploadState):
        look = badges.badge(state)
        assert look.icon
        assert look.word.lower() == state
    assert badges.badge("failed").tone == badges.badge("rejected").tone == "bad"


def upload_steps(job: JobView | None = None, **changes: Any) -> list[tuple[str, str, str]]:
    view = replace(UPLOAD, **changes)
    return [(step.word, step.state, step.time) for step in uploads.timeline(view, job)]


def test_uploads_way() -> None:
    assert upload_steps()[0] == ("Received", "now", "40 B of 100 B")
    by_reference = {"files": (), "size_bytes": 0, "received_bytes": 0, "reference": "s3://models/run-7"}
    assert upload_steps(**by_reference)[0][2] == "waits to be fetched from s3://models/run-7"
    fetching = replace(JOB, time_left_s=61.0)
    assert upload_steps(fetching)[0][2] == "40 B of 100 B, 1 min 1 s left"
    arrived = {"received_bytes": 100, "state": "checking"}
    assert upload_steps(**arrived)[:2] == [("Received", "done", "100 B"), ("Checked", "now", "")]
    program = {**arrived, "format": "torchscript", "program": True}
    asked = upload_steps(**{**program, "state": "needs input"})
    assert asked[1:3] == [("Checked", "done", "TorchScript"), ("Accepted", "now", "waits for you")]
    tried = upload_steps(JOB, **{**program, "program_accepted_by": "ana"})
    assert tried[2:4] == [("Accepted", "done", "by ana"), ("Tried", "now", "try it …")]
    done = upload_steps(
        **{**program, "state": "registered", "version_ref": "digits@1", "program_accepted_by": "ana"}
    )
    assert [state for _, state, _ in done] == ["done"] * 5
    assert done[-1][2] == "digits@1"


def test_weights_skip_acceptance() -> None:
    words = [
        word
        for word, _, _ in upload_steps(
            received_bytes=100, state="registered", format="huggingface", version_ref="b@1"
        )
    ]
    assert words == ["Received", "Checked", "Registered"]


def test_a_rejected_upload_fails_where_it_was() -> None:
    steps = upload_steps(received_bytes=100, state="rejected", reason=Reason("pickle", "no"))
    assert steps[1][1] == "failed"


@pytest.mark.parametrize(
    ("text", "shape"), [("-1, 1, 8, 8", (-1, 1, 8, 8)), ("[-1,3]", (-1, 3)), (" 4 ", (4,))]
)
def test_shapes_are_read(text: str, shape: tuple[int, ...]) -> None:
    assert uploads.parse_shape(text) == shape


@pytest.mark.parametrize("text", ["", "a", "1, 0", "-2", "1.5", "1;2"])
def test_bad_shapes_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        uploads.parse_shape(text)


def test_declared_signatures() -> None:
    row = uploads.TensorRow("image", "FP32", "-1, 8")
    assert uploads.declared_signature([row]) == Signature((TensorSpec("image", "FP32", (-1, 8)),), ())
    for rows in ([row, row], [replace(row, name=" ")], [replace(row, datatype="FLOAT")]):
        with pytest.raises(InvalidInputError):
            uploads.declared_signature(rows)


def test_the_form_starts_with_what_the_file_said() -> None:
    known = replace(UPLOAD, signature=Signature((TensorSpec("x", "INT64", (-1, 4)),), ()))
    assert uploads.starting_rows(known) == (uploads.TensorRow("x", "INT64", "-1, 4"),)
    assert len(uploads.starting_rows(UPLOAD)) == 1


def test_labels_are_split() -> None:
    assert uploads.split_labels("a, b,,c ") == ("a", "b", "c")
    assert uploads.split_labels("a, 1\nb\n") == ("a, 1", "b")


def test_jobs_in_words() -> None:
    assert jobs.progress_words(JOB) == "try it · 64 % · about 3.2 s left"
    assert jobs.progress_words(replace(JOB, state="queued")) == "waiting for a free worker"
    assert jobs.progress_words(replace(JOB, state="failed")) == "try it"
    made = replace(JOB, result={"versions": ["digits@1", "digits@2"], "note": "see a@b c"})
    assert jobs.registered_versions(made) == ("digits@1", "digits@2")
    assert [jobs.is_final(replace(JOB, state=state)) for state in JobState] == [
        False,
        False,
        True,
        True,
        True,
    ]


@pytest.mark.parametrize("runs_program", [True, False])
def test_an_endpoint_says_how_far_its_agents_are_isolated(runs_program: bool) -> None:
    rows = dict(endpoints.setting_rows(replace(ENDPOINT, runs_program=runs_program)))
    assert ("no sandbox yet" in rows["Isolation"]) == runs_program


@pytest.mark.parametrize(
    ("file", "sentence"),
    [(None, "a.pt is a pickle"), ("a.pt", "a.pt is a pickle"), ("b.pt", "b.pt: a.pt is a pickle")],
)
def test_a_reason_names_its_file_once(file: str | None, sentence: str) -> None:
    assert Reason("raw-pickle", "a.pt is a pickle", None, file).sentence == sentence
