"""The lab through its services: what applies, what calibrates, what is compared on, what is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from control_plane.domain.golden import items_of
from control_plane.domain.job import JobState, Lane
from control_plane.domain.optimization import Budget, Conditions, Decision, TrialState
from control_plane.domain.optimization_views import CalibrationWish
from control_plane.domain.views import Example, Reason
from control_plane.errors import ConflictError, InvalidInputError, NotFoundError
from control_plane.optimization import catalog
from control_plane.optimization.messages import BuildReply
from control_plane.provenance.statement import hash_of
from control_plane.registry import session as sessions
from control_plane.registry.tables import Disagreement
from control_plane.services import (
    events,
    golden_sets,
    housekeeping,
    jobs,
    optimization,
    optimization_folders,
    optimization_rows,
    optimization_subjects,
    optimization_trials,
    rollouts,
    versions,
)
from control_plane.services.context import Context
from control_plane.services.optimization_trials import Idea
from tests.fakes import lab, models
from tests.fakes.registry import open_home, register
from tests.fakes.rollouts import serve

REF = "digits@1"
ROWS = [{"image": image.tolist()} for image in models.digits_data()[0][:40]]
CALIBRATED = next(method.name for method in catalog.methods() if method.calibrated)


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    context = open_home(tmp_path / "home", gateway_port=1)
    yield context
    context.engine.dispose()


def add_version(ctx: Context, rows: int = 40, **changes: Any) -> str:
    """Register digits with so many labelled examples; its files are never opened."""
    examples = [Example(row, str(at % 10)) for at, row in enumerate(ROWS[:rows])]
    given: dict[str, Any] = {"format": "huggingface", "examples": examples, "labels": lab.LABELS}
    return register(ctx, **{**given, **changes})


def known(ctx: Context, ref: str = REF) -> optimization_subjects.Known:
    return optimization_subjects.known(ctx, ref)


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps({"inputs": row}) for row in rows).encode()


# what applies


def test_every_method_of_the_catalogue_is_offered_with_form_reason_and_estimate(ctx: Context) -> None:
    add_version(ctx, format="onnx")
    offered = optimization.methods(ctx, REF)
    assert [each.name for each in offered] == list(catalog.names())
    assert any(each.inapplicable for each in offered)
    for each in offered:
        assert each.params["type"] == "object"
        assert each.estimate_s > 0
        assert "usual cost" in each.estimated_from
        assert each.inapplicable is None or not each.inapplicable.endswith(".")


def test_estimates_rest_on_variants_made_here_where_there_are_any(ctx: Context) -> None:
    add_version(ctx)
    job = optimization.submit(ctx, REF, "torchscript-trace", actor="ana")
    optimization_trials.add(ctx, job.id, [Idea("torchscript-trace", {})])
    optimization_trials.built(ctx, job.id, 1, BuildReply(format="torchscript", seconds=500.0))
    optimization_trials.measured(ctx, job.id, 1, lab.report(), Decision(accepted=True, reasons=()))
    trace = next(each for each in optimization.methods(ctx, REF) if each.name == "torchscript-trace")
    assert trace.estimated_from == "one variant made here"
    assert trace.estimate_s > 500


def test_the_architecture_of_a_hugging_face_folder_is_read_from_its_configuration(
    ctx: Context, tmp_path: Path
) -> None:
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    add_version(ctx)
    found = known(ctx)
    assert optimization_subjects.architecture(found) is None
    from dataclasses import replace

    subject = optimization_subjects.subject(replace(found, folder=folder))
    assert subject.is_language_model
    (folder / "config.json").write_text("[1")
    assert optimization_subjects.architecture(replace(found, folder=folder)) is None


# submitting


def test_a_job_is_queued_in_the_labs_own_lane_with_everything_filled_in(ctx: Context) -> None:
    add_version(ctx)
    first = optimization.submit(ctx, "digits@1", "torchscript-trace", actor="ana")
    second = optimization.autotune(ctx, REF, "size", minutes=3, actor="bo")
    other = jobs.submit(ctx, "example", subject="digits", params={}, actor="ana")
    assert [jobs.get(ctx, each.id).ahead for each in (first, second, other)] == [0, 1, 0]
    assert [each.lane for each in (first, second, other)] == ["lab", "lab", "main"]
    listed = {each.id: each.ahead for each in jobs.search(ctx).items}
    assert listed == {first.id: 0, second.id: 1, other.id: 0}
    assert (first.kind, first.subject) == ("optimize", "digits@1 by torchscript-trace")
    view = optimization.search_of(ctx, second.id)
    assert (view.objective, view.minutes, view.spent_s, view.best) == ("size", 3, 0.0, None)
    assert view.ended is None


def test_one_of_the_lab_runs_at_a_time_and_others_do_not_wait_for_it(ctx: Context) -> None:
    add_version(ctx)
    for _ in range(2):
        optimization.submit(ctx, REF, "torchscript-trace", actor="ana")
    jobs.submit(ctx, "example", subject="digits", params={}, actor="ana")
    assert jobs.waits(ctx, Lane.LAB)
    running = jobs.claim(ctx, 1, 1.0, lane=Lane.LAB)
    assert running is not None
    assert not jobs.waits(ctx, Lane.LAB)
    assert jobs.claim(ctx, 2, 2.0, lane=Lane.LAB) is None
    beside = jobs.claim(ctx, 3, 3.0)
    assert beside is not None
    assert beside.kind == "example"
    jobs.fail(ctx, running.id, Reason("job_failed", "enough"))
    assert jobs.claim(ctx, 4, 4.0, lane=Lane.LAB) is not None


@pytest.mark.parametrize(
    ("method", "params", "said"),
    [
        ("nonsense", {}, "known methods are"),
        ("torchscript-trace", {"freeze": "perhaps"}, "freeze: Input should be a valid boolean"),
        ("torchscript-trace", {"thaw": True}, "thaw: Extra inputs are not permitted"),
    ],
)
def test_what_no_method_takes_is_refused_with_the_field(
    ctx: Context, method: str, params: dict[str, Any], said: str
) -> None:
    add_version(ctx)
    with pytest.raises(InvalidInputError, match=said):
        optimization.submit(ctx, REF, method, params, actor="ana")
    assert jobs.search(ctx).total == 0


def test_a_method_that_does_not_apply_is_refused_with_its_reason(ctx: Context) -> None:
    add_version(ctx, format="torchscript")
    with pytest.raises(ConflictError, match="torchscript-trace does not apply to digits@1: "):
        optimization.submit(ctx, REF, "torchscript-trace", actor="ana")


def test_archived_refused_and_missing_versions_are_not_worked_on(ctx: Context) -> None:
    add_version(ctx)
    refused = add_version(ctx, content=b"two", verdict={"decision": "refuse", "code": "x", "message": "no"})
    gone = add_version(ctx, content=b"three")
    versions.archive(ctx, REF, actor="ana")
    for path in known(ctx, gone).folder.glob("*"):
        path.unlink()
    known(ctx, gone).folder.rmdir()
    for ref, said in ((REF, "archived"), (refused, "refused by the gate"), (gone, "missing"), ("x@1", "x@1")):
        with pytest.raises((ConflictError, NotFoundError), match=said):
            optimization.submit(ctx, ref, "torchscript-trace", actor="ana")
        with pytest.raises((ConflictError, NotFoundError), match=said):
            optimization.autotune(ctx, ref, actor="ana")


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_minutes_out_of_range_are_refused(ctx: Context, minutes: float) -> None:
    add_version(ctx)
    with pytest.raises(InvalidInputError, match="minutes must be from"):
        optimization.autotune(ctx, REF, minutes=minutes, actor="ana")


def test_an_unknown_objective_lists_the_known_ones(ctx: Context) -> None:
    add_version(ctx)
    with pytest.raises(InvalidInputError, match="latency, throughput, memory, size"):
        optimization.autotune(ctx, REF, "fame", actor="ana")


# calibration


def test_uploaded_rows_are_kept_once_and_name_themselves(ctx: Context) -> None:
    add_version(ctx)
    packed = io.BytesIO()
    np.savez(packed, image=np.array([row["image"] for row in ROWS[:3]], dtype=np.float32))
    kept = optimization.add_calibration(ctx, REF, lines(ROWS[:3]), actor="ana")
    again = optimization.add_calibration(ctx, REF, packed.getvalue(), actor="ana")
    assert kept == again
    assert kept.rows == 3
    wish = CalibrationWish(source="upload", digest=kept.digest)
    used = optimization_rows.calibrating(ctx, known(ctx), wish)
    assert list(used.rows) == ROWS[:3]
    assert used.recorded() == {"source": "upload", "rows": 3, "digest": kept.digest}
    assert events.search(ctx, q="calibration.added").items[0].details["digest"] == kept.digest


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "no row to calibrate with"),
        ([{"image": [[0.0] * 8] * 8}], "row 1: input 'image' must have shape"),
        ([ROWS[0], {"image": [[[float("nan")] * 8] * 8]}], "row 2: input 'image' holds NaN"),
        ([{"picture": ROWS[0]["image"]}], "row 1: unknown input 'picture'"),
    ],
    ids=["empty", "shape", "nan", "name"],
)
def test_rows_that_do_not_fit_are_refused_and_not_kept(
    ctx: Context, rows: list[dict[str, Any]], said: str
) -> None:
    add_version(ctx)
    with pytest.raises(InvalidInputError, match=said):
        optimization.add_calibration(ctx, REF, lines(rows), actor="ana")
    assert not list(ctx.settings.optimization_dir.rglob("*.json"))


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (CalibrationWish(source="upload"), "needs its digest"),
        (CalibrationWish(source="upload", digest="sha256:../x"), "is not a digest"),
        (CalibrationWish(source="upload", digest="0" * 64), "no calibration rows"),
        (CalibrationWish(source="captures"), "no request to this model is kept"),
        (CalibrationWish(source="heaven"), "examples, captures, upload"),
        (None, "it has no examples"),
    ],
    ids=["no digest", "path", "unknown", "no captures", "no source", "no examples"],
)
def test_a_calibrated_method_without_rows_is_refused_before_it_is_queued(
    ctx: Context, wish: CalibrationWish | None, said: str
) -> None:
    add_version(ctx, rows=0)
    with pytest.raises((InvalidInputError, NotFoundError), match=said) as caught:
        optimization.submit(ctx, REF, CALIBRATED, calibration=wish, actor="ana")
    assert caught.value.next_step or "come from" in said or wish == CalibrationWish(source="heaven")
    assert jobs.search(ctx).total == 0


def test_rows_of_another_model_do_not_calibrate(ctx: Context) -> None:
    add_version(ctx)
    kept = optimization.add_calibration(ctx, REF, lines(ROWS[:2]), actor="ana")
    other = register(ctx, "cats", content=b"c", signature=lab_signature((-1, 4)))
    wish = CalibrationWish(source="upload", digest=kept.digest)
    with pytest.raises(InvalidInputError, match="row 1: input 'image' must have shape"):
        optimization_rows.calibrating(ctx, known(ctx, other), wish)


def lab_signature(shape: tuple[int, ...]) -> Any:
    from serving_agent.contract.signature import Signature, TensorSpec

    return Signature((TensorSpec("image", "FP32", shape),), (TensorSpec("logits", "FP32", (-1, 10)),))


def test_a_method_without_calibration_takes_no_rows(ctx: Context) -> None:
    add_version(ctx)
    wish = CalibrationWish(source="examples")
    with pytest.raises(InvalidInputError, match="is not calibrated"):
        optimization.submit(ctx, REF, "torchscript-trace", calibration=wish, actor="ana")


def test_requests_kept_by_rollouts_calibrate_row_by_row_each_once(ctx: Context) -> None:
    add_version(ctx)
    add_version(ctx, content=b"two")
    serve(ctx)
    begun = rollouts.start(ctx, "digits", "digits@2", actor="ana")
    images = [row["image"] for row in ROWS[:3]]
    broken = [[["NaN"] * 8] * 8]
    kept: list[dict[str, Any] | None] = [
        {"image": images[:2]}, {"image": images[1:]}, {"image": [broken]}, None, {"other": [1]},
    ]  # fmt: skip
    with sessions.write(ctx.engine) as session:
        for at, inputs in enumerate(kept):
            session.add(
                Disagreement(
                    rollout_id=begun.id, at=float(at), request_id=str(at), distance=1.0, inputs=inputs,
                    answers={},
                )
            )  # fmt: skip
    used = optimization_rows.calibrating(ctx, known(ctx), CalibrationWish(source="captures"))
    assert sorted(map(hash_of, used.rows)) == sorted(map(hash_of, ROWS[:3]))
    captures = next(c for c in optimization.lab(ctx, REF).calibrations if c.source == "captures")
    assert (captures.rows, captures.problem) == (3, None)


# what is compared on


def test_examples_that_calibrate_are_not_compared_on(ctx: Context) -> None:
    add_version(ctx)
    used = optimization_rows.calibrating(ctx, known(ctx), CalibrationWish(source="examples"))
    compared = optimization_rows.holdout(ctx, known(ctx), used.rows)
    assert list(used.rows) == ROWS[::2]
    assert [row.inputs for row in compared.rows] == ROWS[1::2]
    assert [row.label for row in compared.rows[:3]] == ["1", "3", "5"]
    everything = optimization_rows.holdout(ctx, known(ctx))
    assert [row.inputs for row in everything.rows] == ROWS
    assert "examples of digits@1 (40 rows)" in everything.source


def test_a_golden_set_is_compared_on_and_leaves_all_examples_to_calibrate(ctx: Context) -> None:
    add_version(ctx, rows=20)
    items = items_of([{"inputs": row, "label": "3"} for row in ROWS[10:]])
    golden_sets.add(ctx, "digits", items, name="fixed", actor="ana")
    used = optimization_rows.calibrating(ctx, known(ctx), CalibrationWish(source="examples"))
    compared = optimization_rows.holdout(ctx, known(ctx), used.rows)
    assert list(used.rows) == ROWS[:20]
    assert [row.inputs for row in compared.rows] == ROWS[20:], "never what calibrates, wherever it stands"
    assert {row.label for row in compared.rows} == {"3"}
    assert compared.source == "golden set fixed (20 rows)"


def test_rows_are_made_up_where_there_is_nothing_else_and_that_is_said(ctx: Context) -> None:
    add_version(ctx, rows=0)
    assert optimization_rows.holdout(ctx, known(ctx)).rows == ()
    view = optimization.lab(ctx, REF).holdout
    assert (view.rows, view.source) == (
        0, "rows made up by the signature: there is neither a golden set nor an example",
    )  # fmt: skip
    one = add_version(ctx, rows=1, content=b"one")
    used = optimization_rows.calibrating(ctx, known(ctx, one), CalibrationWish(source="examples"))
    assert "all rows calibrate" in optimization_rows.holdout(ctx, known(ctx, one), used.rows).source


def test_labels_that_the_version_does_not_know_are_left_out(ctx: Context) -> None:
    add_version(ctx, labels=["0", "1"])
    labels = {row.label for row in optimization_rows.holdout(ctx, known(ctx)).rows}
    assert labels == {"0", "1", None}


# trials


def tuned(ctx: Context) -> str:
    """An autotune job with a measured trial, whose artefact is there, a failed and a dropped one; its id."""
    add_version(ctx)
    job = optimization.autotune(
        ctx, REF, "throughput", minutes=1, budget=Budget(), conditions=Conditions(), actor="ana"
    )
    ideas = [
        Idea("torchscript-trace", {"freeze": True}),
        Idea("torchscript-trace", {"freeze": False}),
        Idea("gone", {}),
    ]
    optimization_trials.add(ctx, job.id, ideas)
    optimization_trials.measured(
        ctx, job.id, 1, lab.report(), Decision(accepted=True, reasons=("2.00 times as fast at batch 1",))
    )
    optimization_trials.failed(ctx, job.id, 2, Reason("out_of_memory", "it needs more memory", "Buy some."))
    optimization_trials.screened(ctx, job.id, 3, lab.report(speedup=0.5))
    folder = optimization_folders.of_trial(optimization_folders.of_job(ctx.settings, job.id), 1)
    folder.mkdir(parents=True)
    (folder / optimization_folders.BUILT).write_text("{}")
    return job.id


def test_trials_tell_everything_and_the_search_its_front(ctx: Context) -> None:
    job_id = tuned(ctx)
    one, two, three = optimization.trials(ctx, job_id)
    assert (one.state, one.accepted, one.registrable, one.screened) == (
        TrialState.MEASURED,
        True,
        True,
        False,
    )
    assert one.report is not None
    assert one.report.best_speedup == 2.0
    assert (two.state, two.reason, two.registrable) == (
        "failed", Reason("out_of_memory", "it needs more memory", "Buy some."), False,
    )  # fmt: skip
    assert (three.title, three.screened, three.accepted) == ("gone", True, False)
    view = optimization.search_of(ctx, job_id)
    assert (view.best, view.front) == (1, (1,))
    assert optimization.trial(ctx, job_id, 2) == two
    for number in (0, 4):
        with pytest.raises(NotFoundError):
            optimization.trial(ctx, job_id, number)
    example = jobs.submit(ctx, "example", subject="digits", params={}, actor="ana")
    assert optimization.trials(ctx, example.id) == ()
    with pytest.raises(NotFoundError, match="searches nothing"):
        optimization.search_of(ctx, example.id)


def test_registering_twice_is_one_job_and_what_was_not_measured_is_refused(ctx: Context) -> None:
    job_id = tuned(ctx)
    first = optimization.register_trial(ctx, job_id, 1, actor="bo")
    assert (first.kind, first.lane) == ("register_variant", "main")
    assert optimization.register_trial(ctx, job_id, 1, actor="ana").id == first.id
    assert optimization.trial(ctx, job_id, 1).registering_job == first.id
    with pytest.raises(ConflictError, match="trial 3 is screened"):
        optimization.register_trial(ctx, job_id, 3, actor="ana")
    with pytest.raises(NotFoundError):
        optimization.register_trial(ctx, job_id, 9, actor="ana")
    jobs.cancel(ctx, first.id, actor="ana")
    assert optimization.register_trial(ctx, job_id, 1, actor="ana").id != first.id


def test_an_artefact_that_is_gone_cannot_be_registered(ctx: Context) -> None:
    job_id = tuned(ctx)
    optimization_folders.remove(ctx.settings, job_id)
    assert not optimization.trial(ctx, job_id, 1).registrable
    with pytest.raises(ConflictError, match="artefact of trial 1 is gone"):
        optimization.register_trial(ctx, job_id, 1, actor="ana")


def test_artefacts_nobody_registers_go_after_a_week_but_not_while_the_job_lives(ctx: Context) -> None:
    job_id = tuned(ctx)
    folder = optimization_folders.of_job(ctx.settings, job_id)
    later = folder.stat().st_mtime + optimization_folders.KEPT_S + 1
    assert housekeeping.tidy(ctx, later).trials == 0, "the job is still queued"
    jobs.cancel(ctx, job_id, actor="ana")
    assert jobs.get(ctx, job_id).state == JobState.CANCELLED
    assert housekeeping.tidy(ctx, later - 2).trials == 0
    assert housekeeping.tidy(ctx, later).trials == 1
    assert not folder.exists()


def test_a_search_that_no_method_can_help_is_refused(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = add_version(ctx)
    monkeypatch.setattr(catalog, "MODULES", ["control_plane.optimization.methods.l1_pruning"])
    with pytest.raises(ConflictError, match="no method that applies to digits@1 helps its size"):
        optimization.autotune(ctx, ref, "size", actor="ana")
    assert jobs.search(ctx).total == 0
