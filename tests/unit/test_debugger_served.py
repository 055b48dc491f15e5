"""A kept answer beside the one that the debugger saw."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from control_plane.debugging import served
from control_plane.domain.served_answer import Answer
from serving_agent.contract.capture import CapturedTensor
from tests.fakes.inspected_runs import Writer

SCORES = np.array([[0.25, 0.75]], np.float32)
LABELS = np.array(["one"], dtype=object)


def given(name: str, array: Any, datatype: str = "FP32") -> CapturedTensor:
    data = array.tobytes()
    if datatype == "BYTES":
        texts = [text.encode() for text in array.ravel()]
        data = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return CapturedTensor(name=name, datatype=datatype, shape=array.shape, data=data)


def compared(folder: Path, *answer: CapturedTensor) -> Any:
    writer = Writer(folder)
    writer.stage("postprocess", scores=SCORES, label=LABELS)
    run = writer.write()
    return served.compare(Answer(by="d@1", outputs=answer), run.run, folder)


def test_the_same_answer_is_told_to_be_the_same(tmp_path: Path) -> None:
    found = compared(tmp_path, given("scores", SCORES), given("label", LABELS, "BYTES"))
    assert (found.compared, found.different, found.max_abs) == (("scores", "label"), (), None)
    assert found.sentence == "The answer of d@1 is, bit for bit, the one that the client got"


def test_the_smallest_difference_counts_and_is_told(tmp_path: Path) -> None:
    other = SCORES.copy()
    other[0, 1] = np.nextafter(other[0, 1], np.float32(1))
    found = compared(tmp_path, given("scores", other), given("label", np.array(["two"], object), "BYTES"))
    assert found.different == ("scores", "label")
    assert found.max_abs == pytest.approx(2**-24)
    assert "another answer of d@1: scores, label differ, by at most 5.96e-08" in found.sentence


def test_minus_zero_is_not_zero(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.stage("postprocess", y=np.array([0.0], np.float32))
    run = writer.write()
    answer = (given("y", np.array([-0.0], np.float32)),)
    assert served.compare(Answer(by="d@1", outputs=answer), run.run, tmp_path).different == ("y",)


def test_what_was_not_kept_is_left_out(tmp_path: Path) -> None:
    bare = CapturedTensor(name="scores", datatype="FP32", shape=(1, 2), data=None)
    reshaped = given("label", np.array(["one", "two"], object), "BYTES")
    broken = CapturedTensor(name="scores", datatype="FP32", shape=(1, 2), data=b"abc")
    for answer in ((bare, reshaped), (broken,), (given("other", SCORES),), ()):
        found = compared(tmp_path, *answer)
        assert (found.compared, len(found.left_out)) == ((), len(answer))
        assert "cannot be compared" in found.sentence
