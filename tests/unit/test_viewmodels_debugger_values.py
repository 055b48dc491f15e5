"""What the debugger's pages draw: windows of values, figures, tokens of language models."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.debugging import (
    ValuesView,
)
from control_plane.domain.token_scores import Candidate, TokenScore, TokenScores
from control_plane.errors import InvalidInputError
from control_plane.ui.viewmodels import debugger_figures as figures
from control_plane.ui.viewmodels import debugger_tokens as tokens
from control_plane.ui.viewmodels import debugger_values as values
from serving_agent.contract.inspection import (
    Histogram,
)
from tests.fakes.debugger_views import compared, pair, point, run, tensor

SHAPES = st.lists(st.integers(1, 300), max_size=5).map(tuple)


# --- windows of values ---


@given(SHAPES, st.lists(st.integers(-3, 400), max_size=6), st.integers(-3, 400), st.integers(-3, 400))
def test_a_window_lies_inside_its_tensor(
    shape: tuple[int, ...], fixed: list[int], row: int, column: int
) -> None:
    piece = values.window(shape, fixed, row, column)
    assert len(piece.start) == len(piece.stop) == len(shape)
    assert all(
        0 <= low < high <= size for low, high, size in zip(piece.start, piece.stop, shape, strict=True)
    )
    assert math.prod(high - low for low, high in zip(piece.start, piece.stop, strict=True)) <= values.SIDE**2
    assert piece.index(0, 0) == piece.start
    assert piece.whole == all(size <= values.SIDE for size in shape[-2:])


@given(SHAPES.filter(bool), st.data())
def test_a_place_is_read_as_it_is_written(shape: tuple[int, ...], data: st.DataObject) -> None:
    place = tuple(data.draw(st.none() | st.integers(0, size - 1)) for size in shape)
    read = values.parse_index(values.index_words(place), shape)
    assert read == (() if all(each is None for each in place) else place)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0", "2 dimensions, 1 places"),
        ("0, x", "'x' is no place"),
        ("0, 8", "Dimension 1 has 8 places"),
        ("0,,1", "3"),
    ],
)
def test_a_place_that_is_none_says_why(text: str, problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        values.parse_index(text, (1, 8))


def test_values_as_typed() -> None:
    assert values.parse_index("[-1, :]", (3, 8)) == (2, None)
    assert values.parse_index("all", (3, 8)) == ()
    assert values.parse_value("−1.5e3") == -1500.0
    assert math.isinf(values.parse_value("inf"))
    with pytest.raises(InvalidInputError, match="no number"):
        values.parse_value("five")


def part(array: Any, shape: tuple[int, ...] | None = None) -> ValuesView:
    made = np.asarray(array)
    size = made.shape if shape is None else shape
    return ValuesView(
        name="output", datatype="BYTES" if made.dtype.kind in "OU" else "FP32", shape=size,
        start=(0,) * len(size), stop=size, values=made.tolist(), truncated=False,
    )  # fmt: skip


def test_values_as_arrays() -> None:
    assert values.grid(part([1.0, 2.0])).shape == (1, 2)
    assert values.grid(part(3.0)).tolist() == [[3.0]]
    assert values.grid(part(np.zeros((1, 1, 2, 3)))).shape == (2, 3)
    assert values.text_of(values.array(part(np.array(["a", "b"], dtype=object)))) == ["a", "b"]


def test_attention_is_told_by_its_sums() -> None:
    shares = np.array([[0.25, 0.75], [0.5, 0.5]])
    assert values.is_attention(shares)
    assert not values.is_attention(shares * 2)
    assert not values.is_attention(shares - 1)
    assert not values.is_attention(shares[:1])


def test_pictures() -> None:
    assert values.channel_count((1, 64, 8, 8), "FP32") == values.CHANNELS
    assert values.channel_count((1, 64, 200, 200), "FP32") == 1
    assert values.channel_count((1, 64, 8), "FP32") == values.channel_count((1, 2, 2, 8), "FP32") == 0
    ((url, title),) = values.channel_pictures(np.array([[[[0.0, 1.0], [math.nan, 0.5]]]]))
    assert title == "channel 0: 0 to 1"
    assert base64.b64decode(url.partition(",")[2]).startswith(b"\x89PNG")
    colours = np.zeros((2, 8, 8, 3), dtype=np.float32)
    assert values.maybe_image(colours.shape)
    assert str(values.image_of(colours)).startswith("data:image/png")
    assert values.image_of(colours[..., :2]) is None
    assert not values.maybe_image((1, 3, 1000, 1000))


# --- figures ---


def test_the_line_of_sqnr_marks_the_divergence_and_the_chosen_layer() -> None:
    pairs = (pair(0, equal=True), pair(1, sqnr_db=5.0), pair(2, problem="not kept"), pair(3, sqnr_db=180.0))
    drawn = figures.sqnr_line(compared(*pairs, at=1), "b", "v", here=4)
    line, marked, chosen = drawn["traces"]
    assert line["y"] == [100.0, 5.0, 100.0]
    assert line["customdata"] == ["other0", "other1", "other3"]
    assert (marked["x"], marked["text"]) == ([1], ["first divergence"])
    assert chosen["x"] == [2]
    assert "3 layers" in drawn["alt"]
    assert figures.sqnr_line(compared(), "a", "v", here=None)["traces"][0]["x"] == []


def test_heat_maps_say_where_and_keep_what_is_no_number_apart() -> None:
    piece = values.window((2, 3, 100), (1,), row=0, column=64)
    grid = np.full((3, 36), -1.0)
    grid[1, 2] = math.nan
    drawn = figures.heat_map(grid, piece, "v")
    heat, crosses = drawn["traces"]
    assert (heat["x0"], heat["zmin"], heat["z"][1][2]) == (64, -1.0, None)
    assert heat["hovertemplate"].startswith("[1, %{y}, %{x}]")
    assert (crosses["x"], crosses["y"], crosses["customdata"]) == ([66], [1], [[1, 2]])
    assert json.dumps(drawn)
    shares = np.array([[1.0, 0.0], [0.5, 0.5]])
    attention = figures.heat_map(
        shares, values.window((1, 2, 2, 2)), "v", tokens=("the", "ship"), attention=True
    )
    assert attention["layout"]["xaxis"]["ticktext"] == ["0 the", "1 ship"]
    assert "adds up to 1" in attention["note"]


def test_histograms_lie_over_each_other() -> None:
    one = Histogram(low=0.0, high=1.0, counts=(1, 3))
    drawn = figures.histogram([("A", one), ("B", one)], "v")
    assert [trace["y"] for trace in drawn["traces"]] == [[25.0, 75.0, 75.0]] * 2
    assert {trace["line"]["dash"] for trace in drawn["traces"]} == {"solid", "dot"}, "not by colour alone"


# --- tokens ---


def scores() -> TokenScores:
    top = (Candidate(token=3, piece=" ship", logprob=-0.5), Candidate(token=4, piece="", logprob=-2.0))
    listed = tuple(
        TokenScore(
            row=row, position=at, token=at, piece=f"t{at}", logprob_a=None if at == 0 else -1.0,
            logprob_b=None if at == 0 else -2.0, kl=0.5 if at == 1 else 0.0, top_a=top, top_b=top[:1],
        )
        for row in (0, 1)
        for at in range(3)
    )  # fmt: skip
    return TokenScores(output="logits", vocabulary=8, tokens=listed, truncated=True, largest_kl=1)


def test_positions_and_candidates() -> None:
    assert tokens.rows(scores()) == [0, 1]
    assert tokens.position(scores(), 0, None) == 1
    assert tokens.position(scores(), 1, "7") == 2
    assert tokens.position(scores(), 0, "0") == 0
    first, second = tokens.candidate_rows(scores(), 0, 1, compared=True)
    assert first["A"] == first["B"] == "␣ship"
    assert second["A"] == "#4 · only here"
    assert second["B"] == ""
    said = tokens.summary(scores(), 0)
    assert "A: mean −1 nats, perplexity 2.718" in said
    assert "Later positions were left out" in said
    assert tokens.labels(scores(), 0)[2] == "2 · t2"


def test_attention_is_found_by_its_figures() -> None:
    shares = tensor(shape=(1, 2, 4, 4), low=0.0, high=1.0, mean=0.25)
    other = tensor(shape=(1, 2, 4, 4), low=0.0, high=1.0, mean=0.5)
    found = tokens.attention_points(
        run(point("attention", outputs=(tensor(), shares)), point("gate", outputs=(other,)))
    )
    assert [(each.point, each.tensor, each.heads) for each in found.values()] == [("attention", 1, 2)]
    assert tokens.attention_points(None) == {}


def test_lines_of_language_models() -> None:
    line = figures.logprob_line(scores(), 0, "v", ("A", "B"), here=1)
    assert [trace["y"][0] for trace in line["traces"]] == [None, None]
    assert line["layout"]["shapes"][0]["x0"] == 1
    assert "largest after position 1 with 0.5 nats" in figures.kl_bars(scores(), 0, "v", None)["alt"]
