"""The lab's journal, lanes and look-ups on SQLite and Postgres alike."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from control_plane.domain.job import JobState, Lane
from control_plane.domain.optimization import Decision, TrialState
from control_plane.domain.views import Reason
from control_plane.errors import NotFoundError
from control_plane.optimization.messages import BuildReply
from control_plane.registry import rollout_history, versions
from control_plane.registry import session as sessions
from control_plane.registry.tables import Disagreement, Job
from control_plane.services import jobs, optimization, optimization_figures, optimization_trials, rollouts
from control_plane.services import versions as version_service
from control_plane.services.context import Context
from control_plane.services.optimization_trials import Idea
from tests.fakes import lab
from tests.fakes.registry import register
from tests.fakes.rollouts import two_versions


@pytest.fixture
def ctx(home: Context) -> Context:
    return home


def submitted(ctx: Context) -> str:
    register(ctx, format="huggingface")
    return optimization.submit(ctx, "digits@1", "torchscript-trace", actor="ana").id


def test_a_trial_comes_back_as_it_was_written_at_every_state(ctx: Context) -> None:
    job = submitted(ctx)
    optimization_trials.add(
        ctx, job, [Idea("torchscript-trace", {"freeze": True}), Idea("x", {"ü": [1, None]})]
    )
    optimization_trials.add(ctx, job, [Idea("y", {}, follows=2)])
    one, two, three = optimization_trials.journal(ctx, job)
    assert [(t.number, t.state, t.follows) for t in (one, two, three)] == [
        (1, "queued", None), (2, "queued", None), (3, "queued", 2),
    ]  # fmt: skip
    assert (two.params, two.report, two.build, two.reason) == ({"ü": [1, None]}, None, None, None)
    reply = BuildReply(format="onnx", notes=("a note",), libraries={"torch": "2"}, seconds=1.25)
    report, decision = lab.report(), Decision(accepted=False, reasons=("because",))
    optimization_trials.building(ctx, job, 1, "build")
    optimization_trials.built(ctx, job, 1, reply)
    optimization_trials.screened(ctx, job, 1, lab.report(speedup=1.5))
    optimization_trials.measured(ctx, job, 1, report, decision)
    optimization_trials.dropped(ctx, job, 2, "no_time", "it is late")
    optimization_trials.registered(ctx, job, 1, "digits@1", by_job=job)
    one, two, three = optimization_trials.journal(ctx, job)
    assert (one.state, one.build, one.report, one.decision) == ("measured", reply, report, decision)
    assert one.screening == lab.report(speedup=1.5)
    assert one.version_ref == "digits@1"
    assert (two.state, two.reason) == (TrialState.DROPPED, Reason("no_time", "it is late"))
    optimization_trials.settle(ctx, job, Reason("process_died", "It died", "Retry it."))
    states = [(t.state, t.reason.code if t.reason else None) for t in optimization_trials.journal(ctx, job)]
    assert states == [("measured", None), ("dropped", "no_time"), ("failed", "process_died")]
    with pytest.raises(NotFoundError):
        optimization_trials.building(ctx, job, 9, "build")
    optimization_trials.begin_anew(ctx, job)
    assert optimization_trials.journal(ctx, job) == ()


def test_a_version_can_be_deleted_and_its_trial_forgets_it(ctx: Context) -> None:
    job = submitted(ctx)
    register(ctx, content=b"variant", parent_ref="digits@1")
    optimization_trials.add(ctx, job, [Idea("torchscript-trace", {})])
    optimization_trials.registered(ctx, job, 1, "digits@2", by_job=job)
    version_service.delete(ctx, "digits@2", actor="ana")
    assert optimization_trials.journal(ctx, job)[0].version_ref is None


def test_past_builds_are_the_latest_of_each_method(ctx: Context) -> None:
    job = submitted(ctx)
    optimization_trials.add(ctx, job, [Idea(name, {}) for name in ("a", "a", "a", "b", "c")])
    for number in range(1, 5):
        reply = BuildReply(format="onnx", seconds=float(number))
        optimization_trials.built(ctx, job, number, reply)
        optimization_trials.screened(ctx, job, number, lab.report())
    with sessions.read(ctx.engine) as session:
        past = optimization_figures.past_builds(session, ("a", "b", "c"), each=2)
    assert past == {"a": ((3.0, 40), (2.0, 40)), "b": ((4.0, 40),)}


def test_of_many_who_claim_at_once_one_gets_a_job_of_the_lab(ctx: Context) -> None:
    register(ctx, format="huggingface")
    for _ in range(3):
        optimization.submit(ctx, "digits@1", "torchscript-trace", actor="ana")
    with sessions.write(ctx.engine) as session:
        for number in range(3):
            jobs.queue(session, "check", subject=f"u{number}", params={"n": number}, actor="ana")
    barrier = threading.Barrier(6)

    def claim(number: int) -> Any:
        barrier.wait()
        lane = Lane.LAB if number % 2 else Lane.MAIN
        return jobs.claim(ctx, number, float(number), lane=lane)

    with ThreadPoolExecutor(6) as pool:
        claimed = [job for job in pool.map(claim, range(6)) if job]
    assert sorted(job.kind for job in claimed) == ["check", "check", "check", "optimize"]
    assert len({job.id for job in claimed}) == 4
    waiting = [view.ahead for view in jobs.search(ctx, state=JobState.QUEUED).items]
    assert sorted(place for place in waiting if place is not None) == [0, 1]


def test_requests_without_kept_inputs_are_left_out(ctx: Context) -> None:
    two_versions(ctx)
    begun = rollouts.start(ctx, "digits", "digits@2", actor="ana")
    with sessions.write(ctx.engine) as session:
        for at, inputs in enumerate(({"x": [[1.0]]}, None, {"x": [[2.0]]})):
            session.add(
                Disagreement(
                    rollout_id=begun.id, at=float(at), request_id="r", distance=0.0, inputs=inputs, answers={}
                )
            )
    with sessions.read(ctx.engine) as session:
        model = versions.find_model(session, "digits")
        assert model is not None
        kept = rollout_history.captured_inputs(session, model.id, limit=10)
        assert kept == [{"x": [[2.0]]}, {"x": [[1.0]]}]
        assert rollout_history.captured_inputs(session, model.id, limit=1) == [{"x": [[2.0]]}]
        assert rollout_history.captured_inputs(session, "another", limit=10) == []


def test_a_job_may_be_named_before_it_is_queued(ctx: Context) -> None:
    register(ctx, format="huggingface")
    view = optimization.submit(ctx, "digits@1", "torchscript-trace", actor="ana")
    with sessions.read(ctx.engine) as session:
        assert session.get_one(Job, view.id).params["job_id"] == view.id
