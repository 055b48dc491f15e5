"""The debugger's rules: where two runs diverge, breakpoints, edits, parts of tensors."""

from __future__ import annotations

import itertools
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.debugging import aligning, edits, kept
from control_plane.domain import breakpoints, divergence
from control_plane.domain.breakpoints import Condition
from control_plane.domain.divergence import EQUAL_DB, FALL_DB, Pair
from control_plane.errors import InvalidInputError
from serving_agent.contract.inspection import Edit, InspectedRun, Point, TensorSummary


def pair(name: str, sqnr_db: float | None, **changes: Any) -> Pair:
    fields: dict[str, Any] = {"a": name, "b": name, "index_a": 0, "index_b": 0, "matched_by": "module"}
    return Pair(**{"name": name, "module": name, **fields, "sqnr_db": sqnr_db, **changes})


def line(*levels: float | None, **changes: Any) -> list[Pair]:
    return [pair(f"l{at}", level, **changes) for at, level in enumerate(levels)]


def tensor(name: str = "0", shape: tuple[int, ...] = (2, 3), **changes: Any) -> TensorSummary:
    fields: dict[str, Any] = {"datatype": "FP32", "device": "cpu", "elements": math.prod(shape)}
    return TensorSummary(**{"name": name, "shape": shape, **fields, **changes})


def point(name: str, *outputs: TensorSummary, module: str | None = None, kind: str = "Linear") -> Point:
    return Point(id=name, module=name if module is None else module, kind=kind, outputs=outputs)


def run(*points: Point, level: Any = "module") -> InspectedRun:
    return InspectedRun(level=level, stages=(), points=points, load_s=0.1)


# divergence


def test_a_fault_in_the_middle_stands_out_of_noise_that_is_everywhere() -> None:
    first, found = divergence.diverge(line(45, 41, 43, 38, 21, 20, 22))
    assert first == 0
    assert found is not None
    assert (found.pair, found.rule) == (4, "falls")
    assert "21.0 dB" in found.sentence
    assert "38.0 dB" in found.sentence


@pytest.mark.parametrize(
    "levels",
    [
        (45, 41, 38, 35, 31, 27, 24, 20),
        (140, 120, 118),
        (None, None),
        (),
        (48, 30.1, 29, 33),
        (22, 19, 16, 15),
    ],
)
def test_noise_that_adds_up_slowly_is_no_divergence(levels: tuple[float | None, ...]) -> None:
    assert divergence.diverge(line(*levels))[1] is None


def test_what_is_broken_wins_over_what_falls_later_and_loses_to_what_fell_before() -> None:
    broken = pair("bad", None, one_sided=True)
    pairs = [*line(45, 40), broken, *line(5)]
    assert divergence.diverge(pairs)[1] == divergence.Divergence(
        pair=2,
        rule="broken",
        sentence="some of its elements are NaN or infinite on one side, and something else on the other",
    )
    found = divergence.diverge([*line(45, 10), broken])[1]
    assert found is not None
    assert (found.pair, found.rule) == (1, "falls")
    shapes = pair("bad", None, shapes_differ=True, problem="shapes differ: A has shape [1], B has [2]")
    said = divergence.diverge([shapes])[1]
    assert said is not None
    assert said.sentence.startswith("shapes differ")


def test_a_pair_that_only_its_place_says_is_believed_where_what_follows_is_lost_too() -> None:
    odd = pair("odd", 3.0, matched_by="order")
    assert divergence.diverge([*line(45, 40), odd, *line(39, 38)])[1] is None
    for after in (line(5, 6), []):
        found = divergence.diverge([*line(45, 40), odd, *after])[1]
        assert found is not None
        assert found.pair == 2


def test_after_equal_layers_the_first_other_one_of_its_kind_is_named() -> None:
    pairs = line(None, None, 55.0, 52.0, same_kind=True)
    first, found = divergence.diverge(pairs)
    assert first == 2
    assert found is not None
    assert (found.pair, found.rule) == (2, "changes")
    assert divergence.diverge(line(None, None, 55.0, 52.0))[1] is None, "another kind of layer is noise"
    assert divergence.diverge(line(55.0, 52.0, same_kind=True))[1] is None, "nothing equal before it"
    lost = divergence.diverge(line(None, 120.0, 8.0))[1]
    assert lost is not None
    assert (lost.pair, lost.rule) == (2, "falls")


