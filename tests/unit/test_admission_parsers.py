"""The gate's readers: what they read, what they refuse, and that hostile bytes never break them."""

from __future__ import annotations

import collections
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.admission import bounded_json, safetensors_header
from control_plane.admission.base import ReceivedFile, Refusal
from control_plane.admission.formats import export_graph, hf_architecture, script_source
from control_plane.admission.pickle_symbols import Call, Global, Items, Machine, NotAPickleError
from control_plane.admission.reasons import ReasonCode


def test_the_gate_imports_neither_torch_nor_pickle() -> None:
    code = (
        "import sys; from control_plane.admission import gate, catalog; catalog.formats();"
        "print([m for m in ('torch', 'pickle', '_pickle', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# pickles

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def as_values(symbols: Any) -> Any:
    """What a pickle of plain values stands for."""
    if isinstance(symbols, Items):
        return {as_values(key): as_values(value) for key, value in symbols.pairs}
    if isinstance(symbols, list | tuple):
        return type(symbols)(as_values(item) for item in symbols)
    return symbols


@given(value=plain, protocol=st.integers(0, 5))
def test_machine_reads_what_pickle_writes(value: Any, protocol: int) -> None:
    machine = Machine(pickle.dumps(value, protocol))
    read = machine.run()
    if machine.globals:  # old protocols call a function for bytes
        assert protocol < 3
    else:
        assert as_values(read) == value


@pytest.mark.parametrize("protocol", range(6))
def test_machine_names_calls_and_calls_nothing(protocol: int, tmp_path: Path) -> None:
    class Opens:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "made"), "w"))

    found = Machine(pickle.dumps({"a": Opens()}, protocol)).run().get("a")
    assert isinstance(found, Call)
    assert found.function in (Global("io", "open"), Global("_io", "open"), Global("__builtin__", "open"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_machine_follows_objects_with_state(protocol: int) -> None:
    value = [collections.OrderedDict(a=1), collections.Counter("abc"), {1, 2}, ValueError("x")]
    machine = Machine(pickle.dumps(value, protocol))
    assert len(machine.run()) == 4
    assert Global("collections", "OrderedDict") in machine.globals


@given(st.binary(max_size=300))
def test_machine_answers_or_refuses_any_bytes(data: bytes) -> None:
    try:
        Machine(data).run()
    except NotAPickleError:
        return


@given(value=plain, position=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_machine_survives_one_wrong_byte(value: Any, position: int, byte: int) -> None:
    data = bytearray(pickle.dumps(value))
    data[position % len(data)] = byte
    try:
        Machine(bytes(data)).run()
    except NotAPickleError:
        return


# TorchScript source

SOURCE = """class Wide(Module):
  training : bool
  def forward(self: __torch__.Wide,
    image: Tensor,
    pair: Tuple[Tensor, Dict[str, int]],
    scale: Optional[float]=None) -> Tensor:
    return image
class Widely(Module):
  def forward(self: __torch__.Widely,
    text: Tensor) -> Tensor:
    return text
class Bare(Module):
  def apply(self) -> Tensor:
    return self.x
"""


def test_forward_arguments_of_the_named_class_only() -> None:
    arguments = script_source.forward_arguments(SOURCE, "Wide")
    assert arguments == (
        script_source.Argument("image", "Tensor", has_default=False),
        script_source.Argument("pair", "Tuple[Tensor, Dict[str, int]]", has_default=False),
        script_source.Argument("scale", "Optional[float]", has_default=True),
    )
    assert script_source.forward_arguments(SOURCE, "Widely") == (
        script_source.Argument("text", "Tensor", has_default=False),
    )
    assert script_source.forward_arguments(SOURCE, "Bare") is None
    assert script_source.forward_arguments(SOURCE, "Missing") is None


@given(st.text(alphabet="class Wide(Module):\n  def forward(self, x: Tensor[]{})=->,", max_size=300))
def test_any_source_is_read_or_not(text: str) -> None:
    script_source.forward_arguments(text, "Wide")


# exported programs


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(2), Symbol('s52', positive=True, integer=True))",
        "Add(Symbol('s0', integer=True), Integer(-1))",
        "FloorDiv(Symbol('s0', positive=True, integer=True), Integer(2))",
        "Max(Integer(1), Symbol('u0', integer=True))",
    ],
)
def test_sizes_of_torch_are_plain(text: str) -> None:
    assert export_graph.is_plain_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "Symbol('s0').__class__",
        "Symbol('s0', cls=eval)",
        "Lambda(Symbol('x'), 1)",
        "Symbol('a b')",
        "Symbol",
        "exec('x')",
        "[c for c in (1,)]",
        "Integer(9)**9**9",
        "Integer(" + "9" * 30 + ")",
        "",
    ],
)
def test_expressions_that_could_run_are_not(text: str) -> None:
    assert not export_graph.is_plain_expression(text)


@pytest.mark.parametrize(
    "guard",
    [
        "L['b'].size()[0] == L['a'].size()[0]",
        "L['x'].size()[1] >= 2",
        "not (L['x'].dim() == 3)",
        "(4*L['x'].size()[1]) != (4*max(1, L['x'].size()[1] // 2))",
        "L['x'].size()[1]**2 <= 4096",
    ],
)
def test_guards_of_torch_are_plain(guard: str) -> None:
    assert export_graph.is_plain_guard(guard)


