"""Profiles as trees and tables: nesting, flame views, traces, samples, the knee, Speedscope's files."""

import json
import sys
import threading
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

import control_plane
from serving_agent.contract.profile import Frame, Samples, SweepPoint, ThreadSamples
from serving_agent.profiling import functions, intervals, knee, sampler, speedscope, timings, trace, views
from serving_agent.profiling.intervals import Interval, Merged
from serving_agent.profiling.sampler import Sampler
from serving_agent.profiling.trace import Event

SCHEMA = Path(control_plane.__file__).parent / "ui/components/vendor/speedscope/file-format-schema.json"

spans = st.lists(
    st.builds(
        lambda name, start, length: Interval(name, start, start + length),
        st.sampled_from("abc"),
        st.integers(0, 50),
        st.integers(0, 30),
    ),
    max_size=40,
)


@given(spans)
def test_self_times_add_up_to_the_whole_whatever_overlaps(found):
    roots = intervals.nested([Interval("root", 0, 100), *found])
    assert [root.name for root in roots] == ["root"]
    nodes = list(intervals.walk(roots))
    assert len(nodes) == len(found) + 1
    assert sum(node.own for node in nodes) == pytest.approx(100)
    kept = intervals.without(roots, lambda node: node.name == "b")
    assert "b" not in {node.name for node in intervals.walk(kept)}
    assert sum(node.own for node in intervals.walk(kept)) == pytest.approx(100)


@given(spans, st.floats(0, 0.5), st.integers(1, 20))
def test_a_flame_view_keeps_the_time_of_what_is_too_small_to_draw(found, smallest, most):
    tree = intervals.merged(intervals.nested([Interval("root", 0, 100), *found]))
    nodes = intervals.flattened(tree, smallest, most)
    assert all(node.parent < at for at, node in enumerate(nodes))
    assert sum(node.self_s for node in nodes) == pytest.approx(100)
    assert sum(node.kind != "other" for node in nodes) <= most
    for at, node in enumerate(nodes):
        inside = sum(child.total_s for child in nodes if child.parent == at)
        assert node.self_s + inside == pytest.approx(node.total_s)


@given(st.lists(st.tuples(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), st.integers(1, 9))))
def test_stacks_make_a_tree_of_the_same_weight(stacks):
    tree = intervals.stacked([(frames, float(weight), weight) for frames, weight in stacks])
    whole = sum(weight for _, weight in stacks)
    assert sum(root.total for root in tree) == sum(root.calls for root in tree) == whole
    assert sum(node.self_s for node in intervals.flattened(tree, 0.0, 10_000)) == whole


# -- traces ---------------------------------------------------------------------------------------------


def event(name, start, end, cat="python_function", **changes):
    return Event(
        **{"ph": "X", "name": name, "cat": cat, "ts": start, "dur": end - start, "tid": 1, **changes}
    )


MARKED = [
    event(trace.REQUEST, 100, 200, "cpu_op"),
    event(f"{trace.MARK}predict", 110, 180, "cpu_op"),
    event("predict (serving_agent/profiling/subject.py:1)", 111, 179),
    # an annotation of the model's begins inside the frame that makes it, and outlives it
    event("__enter__ (torch/autograd/profiler.py:7)", 112, 114),
    event("record_function_enter", 112, 114),
    event("their part", 113, 178, "user_annotation"),
    event("nn.Module: Net (network)", 120, 175),
    event("_call_impl (torch/nn/modules/module.py:3)", 121, 174),
    event("nn.Module: Linear encoder.0", 130, 150),
    event("aten::addmm", 135, 145, "cpu_op"),
    event("nn.Module: Linear encoder.0", 150, 160),
    event("elsewhere", 120, 130, tid=2),
    event("before", 10, 90),
]


def test_a_request_is_read_without_the_frames_that_mark_it():
    (root,) = trace.requests(MARKED)
    assert [(node.name, node.kind, node.total) for node in intervals.walk([root])] == [
        ("request", "stage", 100),
        ("predict", "stage", 70),
        ("their part", "operator", 65),
        ("Net (network)", "layer", 55),
        ("Linear encoder.0", "layer", 20),
        ("aten::addmm", "operator", 10),
        ("Linear encoder.0", "layer", 10),
    ]
    assert trace.own_time([root]) == pytest.approx(100e-6)


def test_layers_are_told_without_what_lies_in_them():
    linear, net = sorted(trace.layers(trace.requests(MARKED)), key=lambda layer: -layer.calls)
    assert (linear.path, linear.kind, linear.calls) == ("encoder.0", "Linear", 2)
    assert linear.self_s == pytest.approx(30e-6)
    assert (net.path, net.self_s, net.total_s) == ("(network)", pytest.approx(25e-6), pytest.approx(55e-6))


