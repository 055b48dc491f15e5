"""ONNX models are walked as protocol buffers: what they refer to is found wherever it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.admission.base import Accepted, ReceivedFile, Refusal
from control_plane.admission.formats.onnx import FORMAT
from control_plane.admission.protobuf_walk import MalformedError, Walker
from control_plane.admission.reasons import ReasonCode
from serving_agent.contract.signature import Signature, TensorSpec
from tests.corpus.protobuf import field, model, value_info, varint

RAW_MEMORY = "*/_ORT_MEM_ADDR_/*"
"""What ONNX Runtime takes for an address in its own memory, even where a file is called so."""


def read(content: bytes, folder: Path, **beside: bytes) -> Accepted:
    received = []
    for name, data in {"m/net.onnx": content, **{f"m/{key}": data for key, data in beside.items()}}.items():
        location = folder / name.replace("/", "_")
        location.write_bytes(data)
        received.append(ReceivedFile(name, location, len(data)))
    files = tuple(sorted(received, key=lambda each: each.path))
    assert FORMAT.recognises(files)
    return FORMAT.read(files)


def refusal(content: bytes, folder: Path, **beside: bytes) -> ReasonCode:
    with pytest.raises(Refusal) as caught:
        read(content, folder, **beside)
    assert caught.value.refused.file
    return caught.value.refused.code


def with_node(node: bytes, *more: bytes) -> bytes:
    """A model whose graph holds *node*; *more* are fields of the model."""
    graph = field(1, node) + field(11, value_info("x")) + field(12, value_info("y"))
    return field(7, graph) + b"".join(more)


def external(location: str) -> bytes:
    return field(8, "w") + field(13, field(1, "location") + field(2, location))


def node(domain: str, *more: bytes) -> bytes:
    return field(4, "Op") + field(7, domain) + b"".join(more)


def attribute(number: int, value: bytes) -> bytes:
    return field(5, field(1, "a") + field(number, value))


def test_signature_leaves_out_what_an_initializer_fills(tmp_path: Path) -> None:
    verdict = read(model(), tmp_path)
    assert verdict.decision == "sandbox"
    assert verdict.needs == ("acceptance",)
    assert verdict.signature == Signature(
        (TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 4)),)
    )
    assert verdict.stored == (("model.onnx", "m/net.onnx"),)


def test_model_without_shapes_asks_for_a_signature(tmp_path: Path) -> None:
    graph = field(1, node("")) + field(11, field(1, "x")) + field(12, field(1, "y"))
    verdict = read(field(7, graph), tmp_path)
    assert verdict.signature is None
    assert verdict.needs == ("acceptance", "signature")


def test_model_without_output_shapes_is_tried_for_them(tmp_path: Path) -> None:
    graph = field(1, node("")) + field(11, value_info("x")) + field(12, field(1, "y"))
    verdict = read(field(7, graph), tmp_path)
    assert verdict.signature == Signature((TensorSpec("x", "FP32", (-1, 4)),), ())
    assert verdict.needs == ("acceptance",)


def test_inputs_of_one_name_are_refused(tmp_path: Path) -> None:
    graph = 2 * field(11, value_info("x")) + field(12, value_info("y"))
    assert refusal(field(7, graph), tmp_path) == ReasonCode.BROKEN_PROGRAM


def test_external_file_is_kept_under_its_name(tmp_path: Path) -> None:
    verdict = read(model(external="data.bin"), tmp_path, **{"data.bin": bytes(16)})
    assert verdict.stored == (("model.onnx", "m/net.onnx"), ("data.bin", "m/data.bin"))


@pytest.mark.parametrize(
    "location",
    [
        "../x",
        "/etc/passwd",
        "a/../../x",
        "C:x",
        "a\\b",
        "",
        "missing",
        "x\n",
        "net.onnx/..",
        "model.onnx",
        RAW_MEMORY,
    ],
)
def test_external_file_elsewhere_is_refused(location: str, tmp_path: Path) -> None:
    beside = {location: b"x"} if location == RAW_MEMORY else {}
    assert refusal(model(external=location), tmp_path, **beside) == ReasonCode.EXTERNAL_DATA


def test_stray_file_is_refused(tmp_path: Path) -> None:
    assert refusal(model(), tmp_path, **{"evil.so": b"x"}) == ReasonCode.UNEXPECTED_FILE


PLACES = {
    "tensor attribute": with_node(node("", attribute(5, external("/x")))),
    "tensors attribute": with_node(node("", attribute(10, external("/x")))),
    "sparse attribute": with_node(node("", attribute(22, field(1, external("/x"))))),
    "sparse indices": with_node(node("", attribute(23, field(2, external("/x"))))),
    "graph attribute": with_node(node("", attribute(6, field(5, external("/x"))))),
    "graphs attribute": with_node(node("", attribute(11, field(15, field(1, external("/x")))))),
    "function's node": with_node(
        node(""), field(25, field(1, "f") + field(7, node("", attribute(5, external("/x")))))
    ),
    "function's attribute": with_node(node(""), field(25, field(11, field(5, external("/x"))))),
    "training": with_node(node(""), field(20, field(1, field(5, external("/x"))))),
    "second graph": field(7, field(5, external("/x"))) + with_node(node("")),
}


@pytest.mark.parametrize("place", PLACES)
def test_external_tensors_are_found_wherever_they_stand(place: str, tmp_path: Path) -> None:
    assert refusal(PLACES[place], tmp_path) == ReasonCode.EXTERNAL_DATA


@pytest.mark.parametrize("place", ["model", "attribute", "function"])
def test_foreign_operators_are_found_wherever_they_stand(place: str, tmp_path: Path) -> None:
    evil = node("com.evil")
    content = {
        "model": with_node(evil),
        "attribute": with_node(node("", attribute(6, field(1, evil)))),
        "function": with_node(node(""), field(25, field(1, "f") + field(10, "mine") + field(7, evil))),
    }[place]
    assert refusal(content, tmp_path) == ReasonCode.FOREIGN_OPERATOR


def test_functions_of_its_own_are_no_foreign_operators(tmp_path: Path) -> None:
    function = field(25, field(1, "Op") + field(10, "mine") + field(7, node("")))
    assert read(with_node(node("mine"), function), tmp_path).decision == "sandbox"
    assert refusal(with_node(node("other"), function), tmp_path) == ReasonCode.FOREIGN_OPERATOR


def test_model_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    content = model()
    for cut in range(3, len(content) - 10):
        assert refusal(content[:cut], tmp_path) == ReasonCode.BROKEN_PROGRAM


@given(st.integers(0, 2**64 - 1), st.binary(max_size=40))
def test_fields_come_back(number: int, raw: bytes) -> None:
    data = field(3, number) + field(9, raw)
    (first, value), (second, span) = Walker(data).fields((0, len(data)))
    assert (first, value, second) == (3, number, 9)
    assert isinstance(span, tuple)
    assert data[span[0] : span[1]] == raw


@given(st.binary(max_size=200))
def test_any_bytes_are_walked_or_malformed(data: bytes) -> None:
    try:
        for _, value in Walker(data).fields((0, len(data))):
            assert isinstance(value, int) or 0 <= value[0] <= value[1] <= len(data)
    except MalformedError as error:
        assert str(error)  # noqa: PT017  any other error fails the test


@given(st.integers(0, 2**70))
def test_numbers_of_more_than_ten_bytes_are_malformed(value: int) -> None:
    data = varint(1 << 3) + varint(value)
    if value < 2**70:
        assert next(iter(Walker(data).fields((0, len(data))))) == (1, value)
    else:
        with pytest.raises(MalformedError):
            list(Walker(data).fields((0, len(data))))
