"""Golden files: both forms, every refusal, and one digest for one content."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain import golden
from control_plane.errors import InvalidInputError, SignalboxError, TooLargeError
from control_plane.provenance.statement import hash_of
from serving_agent.contract.signature import Signature, TensorSpec

SIGNATURE = Signature(
    (TensorSpec("x", "FP32", (-1, 2)), TensorSpec("n", "INT64", (-1,))), (TensorSpec("y", "FP32", (-1, 1)),)
)
GOOD = {"inputs": {"x": [1.0, 2], "n": 3}, "label": "cat"}
WITH_OUTPUTS = {"inputs": GOOD["inputs"], "outputs": {"y": [0.5]}}


def read(*items: object) -> tuple[golden.GoldenItem, ...]:
    return golden.parse(json.dumps(items).encode())


def refused(*items: object, labels: tuple[str, ...] = ()) -> str:
    with pytest.raises(InvalidInputError) as refusal:
        golden.check(read(*items), SIGNATURE, labels)
    return refusal.value.message


def test_list_and_lines_are_the_same() -> None:
    lines = "\n".join(json.dumps(item) for item in (GOOD, WITH_OUTPUTS)) + "\n\n"
    assert golden.parse(lines.encode()) == read(GOOD, WITH_OUTPUTS)
    golden.check(read(GOOD, {**WITH_OUTPUTS, "label": "dog"}), SIGNATURE, ("cat", "dog"))


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"inputs": {"x": [1, 2]}, "label": "cat"}, "missing input 'n'"),
        ({"inputs": {"x": [1, 2], "n": 1, "z": 0}, "label": "cat"}, "unknown input 'z'"),
        ({"inputs": {"x": [1, 2, 3], "n": 1}, "label": "cat"}, "must have shape [-1, 2]"),
        ({"inputs": {"x": [1, "2"], "n": 1}, "label": "cat"}, "input 'x'"),
        ({"inputs": {"x": [1, 2], "n": 1.5}, "label": "cat"}, "input 'n'"),
        ({"inputs": GOOD["inputs"]}, "neither a label nor an output"),
        ({"inputs": GOOD["inputs"], "outputs": {}}, "neither a label nor an output"),
        ({"inputs": GOOD["inputs"], "outputs": {"z": [1]}}, "no output 'z'; it has 'y'"),
        ({"inputs": GOOD["inputs"], "outputs": {"y": [1, 2]}}, "must have shape [-1, 1]"),
        ({"inputs": GOOD["inputs"], "label": "cow"}, "'cow' is no class of the model"),
        ({"inputs": GOOD["inputs"], "label": ""}, "a label has 1 to"),
    ],
)
def test_item_that_does_not_fit_is_named(item: dict[str, object], words: str) -> None:
    message = refused(GOOD, item, labels=("cat", "dog"))
    assert message.startswith("item 2: ")
    assert words in message


def test_labels_for_some_items_only_are_refused() -> None:
    assert "some items have a label" in refused(GOOD, WITH_OUTPUTS)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"[1]", b'{"inputs": {}, "lable": "x"}', b'{"label": "x"}', b"\xff", b"[NaN]",
     b'{"inputs": {"x": NaN}, "label": "x"}', b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_golden_file_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInputError):
        golden.parse(content)


def test_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "MAX_ITEMS", 2)
    for content in (json.dumps([GOOD] * 3), "\n".join([json.dumps(GOOD)] * 3)):
        with pytest.raises(TooLargeError, match="2 items at most, not 3"):
            golden.parse(content.encode())
    monkeypatch.setattr(golden, "MAX_BYTES", 10)
    with pytest.raises(TooLargeError):
        golden.parse(b" " * 11)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(SignalboxError):
        assert golden.parse(content)


def test_key_order_and_spaces_do_not_change_the_digest() -> None:
    turned = json.dumps({"label": "cat", "inputs": {"n": 3, "x": [1.0, 2]}}, indent=3).replace("\n", " ")
    assert hash_of(golden.plain(golden.parse(turned.encode()))) == hash_of(golden.plain(read(GOOD)))
    assert hash_of(golden.plain(read(GOOD))) != hash_of(golden.plain(read({**GOOD, "label": "dog"})))
