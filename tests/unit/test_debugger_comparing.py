"""Two inspected runs side by side: figures, tokens, reports."""

from __future__ import annotations

import html.parser
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from control_plane.cli import debug_output
from control_plane.cli.output import Output
from control_plane.debugging import comparing, kept, language, report, summary
from control_plane.debugging.comparing import Inspected, figures
from control_plane.debugging.kept import NotKeptError
from control_plane.domain.debugging import DebugRunDetail, DebugRunView, InputView, SideView
from control_plane.domain.views import Reason
from control_plane.errors import InvalidInputError
from serving_agent.contract.inspection import VALUES, Edit, Failure, Histogram
from tests.fakes.inspected_runs import Writer, of_layers

VALUES_32 = np.random.default_rng(7).standard_normal((4, 8)).astype(np.float32)
FLOATS = arrays.arrays(
    np.float64,
    st.integers(1, 40),
    elements=st.floats(-1e6, 1e6, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-3),
)


def noisy(values: Any, share: float) -> Any:
    """*values* with an error of that share on each, the same every time."""
    error = np.random.default_rng(8).standard_normal(values.shape)
    return (values * (1 + share * error / np.sqrt((error**2).mean()))).astype(values.dtype)


# values


@pytest.mark.parametrize("place", [0, 7, 3 * 5 * 7 - 1])
def test_the_first_nan_is_found_however_far_it_lies(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "SCANNED", 10)
    values = np.zeros((3, 5, 7), np.float32)
    values.flat[place] = math.nan
    values[-1, -1, -1] = math.inf
    assert kept.first_wrong(values) == np.unravel_index(place, values.shape)
    assert kept.first_wrong(np.zeros((2, 0))) is None
    assert kept.first_wrong(np.array([1, 2])) is None


# figures


@given(FLOATS, st.data())
def test_figures_are_those_of_their_definitions(a: Any, data: Any) -> None:
    b = data.draw(arrays.arrays(np.float64, a.shape, elements=st.floats(-1e6, 1e6, allow_nan=False)))
    found = figures(a, b)
    assert found.equal == bool((a == b).all())
    assert found.max_abs == pytest.approx(np.abs(a - b).max())
    assert found.mean_abs == pytest.approx(np.abs(a - b).mean())
    signal, noise = float((a**2).sum()), float(((a - b) ** 2).sum())
    if signal and noise:
        assert found.sqnr_db == pytest.approx(max(-400, min(400, 10 * math.log10(signal / noise))), abs=1e-6)
    else:
        assert found.sqnr_db is None
    if found.cosine is not None:
        assert -1 <= found.cosine <= 1


@given(FLOATS, st.floats(1e-3, 1e3))
def test_a_scaled_copy_has_the_cosine_and_sqnr_that_its_scale_says(a: Any, scale: float) -> None:
    found = figures(a, a * scale)
    if (a != 0).any() and abs(scale - 1) > 1e-3:
        assert found.cosine == pytest.approx(1)
        assert found.sqnr_db == pytest.approx(-20 * math.log10(abs(scale - 1)), abs=1e-6)


def test_numbers_at_the_ends_of_their_range_and_what_is_not_finite_are_compared() -> None:
    large = np.array([1e300, -1e300])
    found = figures(large, large * 0.5, scale=1e300)
    assert found.max_abs == pytest.approx(5e299)
    assert found.sqnr_db == pytest.approx(6.02, abs=0.01)
    nan = np.array([1.0, np.nan, np.inf])
    same = figures(nan, nan.copy())
    assert (same.equal, same.one_sided, same.sqnr_db, same.max_abs) == (True, False, None, 0.0)
    other = figures(nan, np.array([1.0, 2.0, np.inf]))
    assert (other.equal, other.one_sided) == (False, True)
    for one, another in ((np.inf, np.nan), (np.inf, -np.inf), (np.nan, -np.inf)):
        classes = figures(np.array([1.0, one]), np.array([1.0, another]))
        assert (classes.equal, classes.one_sided) == (False, True), (one, another)
    nothing = figures(np.empty(0), np.empty(0))
    assert (nothing.equal, nothing.max_abs) == (True, None)