@given(st.lists(st.floats(20, 60), min_size=1, max_size=30), st.data())
def test_a_sudden_fall_is_found_where_it_is_in_any_gradual_noise(levels: list[float], data: Any) -> None:
    gradual = sorted(levels, reverse=True)
    steps = [b for a, b in itertools.pairwise(gradual) if min(a, 40.0) - b >= FALL_DB]
    place = data.draw(st.integers(1, len(gradual)))
    before = gradual[:place]
    fault = min(min(before), 40.0) - data.draw(st.floats(FALL_DB + 0.01, 60))
    found = divergence.diverge(line(*before, fault, *([fault - 1] * 3)))[1]
    assert found is not None
    if not steps:
        assert found.pair == place


@given(st.lists(st.one_of(st.none(), st.floats(EQUAL_DB, 400))))
def test_equal_runs_have_neither_difference_nor_divergence(levels: list[float | None]) -> None:
    pairs = line(*levels)
    assert divergence.diverge(pairs) == (None, None)
    assert "equal" in divergence.told(pairs, None, None) or not pairs


def test_what_a_comparison_comes_to_is_one_sentence() -> None:
    gradual = line(45, 38)
    assert divergence.told(gradual, 0, None) == (
        "No layer stands out: they first differ at l0, and are farthest apart at l1 with 38.0 dB SQNR"
    )
    assert divergence.told([], None, None) == "No layer of one has a counterpart in the other"
    unknown = [pair("l0", None, problem="its elements were not kept")]
    assert divergence.told(unknown, None, None) == "No layer could be compared"
    equal = pair("l0", None, equal=True)
    assert divergence.told([equal], None, None) == "All layers that both have are equal"
    assert divergence.told([equal, *unknown], None, None) == "All layers that could be compared are equal"
    rounded = [equal, pair("l1", 140.0)]
    assert divergence.told(rounded, None, None) == "All layers that both have are equal up to rounding"


def test_a_layer_that_is_all_zero_in_a_alone_differs() -> None:
    equal, dead = pair("l0", None, equal=True), pair("dead", None, max_abs=0.5)
    assert divergence.diverge([dead, equal]) == (0, None)
    assert divergence.told([dead, equal], 0, None) == (
        "No layer stands out: they first differ at dead, which is all zero in A"
    )
    first, found = divergence.diverge([equal, pair("dead", None, max_abs=0.5, same_kind=True)])
    assert first == 1
    assert found is not None
    assert (found.rule, found.sentence) == ("changes", "A is all zero, and everything before it is equal")
    lost = divergence.diverge([equal, dead, pair("after", 3.0)])[1]
    assert lost is not None
    assert lost.sentence == "SQNR is 3.0 dB, and A is all zero wherever they differ before it"
    assert divergence.diverge([pair("lost", None, max_abs=0.5, problem="not kept")]) == (None, None)


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([pair("predict/y", 12.0, a="predict"), pair("postprocess/y", 20.0, a="postprocess"),
          pair("postprocess/z", 17.0, a="postprocess")], "; the SQNR of the answer is 17.0 dB"),
        ([pair("predict/y", None, a="predict", equal=True)], "; the answers are equal"),
        ([pair("predict/y", None, a="predict", max_abs=2.0)], "; the answers differ"),
        (
            [pair("predict/y", None, a="predict", one_sided=True)],
            "; the answers hold other NaN or infinities",
        ),
        ([pair("predict/y", None, a="predict", shapes_differ=True)], "; the answers have other shapes"),
        ([pair("predict/y", None, a="predict", problem="not kept")], ""),
        ([pair("preprocess/x", 40.0, a="preprocess")], ""),
    ],
)  # fmt: skip
def test_how_far_apart_the_answers_are_is_always_said(answers: list[Pair], told: str) -> None:
    """Also of versions that show no layer, as compiled ones do."""
    assert divergence.told([], None, None, answers) == f"No layer of one has a counterpart in the other{told}"
    assert divergence.told(line(45, 38), 0, None, answers).endswith(f"38.0 dB SQNR{told}")


# alignment


