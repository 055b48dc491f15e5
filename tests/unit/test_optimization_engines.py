"""Methods that hand a version to another engine: what they refuse, and how they name and size things."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from control_plane.optimization import catalog, graph_layers, onnx_graph
from control_plane.optimization.base import Machine, Subject
from serving_agent.contract.signature import Signature, TensorSpec

METHODS = (
    "onnx-runtime", "onnx-dynamic-int8", "onnx-static-int8", "openvino", "openvino-int8", "openvino-weights",
    "aot-inductor", "compile-cache",
)  # fmt: skip
COMPILING = ("aot-inductor", "compile-cache")
IMAGE = Signature((TensorSpec("image", "FP32", (-1, 1, 8, 8)),), (TensorSpec("logits", "FP32", (-1, 10)),))
PLAIN = Machine(cpu="any", cores=2, flags=frozenset({"avx2"}), memory_bytes=1 << 33, compiler="/usr/bin/g++")
SUBJECT = Subject(
    ref="digits@1",
    format="torchscript",
    handler="image-classification",
    signature=IMAGE,
    size_bytes=1000,
    labels=(),
    architecture=None,
    machine=PLAIN,
)


@pytest.fixture(params=METHODS)
def method(request):
    return catalog.get(request.param)


@pytest.mark.parametrize("format_", ["state_dict", "huggingface", "exported_program", "torchscript"])
def test_they_take_every_format_that_holds_a_network(method, format_):
    assert method.inapplicable(replace(SUBJECT, format=format_)) is None


@pytest.mark.parametrize("format_", ["onnx", "openvino", "aot_inductor", "compiled"])
def test_they_refuse_what_an_engine_has_made_already(method, format_):
    reason = method.inapplicable(replace(SUBJECT, format=format_))
    assert reason
    assert not reason.endswith(".")


def test_a_fixed_batch_and_text_are_refused_by_name(method):
    fixed = Signature((TensorSpec("image", "FP32", (4, 64)),), IMAGE.outputs)
    text = Signature((TensorSpec("words", "BYTES", (-1,)),), IMAGE.outputs)
    assert method.inapplicable(replace(SUBJECT, signature=fixed)) == "input image has a fixed batch size"
    assert "words is text" in method.inapplicable(replace(SUBJECT, signature=text))


@pytest.mark.parametrize("name", COMPILING)
def test_compiling_needs_a_compiler(name):
    reason = catalog.get(name).inapplicable(replace(SUBJECT, machine=replace(PLAIN, compiler=None)))
    assert "C++ compiler" in reason


def test_openvino_refuses_tensors_it_cannot_carry():
    narrow = Signature((TensorSpec("image", "BF16", (-1, 64)),), IMAGE.outputs)
    assert "image is BF16" in catalog.get("openvino").inapplicable(replace(SUBJECT, signature=narrow))
    assert catalog.get("onnx-runtime").inapplicable(replace(SUBJECT, signature=narrow)) is None


@pytest.mark.parametrize("name", ["openvino", "openvino-int8", "aot-inductor"])
def test_bfloat16_is_tried_where_the_processor_has_it(name):
    with_bf16 = replace(SUBJECT, machine=replace(PLAIN, flags=PLAIN.flags | {"avx512_bf16"}))

    def precisions(subject):
        return {params.precision for params in catalog.get(name).candidates(subject)}

    assert not precisions(SUBJECT) & {"bf16"}
    assert "bf16" in precisions(with_bf16)


def test_four_bits_are_tried_on_language_models_only():
    weights = catalog.get("openvino-weights")
    llama = replace(SUBJECT, format="huggingface", architecture="LlamaForCausalLM")
    assert {params.bits for params in weights.candidates(SUBJECT)} == {8}
    assert {params.bits for params in weights.candidates(llama)} == {8, 4}


@pytest.mark.parametrize(
    ("name", "given_"),
    [
        ("openvino", {"precision": "int8"}),
        ("openvino-weights", {"bits": 5}),
        ("openvino-weights", {"share": 1.5}),
        ("onnx-static-int8", {"ranges": "guess"}),
        ("onnx-dynamic-int8", {"keep_most_fragile": -1}),
        ("onnx-runtime", {"opset": 3}),
    ],
)
def test_values_out_of_bounds_are_refused(name, given_):
    with pytest.raises(ValidationError):
        catalog.get(name).params.model_validate(given_)


@pytest.mark.parametrize(
    ("path", "layer", "within"),
    [
        ("module.network.features.0.weight", "features.0", True),
        ("module.network.features.0", "features.0", True),
        ("module.features.0.weight", "features", True),
        ("module.inner.module.network.features.0", "features.0", True),
        ("module.network.features.01.weight", "features.0", False),
        ("module.network.encoder.features.0", "features.0", False),
        ("image", "features.0", False),
    ],
)
def test_a_path_lies_in_a_layer(path, layer, within):
    assert graph_layers.is_within(path, layer) is within


@given(st.lists(st.from_regex(r"[a-z]{1,3}|[0-9]", fullmatch=True), min_size=1, max_size=4))
def test_every_tensor_lies_in_its_own_layer_behind_any_wrapping(parts):
    layer = ".".join(parts)
    for prefix in ("", "module.", "module.network.", "module.inner.module.network."):
        assert graph_layers.is_within(f"{prefix}{layer}.weight", layer)
        assert not graph_layers.is_within(f"{prefix}other.{layer}.weight", layer)


@pytest.mark.parametrize(
    ("flags", "vnni"),
    [({"avx2", "avx512f"}, False), ({"avx512_vnni"}, True), ({"avx_vnni"}, True), ({"amx_int8"}, True)],
    ids=["none", "avx512", "avx", "amx"],
)
def test_weights_lose_a_bit_without_vnni(flags, vnni):
    assert onnx_graph.has_vnni(frozenset(flags)) is vnni
