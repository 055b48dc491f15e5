"""Parts of an inspection: odd tensors, odd structures, programs with control flow, failing graphs."""

from __future__ import annotations

import collections
import dataclasses
import math
import warnings
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import nn

from serving_agent.contract.inspection import Edit
from serving_agent.contract.options import Execution
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.formats import catalog as formats
from serving_agent.inspection import edits, places, points, steps, structures, summaries
from serving_agent.inspection.captures import lab_wrappers, nothing, onnx_graph, onnx_model
from serving_agent.inspection.captures.module_groups import OUTSIDE, Level, Part, groups, is_whole, returned
from serving_agent.inspection.captures.script_interpreter import Interpreter, ModuleAt, source_of
from serving_agent.inspection.values_file import ValuesFile
from tests.fakes import inspected

Named = collections.namedtuple("Named", ["one", "other"])


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    cache: object = None


def quantised(values, scale, zero, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its end
        return torch.quantize_per_tensor(torch.tensor(values), scale, zero, kind)


@pytest.fixture
def values(tmp_path):
    with ValuesFile(tmp_path, 1 << 20) as opened:
        yield opened


def kept(values, summary):
    """Elements as the file has them."""
    values._file.flush()
    raw = values._part.read_bytes()[summary.offset : summary.offset + summary.kept_bytes]
    return np.frombuffer(raw, inspected.NUMPY_TYPE[summary.kept_datatype])


@pytest.mark.parametrize(
    ("tensor", "datatype", "kept_as", "expected"),
    [
        (torch.tensor([1.5, -2.0]).half(), "FP16", "FP16", [1.5, -2.0]),
        (torch.tensor([1.5, -2.0]).bfloat16(), "BF16", "FP32", [1.5, -2.0]),
        (torch.tensor([1.5, -2.0]).to(torch.float8_e4m3fn), "float8_e4m3fn", "FP32", [1.5, -2.0]),
        (quantised([1.5, -2.0], 0.5, 3, torch.qint8), "qint8", "FP32", [1.5, -2.0]),
        (torch.tensor([True, False]), "BOOL", "BOOL", [1, 0]),
        (torch.tensor([2**62, -5]), "INT64", "INT64", [2**62, -5]),
        (torch.tensor([7, 255], dtype=torch.uint16), "UINT16", "UINT16", [7, 255]),
        (torch.arange(6.0).reshape(2, 3).T, "FP32", "FP32", [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
        (torch.tensor(3.0), "FP32", "FP32", [3.0]),
        (torch.tensor([[0.0, 2.0]]).to_sparse(), "FP32", "FP32", [0.0, 2.0]),
        (torch.tensor([2.0])[:0], "FP32", "FP32", []),
        (True, "BOOL", "BOOL", [1]),
        (12, "INT64", "INT64", [12]),
        (10**30, "FP64", "FP64", [1e30]),
        (np.arange(3, dtype=">i4"), "INT32", "INT32", [0, 1, 2]),
    ],
    ids=str,
)  # fmt: skip
def test_tensors_of_any_kind_are_summed_up_and_kept(values, tensor, datatype, kept_as, expected):
    summary = summaries.Summaries(values).of("output", tensor)
    assert (summary.datatype, summary.kept_datatype) == (datatype, kept_as)
    assert kept(values, summary).tolist() == expected
    assert summary.elements == len(expected)
    assert summary.mean == (pytest.approx(np.mean(expected)) if expected else None)


def test_complex_numbers_are_counted_and_not_kept(values):
    tensor = torch.tensor([0, complex(float("nan"), 1), complex(2, float("inf")), 3j])
    summary = summaries.Summaries(values).of("output", tensor.conj())
    assert (summary.datatype, summary.elements) == ("complex64", 4)
    assert (summary.zeros, summary.nan, summary.inf, summary.low, summary.offset) == (1, 1, 1, None, None)


def test_what_handlers_keep_in_arrays_of_other_types_is_told_of(values):
    """A handler's own steps may hold anything: recording must not fail where serving does not."""
    held = {
        "spectrum": np.array([1 + 1j, 0], np.complex64),
        "words": np.array(["ab", "c"]),
        "when": np.array(["2026-01-01"], "datetime64[D]"),
        "wide": np.zeros(3, np.longdouble),
    }
    told = {each.name: each for each in steps.summed_up(summaries.Summaries(values), held)}
    assert told.keys() == held.keys()
    assert (told["spectrum"].zeros, told["spectrum"].not_read) == (1, summaries.COMPLEX)
    assert (told["words"].datatype, told["words"].kept_datatype) == ("BYTES", "BYTES")
    assert told["when"].not_read == "Its elements are of type datetime64[D], which is not read."
    assert told["wide"].not_read.startswith("Its elements are of type ")


def test_nothing_but_nan_has_no_extremes(values):
    summary = summaries.Summaries(values).of("output", torch.full((2, 2), float("nan")))
    assert (summary.nan, summary.low, summary.high, summary.mean, summary.histogram) == (4, *(None,) * 4)


def test_texts_are_kept_as_json(values):
    summary = summaries.Summaries(values).of("text", np.array([b"a", b"\xff"], dtype=object))
    assert (summary.datatype, summary.kept_datatype) == ("BYTES", "BYTES")
    values._file.flush()
    assert values._part.read_bytes() == '["a","�"]'.encode()


def test_one_tensor_told_twice_is_kept_once_unless_it_was_changed(values):
    summing, tensor = summaries.Summaries(values), torch.arange(4.0)
    first, again = summing.of("0", tensor), summing.of("output", tensor)
    assert (first.offset, again.offset, again.name) == (0, 0, "output")
    in_rows = summing.of("rows", tensor.reshape(2, 2))
    assert (in_rows.offset, in_rows.shape) == (0, (2, 2))
    assert summing.of("columns", tensor.reshape(2, 2).T).offset == first.kept_bytes
    tensor[0] = 9.0
    changed = summing.of("0", tensor)
    assert changed.offset == 2 * first.kept_bytes
    assert changed.high == 9.0


def structure():
    """Structures of tensors."""
    tensor = st.builds(lambda: torch.zeros(2))
    return st.recursive(
        tensor | st.none() | st.text(max_size=2),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(st.text(max_size=2), inner, max_size=3)
            | st.builds(Named, inner, inner)
            | st.builds(Answer, inner, inner)
        ),
        max_leaves=8,
    )


@given(structure(), st.data())
def test_any_leaf_can_be_replaced_and_only_it(value, data):
    leaves = structures.leaves(value)
    if not leaves:
        return
    place = data.draw(st.integers(0, len(leaves) - 1))
    new = torch.ones(2)
    changed = structures.replaced(value, place, lambda old: new)
    assert type(changed) is type(value) or value is leaves[0][1]
    after = structures.leaves(changed)
    assert [name for name, _ in after] == [name for name, _ in leaves]
    assert [leaf is new for _, leaf in after] == [at == place for at in range(len(leaves))]
    assert all(leaf.sum() == 0 for _, leaf in leaves)


def test_a_cache_of_keys_and_values_is_looked_into():
    layer = SimpleNamespace(keys=torch.zeros(1), values=torch.ones(1))
    cache = SimpleNamespace(layers=[layer], get_seq_length=lambda: 1)
    answer = Answer(torch.zeros(1), cache)
    assert [name for name, _ in structures.leaves(answer)] == ["logits", "cache.0.keys", "cache.0.values"]
    structures.replaced(answer, 2, lambda old: old + 5)
    assert layer.values.item() == 6.0


@pytest.mark.parametrize(
    ("tensor", "value", "sentence"),
    [
        (torch.zeros(2, dtype=torch.uint8), 300.0, "300 does not fit a tensor of integers 0 to 255"),
        (torch.zeros(2, dtype=torch.int32), 1.5, "1.5 is no whole number"),
        (np.array([b"a"], dtype=object), 1.0, "texts cannot be edited in place"),
        (torch.zeros(2, dtype=torch.int32), math.nan, "nan is no whole number|nan does not fit"),
        (torch.zeros(2, dtype=torch.bool), math.inf, "inf is no whole number"),
        (np.zeros(2, dtype=np.uint8), -math.inf, "-inf does not fit"),
        (quantised([[0.0] * 2], 0.5, 0, torch.quint8), math.nan, "a quantised tensor holds no nan"),
    ],
)
def test_elements_that_do_not_fit_are_refused(tensor, value, sentence):
    with pytest.raises(edits.EditError, match=sentence):
        edits.edited(tensor, Edit(point="p", value=value))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2, 3), torch.zeros(2, 3).half(), torch.zeros(2, 3, dtype=torch.int8),
        torch.zeros(2, 3, dtype=torch.bool), np.zeros((2, 3), dtype=np.int64),
        quantised([[0.0] * 3] * 2, 0.5, 0, torch.quint8),
    ],
    ids=lambda each: str(each.dtype),
)  # fmt: skip
def test_an_edit_changes_its_elements_in_memory_of_their_own(tensor):
    changed = edits.edited(tensor, Edit(point="p", index=(None, 1), value=1.0))
    plain = changed.dequantize() if getattr(changed, "is_quantized", False) else changed
    assert plain.tolist() == [[0, 1, 0], [0, 1, 0]]
    assert changed.dtype == tensor.dtype
    before = tensor.dequantize() if getattr(tensor, "is_quantized", False) else tensor
    assert not before.any()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("tensor", [torch.zeros(2), torch.zeros(2).bfloat16(), np.zeros(2, np.float16)])