def test_equal_ids_are_matched_first_then_last_points_of_modules_then_shapes() -> None:
    out = tensor()
    a = run(point("x", out), point("x#1", out, module="x"), point("y", out), point("one", out, kind="ReLU"))
    b = run(point("x", out), point("x#1", out, module="x"), point("y", out), point("other", out))
    assert [(each.a, each.b, each.by) for each in aligning.align(a, b)] == [
        (0, 0, "id"), (1, 1, "id"), (2, 2, "id"),
    ]  # fmt: skip
    graph = run(
        point("linear", out, module="x", kind="aten.linear"),
        point("relu", out, module="x", kind="aten.relu"),
        point("mul", out, module=""),
        level="node",
    )
    assert [(each.a, each.b, each.by) for each in aligning.align(a, graph)] == [
        (1, 1, "module"), (2, 2, "order"),
    ]  # fmt: skip
    wide, whole = tensor(shape=(2, 5)), tensor(datatype="INT32")
    unnamed = run(
        point("n0", whole, module="", kind="MatMulInteger"),
        point("n1", wide, module="", kind="Gemm"),
        point("n2", out, module="", kind="Mul"),
        point("n3", out, module="", kind="Add"),
        level="node",
    )
    idle = point("drop", out, kind="Dropout")
    named = run(point("l0", out), point("l1", wide), idle, point("l2", out), point("net", out, module=""))
    assert [(each.a, each.b, each.by) for each in aligning.align(named, unnamed)] == [
        (1, 1, "order"), (3, 3, "order"),
    ], "whole numbers are no layer's output, and the last operator holds it"  # fmt: skip


def test_what_wraps_a_network_is_taken_off_its_names() -> None:
    out = tensor()
    a = run(point("layers.0", out), point("layers.1", out), point("layers", out))
    b = run(
        *(point(f"module.net.{name}", out) for name in ("layers.0", "layers.1", "layers")),
        point("module.net", out),
        point("module", out),
    )
    assert [(each.a, each.b) for each in aligning.align(a, b)] == [(0, 0), (1, 1), (2, 2)]
    assert [(each.a, each.b) for each in aligning.align(b, a)] == [(0, 0), (1, 1), (2, 2)]


def test_fused_layers_are_matched_with_the_last_that_went_into_them() -> None:
    out = tensor()
    plain = run(
        point("c", out, kind="Conv2d"), point("n", out, kind="BatchNorm2d"), point("r", out, kind="ReLU")
    )
    gone = [point(name, out, kind="Identity") for name in ("n", "r")]
    for fused, matched in (
        (run(point("c", out, kind="ConvReLU2d")), [(2, 0)]),
        (run(point("c", out, kind="Conv2d"), gone[0], point("r", out, kind="ReLU")), [(1, 1), (2, 2)]),
        (run(point("c", out, kind="ConvReLU2d"), *gone), [(2, 2)]),
        (plain, [(0, 0), (1, 1), (2, 2)]),
    ):
        assert [(each.a, each.b) for each in aligning.align(plain, fused)] == matched
        assert sorted((each.b, each.a) for each in aligning.align(fused, plain)) == matched


def test_nodes_of_one_name_are_matched_only_where_they_do_the_same() -> None:
    out = tensor()
    a = run(point("add", out, module="", kind="aten.add"), point("mul", out, module=""), level="node")
    b = run(point("add", out, module="", kind="aten.sub"), point("mul", out, module=""), level="node")
    assert [each.a for each in aligning.align(a, b)] == [1]


# breakpoints


def test_breakpoints_stop_at_the_next_point_that_meets_them() -> None:
    points = (
        point("a", tensor(low=-3.0, high=1.0)),
        point("b.relu", tensor(nan=1, high=1.0, low=0.0), kind="ReLU"),
        point("c", tensor(shape=(1, 7), inf=2)),
        Point(id="d", kind="Fused", not_captured="It is fused."),
    )
    cases = {
        "nan": 1, "inf": 2, "nonfinite": 1, "|x| > 2.5": 0, "|x|>3": 2, "[1, *]": 2, "[*,3]": 0, "b.*": 1,
        "ReLU": 1, "d": 3, "e": None,
    }  # fmt: skip
    for text, place in cases.items():
        assert breakpoints.find(points, breakpoints.parse(text)) == place, text
    assert breakpoints.find(points, Condition(kind="nonfinite"), after=1) == 2
    assert breakpoints.find(points, Condition(kind="nan"), after=1) is None
    assert breakpoints.find(points, Condition(kind="name", name="*"), after=-9) == 0


