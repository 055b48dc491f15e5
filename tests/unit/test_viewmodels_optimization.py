"""The optimisation lab's view-models: forms from schemas, result cards, the chart of a search, words."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from pydantic import BaseModel, Field

from control_plane.domain.acceptance import decide
from control_plane.domain.job import JobState
from control_plane.domain.optimization import Budget, Conditions, Objective, Report, TrialState
from control_plane.domain.optimization_views import (
    CalibrationChoice,
    CalibrationWish,
    HoldoutView,
    LabView,
    MethodView,
    SearchView,
    TrialView,
)
from control_plane.domain.views import JobView, Reason
from control_plane.errors import InvalidInputError
from control_plane.optimization import catalog
from control_plane.ui.viewmodels import jobs
from control_plane.ui.viewmodels import optimization as words
from control_plane.ui.viewmodels import optimization_form as forms
from control_plane.ui.viewmodels import optimization_result as results
from control_plane.ui.viewmodels import optimization_search as search
from tests.fakes.seeded_optimization import MACHINE, report

# --- the form ---


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Everything(BaseModel):
    """A parameter of every shape."""

    engine: Literal["x86", "onednn"] = Field("x86", title="Engine", description="Which kernels.")
    bits: Literal[4, 8] = 8
    colour: Colour = Colour.RED
    amount: float = Field(0.3, gt=0, lt=1, title="Amount", json_schema_extra={"unit": "share"})
    group: int = Field(32, gt=0, le=256, multiple_of=32)
    rows: int | None = Field(None, ge=1)
    freeze: bool = True
    keep: tuple[str, ...] = ()
    shape: list[int] = Field(default=[1, 2])
    needed: int


FIELDS = {field.name: field for field in forms.fields(Everything.model_json_schema())}


def test_a_schema_becomes_fields() -> None:
    assert {name: field.kind for name, field in FIELDS.items()} == {
        "engine": "choice", "bits": "choice", "colour": "choice", "amount": "number", "group": "integer",
        "rows": "integer", "freeze": "switch", "keep": "names", "shape": "json", "needed": "integer",
    }  # fmt: skip
    assert FIELDS["engine"].choices == ("x86", "onednn")
    assert FIELDS["bits"].choices == (4, 8)
    assert FIELDS["colour"].choices == ("red", "blue")
    assert FIELDS["amount"].label == "Amount, share"
    amount, group = FIELDS["amount"], FIELDS["group"]
    assert amount.low is not None
    assert amount.high is not None
    assert 0 < amount.low < 0.001 < 0.999 < amount.high < 1
    assert (group.low, group.high, group.step) == (1, 256, 32)
    assert FIELDS["rows"].optional
    assert FIELDS["rows"].low == 1


def test_what_was_typed_is_what_the_model_takes() -> None:
    typed: dict[str, Any] = {
        "engine": "onednn", "bits": 4, "colour": "blue", "amount": 0.25, "group": 64.0, "rows": None,
        "freeze": False, "keep": ["a.b", " "], "shape": "[3]", "needed": 7,
    }  # fmt: skip
    made = Everything.model_validate(forms.values(FIELDS.values(), typed))
    assert made == Everything(
        engine="onednn", bits=4, colour=Colour.BLUE, amount=0.25, group=64, freeze=False, keep=("a.b",),
        shape=[3], needed=7,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [("needed", None), ("shape", "[3"), ("shape", "[" * 100_000)])
def test_what_cannot_be_taken_is_said(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=FIELDS[name].label):
        forms.values([FIELDS[name]], {name: value})


@pytest.mark.parametrize("name", catalog.names())
def test_the_form_of_every_method_starts_with_its_defaults(name: str) -> None:
    params = catalog.get(name).params
    fields = forms.fields(params.model_json_schema())
    assert "json" not in {field.kind for field in fields}, "a widget for every parameter"
    assert all(field.label and (field.help or not field.name) for field in fields), "and words for it"
    typed = {field.name: field.default for field in fields}
    assert params.model_validate(forms.values(fields, typed)) == params()


@given(st.sets(st.integers(1, 1024), min_size=1, max_size=8), st.sampled_from([", ", "; ", " ", ","]))
def test_batch_sizes_are_read_in_any_order(sizes: set[int], between: str) -> None:
    assert forms.batches(between.join(map(str, sizes))) == tuple(sorted(sizes))


@pytest.mark.parametrize("text", ["", ",", "one", "1.5", "0", "1, 2000"])
def test_other_batch_sizes_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        forms.conditions(batch_text=text, threads=1, rounds=9)


def test_measuring_and_limits_are_what_was_typed() -> None:
    assert forms.conditions(batch_text="32, 1", threads=2, rounds=5) == Conditions(
        batches=(1, 32), threads=2, rounds=5
    )
    limits = forms.budget(agreement_percent=99.5, drop_points=0.5, speedup=1.1, shrink=1.5)
    assert limits == Budget()
    with pytest.raises(InvalidInputError, match="ratios"):
        forms.budget(agreement_percent=99.5, drop_points=0.5, speedup=0.5, shrink=1.5)


EXAMPLES = CalibrationChoice(source="examples", title="The examples", rows=100, problem=None)
NONE_KEPT = CalibrationChoice(source="captures", title="Requests", rows=0, problem="none was kept")
A_FILE = CalibrationChoice(source="upload", title="A file", rows=0, problem=None)


def test_rows_to_calibrate_with_must_be_there() -> None:
    assert forms.first_usable([NONE_KEPT, A_FILE, EXAMPLES]) == 2
    assert forms.wish(EXAMPLES, None) == CalibrationWish(source="examples")
    assert forms.wish(A_FILE, "sha256:1") == CalibrationWish(source="upload", digest="sha256:1")
    with pytest.raises(InvalidInputError, match="none was kept"):
        forms.wish(NONE_KEPT, None)
    with pytest.raises(InvalidInputError, match="no calibration rows"):
        forms.wish(A_FILE, None)


# --- methods ---


def method(name: str, inapplicable: str | None = None, estimate_s: float = 12.4) -> MethodView:
    return MethodView(
        name=name,
        title=name.title(),
        description="",
        params={},
        calibrated=False,
        inapplicable=inapplicable,
        estimate_s=estimate_s,
        estimated_from="3 variants made here",
    )


METHODS = (
    method("dynamic-int8", "it has no layers"),
    method("bf16"),
    method("l1-pruning"),
    method("openvino"),
)


def test_methods_are_sorted_into_families() -> None:
    assert words.families(METHODS) == [
        "All", "Quantisation", "Lower precision", "Pruning", "Engines and compilers",
    ]  # fmt: skip
    assert [each.name for each in words.offered(METHODS, "All")] == ["bf16", "l1-pruning", "openvino"]
    assert words.offered(METHODS, "Quantisation") == []
    assert words.refused_rows(METHODS, "Quantisation") == [
        {"Method": "Dynamic-Int8", "Why not here": "It has no layers."}
    ]
    assert words.refused_rows(METHODS, "Pruning") == []
    assert words.why_not(METHODS, "dynamic-int8") == "It has no layers."
    assert words.why_not(METHODS, "bf16") is None
    assert "no such method" in str(words.why_not(METHODS, "nope"))


def test_every_method_of_the_catalogue_has_a_family() -> None:
    found = {name: words.family(name) for name in catalog.names()}
    assert found["static-int8"] == found["weight-only-int4"] == found["onnx-dynamic-int8"] == "Quantisation"
    assert found["channel-pruning"] == found["sparse-2-4"] == "Pruning"
    assert found["torchscript-trace"] == "Engines and compilers"


def test_a_search_says_how_long_once_around_takes() -> None:
    lab = LabView(
        ref="m@1",
        methods=METHODS,
        calibrations=(),
        holdout=HoldoutView(source="golden set g (600 rows)", rows=600, labelled=500),
        machine=MACHINE,
    )
    assert "the 3 methods that apply" in forms.search_words(lab)
    assert "takes about 37 s" in forms.search_words(lab)
    assert forms.estimate_words(METHODS[1]) == "Takes about 12 s, from 3 variants made here."
    assert "500 of them labelled" in forms.holdout_words(lab)
    made_up = replace(lab, holdout=HoldoutView(source="made-up rows", rows=0, labelled=0))
    assert "Add examples or a golden set" in forms.holdout_words(made_up)
    assert forms.machine_words(MACHINE) == "Example CPU 2.0 GHz, 8 cores, 16 GiB"


# --- one variant ---


def trial(number: int, measured: Report | None = None, **changes: Any) -> TrialView:
    given: dict[str, Any] = {
        "job_id": "j",
        "number": number,
        "method": "dynamic-int8",
        "title": "Dynamic int8",
        "params": {"engine": "x86", "keep": [], "keep_most_fragile": 0},
        "state": TrialState.MEASURED,
        "stage": "",
        "reason": None,
        "report": measured,
        "screened": False,
        "decision": decide(measured, Budget()) if measured else None,
        "version_ref": None,
        "registrable": True,
        "registering_job": None,
        "follows": None,
        "created_at": 0.0,
        "updated_at": 0.0,
    }
    return TrialView(**{**given, **changes})


def replace_timing(measured: Report) -> Report:
    quick = structs.replace(measured.timings[0], parent_ms=0.0274, variant_ms=0.01712)
    return structs.replace(measured, timings=(quick, *measured.timings[1:]))


def test_the_card_tells_ratios_with_their_spread() -> None:
    shown = results.speeds(report(3.4, 0.8))
    one, many = shown.bars
    assert (one.text, many.text) == ("3.40×", "0.80×")
    assert one.note == "3.23× to 3.54× · 1.20 ms → 0.35 ms"
    quick = replace_timing(report(3.4, 0.8))
    assert results.speeds(quick).bars[0].note.endswith("27.4 µs → 17.1 µs")
    assert one.faster
    assert not many.faster
    assert 0 < one.low < one.share < one.high < 1
    assert shown.one == pytest.approx(one.share / 3.4), "the parent's own speed is on the same scale"


def test_the_card_compares_with_the_parent() -> None:
    result = results.of_trial(trial(1, report(3.4, 4.8, agreed=598, right=595)), "digits@1")
    assert result is not None
    size, load, memory = results.footprint_rows(result)
    assert size == {
        "": "Size",
        "digits@1 (parent)": "1.53 MiB",
        "variant": "401 KiB",
        "Change": "3.90× smaller",
    }
    assert load["Change"] == "1.37× slower"
    assert memory["Change"] == "1.36× less"
    said = dict(results.answer_rows(result.report.answers))
    assert said["Same answer"] == "598 of 600 rows"
    assert said["Right answers"] == "99.67 % → 99.17 % of 600 labelled rows"
    assert said["KL divergence from the parent"] == "0.0004 nats"
    assert result.title == "Dynamic int8 · engine x86"
    assert results.change(1.001, "smaller", "larger") == "same"
    assert results.change(0.5, "smaller", "larger") == "2.00× larger"


def test_lineage_that_is_none_of_ours_has_no_card() -> None:
    assert results.recorded({}) is None
    assert results.recorded({"optimization": {"parent": "m@1"}}) is None
    assert results.of_trial(trial(1), "m@1") is None


def test_a_variant_is_rolled_out_where_its_parent_serves() -> None:
    assert results.served_at(("a", "b"), ("a",)) == "b"
    assert results.served_at(("a",), ("a",)) is None


# --- a search ---

FAST = trial(1, report(3.4, 4.77))
TRACED = trial(2, report(1.6, 1.1, shrink=1.0))
WRONG = trial(3, report(4.1, 7.0, agreed=585, right=580))
NOISE = trial(4, report(5.0, 9.0, agreed=280, right=280))
ROUGH = trial(5, report(6.0, 2.0), screened=True, decision=None, state=TrialState.SCREENED)
BROKEN = trial(6, state=TrialState.FAILED, reason=Reason("build", "it has no layer", None), registrable=False)
TRIALS = (FAST, TRACED, WRONG, NOISE, ROUGH, BROKEN)
SEARCH = SearchView(
    job_id="j", ref="digits@1", objective="latency", minutes=10.0, spent_s=540.0, best=1, front=(), ended=None
)


def test_axes_are_multiples_of_the_parent() -> None:
    shown = {point.number: point for point in search.points(TRIALS, Objective.LATENCY, "digits@1")}
    assert list(shown) == [0, 1, 2, 3, 4, 5], "what has no report has no point"
    assert shown[0].x == 1
    assert shown[1].x == pytest.approx(1 / 3.4)
    assert shown[1].low < shown[1].x < shown[1].high
    assert [shown[number].group for number in (0, 1, 3, 5)] == ["parent", "accepted", "rejected", "screened"]
    assert (shown[4].y, shown[4].clipped) == (90, True)
    assert (shown[3].y, shown[3].clipped) == (97.5, False)
    assert shown[2].px > shown[1].px
    by_size = {point.number: point for point in search.points(TRIALS, Objective.SIZE, "digits@1")}
    assert by_size[1].x == pytest.approx(1 / 3.9, rel=1e-3)
    by_batch = {point.number: point for point in search.points(TRIALS, Objective.THROUGHPUT, "digits@1")}
    assert by_batch[1].x == pytest.approx(1 / 4.77)
    assert search.axis_title("throughput", TRIALS) == "Latency at batch 32, multiple of the parent's"


def test_the_front_is_of_what_was_measured_and_is_in_the_picture() -> None:
    assert search.front(search.points(TRIALS, Objective.LATENCY, "digits@1")) == [3, 1]
    assert search.front(search.points((), Objective.LATENCY, "digits@1")) == [0]


@given(st.lists(st.tuples(st.floats(0.1, 4), st.floats(90, 100)), max_size=12))
def test_no_point_beats_one_of_the_front(places: list[tuple[float, float]]) -> None:
    base = search.points((FAST,), Objective.LATENCY, "digits@1")[1]
    shown = [replace(base, number=at, x=x, y=y) for at, (x, y) in enumerate(places)]
    on_front = [shown[number] for number in search.front(shown)]
    for each in shown:
        beaten = any(other.x <= each.x and other.y >= each.y for other in on_front)
        assert beaten, "every point is on the front or behind it"
    for each in on_front:
        assert not any(
            other.x <= each.x and other.y >= each.y and (other.x, other.y) != (each.x, each.y)
            for other in shown
        )


def test_the_table_says_what_the_chart_does() -> None:
    rows = search.rows(TRIALS, SEARCH)
    assert [row["Trial"] for row in rows] == ["1 ★ best", "2", "3", "4", "5", "6"]
    assert (rows[0]["Batch 1"], rows[0]["Batch 32"], rows[0]["Same answer"]) == ("3.40×", "4.77×", "100 %")
    assert rows[5]["Batch 1"] == "–"
    assert "Version" not in rows[0]
    registered = search.rows((replace(FAST, version_ref="digits@3"), BROKEN), SEARCH)
    assert [row["Version"] for row in registered] == ["digits@3", ""]
    assert [row["Trial"] for row in search.reason_rows(TRIALS)] == ["3", "4", "6"]
    assert search.why(BROKEN) == "It has no layer."


@pytest.mark.parametrize(
    ("wanted", "best", "number"), [("3", 1, 3), ("99", 1, 1), (None, 1, 1), ("x", None, 1), (None, 99, 1)]
)
def test_the_chosen_trial_is_the_named_the_best_or_any(
    wanted: str | None, best: int | None, number: int
) -> None:
    chosen = search.chosen(TRIALS, wanted, replace(SEARCH, best=best))
    assert chosen is not None
    assert chosen.number == number


def test_where_a_search_is_in_words() -> None:
    assert search.counts_words(TRIALS) == "6 trials: 2 accepted, 2 rejected, 1 screened, 1 failed"
    assert search.counts_words(()) == "0 trials"
    assert search.spent_words(SEARCH) == "9 min of 10 min used"
    assert search.spent_words(replace(SEARCH, ended="all done")) == "9 min of 10 min used. All done."


def test_the_entry_of_a_trial_is_the_same_in_every_state() -> None:
    entries = {search.label(replace(FAST, state=state, decision=None)) for state in TrialState}
    assert entries == {search.label(FAST)} == {"1 · Dynamic int8 · engine x86"}


# --- jobs and versions ---


def job(**changes: Any) -> JobView:
    given: dict[str, Any] = {
        "id": "j",
        "kind": "optimize",
        "subject": "digits@1 by bf16",
        "state": JobState.QUEUED,
        "stage": "",
        "progress": 0.0,
        "time_left_s": None,
        "result": None,
        "reason": None,
        "attempt": 0,
        "created_by": "ana",
        "created_at": 0.0,
        "started_at": None,
        "finished_at": None,
        "lane": "lab",
        "ahead": 2,
    }
    return JobView(**{**given, **changes})


def test_a_waiting_job_says_its_place() -> None:
    assert jobs.title(job()) == "Optimise digits@1 by bf16"
    assert jobs.parent_ref(job()) == "digits@1"
    assert jobs.progress_words(job()) == "waiting: jobs that measure run one at a time · 2 jobs before it"
    assert jobs.progress_words(job(ahead=0, lane="main")) == "waiting for a free worker · next in the queue"
    assert jobs.progress_words(job(ahead=None, lane="main")) == "waiting for a free worker"
    assert jobs.title(job(kind="import_nemo_rl", subject="x")) == "Import nemo rl x"


def test_versions_say_how_they_were_made() -> None:
    assert words.variant_words("bf16", accepted=True) == "✓ bf16 · accepted"
    assert words.variant_words("bf16", accepted=False) == "✕ bf16 · rejected"
    assert words.variant_words(None, accepted=None) == ""
    assert words.params_words({"a": True, "layers_kept": ["x", "y", "z", "u"], "n": 0, "f": 0.5}) == (
        "a yes, layers kept 4 layers, f 0.5"
    )