def test_a_request_that_the_machine_held_up_says_nothing_of_a_layer():
    shifted = [
        event(each.name, each.ts + 1000 * at, each.ts + 1000 * at + each.dur, each.cat)
        for at in range(3)
        for each in MARKED
        if each.tid == 1
    ]
    held_up = event("nn.Module: Linear head", 2181, 2199)
    layers = trace.layers(trace.requests([*shifted, held_up]))
    assert {layer.path: layer.self_s for layer in layers}["head"] == 0.0


def test_a_trace_without_marks_has_no_requests():
    assert trace.requests([event("aten::addmm", 0, 1, "cpu_op")]) == []
    content = json.dumps(
        {"traceEvents": [{"ph": "M", "name": "process_name", "ts": 1.5, "tid": ""}]}
    ).encode()
    assert trace.requests(trace.read(content, {})) == []


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("/x/lib/python3.12/threading.py(3): wait", "wait (threading.py:3)"),
        ("/x/lib/python3.12/site-packages/torch/nn/a.py(12): forward", "forward (torch/nn/a.py:12)"),
        ("/home/me/project/deep/model.py(1): run", "run (project/deep/model.py:1)"),
        ("<built-in method tanh of type object at 0x7f>", "tanh"),
        ("aten::addmm", "aten::addmm"),
    ],
)
def test_frames_are_named_without_what_differs_from_machine_to_machine(name, short):
    assert trace.short(name) == short


def test_modules_are_named_by_their_place():
    paths = {"nn.Module: Linear_3": "encoder.0", "nn.Module: My_Net_0": ""}
    assert trace.layer_name("nn.Module: Linear_3", paths) == "nn.Module: Linear encoder.0"
    assert trace.layer_name("nn.Module: My_Net_0", paths) == "nn.Module: My_Net (network)"
    assert trace.layer_name("nn.Module: ReLU_1", paths) == "nn.Module: ReLU"


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=300), st.integers(2, 50))
def test_a_thinned_line_keeps_its_highest_and_lowest(heights, most):
    points = [(float(at), height) for at, height in enumerate(heights)]
    thinned = trace.thinned(points, most)
    assert len(thinned) <= max(most, 2) + 1 or len(points) <= most
    assert thinned == sorted(thinned)
    kept = [height for _, height in thinned]
    assert (max(kept), min(kept)) == (max(heights), min(heights))


def test_memory_is_told_of_one_device_from_its_first_change_on():
    def change(ts, held, device):
        return Event(ph="i", name="[memory]", ts=ts, args={"Total Allocated": held, "Device Type": device})

    events = [change(2e6, 30, 0), change(1e6, 10, 0), change(1.5e6, 99, 1)]
    assert trace.memory(events, 0) == ((0.0, 10), (1.0, 30))
    assert trace.memory([], 0) == ()


# -- samples --------------------------------------------------------------------------------------------


def test_a_sampler_tells_who_works_and_who_waits():
    seen = Sampler(100)
    waiting, going = threading.Event(), threading.Event()

    def wait():
        going.set()
        waiting.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    going.wait()
    try:
        for _ in range(3):
            frames = sys._current_frames()
            seen.look([(1, sys._getframe()), (2, frames[thread.ident])], {1: "works"})
    finally:
        waiting.set()
        thread.join()
    samples = seen.stop()
    works, other = samples.threads
    assert (works.name, works.runs, other.name) == ("works", ((0, 3),), "thread 2")
    assert other.runs[0][0] in (-1, 0)  # it may not have reached its wait yet at the first look
    assert other.runs[-1][0] == -1
    innermost = samples.frames[works.stacks[0][-1]]
    assert innermost.name == "test_a_sampler_tells_who_works_and_who_waits"
    assert innermost.file == "tests/unit/test_profiling_trees.py"
    assert samples.samples == 3
    assert not samples.cut


def test_a_sampler_keeps_within_its_bounds(monkeypatch):
    monkeypatch.setattr(sampler, "MOST_STACKS", 1)
    monkeypatch.setattr(sampler, "MOST_RUNS", 2)
    seen = Sampler(100)

    def deeper(depth):
        if depth:
            deeper(depth - 1)
        else:
            seen.look([(1, sys._getframe())], {})

    for depth in range(6):
        deeper(depth)
    samples = seen.stop()
    assert samples.cut
    assert sum(count for _, count in samples.threads[0].runs) == 6
    assert len(samples.threads[0].stacks) <= 2


def test_a_running_sampler_stops_and_counts_only_what_it_watched():
    seen = Sampler(250, only={threading.get_ident()})
    seen.start()
    seen.pause(paused=True)
    watched = seen.stop()
    assert watched.seconds >= 0
    assert seen.stop() == watched  # stopping again changes nothing
    assert all(thread.name == threading.current_thread().name for thread in watched.threads)


