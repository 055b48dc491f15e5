"""`score`: text in, one number a text out, as a reward model gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.datatypes import Array
from serving_agent.errors import StartError
from serving_agent.handlers.text import TEXT, TextHandler
from serving_agent.model_server import ModelContext

SCORE: Final = TensorSpec("score", "FP32", (-1,))


class ScoreHandler(TextHandler):
    """Serves a sequence classifier of Hugging Face with one output, or a graph made of one."""

    name = "score"
    title = "Text score"
    description = "Text in; one number per text out, for reward models and regressors."
    reads = "logits"

    @classmethod
    def served_signature(cls, signature: Signature, labels: tuple[str, ...]) -> Signature:
        """Return `text` → `score`, whatever the artefact's own tensors are."""
        del signature, labels
        return Signature((TEXT,), (SCORE,))

    def load_model(self, context: ModelContext) -> None:
        """Open the model. Raises StartError where it is no sequence classifier with one output."""
        super().load_model(context)
        config = self.text_model.config
        classifier = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
        if not classifier or config.num_labels != 1:
            raise StartError("a score needs a ...ForSequenceClassification architecture with one output")

    def signature(self) -> Signature:
        """Return the served signature."""
        return Signature((TEXT,), (SCORE,))

    def predict(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return `logits`, shape (rows, 1)."""
        return {"logits": self.text_model.logits(inputs)}

    def postprocess(self, outputs: Mapping[str, Any]) -> Mapping[str, Array]:
        """Return `score`, FP32 [rows]."""
        return {SCORE.name: outputs["logits"].float().cpu().numpy()[:, 0].astype(np.float32)}


HANDLER: Final = ScoreHandler
