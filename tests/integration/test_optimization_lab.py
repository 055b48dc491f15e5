"""Optimisation jobs for real: variants made, measured, judged, registered; cancelled, killed, refused."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from control_plane.domain.job import JobState
from control_plane.domain.optimization import Budget
from control_plane.domain.views import JobView
from control_plane.errors import RejectedError
from control_plane.jobs import bench
from control_plane.optimization import building, catalog, measuring
from control_plane.registry.artifacts import ArtifactStore
from control_plane.services import endpoints, jobs, lineage, optimization, versions
from control_plane.services.context import Context
from tests.fakes import checkpoints, killed_jobs, lab
from tests.fakes.registry import open_home
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.timeout(300)

HUNGRY = "tests.fakes.networks:Hungry"
LAB_PROCESS = "control_plane.optimization."


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """digits@1 is the parent of all variants."""
    folder = tmp_path_factory.mktemp("lab")
    context = open_home(folder / "home", architectures=(lab.NETWORK, HUNGRY))
    lab.register(context, folder / "digits")
    yield context
    context.engine.dispose()


def submit(ctx: Context, method: str, params: dict[str, Any], **how: Any) -> JobView:
    given: dict[str, Any] = {"conditions": lab.QUICK, "budget": lab.LENIENT, **how}
    return optimization.submit(ctx, given.pop("ref", "digits@1"), method, params, actor="ana", **given)


def count(ctx: Context) -> int:
    return versions.search(ctx).total


def test_a_variant_becomes_a_version_that_tells_how_it_was_made_and_measured(ctx: Context) -> None:
    done = lab.perform(ctx, submit(ctx, "dynamic-int8", {}).id)
    assert (done.state, done.reason) == (JobState.SUCCEEDED, None)
    assert done.result is not None
    made = versions.get(ctx, done.result["version"])
    assert (made.parent, made.format, made.handler) == ("digits@1", "torchscript", "tensor")
    assert (made.labels, made.example_count) == (lab.LABELS, 60)
    assert (made.program_accepted_by, made.gate_version) == ("ana", None)
    assert made.manifest is not None
    recorded = made.lineage["optimization"]
    assert made.lineage["method"] == recorded["method"] == "dynamic-int8"
    assert (recorded["job"], recorded["trial"], recorded["calibration"]) == (done.id, 1, None)
    report = recorded["report"]
    assert [timing["batch"] for timing in report["timings"]] == [1, 8]
    assert report["answers"]["rows"] == report["answers"]["labelled"] == 60
    assert report["variant"]["size_bytes"] < report["parent"]["size_bytes"] / 2
    assert report["libraries"]["torch"]
    assert report["machine"]["cpu"]
    assert any("examples of digits@1 (60 rows)" in note for note in report["notes"])
    assert recorded["decision"]["accepted"] is done.result["accepted"] is True
    assert done.result["size_ratio"] > 2
    assert done.result["agreement"] > 0.9
    assert made.details["optimization"] == "accepted"
    assert {node.ref for node in lineage.tree(ctx, made.ref).nodes} >= {"digits@1", made.ref}
    assert lab.left_behind(ctx, done.id) == []


def test_a_variant_that_breaks_the_answers_is_rejected_with_its_numbers(ctx: Context) -> None:
    done = lab.perform(ctx, submit(ctx, "l1-pruning", {"amount": 0.99}, budget=Budget()).id)
    assert done.state == JobState.SUCCEEDED
    assert done.result is not None
    assert done.result["accepted"] is False
    assert "the same answer on" in done.result["reasons"][0]
    made = versions.get(ctx, done.result["version"])
    answers = made.lineage["optimization"]["report"]["answers"]
    assert answers["agreed"] < answers["rows"]
    assert answers["variant_right"] < answers["parent_right"]
    assert made.details["optimization"] == "rejected"
    with pytest.raises(RejectedError, match="the same answer on"):
        endpoints.deploy(ctx, "broken", made.ref, actor="ana")


def test_memory_that_runs_out_is_named_and_nothing_is_registered(ctx: Context, tmp_path: Path) -> None:
    folder = tmp_path / "hungry"
    ref = lab.register(ctx, folder, model="hungry", network=HUNGRY)
    before = count(ctx)
    done = lab.perform(ctx, submit(ctx, "torchscript-trace", {}, ref=ref).id)
    assert done.state == JobState.FAILED
    assert done.reason is not None
    assert (done.reason.code, count(ctx)) == ("out_of_memory", before)
    assert "memory" in done.reason.message
    assert "SIGNALBOX_AGENT_MEMORY" in str(done.reason.next_step)
    (trial,) = optimization.trials(ctx, done.id)
    assert (trial.state, trial.reason) == ("failed", done.reason)
    assert lab.left_behind(ctx, done.id) == []


@pytest.mark.parametrize("where", ["rows", "artefact", "store"])
def test_a_full_disk_is_named_wherever_it_is_met_and_leaves_nothing(
    ctx: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    write = bench.write_synced

    def write_synced(file: Path, content: bytes) -> None:
        if file.name == {"rows": "rows.json", "artefact": "built.json"}.get(where):
            raise full
        write(file, content)

    def ingest(_self: ArtifactStore, _source: Path) -> None:
        raise full

    monkeypatch.setattr(building, "build", killed_jobs.builder(tmp_path / "builds", lambda: None))
    monkeypatch.setattr(measuring, "measure", killed_jobs.measured)
    monkeypatch.setattr(bench, "write_synced", write_synced)
    if where == "store":
        monkeypatch.setattr(ArtifactStore, "ingest", ingest)
    before = count(ctx)
    done = lab.perform(ctx, submit(ctx, "torchscript-trace", {}).id)
    assert done.state == JobState.FAILED
    assert done.reason is not None
    assert done.reason.code == "no_space"
    assert "disk is full" in done.reason.message.lower()
    assert count(ctx) == before
    assert lab.left_behind(ctx, done.id) == []


def test_autotune_registers_the_best_and_others_on_demand(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ("bf16", "dynamic_int8")
    modules = [f"control_plane.optimization.methods.{name}" for name in kept]
    monkeypatch.setattr(catalog, "MODULES", modules)
    job = optimization.autotune(
        ctx, "digits@1", "size", minutes=5, conditions=lab.QUICK, budget=lab.LENIENT, actor="ana"
    )
    done = lab.perform(ctx, job.id)
    assert (done.state, done.reason) == (JobState.SUCCEEDED, None)
    assert done.result is not None
    by_version = {each["version"]: each for each in done.result["variants"] if each["version"]}
    best = by_version[done.result["best"]]
    assert (best["method"], best["accepted"]) == ("dynamic-int8", True)
    assert best["size_ratio"] == max(each["size_ratio"] or 0 for each in done.result["variants"])
    assert 0 < done.result["spent_s"] < 300
    search = optimization.search_of(ctx, job.id)
    assert search.best == best["number"]
    assert search.ended == done.result["ended"]
    trials = optimization.trials(ctx, job.id)
    assert {trial.method for trial in trials} == {"bf16", "dynamic-int8"}
    other = next(trial for trial in trials if trial.registrable)
    registering = optimization.register_trial(ctx, job.id, other.number, actor="bo")
    registered = lab.perform(ctx, registering.id)
    assert registered.result is not None
    made = versions.get(ctx, registered.result["version"])
    assert (made.created_by, made.parent) == ("bo", "digits@1")
    assert made.lineage["trial"] == other.number
    assert optimization.register_trial(ctx, job.id, other.number, actor="bo").id == registering.id


def lab_processes(ctx: Context) -> list[psutil.Process]:
    """Processes of jobs of this home, and of what they build and measure in."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or ())
        if LAB_PROCESS in command or "control_plane.jobs.run" in command:
            try:
                if process.environ().get("SIGNALBOX_HOME") == str(ctx.settings.home):
                    found.append(process)
            except psutil.Error:
                continue
    return found


