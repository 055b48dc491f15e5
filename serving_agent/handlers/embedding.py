"""`embedding`: text in, one unit vector per text out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.datatypes import Array
from serving_agent.handlers.text import TEXT, TextHandler

EMBEDDING: Final = "embedding"


class EmbeddingHandler(TextHandler):
    """Means the last hidden states over each text's own tokens and scales them to length 1.

    The recipe of sentence-transformers' mean pooling followed by its Normalize module.
    """

    name = "embedding"
    title = "Text embedding"
    description = "Text in; one vector of length 1 per text out."
    reads = "last_hidden_state"

    @classmethod
    def served_signature(cls, signature: Signature, labels: tuple[str, ...]) -> Signature:
        """Return `text` → `embedding`; the width is known once the model is open."""
        del signature, labels
        return _signature(-1)

    def signature(self) -> Signature:
        """Return the served signature with the model's hidden size."""
        return _signature(int(self.text_model.config.hidden_size))

    def predict(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return `embedding`, shape (rows, hidden size)."""
        import torch

        hidden = self.text_model.last_hidden_state(inputs).float()
        mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        return {EMBEDDING: torch.nn.functional.normalize(mean, dim=-1)}

    def postprocess(self, outputs: Mapping[str, Any]) -> Mapping[str, Array]:
        """Return `embedding`, FP32 [rows, hidden size]."""
        return {EMBEDDING: outputs[EMBEDDING].cpu().numpy()}


def _signature(width: int) -> Signature:
    return Signature((TEXT,), (TensorSpec(EMBEDDING, "FP32", (-1, width)),))


HANDLER: Final = EmbeddingHandler
