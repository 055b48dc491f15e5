"""Debugger runs through their services: inputs, limits, what goes when, and what happens meanwhile."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from control_plane import agent_client
from control_plane.domain.debugging import (
    CaptureSource,
    DebugRunView,
    DisagreementSource,
    ExampleSource,
    JsonSource,
    RandomSource,
    RunSource,
    TextSource,
)
from control_plane.domain.job import Lane
from control_plane.domain.views import Example, Reason
from control_plane.errors import (
    ConflictError,
    GoneError,
    InvalidInputError,
    NoSpaceError,
    NotFoundError,
    SignalboxError,
)
from control_plane.jobs.inspecting import NotInspectedError
from control_plane.jobs.kinds import debug
from control_plane.registry import session as sessions
from control_plane.registry.tables import Agent, Disagreement, Endpoint
from control_plane.services import debug_folders, debugger, events, housekeeping, jobs, rollouts
from control_plane.services.context import Context
from serving_agent.contract.capture import Capture, CapturedTensor, CapturePage
from serving_agent.contract.inspection import Edit, InspectionOrder
from tests.fakes import debugged, lab, models
from tests.fakes.registry import open_home, register
from tests.fakes.rollouts import serve

IMAGES = [image.tolist() for image in models.digits_data()[0][:3]]
MIB = 1024**2
HOUR_S = 3600.0


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """digits@1 with three examples and digits@2; nothing is really inspected."""
    monkeypatch.setattr(debug.inspecting, "inspect", debugged.inspector())
    context = open_home(tmp_path / "home", gateway_port=1, debug_run_bytes=MIB, debug_total_bytes=4 * MIB)
    register(context, examples=[Example({"image": image}, str(at)) for at, image in enumerate(IMAGES)])
    register(context, content=b"other")
    yield context
    context.engine.dispose()


def start(ctx: Context, **changes: Any) -> DebugRunView:
    given = {"source": ExampleSource(number=1), "actor": "ana", **changes}
    return debugger.start(ctx, given.pop("ref", "digits@1"), given.pop("source"), **given)


def done(ctx: Context, **changes: Any) -> DebugRunView:
    run = start(ctx, **changes)
    lab.perform(ctx, run.job_id)
    return debugger.view(ctx, run.id)


def folders(ctx: Context) -> set[str]:
    return {folder.name for folder in ctx.settings.debug_dir.glob("*")}


def all_runs(ctx: Context) -> set[str]:
    return {each.id for each in debugger.search(ctx).items}


# starting


def test_a_run_is_queued_in_a_lane_of_its_own_with_its_input(ctx: Context) -> None:
    one = start(ctx, against="digits@2", name=" first ", edits=[Edit(point="inputs", value=1.0)])
    assert (one.a, one.b, one.name, one.saved, one.state) == ("digits@1", "digits@2", "first", True, "queued")
    assert one.input == "example 1 of digits@1"
    assert [(each.name, each.shape) for each in one.inputs] == [("image", (1, 1, 8, 8))]
    assert jobs.get(ctx, one.job_id).lane == Lane.DEBUG
    assert jobs.claim(ctx, 1, 1.0, lane=Lane.MAIN) is None
    assert jobs.claim(ctx, 1, 1.0, lane=Lane.DEBUG) is not None
    start(ctx)
    assert jobs.claim(ctx, 2, 2.0, lane=Lane.DEBUG) is None, "one at a time"
    said = [each.message for each in events.search(ctx, subject=f"debug_run/{one.id}").items]
    assert said == ["ana debugs digits@1 against digits@2 on example 1 of digits@1"]


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"ref": "digits@9"}, NotFoundError, "digits@9"),
        ({"against": "digits@9"}, NotFoundError, "digits@9"),
        ({"source": ExampleSource(number=4)}, InvalidInputError, "no example 4: it has 3"),
        ({"source": ExampleSource(number=0)}, InvalidInputError, "no example 0"),
        ({"source": TextSource(text="a")}, InvalidInputError, "no input takes a text"),
        ({"source": JsonSource(input={"x": [1]})}, InvalidInputError, "unknown input 'x'"),
        ({"source": RunSource(run="0" * 32)}, NotFoundError, "no debugger run"),
        ({"source": RunSource(run="../../etc")}, NotFoundError, "no debugger run"),
        ({"source": DisagreementSource(rollout="x", disagreement="y")}, NotFoundError, "no rollout 'x'"),
        ({"source": CaptureSource(endpoint="x", agent="a", seq=1)}, NotFoundError, "no endpoint 'x'"),
        ({"name": "x" * 101}, InvalidInputError, "100 printable"),
        ({"name": "a\nb"}, InvalidInputError, "printable"),
        ({"edits": [Edit(point="")]}, InvalidInputError, "names the point"),
    ],
)
def test_what_cannot_be_run_is_refused_and_leaves_nothing(
    ctx: Context, changes: dict[str, Any], error: type[SignalboxError], said: str
) -> None:
    with pytest.raises(error, match=said):
        start(ctx, **changes)
    assert folders(ctx) == set()
    assert jobs.search(ctx, kind="debug").total == 0


def test_a_version_says_what_it_can_be_debugged_on(ctx: Context) -> None:
    serve(ctx)
    told = debugger.choices(ctx, "digits@1")
    assert told.examples == ("Example 1, labelled 0", "Example 2, labelled 1", "Example 3, labelled 2")
    assert (told.endpoints, told.image_inputs, told.text_inputs) == (("digits",), ("image",), ())


def test_a_disagreement_of_a_rollouts_gallery_is_opened(ctx: Context) -> None:
    serve(ctx)
    begun = rollouts.start(ctx, "digits", "digits@2", strategy="shadow", actor="ana")
    with sessions.write(ctx.engine) as session:
        for name, inputs in (("kept", {"image": [IMAGES[0]]}), ("large", None)):
            session.add(
                Disagreement(
                    id=name, rollout_id=begun.id, at=1.0, request_id=name, distance=1.0, inputs=inputs,
                    answers={},
                )
            )  # fmt: skip
    link = rollouts.disagreements(ctx, begun.id)[0].debug_link
    assert link.startswith(f"/debugger?rollout={begun.id}&disagreement=")
    found = debugger.disagreement(ctx, begun.id, "kept")
    assert (found.a, found.b, found.complete) == ("digits@1", "digits@2", True)
    run = start(ctx, ref=found.a, against=found.b, source=found.source)
    assert run.input == "request kept to digits"
    with pytest.raises(InvalidInputError, match="too large"):
        start(ctx, source=debugger.disagreement(ctx, begun.id, "large").source)
    with pytest.raises(NotFoundError, match="no disagreement 'none'"):
        debugger.disagreement(ctx, begun.id, "none")


def test_kept_requests_are_listed_and_run(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(ctx)
    with sessions.write(ctx.engine) as session:
        endpoint = session.query(Endpoint).one()
        for name, phase in (("live", "ready"), ("silent", "ready"), ("old", "stopped")):
            session.add(
                Agent(id=name, endpoint_id=endpoint.id, version_id=endpoint.version_id, spec={}, phase=phase,
                      rest_address=name, timings_s={}, created_at=1.0)
            )  # fmt: skip
    image = CapturedTensor(
        name="image", datatype="FP32", shape=(1, 1, 8, 8), data=np.zeros(64, np.float32).tobytes()
    )
    kept = [
        Capture(seq=seq, request_id=f"r{seq}", fingerprint="", rollout="", at=float(seq), inputs=(image,))
        for seq in (1, 2, 3)
    ]

    def listed(address: str, after: int = 0, *_: Any) -> CapturePage | None:
        newer = tuple(each for each in kept if each.seq > after)[:2]
        if address != "live":
            return None
        return CapturePage(captures=newer, last=newer[-1].seq, more=after == 0)

    def one(address: str, seq: int) -> Capture | None:
        return kept[seq - 1] if address == "live" and seq <= 3 else None

    monkeypatch.setattr("control_plane.socket_http.get", lambda *_: pytest.fail("a real agent was asked"))
    monkeypatch.setattr(agent_client, "samples", listed)
    monkeypatch.setattr(agent_client, "captures", lambda *_: CapturePage(captures=(), last=0))
    monkeypatch.setattr(agent_client, "sampled", one)
    found = debugger.captures(ctx, "digits")
    assert [(each.agent, each.seq, each.why) for each in found] == [
        ("live", 3, "sampling"), ("live", 2, "sampling"), ("live", 1, "sampling"),
    ]  # fmt: skip
    assert start(ctx, source=found[0].source).input == "request 3 kept by digits"
    for seq, left_out in ((2, "redacted"), (3, "page")):
        bare = replace(image, data=None, left_out=left_out)
        kept[seq - 1] = replace(kept[seq - 1], inputs=(bare,))
    assert [each.complete for each in debugger.captures(ctx, "digits")] == [True, False, True]
    with pytest.raises(InvalidInputError, match=r"'image' was not kept: .*redact"):
        start(ctx, source=found[1].source)
    for agent, seq in (("live", 9), ("silent", 1), ("old", 1)):
        with pytest.raises(NotFoundError, match="keeps no request"):
            start(ctx, source=CaptureSource(endpoint="digits", agent=agent, seq=seq))


# what comes of it


def test_one_side_that_cannot_be_inspected_leaves_the_other_to_see(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(order: InspectionOrder) -> None:
        if order.out.endswith(broken):
            raise NotInspectedError(Reason("timed_out", f"{broken} is slow", "Wait."))

    monkeypatch.setattr(debug.inspecting, "inspect", debugged.inspector(during=fails))
    broken = "/b"
    seen = debugger.get(ctx, done(ctx, against="digits@2").id)
    assert seen.view.state == "succeeded"
    assert seen.a.run is not None
    assert seen.b is not None
    assert (seen.b.run, seen.b.problem) == (None, Reason("timed_out", "/b is slow", "Wait."))
    assert (seen.comparison, seen.view.summary) == (None, "/b is slow")
    with pytest.raises(ConflictError, match="nothing to see of digits@2: /b is slow"):
        debugger.values(ctx, seen.view.id, "b", "layer")
    broken = ""
    alone = start(ctx)
    job = lab.perform(ctx, alone.job_id)
    assert (job.state, job.reason) == ("failed", Reason("timed_out", " is slow", "Wait."))
    failed = debugger.get(ctx, alone.id)
    assert (failed.view.summary, failed.a.problem) == (" is slow", job.reason)
    broken = "/nothing"
    jobs.retry(ctx, alone.job_id, actor="ana")
    assert lab.perform(ctx, alone.job_id).state == "succeeded"
    again = debugger.get(ctx, alone.id)
    assert again.a.run is not None
    assert again.view.summary == "1 layer, all finite"


def test_a_record_that_is_too_large_to_be_read_is_a_problem_of_its_side(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grows(order: InspectionOrder) -> None:
        monkeypatch.setattr(debug.kept, "MAX_RUN_BYTES", MIB if order.out.endswith("/a") else 1)

    monkeypatch.setattr(debug.inspecting, "inspect", debugged.inspector(during=grows))
    run = start(ctx, against="digits@2")
    assert lab.perform(ctx, run.job_id).state == "succeeded"
    monkeypatch.setattr(debug.kept, "MAX_RUN_BYTES", MIB)
    seen = debugger.get(ctx, run.id)
    assert seen.a.run is not None
    assert seen.b is not None
    assert seen.b.problem is not None
    assert seen.b.problem.message == "digits@2 cannot be shown: its record has more than 0 MiB"
    assert seen.b.problem.next_step == debug.SHORTER


def test_edits_of_layers_change_a_alone_and_those_of_the_input_both(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[InspectionOrder] = []
    monkeypatch.setattr(debug.inspecting, "inspect", debugged.inspector(during=orders.append))
    given = [Edit(point="inputs", tensor="x", value=1.0), Edit(point="layer", value=2.0)]
    first = done(ctx, against="digits@2", edits=given)
    assert [order.edits for order in orders] == [tuple(given), tuple(given[:1])]
    assert {order.keep_bytes for order in orders} == {MIB // 2}
    changed = Edit(point="layer", value=3.0)
    second = debugger.edit(ctx, first.id, [changed], name="what if", actor="bo")
    assert second.edits == (given[0], changed)
    with pytest.raises(ConflictError, match="goes on"):
        debugger.edit(ctx, second.id, actor="bo")
    lab.perform(ctx, second.job_id)
    third = done(ctx, source=RunSource(run=second.id))
    assert [each.id for each in debugger.get(ctx, third.id).ancestors] == [first.id, second.id]
    assert [each.id for each in debugger.get(ctx, first.id).children] == [second.id]
    debugger.delete(ctx, first.id, actor="ana")
    assert [each.id for each in debugger.get(ctx, third.id).ancestors] == [second.id]


def test_runs_are_found_by_name_version_and_creator(ctx: Context) -> None:
    first, second = start(ctx, name="mine_1"), start(ctx, against="digits@2", actor="bo")
    for q, found in (("MINE_", {first.id}), ("digits@2", {second.id}), ("bo", {second.id}), ("%", set())):
        assert {each.id for each in debugger.search(ctx, q=q).items} == found
    assert {each.id for each in debugger.search(ctx, saved=True).items} == {first.id}
    assert {each.id for each in debugger.search(ctx, saved=False).items} == {second.id}
    newest = debugger.search(ctx, page=1, page_size=1)
    assert (newest.items[0].id, newest.total) == (second.id, 2)


# what goes when


def test_runs_without_a_name_go_after_a_day_and_named_ones_after_a_month(ctx: Context) -> None:
    now = time.time()
    plain, named, queued = done(ctx), done(ctx), start(ctx)
    debugger.save(ctx, named.id, "kept", actor="ana")
    orphan = ctx.settings.debug_dir / ("f" * 32)
    orphan.mkdir()
    assert housekeeping.tidy(ctx, now + 2 * HOUR_S).debug_runs == 0
    assert not orphan.exists()
    assert housekeeping.tidy(ctx, now + 25 * HOUR_S).debug_runs == 1
    assert all_runs(ctx) == folders(ctx) == {named.id, queued.id}, "what is queued is waited for"
    with pytest.raises(NotFoundError):
        debugger.get(ctx, plain.id)
    debugger.save(ctx, named.id, "", actor="ana")
    assert debugger.view(ctx, named.id).expires_at == pytest.approx(named.expires_at)
    debugger.save(ctx, named.id, "kept", actor="ana")
    assert housekeeping.tidy(ctx, now + 31 * 24 * HOUR_S).debug_runs == 1
    assert all_runs(ctx) == {queued.id}


def test_the_oldest_unnamed_runs_make_room_for_new_ones_and_named_ones_stay(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debug.inspecting, "inspect", debugged.inspector(size=MIB // 4 - 1000))
    named = done(ctx, name="kept")
    runs = [done(ctx) for _ in range(4)]
    assert all_runs(ctx) == folders(ctx) == {named.id, *(run.id for run in runs[1:])}
    for run in runs[1:]:
        debugger.save(ctx, run.id, "kept too", actor="ana")
    with pytest.raises(NoSpaceError, match="all of their 4 MiB"):
        start(ctx)
    assert len(folders(ctx)) == 4
    debugger.save(ctx, runs[1].id, "", actor="ana")
    assert not debug_folders.make_room(ctx, 2 * MIB)
    assert len(folders(ctx)) == 4, "nothing goes for what would not fit anyway"
    debugger.delete(ctx, named.id, actor="ana")
    assert done(ctx).state == "succeeded"


def test_what_a_run_came_from_is_not_deleted_to_make_room_for_it(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debug.inspecting, "inspect", debugged.inspector(size=MIB // 4 - 1000))
    first = done(ctx)
    second = done(ctx, source=RunSource(run=first.id))
    others = [done(ctx) for _ in range(2)]
    third = debugger.edit(ctx, second.id, [Edit(point="layer", value=1.0)], actor="ana")
    lab.perform(ctx, third.job_id)
    assert all_runs(ctx) == folders(ctx) == {first.id, second.id, others[1].id, third.id}
    assert [each.id for each in debugger.get(ctx, third.id).ancestors] == [first.id, second.id]


def test_files_that_are_gone_are_told_of(ctx: Context) -> None:
    run = done(ctx)
    shutil.rmtree(ctx.settings.debug_dir / run.id)
    with pytest.raises(GoneError, match="are gone"):
        debugger.get(ctx, run.id)
    with pytest.raises(GoneError):
        debugger.edit(ctx, run.id, actor="ana")
    with pytest.raises(ConflictError):
        debugger.values(ctx, run.id, "a", "layer")
    debugger.delete(ctx, run.id, actor="ana")


# meanwhile


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_a_run_that_is_ended_while_it_goes_on_leaves_no_half(
    ctx: Context, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    acts: dict[str, Callable[[DebugRunView], Any]] = {
        "cancel": lambda run: jobs.cancel(ctx, run.job_id, actor="bo"),
        "delete": lambda run: debugger.delete(ctx, run.id, actor="bo"),
    }
    run = start(ctx, against="digits@2")
    monkeypatch.setattr(debug.inspecting, "inspect", debugged.inspector(during=lambda _: acts[end](run)))
    assert lab.perform(ctx, run.job_id).state == "cancelled"
    if end == "delete":
        assert folders(ctx) == set()
        with pytest.raises(NotFoundError):
            debugger.view(ctx, run.id)
        return
    seen = debugger.get(ctx, run.id)
    assert (seen.view.state, seen.view.summary, seen.a.run) == ("cancelled", "cancelled", None)
    assert [path.name for path in (ctx.settings.debug_dir / run.id).iterdir()] == ["inputs.msgpack"]


def test_a_run_deleted_by_many_at_once_is_deleted_once(ctx: Context) -> None:
    run = start(ctx)
    barrier, outcomes = threading.Barrier(4), []

    def delete() -> None:
        barrier.wait()
        try:
            debugger.delete(ctx, run.id, actor="ana")
            outcomes.append("deleted")
        except NotFoundError:
            outcomes.append("gone")

    threads = [threading.Thread(target=delete) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["deleted", "gone", "gone", "gone"]
    assert jobs.get(ctx, run.job_id).state == "cancelled"
    assert folders(ctx) == set()


def test_a_process_that_died_leaves_nothing_half_and_its_job_says_so(ctx: Context) -> None:
    run = start(ctx)
    (ctx.settings.debug_dir / run.id / "a").mkdir()
    debug.KIND.ended(ctx, {"run_id": run.id}, Reason("process_died", "it died"))
    seen = debugger.get(ctx, run.id)
    assert (seen.view.summary, seen.a.run) == ("it died", None)
    assert not (ctx.settings.debug_dir / run.id / "a").exists()
    debugger.delete(ctx, run.id, actor="ana")
    debug.KIND.ended(ctx, {"run_id": run.id}, None)
    assert folders(ctx) == set()


def test_random_inputs_are_kept_as_they_were(ctx: Context) -> None:
    first = start(ctx, source=RandomSource(seed=5, rows=2))
    assert first.inputs[0].shape == (2, 1, 8, 8)
    again = start(ctx, source=RandomSource(seed=5, rows=2))
    kept = [(ctx.settings.debug_dir / run.id / "inputs.msgpack").read_bytes() for run in (first, again)]
    assert kept[0] == kept[1]