def test_what_is_not_finite_can_be_planted(tensor, value):
    changed = edits.edited(tensor, Edit(point="p", index=(1,), value=value))
    assert str(changed.tolist()) == str([0.0, value])


class Winding(nn.Module):
    """All that a program does beside tensors: branches, loops, lists, dicts, texts, functions, state."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        self.drop = nn.Dropout(0.5)
        self.register_buffer("last", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: list[torch.Tensor] = []
        named = {"first": x}
        for turn in range(4):
            if turn == 3:
                break
            x = self.drop(self.inner(x)) * turn
            found.append(x)
        found.reverse()
        named["sum"] = torch.stack(found).sum(dim=0)
        rest = found[1:]
        rest.extend(found)
        rows, columns = x.shape
        assert columns == 4, f"{rows} rows"
        total = x
        while float(total.abs().sum()) > 1.0:
            total = total * 0.5
        self.last = total.sum().reshape(1)
        with torch.no_grad():
            known = "sum" in named and len(rest) == 5
        return named["sum"] + torch.softmax(total, dim=-1) + float(known) + named["first"] * int(rows)


def programs():
    torch.manual_seed(0)
    network = Winding().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about the end of TorchScript
        scripted = torch.jit.script(network)
        traced = torch.jit.trace(nn.Sequential(network.inner, nn.ReLU()).eval(), torch.ones(2, 4))
        return {"scripted": scripted, "frozen": torch.jit.freeze(scripted), "traced": traced}


@pytest.mark.parametrize("name", ["scripted", "frozen", "traced"])
def test_programs_are_walked_with_the_same_result(values, name):
    program = programs()[name]
    x = torch.arange(8.0).reshape(2, 4)
    told = points.Points(summaries.Summaries(values), edits.Edits(()), lambda count: None)
    with torch.inference_mode():
        answer = Interpreter(told).call(ModuleAt(program, ""), "forward", [x])
        assert torch.equal(answer, program(x))
    kinds = [point.kind for point in told.points]
    assert "aten::layer_norm" in kinds
    if name == "scripted":
        paths = [point.module for point in told.points if point.kind == "Linear"]
        assert paths == ["inner.0"] * 3
        assert [point.id for point in told.points if point.kind == "LayerNorm"] == [
            "inner.1", "inner.1#1", "inner.1#2",
        ]  # fmt: skip
    sources = {point.source for point in told.points if point.kind in ("aten::mul", "aten::softmax")}
    assert name == "traced" or all(
        "test_inspection_parts.py:" in each or "torch/" in each for each in sources
    )


def test_methods_that_a_module_calls_of_its_own_are_no_layers(values):
    """Conv2d computes in `_conv_forward`, which is no second call of it."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about the end of TorchScript
        program = torch.jit.script(nn.Sequential(nn.Conv2d(1, 2, 3)).eval())
    x = torch.ones(1, 1, 4, 4)
    told = points.Points(summaries.Summaries(values), edits.Edits(()), lambda count: None)
    with torch.inference_mode():
        assert torch.equal(Interpreter(told).call(ModuleAt(program, ""), "forward", [x]), program(x))
    ids = [point.id for point in told.points]
    assert [each.split("/")[0] for each in ids] == ["0", "0", "Sequential"]
    assert ids[0].startswith("0/_conv_forward/")
    assert ids[1] == "0"