@pytest.mark.parametrize("text", ["", " ", "[1, x]", "[1", "|x| > 1e999", "x" * 301])
def test_what_is_no_breakpoint_says_how_to_write_one(text: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        breakpoints.parse(text)
    assert "|x| > 100" in (refused.value.next_step or "")


@given(
    st.one_of(
        st.builds(Condition, kind=st.sampled_from(["nan", "inf", "nonfinite"])),
        st.builds(Condition, kind=st.just("above"), bound=st.integers(0, 10**6).map(float)),
        st.builds(
            Condition,
            kind=st.just("shape"),
            shape=st.lists(st.one_of(st.none(), st.integers(0, 10**6))).map(tuple),
        ),
    )
)
def test_breakpoints_are_read_as_they_are_written(condition: Condition) -> None:
    assert breakpoints.parse(breakpoints.written(condition)).kind == condition.kind
    if condition.kind == "shape":
        assert breakpoints.parse(breakpoints.written(condition)) == condition


# edits


def test_later_edits_of_the_same_elements_replace_earlier_ones() -> None:
    one, two = Edit(point="a", index=(0, 1), value=1.0), Edit(point="a", index=(0, None), value=2.0)
    again = Edit(point="a", index=(0, 1), value=3.0)
    assert edits.added((one, two), (again,)) == (two, again)
    assert edits.added((), (one,)) == (one,)


def test_edits_must_name_what_the_run_has() -> None:
    seen = run(point("a", tensor(shape=(2, 3))), point("t", tensor(datatype="BYTES", shape=(1,))))
    edits.check_targets([Edit(point="a", index=(1, None)), Edit(point="a", tensor="0")], seen)
    for bad, said in (
        (Edit(point="b"), "no tensor 0 at 'b'"),
        (Edit(point="a", tensor=1), "no tensor 1"),
        (Edit(point="a", index=(2, 0)), "place 2 is none of a, whose shape is [2, 3]"),
        (Edit(point="a", index=(-1, 0)), "place -1"),
        (Edit(point="a", index=(0,)), "2 dimensions, and the edit names 1"),
        (Edit(point="t"), "texts"),
    ):
        with pytest.raises(InvalidInputError, match=said.replace("[", r"\[")):
            edits.check_targets([bad], seen)


def test_malformed_edits_are_refused() -> None:
    for bad in (Edit(point=""), Edit(point="a\0"), Edit(point="postprocess"), Edit(point="a" * 2000)):
        with pytest.raises(InvalidInputError):
            edits.checked([bad])
    with pytest.raises(InvalidInputError, match="100 edits at most"):
        edits.checked([Edit(point="a")] * 101)
    for text in ("", "a=1", "a[0]", "a[0]=x", "a[0][1.5]=1", "a[0][1]"):
        with pytest.raises(InvalidInputError, match="is no edit"):
            edits.parse(text)


@given(
    st.from_regex(r"[a-z][a-z0-9_.#]{0,20}", fullmatch=True),
    st.one_of(st.integers(0, 9), st.sampled_from(["image", "logits"])),
    st.lists(st.one_of(st.none(), st.integers(0, 999)), max_size=4).map(tuple),
    st.floats(),
)
def test_edits_are_read_as_they_are_written(
    name: str, which: int | str, index: tuple[int | None, ...], value: float
) -> None:
    wanted = Edit(point=name, tensor=which, index=index, value=value)
    assert edits.parse(edits.written(wanted)) == wanted
    assert msgspec.json.decode(msgspec.json.encode(wanted), type=Edit) == wanted, "NaN and Inf are words"
    assert wanted.number == value or (math.isnan(wanted.number) and math.isnan(value))
    assert edits.checked([wanted]) == (wanted,)


# parts of tensors


@given(
    st.lists(st.integers(0, 40), max_size=5),
    st.lists(st.integers(-3, 50), max_size=6),
    st.lists(st.integers(-3, 50), max_size=6),
    st.integers(1, 500),
)
def test_a_part_lies_in_the_tensor_and_holds_no_more_than_allowed(
    shape: list[int], start: list[int], stop: list[int], most: int
) -> None:
    begin, end, cut = kept.bounds(shape, start, stop, most)
    assert len(begin) == len(end) == len(shape)
    assert all(0 <= low <= high <= size for low, high, size in zip(begin, end, shape, strict=True))
    count = math.prod(high - low for low, high in zip(begin, end, strict=True))
    assert count <= most
    whole = kept.bounds(shape, start, stop, 10**12)
    assert cut == (whole[1] != end)
    assert whole[0] == begin
    if math.prod(np.subtract(whole[1], whole[0]).tolist()) > 0:
        assert count > 0, "a part of something is something"