def in_stage(ctx: Context, job_id: str, stage: str, process: str) -> int:
    """Wait until the job has come to *stage* and a process of the lab works on it; the job's own pid."""

    def look() -> int | None:
        row = next((job for job in jobs.running(ctx) if job.id == job_id), None)
        if row is None or not jobs.get(ctx, job_id).stage.startswith(stage):
            return None
        works = any(process in " ".join(each.cmdline()) for each in _alive(lab_processes(ctx)))
        return row.pid if works else None

    return wait_until(look, timeout_s=90, what=lambda: checkpoints.described(ctx, job_id), pause_s=0.01)


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def test_a_job_killed_while_building_goes_on_and_one_cancelled_while_measuring_ends_at_once(
    ctx: Context,
) -> None:
    before = count(ctx)
    with checkpoints.worker(ctx):
        killed = submit(ctx, "torchscript-trace", {})
        psutil.Process(in_stage(ctx, killed.id, "build", "build_process")).kill()
        done = checkpoints.finished(ctx, killed.id)
        assert (done.state, done.attempt) == (JobState.SUCCEEDED, 2)
        assert count(ctx) == before + 1

        cancelled = submit(ctx, "torchscript-trace", {"freeze": False})
        pid = in_stage(ctx, cancelled.id, "measure", "measure_process")
        working = [process for process in lab_processes(ctx) if LAB_PROCESS in " ".join(process.cmdline())]
        assert working
        asked = time.monotonic()
        jobs.cancel(ctx, cancelled.id, actor="ana")
        wait_until(
            lambda: not _alive([*working, *(each for each in lab_processes(ctx) if each.pid == pid)]),
            timeout_s=5,
            what=lambda: f"still there: {working}",
            pause_s=0.01,
        )
        assert time.monotonic() - asked < 2.0
        assert checkpoints.finished(ctx, cancelled.id).state == JobState.CANCELLED
    assert count(ctx) == before + 1
    assert optimization.trial(ctx, cancelled.id, 1).state == "failed"
    assert lab.left_behind(ctx, cancelled.id) == []
