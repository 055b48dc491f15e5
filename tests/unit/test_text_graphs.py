"""What the graph inside a text model takes and returns."""

from __future__ import annotations

import pytest

from control_plane.optimization import text_graphs
from serving_agent.contract.signature import Signature, TensorSpec

TEXT = (TensorSpec("text", "BYTES", (-1,)),)
EMBEDDING = Signature(TEXT, (TensorSpec("embedding", "FP32", (-1, 384)),))
LABELS = Signature(TEXT, (TensorSpec("probabilities", "FP32", (-1, 3)), TensorSpec("label", "BYTES", (-1,))))
BERT = {"hidden_size": 384, "type_vocab_size": 2, "id2label": {"0": "a", "1": "b", "2": "c"}}


def specs(found: Signature) -> list[str]:
    return [str(spec) for spec in (*found.inputs, *found.outputs)]


@pytest.mark.parametrize(
    ("handler", "signature", "config", "expected"),
    [
        (
            "embedding",
            EMBEDDING,
            BERT,
            ["input_ids", "attention_mask", "token_type_ids", "last_hidden_state:FP32[-1,-1,384]"],
        ),
        (
            "embedding",
            EMBEDDING,
            {"dim": 768},
            ["input_ids", "attention_mask", "last_hidden_state:FP32[-1,-1,768]"],
        ),
        (
            "text-classification",
            LABELS,
            BERT,
            ["input_ids", "attention_mask", "token_type_ids", "logits:FP32[-1,3]"],
        ),
        ("score", EMBEDDING, {"hidden_size": "wide"}, ["input_ids", "attention_mask", "logits:FP32[-1,-1]"]),
    ],
    ids=["bert", "distilbert", "classifier", "untold"],
)
def test_text_is_taken_as_tokens(
    handler: str, signature: Signature, config: dict[str, object], expected: list[str]
) -> None:
    found = specs(text_graphs.tensors(signature, handler, config))
    assert found == [*(f"{name}:INT64[-1,-1]" for name in expected[:-1]), expected[-1]]


def test_tensors_stay_what_they_are() -> None:
    plain = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 2)),))
    assert text_graphs.tensors(plain, "tensor", BERT) == plain
    assert text_graphs.tensors(EMBEDDING, "operator:Handler", BERT) == EMBEDDING
    assert text_graphs.tensors(LABELS, "tensor", BERT) == LABELS