def test_where_a_program_fails_is_told(values):
    class Inner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(3, 3)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.jit.script(nn.Sequential(nn.ReLU(), Inner()))
    told = points.Points(summaries.Summaries(values), edits.Edits(()), lambda count: None)
    with pytest.raises(RuntimeError, match="shape '\\[3, 3\\]' is invalid"):
        Interpreter(told).call(ModuleAt(program, ""), "forward", [torch.ones(2, 2)])
    assert told.trouble.module == "1"
    assert "test_inspection_parts.py:" in told.trouble.place
    assert [point.id for point in told.points] == ["0/2", "0"] or told.points[-1].id == "0"


def test_sources_are_read_from_what_torch_says():
    traced = (
        "/a/site-packages/torch/nn/modules/linear.py(134): forward\n"
        "/a/site-packages/torch/nn/modules/module.py(1768): _slow_forward\n"
        "/home/me/net.py(7): forward\n"
        "/a/site-packages/torch/jit/_trace.py(1): trace_module\n/home/me/train.py(3): <module>\n"
    )
    assert source_of(traced) == "/home/me/net.py:7"
    assert source_of('  File "/home/me/net.py", line 11\n    y = f(3): x\n        ~ <--- HERE\n') == (
        "/home/me/net.py:11"
    )
    assert source_of("") == ""
    inside = 'File "/a/site-packages/torch/nn/modules/linear.py", line 9, in forward'
    assert places.of_stack(f'File "control_plane/optimization/parents.py", line 70\n  {inside}') == (
        "torch/nn/modules/linear.py:9"
    )
    assert places.of_stack('File "/home/me/net.py", line 4, in forward\n    return x') == "/home/me/net.py:4"


