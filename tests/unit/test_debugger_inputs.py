"""Inputs of debugger runs: whatever people give becomes tensors, or is refused by the input's name."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from control_plane.cli import debug_values
from control_plane.debugging import inputs, pictures
from control_plane.errors import InvalidInputError, NotFoundError, SignalboxError, TooLargeError
from serving_agent import tensors
from serving_agent.contract.capture import CapturedTensor
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.errors import InvalidRequestError

IMAGE = TensorSpec("image", "FP32", (-1, 3, 8, 8))
WORDS = TensorSpec("words", "BYTES", (-1, 1))
IDS = TensorSpec("ids", "INT64", (-1, -1))
ROWS = TensorSpec("rows", "FP32", (-1, 2))


def takes(*specs: TensorSpec) -> Signature:
    return Signature(specs, (TensorSpec("y", "FP32", (-1, 1)),))


def array(tensor: CapturedTensor) -> Any:
    assert tensor.data is not None
    flat = tensors.from_raw(tensor.data, math.prod(tensor.shape), tensor.datatype, tensor.name)
    return flat.reshape(tensor.shape)


def npy(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value)
    return file.getvalue()


def picture(size: tuple[int, int], mode: str = "RGB", form: str = "PNG", colour: Any = (255, 0, 0)) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, form)
    return file.getvalue()


# JSON


def test_json_is_read_as_predict_reads_it() -> None:
    (one,) = inputs.of_json([[1, 2.5]], takes(ROWS))
    assert (one.shape, array(one).tolist()) == ((1, 2), [[1.0, 2.5]])
    (row,) = inputs.of_json({"rows": [1, 2]}, takes(ROWS))
    assert row.shape == (1, 2), "one row may come without its dimension"
    (special,) = inputs.of_json([["NaN", "-Infinity"]], takes(ROWS))
    assert np.isnan(array(special)[0, 0])
    assert array(special)[0, 1] == -np.inf
    (text,) = inputs.of_json([["NaN"]], takes(WORDS))
    assert array(text).tolist() == [[b"NaN"]]
    (example,) = inputs.of_row({"rows": [3, 4]}, takes(ROWS))
    assert array(example).tolist() == [[3.0, 4.0]]


def test_a_shape_that_does_not_fit_is_let_through_for_the_run_to_tell() -> None:
    (wrong,) = inputs.of_json([[1, 2, 3]], takes(ROWS))
    assert wrong.shape == (1, 3)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"other": [[1, 2]]}, "unknown input 'other'"),
        ({}, "input 'rows' is missing"),
        ([[1, 2], [3]], "ragged"),
        ([["a", 1]], "rows"),
        ("text", "data must be a list"),
        ([[1, None]], "rows"),
        ([[1e300, 1]], "does not fit FP32"),
        (json.loads("[" * 70 + "1" + "]" * 70), "70 dimensions, and may have 32 at most"),
    ],
)
def test_what_cannot_be_a_tensor_is_refused_by_the_inputs_name(value: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said) as refused:
        inputs.of_json(value, takes(ROWS))
    assert "rows:FP32[-1,2]" in f"{refused.value.next_step} {refused.value.message}"


# .npy


@given(
    arrays.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.uint16, np.int64]),
        st.tuples(st.integers(1, 4), st.integers(1, 4)),
        elements=st.integers(0, 100),
    ),
    st.sampled_from(["C", "F", "big"]),
)
def test_arrays_of_any_number_type_and_order_are_read_by_value(value: Any, order: str) -> None:
    stored = value.astype(value.dtype.newbyteorder(">")) if order == "big" else np.asarray(value, order=order)
    (found,) = inputs.of_npy({"": npy(stored)}, takes(TensorSpec("x", "FP32", (-1, -1))))
    assert array(found).tolist() == value.astype(np.float32).tolist()


def test_types_that_lose_something_are_refused() -> None:
    for spec, value, said in (
        (IDS, np.array([[0.5]]), "holds float64, but INT64 is expected"),
        (ROWS, np.array([[1e300, 1.0]]), "does not fit FP32"),
        (TensorSpec("x", "INT8", (-1,)), np.array([300]), "300"),
        (WORDS, np.array([[1]]), "texts are expected"),
        (ROWS, np.array([["a"]]), "holds <U1"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            inputs.of_npy({spec.name: npy(value)}, takes(spec))
    (words,) = inputs.of_npy({"": npy(np.array([["caf\u00e9"]]))}, takes(WORDS))
    assert array(words).tolist() == [["caf\u00e9".encode()]]
    (row,) = inputs.of_npy({"": npy(np.zeros(2, np.float32))}, takes(ROWS))
    assert row.shape == (1, 2)


def test_pickles_and_damaged_files_are_refused_without_being_read() -> None:
    whole = npy(np.zeros((1, 2), np.float32))
    objects = io.BytesIO()
    np.save(objects, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    header = b"\x93NUMPY\x01\x00" + (9).to_bytes(2, "little") + b"__import__"
    for bad in (b"", b"PK\x03\x04", whole[:-1], whole + b"x", whole[:20], objects.getvalue(), header):
        with pytest.raises(InvalidInputError, match="for input 'rows' cannot be read"):
            inputs.of_npy({"rows": bad}, takes(ROWS))
    huge = whole.replace(b"(1, 2)", b"(1, 9999999999)")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        inputs.of_npy({"rows": huge}, takes(ROWS))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_array_or_refused(content: bytes) -> None:
    try:
        inputs.of_npy({"": content}, takes(ROWS))
        inputs.of_image(content, "", takes(IMAGE))
    except SignalboxError:
        pass


def test_what_would_become_too_large_is_refused_before_it_is_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("from_numbers", "from_values", "to_raw"):
        monkeypatch.setattr(tensors, name, lambda *_: pytest.fail("it was cast"))
    monkeypatch.setattr(inputs, "MAX_BYTES", 4000)
    monkeypatch.setattr(inputs, "MAX_TEXTS", 100)
    wide, words = takes(TensorSpec("x", "FP32", (-1,))), takes(TensorSpec("x", "BYTES", (-1,)))
    cases = ((np.zeros(1001, np.int8), wide), (np.full(101, b"a"), words), (np.full(95, "a" * 10), words))
    for given_array, signature in cases:
        with pytest.raises(TooLargeError):
            inputs.of_npy({"": npy(given_array)}, signature)
    with pytest.raises(TooLargeError):
        inputs.of_text("a", "", takes(TensorSpec("x", "BYTES", (10**12,))))


@given(
    st.sampled_from([np.int8, np.uint16, np.int32, np.int64, np.float16, np.float32, np.float64]).flatmap(
        lambda kind: arrays.arrays(kind, 3)
    ),
    st.sampled_from(["FP16", "BF16", "FP32", "FP64"]),
)
def test_numbers_are_cast_as_through_the_widest_float(value: Any, datatype: str) -> None:
    spec = TensorSpec("x", datatype, (-1,))
    try:
        expected = tensors.from_numbers(value.astype(np.float64), datatype, "x")
    except InvalidRequestError:
        with pytest.raises(InvalidInputError, match=f"does not fit {datatype}"):
            inputs.of_npy({"": npy(value)}, takes(spec))
        return
    (found,) = inputs.of_npy({"": npy(value)}, takes(spec))
    np.testing.assert_array_equal(array(found), expected)


# pictures and texts


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_pictures_are_scaled_to_the_inputs_shape(form: str) -> None:
    red = picture((20, 30), form=form)
    (found,) = inputs.of_image(red, "", takes(IMAGE))
    assert found.shape == (1, 3, 8, 8)
    assert array(found)[0, :, 4, 4] == pytest.approx([1, 0, 0], abs=0.02)
    (last,) = inputs.of_image(red, "pixels", takes(TensorSpec("pixels", "UINT8", (-1, -1, -1, 3))))
    assert last.shape == (1, 30, 20, 3)
    assert array(last)[0, 3, 3].tolist() == pytest.approx([255, 0, 0], abs=3)
    grey = picture((4, 4), "L", colour=51)
    (flat,) = inputs.of_image(grey, "", takes(TensorSpec("x", "FP32", (-1, 8, 8))))
    assert flat.shape == (1, 8, 8)
    assert array(flat)[0, 0, 0] == pytest.approx(0.2)


def test_what_is_no_picture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gif = io.BytesIO()
    Image.new("RGB", (4, 4)).save(gif, "GIF")
    for bad in (b"", b"\x89PNG\r\n\x1a\n", picture((9, 9))[:50], gif.getvalue()):
        with pytest.raises(InvalidInputError, match="picture for input 'image' cannot be read"):
            inputs.of_image(bad, "", takes(IMAGE))
    with pytest.raises(InvalidInputError, match="no input takes a picture"):
        inputs.of_image(picture((4, 4)), "", takes(ROWS))
    with pytest.raises(InvalidInputError, match="takes no picture"):
        inputs.of_image(picture((4, 4)), "rows", takes(ROWS))
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100)
    with pytest.raises(TooLargeError, match="100 pixels"):
        inputs.of_image(picture((11, 10)), "", takes(IMAGE))


def test_texts_fill_inputs_of_bytes() -> None:
    (found,) = inputs.of_text("h\u00e9", "", takes(WORDS))
    assert array(found).tolist() == [["h\u00e9".encode()]]
    with pytest.raises(InvalidInputError, match="no input takes a text"):
        inputs.of_text("a", "", takes(ROWS))
    with pytest.raises(InvalidInputError, match="several inputs; say which one"):
        inputs.of_text("a", "", takes(WORDS, TensorSpec("more", "BYTES", (-1,))))
    with pytest.raises(InvalidInputError, match="input 'ids' is missing"):
        inputs.of_text("a", "", takes(WORDS, IDS))


# random and captured


@given(st.integers(0, 2**63), st.integers(1, 3), st.integers(1, 5))
def test_random_inputs_fit_the_signature_and_are_the_same_for_the_same_seed(
    seed: int, rows: int, size: int
) -> None:
    signature = takes(IMAGE, WORDS, IDS, TensorSpec("flag", "BOOL", (-1,)), TensorSpec("half", "BF16", (2,)))
    made = inputs.random(seed, rows, size, signature)
    assert made == inputs.random(seed, rows, size, signature)
    assert [each.shape for each in made] == [(rows, 3, 8, 8), (rows, 1), (rows, size), (rows,), (2,)]
    for each in made:
        array(each)


def test_random_inputs_are_bounded() -> None:
    for bad in ((-1, 1, 1), (0, 0, 1), (0, 1, 10**9)):
        with pytest.raises(InvalidInputError, match="of a random input"):
            inputs.random(*bad, takes(IDS))
    with pytest.raises(TooLargeError):
        inputs.random(0, 60_000, 60_000, takes(IDS))


def test_kept_requests_are_taken_in_the_signatures_order_or_refused() -> None:
    def kept(
        name: str, datatype: str = "FP32", data: bytes | None = b"\0" * 8, left_out: Any = ""
    ) -> CapturedTensor:
        return CapturedTensor(name=name, datatype=datatype, shape=(1, 2), data=data, left_out=left_out)

    signature = takes(ROWS, TensorSpec("more", "FP32", (-1, 2)))
    found = inputs.of_captured((kept("more"), kept("rows")), signature)
    assert [each.name for each in found] == ["rows", "more"]
    cases: tuple[tuple[Callable[[], Any], str], ...] = (
        (lambda: (kept("rows"), kept("more", data=None)), "data of input 'more' was not kept"),
        *(
            (partial(tuple, (kept("rows"), kept("more", data=None, left_out=why))), said)
            for why, said in (("redacted", "redact"), ("too_large", "too large"), ("dropped", "newer"))
        ),
        (lambda: (kept("rows"),), "input 'more' is missing"),
        (lambda: (kept("rows"), kept("x")), "unknown input 'x'"),
        (lambda: (kept("rows"), kept("more", "INT8")), "'more' must be FP32, not INT8"),
    )
    for given_tensors, said in cases:
        with pytest.raises(InvalidInputError, match=said):
            inputs.of_captured(given_tensors(), signature)
    with pytest.raises(InvalidInputError) as redacted:
        inputs.of_captured((kept("rows"), kept("more", data=None, left_out="redacted")), signature)
    assert "choose a later request" in str(redacted.value.next_step)
    for why, whole in (("page", True), ("redacted", False), ("too_large", False), ("dropped", False)):
        assert inputs.are_whole((kept("rows"), kept("more", data=None, left_out=why))) is whole
    assert not inputs.are_whole(())
    assert not inputs.are_whole((kept("rows", data=None),)), "an older agent does not say why"


def test_the_command_line_takes_the_newest_whole_request_or_says_what_is_amiss() -> None:
    where = {"endpoint": "digits", "agent": "a1", "why": "sampling"}
    kept = [{**where, "seq": seq, "complete": seq != 3} for seq in (3, 2, 1)]
    agents: Any = SimpleNamespace(get_list=lambda _: kept)
    assert debug_values.captured(agents, "digits") == {"kind": "capture", **where, "seq": 2}
    for left, said, next_step in (
        (kept[:1], "digits keeps no request with all of its inputs", "redact"),
        ([], "digits keeps no request", "start a rollout"),
    ):
        nothing: Any = SimpleNamespace(get_list=lambda _, left=left: left)
        with pytest.raises(NotFoundError, match=f"^{said}$") as refused:
            debug_values.captured(nothing, "digits")
        assert next_step in str(refused.value.next_step)
