"""Real models, really inspected: what was planted in them is found where it is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from control_plane.debugging import report
from control_plane.domain import breakpoints
from control_plane.domain.debugging import DebugRunDetail, JsonSource, RandomSource
from control_plane.errors import ConflictError, InvalidInputError, NotFoundError
from control_plane.services import debugger
from control_plane.services.context import Context
from serving_agent.contract.inspection import Edit
from tests.fakes import debugged, lab
from tests.fakes.registry import open_home

ROW = [[0.5, -1.0, 2.0, 0.25]]


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """Versions with something planted in them."""
    context = open_home(tmp_path_factory.mktemp("debugged") / "home", gateway_port=1)
    network = debugged.deep()
    debugged.register(context, "nan", debugged.with_nan(), debugged.ROWS)
    debugged.register(context, "fp32", network, debugged.WIDE)
    debugged.register(context, "faulty", debugged.int8(debugged.faulty(network)), debugged.WIDE)
    torch.manual_seed(1)
    language = debugged.Language().eval()
    debugged.register(context, "words", language, debugged.TOKENS)
    yield context
    context.engine.dispose()


def done(ctx: Context, run: Any) -> DebugRunDetail:
    """The run once its job is carried out."""
    job = lab.perform(ctx, run.job_id)
    assert job.state == "succeeded", job
    return debugger.get(ctx, run.id)


@pytest.fixture(scope="module")
def with_nan(ctx: Context) -> DebugRunDetail:
    return done(ctx, debugger.start(ctx, "nan@1", JsonSource(input=ROW), actor="ana"))


@pytest.fixture(scope="module")
def compared(ctx: Context) -> DebugRunDetail:
    source = RandomSource(seed=3, rows=4)
    return done(ctx, debugger.start(ctx, "fp32@1", source, against="faulty@1", name="mine", actor="ana"))


def test_a_planted_nan_is_found_at_the_layer_that_makes_it(ctx: Context, with_nan: DebugRunDetail) -> None:
    run = with_nan.a.run
    assert run is not None
    assert run.same_outputs
    nan = breakpoints.parse("nan")
    place = debugger.find(ctx, with_nan.view.id, "a", nan)
    assert place is not None
    assert run.points[place].module == "1"
    assert with_nan.view.summary == f"nan@1 has its first NaN or Inf at {run.points[place].id}"
    later = debugger.find(ctx, with_nan.view.id, "a", nan, after=place)
    assert later is None or later > place
    found = debugger.values(ctx, with_nan.view.id, "a", run.points[place].id)
    assert np.isnan(found.values[0]).tolist() == [False, False, True]
    part = debugger.values(ctx, with_nan.view.id, "a", "inputs", "x", start=(0, 1), stop=(1, 3))
    assert (part.values, part.start, part.stop) == ([[-1.0, 2.0]], (0, 1), (1, 3))


def test_a_value_edited_on_the_way_changes_the_answer_as_recomputed_by_hand(
    ctx: Context, with_nan: DebugRunDetail
) -> None:
    point = next(each.id for each in with_nan.a.run.points if each.id == "1")  # type: ignore[union-attr]
    change = Edit(point=point, index=(0, 2), value=0.75)
    planted = Edit(point=point, index=(0, 0), value=math.inf)
    edited = done(ctx, debugger.edit(ctx, with_nan.view.id, [change, planted], actor="bo"))
    first, _, last = debugged.with_nan()
    with torch.no_grad():
        hidden = first(torch.tensor(ROW))
        hidden[0, 2], hidden[0, 0] = 0.75, math.inf
        expected = last(hidden)
    answer = debugger.values(ctx, edited.view.id, "a", "postprocess", "y")
    np.testing.assert_allclose(answer.values, expected.numpy(), rtol=1e-6)
    assert edited.view.edits == (change, planted)
    assert edited.view.parent_id == with_nan.view.id
    assert [each.id for each in edited.ancestors] == [with_nan.view.id]
    assert edited.view.id in {each.id for each in debugger.get(ctx, with_nan.view.id).children}
    assert edited.a.run is not None
    assert [each.id for each in edited.a.run.points if each.edited] == [point]
    made = next(each for each in edited.a.run.points if each.module == "1")
    assert edited.view.summary == f"nan@1 has its first NaN or Inf at {made.id}", (
        "the sum inside is as it was"
    )


def test_what_a_run_does_not_have_cannot_be_edited_shown_or_searched(
    ctx: Context, with_nan: DebugRunDetail
) -> None:
    run_id = with_nan.view.id
    for change in (Edit(point="nowhere"), Edit(point="1", index=(0, 9)), Edit(point="inputs", tensor="z")):
        with pytest.raises(InvalidInputError):
            debugger.edit(ctx, run_id, [change], actor="ana")
    with pytest.raises(NotFoundError, match="no tensor 7 at '1'"):
        debugger.values(ctx, run_id, "a", "1", 7)
    with pytest.raises(NotFoundError, match="no side 'b'"):
        debugger.values(ctx, run_id, "b", "1")


def test_int8_diverges_from_fp32_first_where_a_fault_was_planted(
    ctx: Context, compared: DebugRunDetail
) -> None:
    found = compared.comparison
    assert found is not None
    assert found.divergence is not None, found.sentence
    pair = found.pairs[found.divergence.pair]
    assert (pair.module, found.divergence.rule) == ("2.down", "falls")
    before = [each.sqnr_db for each in found.pairs[: found.divergence.pair] if each.sqnr_db is not None]
    assert min(before) > (pair.sqnr_db or 0.0) + 10
    assert any(level < 60 for level in before), "quantisation noise is everywhere before it"
    assert "They diverge at 2.down" in compared.view.summary
    a = debugger.values(ctx, compared.view.id, "a", pair.a, pair.tensor).values
    b = debugger.values(ctx, compared.view.id, "b", pair.b, pair.tensor).values
    one, other = np.array(a, np.float64), np.array(b, np.float64)
    assert pair.max_abs == pytest.approx(np.abs(one - other).max())
    assert pair.sqnr_db == pytest.approx(10 * np.log10((one**2).sum() / ((one - other) ** 2).sum()))


def test_exports_are_opened_again(ctx: Context, compared: DebugRunDetail) -> None:
    content = debugger.export_json(ctx, compared.view.id)
    assert report.read(content).detail == compared
    assert json.loads(content)["form"] == report.FORM
    page = debugger.export_html(ctx, compared.view.id)
    assert "2.down" in page
    assert "<svg" in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_wrong_shape_is_stopped_at_the_stage_that_refuses_it(ctx: Context) -> None:
    run = debugger.start(ctx, "nan@1", JsonSource(input=[[1.0, 2.0, 3.0]]), actor="ana")
    seen = done(ctx, run)
    assert seen.a.run is not None
    first, *others = seen.a.run.stages
    assert (first.name, first.state) == ("inputs", "failed")
    assert first.failure is not None
    assert "must have shape [-1, 4], not [1, 3]" in first.failure.message
    assert {each.state for each in others} == {"not_reached"}
    assert seen.view.summary.startswith("nan@1 stopped in inputs")
    again = debugger.edit(ctx, seen.view.id, actor="ana")
    with pytest.raises(ConflictError, match="goes on"):
        debugger.export_json(ctx, again.id)
    debugger.delete(ctx, again.id, actor="ana")


def test_language_models_are_scored_token_by_token(ctx: Context) -> None:
    ids = [[1, 4, 9, 2]]
    run = debugger.start(ctx, "words@1", JsonSource(input=ids), actor="ana")
    scores = done(ctx, run).tokens
    assert scores is not None
    assert [each.token for each in scores.tokens] == ids[0]
    torch.manual_seed(1)
    with torch.no_grad():
        logprobs = torch.log_softmax(debugged.Language().eval()(torch.tensor(ids)), -1)[0]
    for at, each in enumerate(scores.tokens):
        assert each.top_a[0].token == int(logprobs[at].argmax())
        assert each.kl is None, "there is nothing to compare it with"
        if at:
            assert each.logprob_a == pytest.approx(float(logprobs[at - 1, ids[0][at]]), abs=1e-5)
