"""Graphs of other engines: whose tensors are whose, what is refused, what inputs of a wrong size meet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.errors import InvalidRequestError, ModelError, StartError
from serving_agent.formats import aot_inductor, catalog, compiled, graph, openvino, quantized

X, Y = TensorSpec("x", "FP32", (-1, 4)), TensorSpec("y", "FP32", (-1, 4))
ADD = Signature((X,), (Y,))


def saved(folder: Path, kind: int = TensorProto.FLOAT) -> Path:
    """y = x + x over rows of 4 and z = x, as ONNX; computed in float where *kind* is another type."""
    folder.mkdir(exist_ok=True)
    ports = [helper.make_tensor_value_info(name, kind, ["rows", 4]) for name in ("x", "y", "z")]
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["wide", "wide"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["y"], to=kind),
        helper.make_node("Identity", ["x"], ["z"]),
    ]
    made = helper.make_graph(nodes, "add", ports[:1], ports[1:])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    return folder


def opened(folder: Path, signature: Signature) -> Any:
    return catalog.get("onnx").load(folder, "cpu", signature)


NAMES = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=6)


@given(NAMES, NAMES)
def test_equal_names_belong_together_and_others_in_order(own: list[str], declared: list[str]) -> None:
    pairs = graph.paired(own, declared)
    assert (pairs is None) == (len(own) != len(declared))
    if pairs is None:
        return
    assert list(pairs) == declared
    assert sorted(pairs.values()) == sorted(own)
    assert all(pairs[name] == name for name in declared if name in own)
    others = [pairs[name] for name in declared if name not in own]
    assert others == [name for name in own if name not in declared]


def test_a_graph_may_return_more_than_is_declared_but_takes_what_is(tmp_path: Path) -> None:
    model = opened(saved(tmp_path), ADD)
    assert set(model({"x": torch.ones(2, 4)})) == {"y"}
    by_order = Signature((TensorSpec("image", "FP32", (-1, 4)),), (Y, TensorSpec("copy", "FP32", (-1, 4))))
    found = opened(tmp_path, by_order)({"image": torch.ones(1, 4)})
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "y": [[2.0] * 4],
        "copy": [[1.0] * 4],
    }


@pytest.mark.parametrize(
    ("signature", "sentence"),
    [
        (Signature((X, Y), (Y,)), "the graph takes x:FP32; its signature declares x:FP32, y:FP32"),
        (Signature((TensorSpec("x", "INT64", (-1, 4)),), (Y,)), "the graph takes x:FP32; its signature"),
        (Signature((X,), (TensorSpec("logits", "FP32", (-1, 4)),)), "the graph returns y:FP32, z:FP32; its"),
    ],
)
def test_graphs_that_do_not_fit_the_signature_are_refused(
    tmp_path: Path, signature: Signature, sentence: str
) -> None:
    with pytest.raises(StartError, match=sentence):
        opened(saved(tmp_path), signature)


def test_bfloat16_goes_in_and_comes_out(tmp_path: Path) -> None:
    specs = [TensorSpec(name, "BF16", (-1, 4)) for name in ("x", "y", "z")]
    model = opened(saved(tmp_path, TensorProto.BFLOAT16), Signature((specs[0],), tuple(specs[1:])))
    rows = torch.tensor([[1.0, -2.0, 0.5, 100.0]], dtype=torch.bfloat16)
    found = model({"x": rows})
    assert torch.equal(found["y"], rows + rows)
    assert found["z"].data_ptr() != rows.data_ptr()


def test_what_requests_cannot_carry_is_refused(tmp_path: Path) -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.STRING, ["rows"]) for name in ("x", "y")]
    made = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "text", ports[:1], ports[1:])
    onnx.save(
        helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "model.onnx",
    )
    with pytest.raises(StartError, match=r"'x' is of type tensor\(string\), which requests cannot carry"):
        opened(tmp_path, ADD)


def test_engines_say_what_was_wrong_without_paths(tmp_path: Path) -> None:
    model = opened(saved(tmp_path), ADD)
    with pytest.raises(ModelError, match=r"ONNX Runtime failed on this input: .*invalid dimensions"):
        model({"x": torch.ones(2, 5)})
    (tmp_path / "model.onnx").write_bytes(b"no protocol buffer")
    with pytest.raises(StartError, match="ONNX Runtime cannot open the artefact") as refused:
        opened(tmp_path, ADD)
    assert str(tmp_path) not in str(refused.value)
    assert refused.value.__cause__ is not None


@pytest.mark.parametrize("engine", [graph.opening, graph.running])
def test_a_failed_allocation_is_told_as_such(engine: Any) -> None:
    with pytest.raises(MemoryError), engine("An engine"):
        raise ValueError("std::bad_alloc")


@pytest.mark.parametrize(
    ("name", "read"),
    [
        (openvino.OPTIONS, openvino.read_options),
        (compiled.OPTIONS, compiled.read_options),
        (quantized.FILE, quantized.prepare),
    ],
    ids=["openvino", "compiled", "quantized"],
)
@pytest.mark.parametrize(
    "content", [b"{", b'{"engine": "gpu"}', b'{"dynamic": 3}'], ids=["cut", "engine", "type"]
)
def test_settings_beside_a_graph_must_be_known(name: str, read: Any, content: bytes, tmp_path: Path) -> None:
    read(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StartError, match=f"{name} cannot be used: "):
        read(tmp_path)


def test_an_engine_that_this_machine_lacks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / quantized.FILE).write_text('{"engine": "qnnpack"}')
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", ["x86"])
    with pytest.raises(StartError, match="no engine qnnpack for quantised operators, only x86"):
        quantized.prepare(tmp_path)


def call_spec(positional: int, names: tuple[str, ...]) -> str:
    leaf = {"type": None, "context": None, "children_spec": []}
    arguments = {"type": "builtins.tuple", "context": "null", "children_spec": [leaf] * positional}
    named = {"type": "builtins.dict", "context": json.dumps(names), "children_spec": [leaf] * len(names)}
    both = {"type": "builtins.tuple", "context": "null", "children_spec": [arguments, named]}
    return json.dumps([1, both])


def test_inputs_of_a_package_go_by_position_and_by_name() -> None:
    three = Signature((X, Y, TensorSpec("mask", "FP32", (-1, 4))), ())
    assert aot_inductor.order_of_inputs(call_spec(3, ()), three) == three.inputs
    names = [spec.name for spec in aot_inductor.order_of_inputs(call_spec(1, ("mask", "x")), three)]
    assert names == ["y", "mask", "x"]
    for spec in (call_spec(2, ()), call_spec(2, ("other",)), call_spec(4, ())):
        with pytest.raises(StartError, match="its signature declares x, y, mask"):
            aot_inductor.order_of_inputs(spec, three)


PAIR = (TensorSpec("ids", "INT64", (-1, -1)), TensorSpec("mask", "INT64", (-1, -1)))


@pytest.mark.parametrize(
    ("ids", "mask", "sentence"),
    [
        (
            torch.zeros(2, 5, dtype=torch.int64),
            torch.zeros(2, 4, dtype=torch.int64),
            "size 4 of 'mask' on axis 1",
        ),
        (
            torch.zeros(2, 5, dtype=torch.int64),
            torch.zeros(1, 5, dtype=torch.int64),
            "size 1 of 'mask' on axis 0",
        ),
        (torch.zeros(2, 5), torch.zeros(2, 5, dtype=torch.int64), "the model takes ids"),
        (torch.zeros(2, dtype=torch.int64), torch.zeros(2, 5, dtype=torch.int64), "the model takes ids"),
    ],
    ids=["length", "rows", "type", "rank"],
)
def test_native_code_is_never_called_with_sizes_that_differ(ids: Any, mask: Any, sentence: str) -> None:
    with pytest.raises(InvalidRequestError, match=sentence):
        aot_inductor.check_sizes({"ids": ids, "mask": mask}, PAIR)
    aot_inductor.check_sizes({"ids": mask.long().reshape(-1, 1), "mask": mask.long().reshape(-1, 1)}, PAIR)
