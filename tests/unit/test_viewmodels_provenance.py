"""Verdicts, lineage and comparisons in words and rows."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.comparison import (
    Comparison,
    Difference,
    TensorFacts,
    TensorPair,
    Weights,
    WeightsComparison,
)
from control_plane.domain.views import FileView, Lineage, LineageNode, VersionDetail
from control_plane.ui.viewmodels import comparison, provenance
from serving_agent.contract.signature import Signature

NOW = 1_700_000_000.0
FILES = (FileView("model.safetensors", 2048, "ab" * 32), FileView("config.json", 10, "cd" * 32))


def version(**changes: Any) -> VersionDetail:
    given: dict[str, Any] = {
        "id": "1", "ref": "digits@2", "model": "digits", "number": 2, "format": "huggingface",
        "handler": "text", "digest": "sha256:" + "a" * 64, "size_bytes": 2058, "aliases": (), "tags": {},
        "details": {}, "served_by": (), "created_by": "ana", "created_at": NOW, "archived_at": None,
        "signature": Signature(inputs=(), outputs=()), "labels": (), "files": FILES, "parent": None,
        "program_accepted_by": None, "program_accepted_at": None, "example_count": 0, **changes,
    }  # fmt: skip
    verdict = given.get("verdict")
    return VersionDetail(**{"decision": verdict and verdict["decision"], **given})


@pytest.mark.parametrize(
    ("decision", "word", "tone"),
    [
        ("accept", "Accepted", "good"),
        ("convert", "Converted", "good"),
        ("sandbox", "Program", "warn"),
        ("refuse", "Refused", "bad"),
        (None, "Not judged", "idle"),
        ("of a later gate", "Not judged", "idle"),
    ],
)
def test_a_decision_has_a_badge_and_a_meaning(decision: str | None, word: str, tone: str) -> None:
    badge = provenance.decision_badge(decision)
    assert (badge.word, badge.tone) == (word, tone)
    assert provenance.decision_words(decision) == f"{badge.icon} {word}"
    assert provenance.verdict_sentence(version(decision=decision)).endswith(".")
    assert provenance.refused(decision) == (tone == "bad")


def test_a_refusal_says_where_and_why() -> None:
    verdict = {
        "decision": "refuse", "code": "unsafe-pickle", "left_out": [], "file": "model.pt",
        "member": "data.pkl", "message": "it calls os.system", "next_step": "Save weights alone.",
    }  # fmt: skip
    judged = version(verdict=verdict, gate_version="2")
    assert provenance.verdict_sentence(judged) == "model.pt: data.pkl: it calls os.system"
    assert provenance.verdict_rows(judged) == [
        ("Reason code", "unsafe-pickle"), ("Gate version", "2"), ("Left out", "nothing"),
    ]  # fmt: skip
    assert provenance.verdict_rows(version()) == provenance.left_out_rows(version().verdict) == []


def test_what_was_left_out_is_listed() -> None:
    left_out = [{"path": "model.pt!/optimizer", "size_bytes": 4096, "why": "optimiser state"}]
    judged = version(verdict={"decision": "convert", "code": "x", "left_out": left_out}, gate_version="1")
    assert provenance.left_out_rows(judged.verdict) == [
        {"Left out": "model.pt!/optimizer", "Size": "4 KiB", "Why": "optimiser state"}
    ]
    assert ("Left out", "1 part") in provenance.verdict_rows(judged)


def test_hashes_are_as_sha256sum_takes_them() -> None:
    lines = provenance.checksum_lines(FILES).splitlines()
    assert lines[0] == "ab" * 32 + "  model.safetensors"
    assert [row["File"] for row in provenance.file_rows(FILES)] == ["model.safetensors", "config.json"]


def node(ref: str, depth: int, **changes: Any) -> LineageNode:
    given: dict[str, Any] = {
        "ref": ref, "depth": depth, "focus": False, "format": "torchscript", "created_by": "ana",
        "created_at": NOW, "decision": None, "archived": False, **changes,
    }  # fmt: skip
    return LineageNode(**given)


def test_a_tree_becomes_rows_and_near_relatives() -> None:
    nodes = (
        node("d@1", 0, archived=True),
        node("d@2", 1),
        node("d@3", 2, focus=True),
        node("d@5", 3, decision="refuse"),
        node("d@7", 4),
        node("d@6", 3),
    )
    tree = Lineage(ref="d@3", nodes=nodes, complete=True, source={}, evidence_digest=None, evidence_files=())
    rows = provenance.tree_rows(tree, None)
    assert [(row.ref, row.depth, row.focus) for row in rows] == [
        (each.ref, each.depth, each.focus) for each in nodes
    ]
    assert [row.badge.word if row.badge else None for row in rows] == [
        "Archived", None, None, "Refused", None, None,
    ]  # fmt: skip
    assert provenance.relatives(tree, 9) == ["d@2", "d@1", "d@5", "d@6", "d@7"]
    assert provenance.relatives(tree, 2) == ["d@2", "d@1"]


def test_a_source_is_told_by_dotted_path() -> None:
    source = {
        "run": {"name": "grpo", "step": 120},
        "base": ["a", "b"],
        "metrics": [{"step": 1}, {"step": 2}],
        "nothing": {},
        "long": "x" * 1000,
    }
    rows = dict(provenance.source_rows(source))
    assert rows["run.step"] == "120"
    assert (rows["base"], rows["metrics"], rows["nothing"]) == ("a, b", "2 entries", "{}")
    assert rows["long"] == "x" * provenance.MOST_CHARS + "…"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=60))
def test_any_lineage_can_be_told(source: dict[str, Any]) -> None:
    rows = provenance.source_rows(source)
    assert len(rows) <= provenance.MOST_SOURCE_ROWS
    assert all(len(value) <= provenance.MOST_CHARS + 1 for _, value in rows)


def test_who_signed_is_found() -> None:
    assert provenance.signer({"signatures": [{"keyid": "abc", "sig": ""}]}) == "abc"
    assert provenance.signer(None) is provenance.signer({}) is None


def facts(dtype: str = "F32", shape: tuple[int, ...] = (2,), norm: float | None = 1.0) -> TensorFacts:
    return TensorFacts(dtype, shape, norm)


PAIRS = (
    TensorPair("a.same", facts(), facts(), same=True, max_difference=0.0),
    TensorPair("b.small", facts(), facts(), same=False, max_difference=0.125),
    TensorPair("c.large", facts(), facts(), same=False, max_difference=3.0),
    TensorPair("d.gone", facts(), None, same=False),
    TensorPair("e.shape", facts(), facts(shape=(3,)), same=False),
    TensorPair("f.type", facts(), facts("BF16"), same=False, max_difference=0.5),
)


def compared(*pairs: TensorPair) -> Comparison:
    found = WeightsComparison(pairs, 10, 0.1)
    return Comparison(
        a="d@1",
        b="d@2",
        identical=False,
        metadata=(Difference("format", "x", "x"), Difference("size_bytes", 1024, None)),
        files=(Difference("same", "ab" * 32, "ab" * 32), Difference("new", None, "cd" * 32)),
        config={"config.json": (Difference("rope.theta", 1e4, None),)},
        weights=Weights("ready", "", None, found, found.counts(), found.max_difference),
    )


def test_tensors_that_differ_most_come_first() -> None:
    found = compared(*PAIRS)
    rows = comparison.tensor_rows(found, everything=False)
    assert [row["Tensor"] for row in rows] == ["d.gone", "e.shape", "c.large", "f.type", "b.small"]
    assert rows[0]["Relation"] == "only in d@1"
    assert rows[0]["Type, shape in d@2"] == ""
    assert rows[3]["Type, shape in d@2"] == "BF16 [2]"
    assert len(comparison.tensor_rows(found, everything=True)) == len(PAIRS)


def test_weights_in_one_sentence() -> None:
    found = compared(*PAIRS)
    assert comparison.summary(found, found.weights) == (
        "6 tensors: 1 same, 2 values differ, 1 type differs, 1 shape differs, 1 only in d@1; largest |Δ| 3."
    )
    alike = compared(PAIRS[0])
    assert comparison.summary(alike, alike.weights) == "1 tensor, bit for bit the same."


def test_metadata_and_files_show_what_differs() -> None:
    found = compared()
    (only,) = comparison.metadata_rows(found, None, everything=False)
    assert only == {"": "Size", "d@1": "1 KiB", "d@2": "–"}
    assert len(comparison.metadata_rows(found, None, everything=True)) == 2
    assert comparison.file_rows(found) == [{"File": "new", "d@1": "–", "d@2": "cd" * 6}]
    assert comparison.change_rows(found, found.config["config.json"]) == [
        {"Key": "rope.theta", "d@1": "10000.0", "d@2": "–"}
    ]


def test_a_comparison_is_plain_json() -> None:
    found = compared(*PAIRS)
    text = msgspec.json.encode(found)
    assert msgspec.json.decode(text, type=Comparison) == found
    json.loads(text)