SAMPLES = Samples(
    frames=(
        Frame("main", "a.py", 1),
        Frame("ask", "serving_agent/profiling/turns.py", 2),
        Frame("f", "b.py", 3),
    ),
    threads=(
        ThreadSamples(name="inference", stacks=((0, 1, 2), (0, 2)), runs=((0, 3), (-1, 5), (1, 1))),
        ThreadSamples(name="idle", stacks=(), runs=((-1, 9),)),
    ),
    samples=9,
    interval_s=0.01,
    seconds=0.09,
)


def test_samples_become_a_flame_without_the_profilers_own_frames():
    (flame,) = views.flames_of(SAMPLES)
    assert flame.name == "samples · inference"
    assert [(node.name, node.parent, round(node.total_s, 6), node.calls) for node in flame.nodes] == [
        ("f (b.py:3)", -1, 0.03, 3),
        ("main (a.py:1)", -1, 0.01, 1),
        ("f (b.py:3)", 1, 0.01, 1),
    ]


def test_speedscope_files_fit_the_schema_that_speedscope_brings():
    file = speedscope.File("digits@1")
    file.add_tree("Operators", trace.requests(MARKED))
    file.add_tree("Nothing", [])
    file.add_samples(SAMPLES)
    content = json.loads(json.dumps(file.content()))
    jsonschema.validate(content, json.loads(SCHEMA.read_bytes()))
    tree, sampled = content["profiles"]
    assert [each["type"] for each in tree["events"]].count("O") == 7
    opened = []
    for each in tree["events"]:  # every frame closes the one that was opened last
        if each["type"] == "O":
            opened.append(each["frame"])
        else:
            assert opened.pop() == each["frame"]
    assert opened == []
    assert (sampled["name"], sum(sampled["weights"])) == ("inference", pytest.approx(0.09))
    assert speedscope.File("empty").content() is None


def test_functions_are_named_as_other_views_name_them():
    stats = {
        ("/x/site-packages/torch/nn/a.py", 3, "forward"): (2, 4, 0.5, 0.9, {}),
        ("~", 0, "<built-in method torch.tanh>"): (8, 8, 0.7, 0.7, {}),
        ("/y/serving_agent/profiling/session.py", 1, "ask"): (1, 1, 9.0, 9.0, {}),
    }
    listed = functions.functions(stats)
    assert [(each.name, each.place, each.calls, each.primitive_calls) for each in listed] == [
        ("torch.tanh", "built-in", 8, 8),
        ("forward", "torch/nn/a.py:3", 4, 2),
    ]


# -- figures --------------------------------------------------------------------------------------------

points = st.lists(
    st.builds(
        SweepPoint,
        rows=st.integers(1, 512),
        p50_s=st.just(0.1),
        rows_per_s=st.one_of(st.none(), st.floats(0.1, 1e6)),
    ),
    max_size=8,
    unique_by=lambda point: point.rows,
)


def test_the_knee_is_where_doubling_stops_paying():
    def swept(*per_s):
        return [SweepPoint(rows=2**at, p50_s=1.0, rows_per_s=each) for at, each in enumerate(per_s)]

    assert knee.knee(swept(100, 190, 350, 400, 410)) == 4
    assert knee.knee(swept(100, 100, 400)) == 1  # what comes after a step that did not pay does not count
    assert knee.knee(swept(100, 200, 400)) == 4
    assert knee.knee(swept(100)) is None
    assert knee.knee([SweepPoint(rows=1, problem="no"), SweepPoint(rows=2, problem="no")]) is None


@given(points, st.floats(0.001, 1000))
def test_the_knee_is_one_of_the_sizes_and_knows_no_unit(swept, scale):
    found = knee.knee(swept)
    ran = [point.rows for point in swept if point.rows_per_s]
    assert (found is None) == (len(ran) < 2)
    assert found is None or found in ran
    doubled = [
        SweepPoint(rows=each.rows, p50_s=0.1, rows_per_s=each.rows_per_s * 2 if each.rows_per_s else None)
        for each in swept
    ]
    assert knee.knee(doubled) == found
    assert knee.knee(list(reversed(swept))) == found


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_times_lie_between_the_shortest_and_the_longest(seconds):
    found = timings.times("predict", seconds)
    low, high = min(seconds), max(seconds)
    assert low <= found.p50_s <= found.p99_s <= high
    assert low - 1e-9 <= found.mean_s <= high + 1e-9


def test_percentiles_are_observations():
    assert timings.percentile([1, 2, 3, 4], 0.5) == 2
    assert timings.percentile([1, 2, 3, 4], 0.99) == 4
    assert timings.percentile([7], 0.0) == 7


def test_equal_calls_at_one_place_are_one_box():
    tree = intervals.merged(intervals.nested([Interval("f", 0, 2), Interval("f", 5, 6)]), scale=0.5)
    assert tree == [Merged("f", "", calls=2, own=1.5, total=1.5)]
