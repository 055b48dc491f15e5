"""Versions beside and below each other: comparison by a job, lineage, and judging again what is stored."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from control_plane.admission import gate
from control_plane.domain.job import JobState
from control_plane.errors import ConflictError, NotFoundError
from control_plane.jobs import catalog, run
from control_plane.registry import session as sessions
from control_plane.registry.artifacts import ArtifactStore
from control_plane.registry.tables import Version
from control_plane.services import (
    comparison,
    endpoints,
    events,
    housekeeping,
    jobs,
    lineage,
    manifests,
    registration,
    rejudging,
    system,
    versions,
)
from control_plane.services.context import Context
from tests.fakes import models, postgres
from tests.fakes.registry import files, open_home, register

ACCEPTED = {"decision": "accept", "code": "plain-weights", "left_out": []}


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    if postgres.binaries() is None:
        pytest.skip("no Postgres binaries on this machine")
    with postgres.running() as url:
        yield url


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    context = open_home(tmp_path / "home")
    yield context
    context.engine.dispose()


def weights(
    ctx: Context, folder: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], **changes: Any
) -> str:
    """Register safetensors with a configuration."""
    folder.mkdir(parents=True)
    save_file(dict(tensors), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    given: dict[str, Any] = {"handler": "tensor", "signature": models.SCALAR, "actor": "ana", **changes}
    return registration.register(ctx, model="llm", files_dir=folder, format="huggingface", **given)


def work(ctx: Context) -> jobs.JobView:
    """Carry out the queued job in this process, as its own would."""
    claimed = jobs.claim(ctx, 1, 1.0)
    assert claimed is not None
    run.perform(ctx, claimed)
    return jobs.get(ctx, claimed.id)


@pytest.fixture
def pair(ctx: Context, tmp_path: Path) -> tuple[str, str]:
    one = np.arange(6, dtype=np.float32).reshape(2, 3)
    a = weights(ctx, tmp_path / "a", {"layers": 2, "rope": {"theta": 1e4}}, {"w": one, "b": one[0]})
    b = weights(
        ctx, tmp_path / "b", {"layers": 2, "rope": {"theta": 1e6}}, {"w": one + 0.25, "c": one[0]},
        parent_ref=a, details={"note": "tuned"}, lineage={"step": 7},
    )  # fmt: skip
    return a, b


def test_a_job_compares_weights_once_for_both_directions(ctx: Context, pair: tuple[str, str]) -> None:
    a, b = pair
    before = comparison.compare(ctx, a, b)
    assert (before.weights.state, before.identical) == ("missing", False)
    job = comparison.start(ctx, a, b, actor="ana")
    assert job is not None
    assert comparison.start(ctx, b, a, actor="bo") == job
    assert comparison.compare(ctx, b, a).weights.job_id == job.id
    done = work(ctx)
    assert (done.state, done.result) == (
        JobState.SUCCEEDED,
        {"tensors": 3, "same": 0, "changed": 1, "dtype": 0, "shape": 0, "only_a": 1, "only_b": 1,
         "max_difference": 0.25, "read_bytes": 72},
    )  # fmt: skip
    assert comparison.start(ctx, a, b, actor="ana") is None
    there, back = comparison.compare(ctx, a, b).weights, comparison.compare(ctx, b, a).weights
    assert there.compared is not None
    assert back.compared is not None
    verdicts = {each.name: each.verdict for each in there.compared.tensors}
    assert verdicts == {"w": "changed", "b": "only_a", "c": "only_b"}
    assert {each.name: each.verdict for each in back.compared.tensors} == {
        "w": "changed", "b": "only_b", "c": "only_a",
    }  # fmt: skip
    assert there.max_difference == 0.25


def test_metadata_files_and_configuration_need_no_job(ctx: Context, pair: tuple[str, str]) -> None:
    found = comparison.compare(ctx, *pair)
    differing = {each.name: (each.a, each.b) for each in found.metadata if not each.same}
    assert differing["parent"] == (None, "llm@1")
    assert differing["details.note"] == (None, "tuned")
    assert differing["lineage.step"] == (None, 7)
    assert "format" not in differing
    assert {each.name for each in found.files if not each.same} == {"config.json", "model.safetensors"}
    assert [(each.name, each.a, each.b) for each in found.config["config.json"]] == [("rope.theta", 1e4, 1e6)]


def test_programs_are_compared_by_what_is_said_of_them(ctx: Context, pair: tuple[str, str]) -> None:
    program = register(ctx)
    found = comparison.compare(ctx, pair[0], program)
    assert found.weights.state == "none"
    assert found.weights.sentence == "digits@1 is TorchScript: compared by metadata and files only"
    with pytest.raises(ConflictError, match="no weights to compare"):
        comparison.start(ctx, pair[0], program, actor="ana")
    with pytest.raises(NotFoundError):
        comparison.compare(ctx, program, "digits@9")


def test_a_comparison_goes_with_its_artefacts(ctx: Context, pair: tuple[str, str]) -> None:
    comparison.start(ctx, *pair, actor="ana")
    work(ctx)
    assert housekeeping.tidy(ctx, 0.0).comparisons == 0
    versions.delete(ctx, pair[1], actor="ana")
    assert housekeeping.tidy(ctx, 0.0).comparisons == 1
    assert list((ctx.settings.root / comparison.FOLDER).iterdir()) == []


def test_a_comparison_of_what_was_deleted_fails_with_a_reason(ctx: Context, pair: tuple[str, str]) -> None:
    comparison.start(ctx, *pair, actor="ana")
    versions.delete(ctx, pair[1], actor="ana")
    done = work(ctx)
    assert done.state == JobState.FAILED
    assert done.reason is not None
    assert "is gone" in done.reason.message


def test_verifying_is_a_job_whose_result_says_what_is_wrong(ctx: Context, pair: tuple[str, str]) -> None:
    manifests.queue_check(ctx, pair[0], actor="ana")
    sound = work(ctx).result
    assert sound is not None
    assert (sound["ref"], sound["files"], sound["problems"]) == ("llm@1", 2, [])
    folder, _ = comparison.stored(ctx, versions.get(ctx, pair[0]).digest)
    (folder / "config.json").unlink()
    manifests.queue_check(ctx, pair[0], actor="ana")
    damaged = work(ctx).result
    assert damaged is not None
    assert damaged["problems"] == ["config.json is missing"]


def test_a_tree_shows_parents_itself_and_descendants(ctx: Context, tmp_path: Path) -> None:
    evidence = files(tmp_path / "original", model=b"pickle")
    register(ctx)
    register(ctx, parent_ref="digits@1", lineage={"run": "r"}, evidence_dir=evidence)
    register(ctx, parent_ref="digits@2")
    register(ctx, parent_ref="digits@1")
    register(ctx, "other", parent_ref="digits@3")
    found = lineage.tree(ctx, "digits@2")
    assert [(node.ref, node.depth, node.focus) for node in found.nodes] == [
        ("digits@1", 0, False),
        ("digits@2", 1, True),
        ("digits@3", 2, False),
        ("other@1", 3, False),
    ]
    assert (found.complete, found.source) == (True, {"run": "r"})
    assert [file.path for file in found.evidence_files] == ["model.bin"]
    root = lineage.tree(ctx, "digits@1")
    assert [node.ref for node in root.nodes] == ["digits@1", "digits@2", "digits@3", "other@1", "digits@4"]


def test_a_large_family_is_cut_and_says_so(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    register(ctx)
    for _ in range(4):
        register(ctx, parent_ref="digits@1")
    monkeypatch.setattr(lineage, "MAX_DESCENDANTS", 3)
    below = lineage.tree(ctx, "digits@1")
    assert (len(below.nodes), below.complete) == (4, False)
    monkeypatch.setattr(lineage, "MAX_ANCESTORS", 0)
    above = lineage.tree(ctx, "digits@3")
    assert ([node.ref for node in above.nodes], above.complete) == (["digits@3"], False)


def test_a_new_gate_judges_what_is_stored(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = models.save_torchscript(models.digits_model(), tmp_path / "program")
    registration.register(
        ctx, model="good", files_dir=good, format="torchscript", handler="tensor",
        signature=models.DIGITS, actor="ana", verdict={"decision": "sandbox", "code": "x", "left_out": []},
    )  # fmt: skip
    register(ctx, "bad", verdict=ACCEPTED)
    endpoints.deploy(ctx, "serving", "bad@1", actor="ana")
    assert rejudging.queue_due(ctx) is None
    monkeypatch.setattr(gate, "VERSION", "next")
    queued = rejudging.queue_due(ctx)
    assert queued is not None
    assert rejudging.queue_due(ctx) == queued
    done = work(ctx)
    assert (done.state, done.result) == (JobState.SUCCEEDED, {"versions": 2, "sandbox": 1, "refuse": 1})
    assert rejudging.queue_due(ctx) is None
    bad = versions.get(ctx, "bad@1")
    assert (bad.decision, bad.gate_version) == ("refuse", "next")
    assert bad.verdict is not None
    assert {"code", "message", "next_step", "left_out"} <= set(bad.verdict)
    assert versions.search(ctx, model="bad").items[0].decision == "refuse"
    assert events.search(ctx, subject="bad@1").items[0].action == "version.rejudged"


def test_what_the_gate_refuses_by_now_is_not_deployed_anew(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(ctx)
    endpoints.deploy(ctx, "digits", "digits@1", actor="ana")
    rejudging.queue(ctx, ref="digits@1", actor="ana")
    work(ctx)
    with pytest.raises(ConflictError, match=r"digits@1 is refused by the gate since it was judged again"):
        endpoints.deploy(ctx, "another", "digits@1", actor="ana")
    present = endpoints.get(ctx, "digits")
    assert present.goal == "running"
    assert [warning.startswith("digits@1 is refused by the gate") for warning in present.warnings] == [True]
    assert endpoints.scale(ctx, "digits", 2, actor="ana").replicas == 2
    attention = [each.message for each in system.status(ctx).attention if each.subject == "digits"]
    assert list(present.warnings) == attention
    assert manifests.check(ctx, versions.get(ctx, "digits@1").id).problems == ()


def test_evidence_is_judged_in_place_of_what_is_served(ctx: Context, tmp_path: Path) -> None:
    original = models.save_torchscript(models.digits_model(), tmp_path / "original")
    register(ctx, evidence_dir=original)
    rejudging.queue(ctx, ref="digits@1", actor="ana")
    assert work(ctx).result == {"versions": 1, "sandbox": 1}


def test_what_our_own_jobs_made_is_judged_only_when_asked_for(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(ctx)
    monkeypatch.setattr(gate, "VERSION", "next")
    assert rejudging.queue_due(ctx) is None
    assert rejudging.wanted(ctx, {"every": True}) == ()
    rejudging.queue(ctx, ref="digits@1", actor="ana")
    assert work(ctx).result == {"versions": 1, "refuse": 1}


def test_the_network_a_person_named_is_not_held_against_bare_weights(ctx: Context, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    folder.mkdir()
    save_file({"w": np.ones((2, 2), np.float32)}, folder / "model.safetensors")
    (folder / "architecture.json").write_text("{}")
    registration.register(
        ctx, model="bare", files_dir=folder, format="state_dict", handler="tensor",
        signature=models.SCALAR, actor="ana", lineage={"architecture": {"builder": "x:y"}}, verdict=ACCEPTED,
    )  # fmt: skip
    rejudging.queue(ctx, every=True, actor="ana")
    assert work(ctx).result == {"versions": 1, "accept": 1}


def test_a_version_that_is_gone_meanwhile_is_passed_over(ctx: Context) -> None:
    register(ctx, verdict=ACCEPTED)
    register(ctx, "other", content=b"kept", verdict=ACCEPTED)
    rejudging.queue(ctx, every=True, actor="ana")
    versions.delete(ctx, "digits@1", actor="ana")
    assert work(ctx).result == {"versions": 1, "refuse": 1}


def test_versions_that_cannot_be_judged_do_not_keep_the_others_from_it(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(ctx, verdict=ACCEPTED)
    register(ctx, "other", content=b"kept", verdict=ACCEPTED)
    shutil.rmtree(ArtifactStore(ctx.settings.artifacts_dir).folder(versions.get(ctx, "digits@1").digest))
    monkeypatch.setattr(gate, "VERSION", "next")
    assert rejudging.queue_due(ctx) is not None
    done = work(ctx)
    assert (done.state, done.result) == (JobState.SUCCEEDED, {"versions": 2, "failed": 1, "refuse": 1})
    assert versions.get(ctx, "other@1").gate_version == "next"
    rejudging.queue(ctx, ref="digits@1", actor="ana")
    alone = work(ctx)
    assert (alone.state, "are missing" in str(alone.reason)) == (JobState.FAILED, True)


def test_judging_many_ends_when_it_is_cancelled(ctx: Context) -> None:
    register(ctx, verdict=ACCEPTED)

    def cancelled(stage: str, done: float) -> None:
        raise jobs.JobCancelled("1")

    rejudging.queue(ctx, every=True, actor="ana")
    claimed = jobs.claim(ctx, 1, 1.0)
    assert claimed is not None
    with pytest.raises(jobs.JobCancelled):
        catalog.get(rejudging.KIND).run(ctx, claimed, cancelled)


def test_judging_works_without_hard_links(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    register(ctx, verdict=ACCEPTED)
    rejudging.queue(ctx, ref="digits@1", actor="ana")
    monkeypatch.setattr(os, "link", refuse)
    assert work(ctx).result == {"versions": 1, "refuse": 1}


@pytest.mark.parametrize("end", [versions.archive, versions.delete])
def test_a_version_with_a_protected_alias_says_how_to_get_rid_of_it(
    ctx: Context, end: Callable[..., None]
) -> None:
    register(ctx)
    versions.set_alias(ctx, "digits", "champion", 1, actor="ana")
    versions.set_alias(ctx, "digits", "stable", 1, actor="ana")
    way_out = "take champion out of SIGNALBOX_PROTECTED_ALIASES"
    with pytest.raises(ConflictError) as caught:
        end(ctx, "digits@1", actor="ana")
    assert way_out in str(caught.value.next_step)
    with pytest.raises(ConflictError) as caught:
        versions.remove_alias(ctx, "digits", "champion", actor="ana")
    assert way_out in str(caught.value.next_step)
    freed = replace(ctx, settings=ctx.settings.model_copy(update={"protected_aliases": ()}))
    with pytest.raises(ConflictError) as caught:
        end(freed, "digits@1", actor="ana")
    assert caught.value.next_step == "Move or remove the alias first."
    for alias in ("champion", "stable"):
        versions.remove_alias(freed, "digits", alias, actor="ana")
    end(freed, "digits@1", actor="ana")


def test_postgres_keeps_and_finds_the_same(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = open_home(tmp_path / "home", database_url=postgres_url)
    try:
        evidence = files(tmp_path / "original", model=b"pickle")
        register(ctx, lineage={"run": "r", "metrics": [0.1, None]}, evidence_dir=evidence)
        register(ctx, parent_ref="digits@1", verdict=ACCEPTED)
        assert manifests.check(ctx, versions.get(ctx, "digits@1").id).problems == ()
        with sessions.write(ctx.engine) as session:
            for row in session.query(Version):
                session.connection().exec_driver_sql("UPDATE versions SET manifest = NULL")
                assert row.lineage == ({"run": "r", "metrics": [0.1, None]} if row.number == 1 else {})
        assert manifests.sign_missing(ctx) == 2
        assert len(lineage.tree(ctx, "digits@1").nodes) == 2
        assert rejudging.queue_due(ctx) is None
        monkeypatch.setattr(gate, "VERSION", "next")
        assert rejudging.queue_due(ctx) is not None
        assert rejudging.wanted(ctx, {}) == (versions.get(ctx, "digits@2").id,)
        versions.delete(ctx, "digits@2", actor="ana")
        versions.delete(ctx, "digits@1", actor="ana")
        assert housekeeping.tidy(ctx, 0.0).artifacts == ()
    finally:
        ctx.engine.dispose()
