"""What reports say in plain words, how two of them differ, and how pages show them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain import profile_comparison, profile_summary
from control_plane.optimization import catalog
from control_plane.services import profile_drawings
from control_plane.ui.viewmodels import profiling as views
from control_plane.ui.viewmodels import profiling_flames as flames
from serving_agent.contract.profile import Flame, FlameNode, KeyFigures, Layer, Operator, Report
from serving_agent.profiling.views import largest
from tests.fakes import seeded_profiles
from tests.fakes.seeded_profiles import node, report, times

ALL = catalog.names()


def summarised(made: Report, *, methods: tuple[str, ...] = ALL, live: bool = False) -> str:
    summary = profile_summary.summarise(made, methods=methods, live=live)
    hints = [f"{hint.sentence} [{hint.method}]" for hint in summary.hints]
    return "\n".join([summary.headline, *hints])


def test_the_three_largest_costs_are_named_with_their_share_of_the_request() -> None:
    summary = profile_summary.summarise(report(), methods=ALL)
    assert [cost.name for cost in summary.costs] == ["encoder.1", "head", "preprocess"]
    assert summary.costs[0].share == pytest.approx(0.9 * 1.5 / 2.1)
    assert summary.headline == (
        "One request of 1 row takes 5 ms; the largest cost is the layer encoder.1 with 64% of it."
    )


def test_a_network_that_is_one_call_is_told_by_its_operators() -> None:
    whole = Layer(path="(network)", kind="RecursiveScriptModule", calls=10, self_s=0.004, total_s=0.004)
    costs = profile_summary.largest_costs(report(layers=(whole,)))
    assert (costs[0].name, costs[0].kind) == ("aten::tanh", "operator")
    assert largest(report(layers=(whole,))) == ("aten::tanh", pytest.approx(12 / 18))
    assert largest(report())[0] == "encoder.1"
    samples = msgspec.structs.replace(seeded_profiles.flame(), name="samples · inference")
    assert largest(Report(source="agent", key=report().key)) == ("", None)
    functions = tuple(msgspec.structs.replace(each, kind="function") for each in samples.nodes)
    seen = msgspec.structs.replace(samples, nodes=functions)
    assert largest(Report(source="agent", key=report().key, flames=(seen,)))[0] == "aten::tanh"


def test_methods_that_do_not_apply_are_not_suggested() -> None:
    flat = report(flames=(), layers=())
    products = (Operator(name="aten::addmm", shapes="", calls=1, self_s=1.0, total_s=1.0),)
    flat = msgspec.structs.replace(flat, operators=products)
    assert "[dynamic-int8]" in summarised(flat)
    assert "[weight-only-int8]" in summarised(flat, methods=("weight-only-int8",))
    assert "quantised" not in summarised(flat, methods=())


def test_python_between_operators_calls_for_a_compiled_form() -> None:
    python = Flame(
        name="operators",
        total_s=1.0,
        nodes=(
            node("request", -1, 0.0, 1.0, "stage"),
            node("predict", 0, 0.0, 1.0, "stage"),
            node("forward", 1, 0.8, 1.0),
            node("aten::tanh", 2, 0.2, 0.2, "operator"),
        ),
    )
    made = report(flames=(python,))
    assert profile_summary.python_share(made) == pytest.approx(0.8)
    assert "80% of the model's time passes in Python" in summarised(made)
    assert "[compile-cache]" in summarised(made)
    assert "Python" not in summarised(made, methods=("dynamic-int8",))


def test_what_people_set_themselves_is_said_where_it_helps() -> None:
    assert "let requests share batches of up to 8 rows" in summarised(report())
    waiting = report(stages=(times("queue", 0.004), times("predict", 0.001)))
    assert "Requests wait for 80% of their time" in summarised(waiting, live=True)
    outside = report(stages=(times("preprocess", 0.004), times("predict", 0.001)))
    assert "Preparing inputs and writing answers take 80%" in summarised(outside)
    assert "two threads or more" in summarised(report())
    assert "two threads or more" not in summarised(report(), live=True)


def test_a_report_of_nothing_says_so() -> None:
    nothing = Report(source="agent", key=KeyFigures(requests=0, batch=0, wall_s=0.0))
    assert summarised(nothing) == "No request was answered while the profile was taken."
    assert profile_summary.largest_costs(nothing) == ()


@given(st.lists(st.tuples(st.sampled_from(["queue", "predict", "encode"]), st.floats(0, 10)), max_size=5))
def test_costs_never_exceed_the_request(stages: list[tuple[str, float]]) -> None:
    unique = dict(stages)
    made = report(stages=tuple(times(name, seconds) for name, seconds in unique.items()))
    costs = profile_summary.largest_costs(made)
    assert len(costs) <= 3
    assert sum(cost.share for cost in costs) <= 1 + 1e-9
    assert [cost.seconds for cost in costs] == sorted((cost.seconds for cost in costs), reverse=True)


@pytest.mark.parametrize(
    ("seconds", "said"), [(1.5, "1.5 s"), (0.0123, "12.3 ms"), (4.2e-5, "42 µs"), (0.0, "0 µs")]
)
def test_durations_are_read_at_a_glance(seconds: float, said: str) -> None:
    assert profile_summary.duration(seconds) == said


# -- two reports ----------------------------------------------------------------------------------------


def test_what_became_slower_comes_first_with_its_sign() -> None:
    found = profile_comparison.compare(report(), report(slow=3.0))
    assert [each.name for each in found.layers] == ["encoder.1", "head"]
    assert found.layers[0].delta_s == pytest.approx(0.003)
    assert found.operators[0].ratio == pytest.approx(3.0)
    rows = views.difference_rows(found.layers)
    assert (rows[0]["B − A"], rows[0]["B / A"], rows[0]["Change"].word) == ("+3 ms", "3.00×", "Slower")
    assert (rows[1]["B − A"], rows[1]["Change"].word) == ("±0", "Same")
    back = views.difference_rows(profile_comparison.compare(report(slow=3.0), report()).layers)
    assert (back[0]["B − A"], back[0]["Change"].word) == ("−3 ms", "Faster")


def test_what_only_one_report_has_took_no_time_in_the_other() -> None:
    found = profile_comparison.compare(report(layers=report().layers[1:]), report())
    assert next((each.name, each.a_s, each.ratio) for each in found.layers) == ("encoder.1", 0.0, None)
    assert views.difference_rows(found.layers)[0]["B / A"] == "new"


def test_what_one_side_did_not_measure_is_not_compared() -> None:
    live = report(source="agent", layers=(), operators=(), stages=(*report().stages, times("queue", 1.0)))
    found = profile_comparison.compare(report(functions=()), live)
    assert found.layers == found.operators == found.functions == ()
    assert found.notes == (
        "The layers are not compared: they were not measured in B",
        "The operators are not compared: they were not measured in B",
        "The functions are not compared: they were not measured in A",
    )
    queue = views.difference_rows(found.stages)[-1]
    assert (queue["A"], queue["B − A"], queue["B / A"], queue["Change"].word) == ("–", "–", "–", "Not known")


def test_what_a_cut_table_does_not_hold_is_not_known() -> None:
    def made(name: str, count: int) -> tuple[Operator, ...]:
        return tuple(
            Operator(name=f"{name}{at}", shapes="", calls=1, self_s=1.0, total_s=1.0) for at in range(count)
        )

    found = profile_comparison.compare(report(operators=made("a", 300)), report(operators=made("b", 2)))
    told = {each.name: (each.a_s, each.b_s) for each in found.operators}
    assert told["b0"] == (None, pytest.approx(0.1))
    assert told["a0"] == (pytest.approx(0.1), 0.0)


def test_samples_of_live_agents_are_seconds_at_work_for_one_request() -> None:
    busy = Flame(name="samples · inference", nodes=(node("f", -1, 2.0, 2.0),), total_s=2.0)
    key = KeyFigures(requests=10, batch=0, wall_s=5.0)
    slower = report(source="agent", key=key, flames=(busy,))
    quicker = report(source="agent", key=msgspec.structs.replace(key, requests=40), flames=(busy,))
    (both,) = profile_comparison.compare(slower, quicker).flames
    assert (both.nodes[0].a_self_s, both.nodes[0].b_self_s) == (pytest.approx(0.2), pytest.approx(0.05))


def test_live_reports_offer_a_next_step() -> None:
    hints = profile_summary.summarise(report(source="agent"), methods=(), live=True).hints
    (hint,) = [each for each in hints if each.profiles_version]
    assert views.hint_label(hint) == "Profile the version"
    assert views.hint_link("digits@1", hint) == "/profiling?version=digits%401"
    assert not any(each.profiles_version for each in profile_summary.summarise(report(), methods=ALL).hints)


def test_on_a_gpu_operators_tell_what_layers_cannot() -> None:
    key = msgspec.structs.replace(report().key, device="cuda:0")
    on_gpu = Operator(name="aten::mm", shapes="", calls=1, self_s=0.1, total_s=0.1, device_self_s=0.8)
    launch = Operator(name="aten::t", shapes="", calls=1, self_s=0.1, total_s=0.1)
    made = report(key=key, operators=(on_gpu, launch))
    assert largest(made) == ("aten::mm", pytest.approx(0.9))
    assert {cost.kind for cost in profile_summary.largest_costs(made)} <= {"operator", "stage"}


def test_the_page_to_keep_draws_memory_and_the_sweep() -> None:
    page = profile_drawings.memory(report()) + profile_drawings.sweep(report())
    assert page.count("<svg") == 2
    for part in ("4 KiB", "2 ms", "Rows a second (solid)", "circle", ">32<"):
        assert part in page, part
    assert profile_drawings.memory(report(memory=())) == profile_drawings.sweep(report(sweep=())) == ""


@st.composite
def trees(draw: st.DrawFn) -> tuple[FlameNode, ...]:
    """A flat tree whose totals add up."""
    size = draw(st.integers(0, 12))
    parents = [draw(st.integers(-1, at - 1)) for at in range(size)]
    own = [float(draw(st.integers(0, 9))) for _ in range(size)]
    total = list(own)
    for at in range(size - 1, -1, -1):
        if parents[at] >= 0:
            total[parents[at]] += total[at]
    names = [draw(st.sampled_from("abc")) for _ in range(size)]
    return tuple(
        FlameNode(name=names[at], parent=parents[at], self_s=own[at], total_s=total[at]) for at in range(size)
    )


@given(trees(), trees())
def test_flames_laid_over_each_other_keep_the_time_of_both(
    a: tuple[FlameNode, ...], b: tuple[FlameNode, ...]
) -> None:
    nodes = profile_comparison.laid_over(a, b)
    assert all(each.parent < at for at, each in enumerate(nodes))
    assert sum(each.a_self_s for each in nodes) == pytest.approx(sum(each.self_s for each in a))
    assert sum(each.b_self_s for each in nodes) == pytest.approx(sum(each.self_s for each in b))
    drawing = flames.compared(profile_comparison.DifferingFlame(name="operators", nodes=nodes))
    widths = [each["width"] for each in drawing["nodes"]]
    for at, each in enumerate(drawing["nodes"]):
        inside = sum(widths[child] for child, one in enumerate(drawing["nodes"]) if one["parent"] == at)
        assert inside <= each["width"] + 1e-9
        assert 0 <= each["heat"] <= 1


def test_the_same_flame_twice_has_no_colour() -> None:
    (both,) = profile_comparison.compare(report(), report()).flames
    assert {each["heat"] for each in flames.compared(both)["nodes"]} == {0.0}


# -- what pages show ------------------------------------------------------------------------------------


def test_a_flame_view_tells_its_figures() -> None:
    drawing = flames.drawing(seeded_profiles.flame())
    hottest = max(drawing["nodes"], key=lambda each: each["heat"])
    assert (hottest["name"], hottest["heat"], hottest["kind"]) == ("aten::tanh", 1.0, "operator")
    assert hottest["told"] == "aten::tanh: 30 ms (60.0%), itself 30 ms, 10 calls"
    assert flames.title("operators") == "Operators and layers"
    assert flames.title("samples · inference") == "Samples · inference"


def test_key_figures_leave_out_what_is_not_known() -> None:
    shown = {label: value for label, value, _ in views.key_figures(report())}
    assert shown["Request"] == "5 ms"
    assert shown["Knee"] == "8 rows"
    live = report(source="agent", key=KeyFigures(requests=5, batch=0, wall_s=0.01))
    figures = {label: (value, note) for label, value, note in views.key_figures(live)}
    assert "Knee" not in figures
    assert figures["Request"] == ("10 ms", "p50 · as clients send them")
    assert figures["Peak memory"][0] == "–"


def test_the_sweep_marks_its_knee() -> None:
    drawing = views.sweep_drawing(report(), "v")
    assert drawing["traces"][-1]["x"] == ["8"]
    assert "beyond it" in views.knee_words(report())
    assert "still grows at 32 rows" in views.knee_words(report(knee=32))
    assert "no knee" in views.knee_words(report(knee=None))
    assert [row["Rows"] for row in views.sweep_rows(report())] == ["1", "2", "4", "8 · knee", "16", "32"]


def test_overhead_and_sums_are_stated() -> None:
    assert "torch.profiler 2.50×" in views.overhead_words(report())
    assert views.added_words(report()).startswith("Own times add up to 98.0% of the time by the clock")
    assert views.added_words(report(traced_wall_s=None)) == ""


def test_hints_lead_to_the_lab() -> None:
    hint = profile_summary.Hint(sentence="", method="dynamic-int8")
    assert views.hint_link("digits@1", hint) == "/optimization?version=digits%401&method=dynamic-int8"
    assert views.hint_link("digits@1", profile_summary.Hint(sentence="")) is None
