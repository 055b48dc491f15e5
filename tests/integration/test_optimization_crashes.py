"""Jobs of the lab killed with -9 at every step they have: each goes on, and makes one version, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.domain.job import JobState
from control_plane.domain.optimization import Conditions
from control_plane.domain.views import Example, JobView
from control_plane.jobs import catalog as kinds
from control_plane.jobs import orders, processes
from control_plane.optimization import catalog
from control_plane.services import jobs, optimization, versions
from control_plane.services.context import Context
from tests.fakes import killed_jobs, lab, models
from tests.fakes.registry import open_home, register

pytestmark = pytest.mark.timeout(300)

METHODS = ("dynamic_int8",)
MOST_STEPS = 400
QUICK = Conditions(batches=(1, 8), rounds=3, round_s=0.01)


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """digits@1, which is never opened, and a catalogue of one method."""
    monkeypatch.setattr(
        catalog, "MODULES", [f"control_plane.optimization.methods.{name}" for name in METHODS]
    )
    context = open_home(tmp_path / "home")
    images = models.digits_data()[0][:20]
    examples = [Example({"image": image.tolist()}, "1") for image in images]
    register(context, format="huggingface", examples=examples)
    yield context
    context.engine.dispose()


def killed_then_finished(ctx: Context, job: JobView, notes: Path, kill_at: int) -> bool:
    """Run the job with one kill at that step and then to its end; False where it has no such step."""
    was_killed = killed_jobs.attempt(ctx, job.id, notes, kill_at=kill_at)
    for lost in jobs.recover_lost(ctx, processes.is_alive):
        assert (lost.id, lost.state) == (job.id, JobState.QUEUED)
        assert not killed_jobs.attempt(ctx, job.id, notes, kill_at=0)
    return was_killed


def made_by(ctx: Context, job_id: str) -> list[str]:
    """Versions that the job registered."""
    refs = [view.ref for view in versions.search(ctx, page_size=200).items]
    return [ref for ref in refs if versions.get(ctx, ref).lineage.get("job") == job_id]


def test_an_optimisation_killed_at_any_step_registers_its_variant_once(ctx: Context, tmp_path: Path) -> None:
    builds: Counter[int] = Counter()
    for step in range(1, MOST_STEPS):
        notes = tmp_path / f"builds-{step}"
        job = optimization.submit(ctx, "digits@1", "dynamic-int8", conditions=QUICK, actor="ana")
        was_killed = killed_jobs.attempt(ctx, job.id, notes, kill_at=step)
        was_built = any(file.endswith("1/built.json") for file in lab.left_behind(ctx, job.id))
        before = built(notes)
        for lost in jobs.recover_lost(ctx, processes.is_alive):
            assert (lost.id, lost.state) == (job.id, JobState.QUEUED)
            assert not killed_jobs.attempt(ctx, job.id, notes, kill_at=0)
        assert not was_built or built(notes) == before == 1, step
        done = jobs.get(ctx, job.id)
        assert (done.state, done.reason) == (JobState.SUCCEEDED, None), step
        assert done.result is not None
        assert made_by(ctx, job.id) == [done.result["version"]], step
        assert lab.left_behind(ctx, job.id) == [], step
        (trial,) = optimization.trials(ctx, job.id)
        assert trial.version_ref == done.result["version"], step
        builds[built(notes)] += 1
        if not was_killed:
            break
    assert set(builds) == {1, 2}, "killed in the middle of building, it builds again"
    assert 12 < builds.total() < MOST_STEPS - 1


def built(notes: Path) -> int:
    """How many builds were begun."""
    return len(notes.read_text().splitlines()) if notes.exists() else 0


def test_a_search_killed_at_any_step_finds_the_same_and_registers_it_once(
    ctx: Context, tmp_path: Path
) -> None:
    found = set()
    steps = 0
    for step in range(1, MOST_STEPS):
        notes = tmp_path / f"builds-{step}"
        job = optimization.autotune(ctx, "digits@1", "latency", minutes=60, conditions=QUICK, actor="ana")
        was_killed = killed_then_finished(ctx, job, notes, step)
        done = jobs.get(ctx, job.id)
        assert done.state == JobState.SUCCEEDED, (step, done.reason)
        assert done.result is not None
        assert made_by(ctx, job.id) == [done.result["best"]], step
        trials = optimization.trials(ctx, job.id)
        assert not [trial for trial in trials if trial.state in ("queued", "building", "screened")], step
        builds = Counter(notes.read_text().splitlines())
        assert sum(builds.values()) <= len(trials) + 1, (step, builds)
        found.add(tuple((trial.number, trial.method, trial.state, trial.accepted) for trial in trials))
        steps = step
        if not was_killed:
            break
    assert len(found) == 1
    assert 25 < steps < MOST_STEPS - 1


@pytest.mark.parametrize("autotune", [False, True], ids=["optimize", "autotune"])
def test_one_that_dies_every_time_leaves_nothing_half_made(
    ctx: Context, tmp_path: Path, *, autotune: bool
) -> None:
    if autotune:
        job = optimization.autotune(ctx, "digits@1", conditions=QUICK, actor="ana")
    else:
        job = optimization.submit(ctx, "digits@1", "dynamic-int8", conditions=QUICK, actor="ana")
    for step in (8, 5, 3):
        assert killed_jobs.attempt(ctx, job.id, tmp_path / "builds", kill_at=step)
        (lost,) = jobs.recover_lost(ctx, processes.is_alive)
    assert (lost.state, lost.reason.code if lost.reason else None) == (JobState.FAILED, "process_died")
    kind, params, _ = orders.params(ctx, job.id)
    kinds.get(kind).ended(ctx, params, lost.reason)  # as the worker does
    assert lab.left_behind(ctx, job.id) == []
    assert made_by(ctx, job.id) == []
    for trial in optimization.trials(ctx, job.id):
        assert trial.state == "failed"
        assert trial.reason is not None
        assert trial.reason.code == "process_died"
    assert jobs.retry(ctx, job.id, actor="ana").state == JobState.QUEUED
    assert not killed_jobs.attempt(ctx, job.id, tmp_path / "builds", kill_at=0)
    assert len(made_by(ctx, job.id)) == 1