def test_modules_return_the_values_that_others_read():
    a, b = Level("a", "a", "Block"), Level("a.l", "a.l", "Linear")
    parts = [
        Part((a, b), {1}),  # product, read by the sum beside it
        Part((a, b), {2}),  # sum: what a.l returns
        Part((a,), {3, OUTSIDE}),
        Part((), {OUTSIDE}),
    ]
    found = groups(parts)
    assert [(group.path, group.last, returned(group, parts)) for group in found] == [
        ("a.l", 1, [1]),
        ("a", 2, [2]),
    ]
    assert [group.path for group in groups(parts, (a,))] == ["a.l"]
    assert [is_whole(group, parts) for group in found] == [True, False]  # nobody knows whose node 3 is


def test_names_of_older_exporters_tell_the_module():
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "/encoder/layer.0/attention/self/query/MatMul")
    assert onnx_model.origin_of(node).path == "encoder.layer.0.attention.self.query"
    node = helper.make_node("Conv", ["x", "w"], ["y"], "/features/features.0/Conv")
    assert onnx_model.origin_of(node).path == "features.0"
    assert onnx_model.origin_of(helper.make_node("Relu", ["x"], ["y"], "relu_1")).path == ""


def test_a_node_of_onnx_that_fails_is_named_and_those_before_it_are_shown(tmp_path):
    nodes = [
        helper.make_node("Relu", ["x"], ["active"], "/first/Relu"),
        helper.make_node("Cast", ["active"], ["place"], "/second/Cast", to=TensorProto.INT64),
        helper.make_node("Gather", ["active", "place"], ["y"], "/second/Gather", axis=1),
    ]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])]
    answer = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "n", 1])]
    model = helper.make_model(
        helper.make_graph(nodes, "picks", given, answer),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    folder = tmp_path / "artefact"
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    signature = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("y", "FP32", (-1, -1, 1)),))
    rows = np.array([[0.0], [4.0]], dtype=np.float32)
    seen = inspected.inspected("onnx", folder, signature, {"x": rows}, tmp_path / "out")
    failure = seen.stage("predict").failure
    assert (failure.type, failure.module) == ("ModelError", "second")
    assert [point.kind for point in seen.run.points if "/" in point.id] == ["Relu", "Cast"]
    assert seen.array(seen.of_module("first").outputs[0]).tolist() == [[0.0], [4.0]]