def test_more_than_one_chunk_is_summed_up_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = VALUES_32, noisy(VALUES_32, 0.1)
    whole = figures(a, b)
    monkeypatch.setattr(comparing, "CHUNK", 5)
    parts = figures(a, b)
    assert parts.sqnr_db == pytest.approx(whole.sqnr_db)
    assert (parts.max_abs, parts.equal) == (whole.max_abs, whole.equal)


# whole runs


def test_runs_are_compared_layer_by_layer_and_stage_by_stage(tmp_path: Path) -> None:
    sides = []
    for side, share in (("a", 0.0), ("b", 0.01)):
        writer = Writer(tmp_path / side)
        writer.stage("inputs", image=VALUES_32)
        writer.point("first", VALUES_32)
        writer.point("second", noisy(VALUES_32, share), kind="Linear" if side == "a" else "QLinear")
        writer.point("third", noisy(VALUES_32, 30 * share), kind="Linear" if side == "a" else "QLinear")
        writer.point(f"alone_in_{side}", VALUES_32, kind="Alpha" if side == "a" else "Beta")
        writer.stage("predict", logits=VALUES_32[:, : 4 if side == "a" else 3].copy())
        sides.append(writer.write())
    found = comparing.compare(*sides)
    first, second, third = found.pairs
    assert first.equal
    assert second.sqnr_db == pytest.approx(40, abs=3)
    assert third.sqnr_db is not None
    assert found.divergence is not None
    assert (found.divergence.pair, found.first_difference) == (2, 1)
    assert "third" in found.sentence
    assert (found.only_a, found.only_b) == (("alone_in_a",), ("alone_in_b",))
    image, logits = found.stages
    assert (image.name, image.equal) == ("inputs/image", True)
    assert (logits.shapes_differ, logits.problem) == (True, "shapes differ: A has shape [4, 4], B has [4, 3]")