@pytest.mark.parametrize(
    "guard",
    [
        "__import__('os')",
        "L.__class__",
        "L['a'].__class__.__mro__",
        "(lambda: 1)()",
        "[x for x in L]",
        "L['a'].size(x=1)",
        "a := 1",
        "9**9**9",
        "9**L['a'].size()[0]",
        "max.__call__(1)",
        "eval('1')",
        "L['a']; L",
        "(" * 5000,
        None,
    ],
)
def test_guards_that_could_run_are_not(guard: Any) -> None:
    assert not export_graph.is_plain_guard(guard)


@given(
    st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_any_json_is_no_program(value: Any) -> None:
    with pytest.raises(Refusal):
        export_graph.signature({"graph_module": value}, "model.pt2")


# safetensors


def safetensors(header: Any, payload: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + payload


def received(folder: Path, content: bytes) -> ReceivedFile:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return ReceivedFile(path.name, path, len(content))


def tensor(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_whole_safetensors_file_is_read(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "a": tensor(0, 8, [2]), "b": tensor(8, 12, [1, 2], "F16")}
    assert safetensors_header.tensor_names(received(tmp_path, safetensors(header, b"x" * 12))) == {"a", "b"}


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"\xff" * 8 + b"{}",
        safetensors({}),
        safetensors(b"[1]"),
        safetensors({"a": tensor(0, 8, [3])}, b"x" * 8),
        safetensors({"a": tensor(0, 8, [2])}, b"x" * 9),
        safetensors({"a": tensor(0, 8, [2])}, b"x" * 7),
        safetensors({"a": tensor(0, 8, [2]), "b": tensor(4, 12, [2])}, b"x" * 12),
        safetensors({"a": tensor(0, 8, [2]), "b": tensor(12, 20, [2])}, b"x" * 20),
        safetensors({"a": tensor(0, 8, [2], "F33")}, b"x" * 8),
        safetensors({"a": tensor(0, 8, [-2])}, b"x" * 8),
        safetensors({"a": tensor(0, 0, [2**63, 2**63, 2])}),
        safetensors({"a\n": tensor(0, 8, [2])}, b"x" * 8),
        safetensors({"a": {**tensor(0, 8, [2]), "extra": 1}}, b"x" * 8),
        safetensors(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{}}', b"x" * 8),
    ],
)
def test_contrived_safetensors_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Refusal):
        safetensors_header.tensor_names(received(tmp_path, content))


# JSON and architectures


@pytest.mark.parametrize("data", [b"", b"[]", b'{"a":1,"a":2}', b'{"a":NaN}', b'{"a":' * 100_000, b"\xff{}"])
def test_loose_json_is_refused(data: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        bounded_json.parse(data, "config.json")
    assert refused.value.refused.code == ReasonCode.BROKEN_JSON


def test_classifier_has_its_labels() -> None:
    config = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "no", "1": "yes"}}
    served = hf_architecture.served(config, "config.json")
    assert (served.handler, served.labels) == ("text-classification", ("no", "yes"))
    assert [str(spec) for spec in served.signature.outputs] == ["probabilities:FP32[-1,2]", "label:BYTES[-1]"]


@pytest.mark.parametrize(
    ("architecture", "said", "datatype"),
    [
        ("LlamaForCausalLM", {}, "FP32"),
        ("GPT2LMHeadModel", {"torch_dtype": "float16"}, "FP16"),
        ("Qwen3ForCausalLM", {"dtype": "bfloat16"}, "BF16"),
        ("Qwen3ForCausalLM", {"dtype": ["odd"]}, "FP32"),
    ],
)
def test_causal_language_model_answers_token_ids_with_logits(architecture, said, datatype) -> None:
    served = hf_architecture.served(
        {"architectures": [architecture], "vocab_size": 61, **said}, "config.json"
    )
    assert served.handler == "tensor"
    assert [spec.name for spec in served.signature.inputs] == ["input_ids", "attention_mask"]
    assert [str(spec) for spec in served.signature.outputs] == [f"logits:{datatype}[-1,-1,61]"]


def test_encoder_gives_embeddings() -> None:
    config = {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 32}
    served = hf_architecture.served(config, "config.json")
    assert served.handler == "embedding"
    assert str(served.signature.outputs[0]) == "embedding:FP32[-1,32]"


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, ReasonCode.MISSING_CONFIG),
        ({"architectures": ["T5ForConditionalGeneration"]}, ReasonCode.LANGUAGE_MODEL),
        ({"architectures": ["ViTModel"], "model_type": "vit"}, ReasonCode.UNSUPPORTED_ARCHITECTURE),
        ({"architectures": []}, ReasonCode.MISSING_CONFIG),
        ({"architectures": ["../x"]}, ReasonCode.MISSING_CONFIG),
        (
            {"architectures": ["XForSequenceClassification"], "id2label": {"1": "a"}},
            ReasonCode.MISSING_CONFIG,
        ),
        (
            {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": True},
            ReasonCode.MISSING_CONFIG,
        ),
    ],
)
def test_other_architectures_are_refused(config: dict[str, Any], code: ReasonCode) -> None:
    with pytest.raises(Refusal) as refused:
        hf_architecture.served(config, "config.json")
    assert refused.value.refused.code == code