def test_graphs_that_onnx_runtime_joins_are_shown_joined(tmp_path, monkeypatch):
    """Wherever the file's own graph gives other bits: here by force."""
    signature = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 4)),))
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], np.eye(4, dtype=np.float32).ravel())
    bias = helper.make_tensor("b", TensorProto.FLOAT, [4], np.ones(4, dtype=np.float32))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], "/l/MatMul"),
        helper.make_node("Add", ["product", "b"], ["sum"], "/l/Add"),
        helper.make_node("Gelu", ["sum"], ["y"], "/act/Gelu"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight, bias])
    folder = tmp_path / "artefact"
    folder.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    original = onnx_graph._Told._leads_to
    monkeypatch.setattr(
        onnx_graph._Told, "_leads_to",
        lambda self, expected, graph, feeds, level: level == onnx_graph.AS_IT_IS
        and original(self, expected, graph, feeds, level),
    )  # fmt: skip
    rows = {"x": np.ones((2, 4), dtype=np.float32)}
    seen = inspected.inspected("onnx", folder, signature, rows, tmp_path / "out")
    assert seen.run.note == onnx_graph.JOINED
    assert seen.run.same_outputs is True
    assert [point.kind for point in seen.run.points if "/" in point.id] == ["Gemm", "Gelu"]
    assert seen.of_module("act").outputs[0].shape == (2, 4)


@pytest.mark.parametrize(
    ("format_", "compile_", "said"),
    [
        ("compiled", False, nothing.COMPILED),
        ("state_dict", True, nothing.OPTION),
        ("state_dict", False, nothing.UNKNOWN),
    ],
)
def test_what_cannot_be_looked_into_says_why(values, format_, compile_, said):
    context = SimpleNamespace(format=formats.get(format_), execution=Execution(compile=compile_))
    told = points.Points(summaries.Summaries(values), edits.Edits(()), lambda count: None)
    with nothing.CAPTURE.watching(SimpleNamespace(context=context), told):
        pass
    assert told.notes == [said]


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ([("", "InOrder"), ("network", "Net"), ("network.fc", "Linear")], ("network",)),
        ([("", "Edges"), ("inner", "InOrder"), ("inner.network", "Net")], ("inner", "network")),
        ([("", "Net"), ("network", "InOrder")], ()),
        ([("", "InOrder"), ("other", "InOrder")], ("network",)),
        ([], ()),
    ],
)
def test_what_the_lab_puts_around_a_network_is_no_part_of_its_paths(chain, expected):
    assert lab_wrappers.around(chain) == expected