def test_a_cancelled_job_is_heard_between_pairs_and_between_tokens(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    beats: list[None] = []

    def beat() -> None:
        beats.append(None)
        if len(beats) == 2:
            raise StopError

    sides = [of_layers(tmp_path / side, dict.fromkeys("lmn", VALUES_32)) for side in "ab"]
    with pytest.raises(StopError):
        comparing.compare(*sides, beat)
    beats.clear()
    words = causal(tmp_path / "words", np.zeros((1, 3, 7), np.float32), np.zeros((1, 3), np.int64))
    with pytest.raises(StopError):
        language.score(words, None, beat)


def test_a_module_of_a_graph_is_of_one_kind_where_its_operators_are(tmp_path: Path) -> None:
    sides = []
    for side, last in (("a", "Add"), ("b", "Sub")):
        writer = Writer(tmp_path / side, level="node")
        for module, kinds in (("fc", ("MatMul", last)), ("head", ("MatMul", "Add")), ("", ("Cast",))):
            for at, kind in enumerate(kinds):
                writer.point(f"{module}/{at}", VALUES_32, module=module, kind=kind)
        sides.append(writer.write())
    found = {pair.a: pair.same_kind for pair in comparing.compare(*sides).pairs}
    assert found == {"fc/0": False, "fc/1": False, "head/0": True, "head/1": True, "/0": True}


def test_quantised_integers_are_not_measured_against_floats(tmp_path: Path) -> None:
    a = of_layers(tmp_path / "a", {"l": VALUES_32})
    b = of_layers(tmp_path / "b", {"l": np.ones((4, 8), np.int8)})
    found = comparing.compare(a, b)
    assert found.pairs[0].problem == "they are on different scales: A holds FP32, B holds INT8"
    assert found.divergence is None


def test_what_was_not_kept_or_is_damaged_is_told_and_never_read_as_something_else(tmp_path: Path) -> None:
    a = of_layers(tmp_path / "a", {"l": VALUES_32})
    b = of_layers(tmp_path / "b", {"l": VALUES_32})
    (tmp_path / "b" / VALUES).write_bytes(b"\0" * 5)
    assert comparing.compare(a, b).pairs[0].problem.startswith("its elements cannot be read")
    writer = Writer(tmp_path / "c")
    lost = writer.tensor("x", VALUES_32, is_kept=False)
    with pytest.raises(NotKeptError, match="were not kept") as refused:
        kept.elements(tmp_path / "c", lost)
    assert "SIGNALBOX_DEBUG_RUN_BYTES" in (refused.value.next_step or "")
    waves = msgspec.structs.replace(lost, not_read="Complex numbers are not kept.")
    with pytest.raises(NotKeptError, match=r"^complex numbers are not kept$") as refused:
        kept.elements(tmp_path / "c", waves)
    assert refused.value.next_step is None, "no limit that is raised helps"
    texts = writer.tensor("t", np.array([["a", "é"]], dtype=object))
    empty = writer.tensor("e", np.empty((0, 3), np.int64))
    writer.write()
    assert kept.elements(tmp_path / "c", texts).tolist() == [["a", "é"]]
    assert kept.elements(tmp_path / "c", empty).shape == (0, 3)
    (tmp_path / "c" / "run.json").write_bytes(b"{")
    with pytest.raises(NotKeptError, match="cannot be read"):
        kept.read_run(tmp_path / "c")


# language models


def causal(folder: Path, logits: Any, ids: Any, **more: Any) -> Inspected:
    writer = Writer(folder)
    writer.stage("preprocess", input_ids=ids, **more)
    writer.stage("predict", logits=logits)
    return writer.write(tokens=[[f"t{token}" for token in row] for row in ids.tolist()])


def test_tokens_have_the_probabilities_that_a_plain_softmax_gives(tmp_path: Path) -> None:
    random = np.random.default_rng(9)
    logits = random.standard_normal((2, 4, 7)).astype(np.float32)
    other = logits + random.standard_normal(logits.shape).astype(np.float32)
    ids = random.integers(0, 7, (2, 4))
    mask = np.ones((2, 4), np.int64)
    mask[1, 3] = 0
    a = causal(tmp_path / "a", logits, ids, attention_mask=mask)
    its_ids = ids.copy()
    its_ids[1, 3] = (ids[1, 3] + 1) % 7
    b = causal(tmp_path / "b", other, its_ids)
    found = language.score(a, b)
    assert found is not None
    assert found.note == ""
    assert (found.output, found.vocabulary, found.truncated) == ("logits", 7, False)
    assert len(found.tokens) == 7, "the masked position is left out"
    p = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum(-1, keepdims=True)
    q = np.exp(other.astype(np.float64)) / np.exp(other.astype(np.float64)).sum(-1, keepdims=True)
    for each in found.tokens:
        row, at = each.row, each.position
        assert each.piece == f"t{each.token}"
        assert each.kl == pytest.approx((p[row, at] * np.log(p[row, at] / q[row, at])).sum())
        assert each.top_a[0].token == logits[row, at].argmax()
        assert each.top_a[0].logprob == pytest.approx(np.log(p[row, at].max()))
        if at:
            assert each.logprob_a == pytest.approx(np.log(p[row, at - 1, each.token]))
            assert each.logprob_b == pytest.approx(np.log(q[row, at - 1, each.token]))
        else:
            assert each.logprob_a is each.logprob_b is None
    assert found.largest_kl is not None
    assert found.tokens[found.largest_kl].kl == max(each.kl or 0 for each in found.tokens)
    alone = language.score(a, None)
    assert alone is not None
    assert {(each.kl, each.top_b, each.logprob_b) for each in alone.tokens} == {(None, (), None)}
    assert alone.largest_kl is None


def test_logits_of_other_tokens_are_not_scored_beside_those_of_a(tmp_path: Path) -> None:
    logits, ids, mask = np.zeros((1, 4, 7), np.float32), np.array([[1, 2, 3, 4]]), np.ones((1, 4), np.int64)
    a = causal(tmp_path / "a", logits, ids, attention_mask=mask)
    masked = mask.copy()
    masked[0, 3] = 0
    for name, b, why in (
        ("ids", (logits, ids[:, ::-1].copy(), mask), "it read other tokens than A, or masked others"),
        ("mask", (logits, ids, masked), "it read other tokens than A, or masked others"),
        ("shape", (np.zeros((1, 4, 9), np.float32), ids, mask), "its logits have shape [1, 4, 9]"),
        ("none", (logits[..., 0], ids, mask), "it read no tokens, or gave no logits"),
    ):
        found = language.score(a, causal(tmp_path / name, b[0], b[1], attention_mask=b[2]))
        assert found is not None
        assert found.note == f"B has no figures: {why}."
        assert {(each.kl, each.logprob_b, each.top_b) for each in found.tokens} == {(None, None, ())}
        assert found.largest_kl is None


def test_extreme_and_broken_logits_give_finite_figures_or_none(tmp_path: Path) -> None:
    logits = np.zeros((1, 4, 3), np.float32)
    logits[0, 0] = [1e30, -1e30, 0]
    logits[0, 1] = [-np.inf, 0, 0]
    logits[0, 2] = [np.nan, 0, 0]
    ids = np.array([[0, 0, 1, 2]])
    found = language.score(causal(tmp_path / "a", logits, ids), causal(tmp_path / "b", logits, ids))
    assert found is not None
    first, second, third, fourth = found.tokens
    assert second.logprob_a == 0.0
    assert first.kl == second.kl == 0.0
    assert third.logprob_a == pytest.approx(math.log(0.5))
    assert (third.kl, third.top_a) == (None, ())
    assert fourth.logprob_a is None
    assert [each.token for each in second.top_a] == [1, 2], "what cannot come is not named"


@given(arrays.arrays(np.float64, (2, 5), elements=st.floats(-50, 50)))
def test_kl_is_never_negative_and_nothing_between_equals(logits: Any) -> None:
    a, b = (language.log_softmax(row) for row in logits)
    assert np.exp(a).sum() == pytest.approx(1)
    assert (language.divergence(a, b) or 0.0) >= 0
    assert language.divergence(a, a) == 0


@pytest.mark.parametrize(
    ("logits", "ids"),
    [
        (np.zeros((1, 4, 3), np.float32), np.array([[0, 1, 2, 3]])),
        (np.zeros((1, 4), np.float32), np.array([[0, 1, 2, 1]])),
        (np.zeros((1, 5, 3), np.float32), np.array([[0, 1, 2, 1]])),
        (np.zeros((1, 4, 3), np.int64), np.array([[0, 1, 2, 1]])),
    ],
)
def test_what_is_no_causal_language_model_has_no_tokens(tmp_path: Path, logits: Any, ids: Any) -> None:
    assert language.score(causal(tmp_path, logits, ids), None) is None


def test_long_texts_are_scored_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "MAX_POSITIONS", 3)
    found = language.score(
        causal(tmp_path, np.zeros((2, 4, 3), np.float32), np.zeros((2, 4), np.int64)), None
    )
    assert found is not None
    assert (len(found.tokens), found.truncated) == (3, True)