def test_names_that_all_layers_share_are_left_out_where_they_are_the_labs():
    assert lab_wrappers.around_all(["inner.network.a", "inner.network.b.c"]) == ("inner", "network")
    assert lab_wrappers.around_all(["network.a", "module.b"]) == ()
    assert lab_wrappers.around_all(["encoder.a"]) == ()
    assert lab_wrappers.around_all([]) == ()


def test_what_recording_takes_is_no_time_of_the_model(monkeypatch):
    moments = iter([0.0, 1.0, 4.0, 10.0])
    monkeypatch.setattr(points.time, "perf_counter", lambda: next(moments))
    clock = points.Clock()
    assert clock.now() == 0.0
    with clock.aside(), clock.aside():
        pass
    assert clock.now() == 10.0 - (4.0 - 1.0)


def test_paths_are_without_what_lies_around_the_network(values):
    told = points.Points(summaries.Summaries(values), edits.Edits(()), lambda count: None)
    told.around = ("module", "network")
    for module, node in (("module.network.fc", "add"), ("module.network", ""), ("module", "cast"), ("", "")):
        told.record(points.Seen(module=module, kind="Kind", node=node, depth=3), torch.zeros(1))
    assert [(point.id, point.module, point.depth) for point in told.points] == [
        ("fc/add", "fc", 1), ("Kind", "", 1), ("/cast", "", 1), ("Kind#1", "", 1),
    ]  # fmt: skip


def test_points_have_a_bound(values, monkeypatch):
    monkeypatch.setattr(points, "MOST", 2)
    told = points.Points(summaries.Summaries(values), edits.Edits(()), lambda count: None)
    for _ in range(3):
        told.record(points.Seen(module="loop", kind="Cell"), None)
    assert [point.id for point in told.points] == ["loop", "loop#1"]
    assert told.points[0].not_captured == "It returned nothing, which holds no tensor."
    assert told.notes == ["Only the first 2 points of the run are shown."]
    assert told.names == ["loop", "loop#1", "loop#2"]


def test_tensors_of_all_points_have_a_bound(values, monkeypatch):
    monkeypatch.setattr(points, "MOST_TENSORS", 3)
    told = points.Points(summaries.Summaries(values), edits.Edits(()), lambda count: None)
    for _ in range(3):
        told.record(points.Seen(module="loop", kind="Cell"), (torch.zeros(1), torch.ones(1)))
    assert [len(point.outputs) for point in told.points] == [2, 1, 0]
    assert [point.not_captured for point in told.points] == ["", "", *told.notes]
    assert told.notes == ["Only the first 3 tensors of the run are shown."]


def test_metadata_of_the_exporter_tells_module_and_source():
    node = helper.make_node("Add", ["a", "b"], ["linear"], "node_linear")
    said = {
        "pkg.torch.onnx.name_scopes": "['', 'a', 'a.l', 'linear']",
        "pkg.torch.onnx.class_hierarchy": "['net.Net', 'net.Block', 'torch.nn.Linear', 'aten.linear']",
        "pkg.torch.onnx.stack_trace": 'File "/home/me/net.py", line 12, in forward\n    return self.a(x)',
    }
    for key, value in said.items():
        node.metadata_props.add(key=key, value=value)
    origin = onnx_model.origin_of(node)
    assert (origin.path, origin.source) == ("a.l", "/home/me/net.py:12")
    assert [level.kind for level in origin.stack] == ["Net", "Block", "Linear"]
    for damaged in ("['_empty_nn_module_stack_from_metadata_hook', 'x']", "no list", "{"):
        node.metadata_props[0].value = damaged
        assert onnx_model.origin_of(node).path == ""