# sentences and reports


def detail(tmp_path: Path, name: str = "") -> DebugRunDetail:
    sides = []
    for side, share in (("a", 0.0), ("b", 0.5)):
        writer = Writer(tmp_path / side)
        writer.stage("inputs", image=VALUES_32)
        writer.point("<script>alert(1)</script>", noisy(VALUES_32, share))
        failure = Failure(type="ValueError", message="<b>no</b>", place="m.py:3 in forward", module="x")
        writer.stage("predict", failure)
        sides.append(writer.write(note="a & b"))
    comparison = comparing.compare(*sides)
    view = DebugRunView(
        id="0" * 32, name=name, saved=bool(name), state="succeeded", stage="compare", progress=1.0,
        reason=None, job_id="1" * 32, a="digits@1", b="digits@2", input="a <text>",
        inputs=(InputView(name="image", datatype="FP32", shape=(4, 8)),),
        edits=(Edit(point="x", index=(0, None), value=2.0),), parent_id=None, size_bytes=10,
        summary="what & why", created_by="ana", created_at=0.0, expires_at=1.0,
    )  # fmt: skip
    return DebugRunDetail(
        view=view,
        sides=(
            SideView(side="a", ref="digits@1", run=sides[0].run, problem=None),
            SideView(side="b", ref="digits@2", run=None, problem=Reason("timed_out", "too <slow>", None)),
        ),
        comparison=comparison,
        tokens=None,
        ancestors=(view,),
        children=(),
    )


class Page(html.parser.HTMLParser):
    """What a browser would make of it: elements, their attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_html_report_stands_alone_and_runs_nothing(tmp_path: Path) -> None:
    page = Page(report.html(report.Exported(detail=detail(tmp_path, "<i>mine</i>"), exported_at=0.0)))
    assert not {"script", "link", "img", "iframe", "i", "b", "object"} & set(page.tags)
    assert not {"src", "href", "onload", "onclick", "srcdoc"} & {name for name, _ in page.attributes}
    assert "url(" not in page.text.lower()
    assert "@import" not in page.text.lower()
    assert ("content", report.POLICY) in page.attributes
    for said in (
        "<i>mine</i>", "<script>alert(1)</script>", "ValueError: <b>no</b>", "too <slow>", "a & b", "SQNR",
        "x[0][0, *]=2.0", "a <text>",
    ):  # fmt: skip
        assert said in page.text, said
    assert "svg" in page.tags


def test_the_json_report_is_read_back_as_it_was(tmp_path: Path) -> None:
    exported = report.Exported(detail=detail(tmp_path), exported_at=12.5)
    assert report.read(msgspec.json.encode(exported)) == exported
    for bad in (b"", b"{}", b"\xff", msgspec.json.encode(exported).replace(b"run/1", b"run/9")):
        with pytest.raises(InvalidInputError, match="no exported debugger run"):
            report.read(bad)


def test_the_most_telling_thing_comes_first(tmp_path: Path) -> None:
    seen = detail(tmp_path)
    run = seen.a.run
    assert run is not None
    assert (
        summary.summed_up("d@1", run, "", seen.comparison)
        == "d@1 stopped in predict at x: ValueError: <b>no</b>"
    )
    assert summary.summed_up("d@1", None, "it crashed", None) == "d@1: it crashed"
    writer = Writer(tmp_path / "nan")
    writer.point("ok", VALUES_32)
    writer.point("bad", np.array([np.nan], np.float32))
    nan_side = writer.write()
    nan = nan_side.run
    assert summary.summed_up("d@1", nan, "", None) == "d@1 has its first NaN or Inf at bad"
    assert (
        summary.summed_up("d@1", nan, "B is gone", None) == "d@1 has its first NaN or Inf at bad; B is gone"
    )
    same = comparing.compare(nan_side, nan_side)
    assert summary.summed_up("d@1", nan, "", same) == (
        "All layers that both have are equal; d@1 has its first NaN or Inf at bad"
    )
    fine = of_layers(tmp_path / "fine", {"l": VALUES_32}).run
    assert summary.summed_up("d@1", fine, "", None) == "1 layer, all finite"
    assert summary.summed_up("d@1", fine, "B is gone", None) == "B is gone"
    nothing = Writer(tmp_path / "none", level="none").write(note="It is fused.").run
    assert summary.summed_up("d@1", nothing, "", None) == "It is fused."


def test_a_side_that_stopped_is_told_before_the_layers_that_both_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = []
    for side in ("a", "b"):
        writer = Writer(tmp_path / side)
        writer.stage("inputs", image=VALUES_32)
        writer.point("first", VALUES_32)
        failure = Failure(type="ValueError", message="no", place="m.py:3 in forward", module="second")
        writer.stage("predict", failure if side == "b" else None, logits=VALUES_32)
        sides.append(writer.write())
    a, b = sides
    found = comparing.compare(a, b)
    assert found.sentence.startswith("B stopped in predict; before that, all layers that both have are equal")
    told = summary.summed_up("d@1", a.run, "", found, ("d@2", b.run))
    assert told == "d@2 stopped in predict at second: ValueError: no"
    view = {"id": "1", "a": "d@1", "b": "d@2", "summary": told, "edits": [
        {"point": "first", "tensor": 0, "index": [None], "value": "nan"},
    ]}  # fmt: skip
    debug_output.run(
        Output(as_json=False),
        {"view": view, "sides": [], "comparison": {"sentence": found.sentence}, "served": None},
    )
    shown = capsys.readouterr().out.splitlines()
    assert shown[1:] == ["  edited: first[0][*] = nan", told, found.sentence]


def test_versions_without_layers_are_compared_by_their_answers(tmp_path: Path) -> None:
    sides = []
    for side, share in (("a", 0.0), ("b", 0.01)):
        writer = Writer(tmp_path / side, level="none")
        writer.stage("predict", logits=noisy(VALUES_32, share))
        sides.append(writer.write(note="It is fused."))
    sentence = comparing.compare(*sides).sentence
    assert sentence.startswith("No layer of one has a counterpart in the other; the SQNR of the answer is ")


def test_drawn_bars_keep_what_is_rare() -> None:
    from control_plane.debugging import drawings

    counts = [0] * 64
    counts[3], counts[60] = 1_000_000, 1
    drawn = drawings.bars(Histogram(low=-1.0, high=1.0, counts=tuple(counts)))
    assert drawn.count("<rect") == 2
    assert 'height="1"' in drawn
    assert drawings.bars(None) == ""
