"""`text-classification`: text in, probabilities and a class name out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from serving_agent.contract.signature import Signature
from serving_agent.datatypes import Array
from serving_agent.errors import StartError
from serving_agent.handlers.classification import classify, output_specs
from serving_agent.handlers.text import TEXT, TextHandler
from serving_agent.model_server import ModelContext


class TextClassificationHandler(TextHandler):
    """Serves a sequence classifier of Hugging Face, or a graph made of one."""

    name = "text-classification"
    title = "Text classification"
    description = "Text in; probabilities and the likeliest class's name out."
    reads = "logits"

    @classmethod
    def served_signature(cls, signature: Signature, labels: tuple[str, ...]) -> Signature:
        """Return `text` → `probabilities`, `label`, whatever the artefact's own tensors are."""
        del signature
        return Signature((TEXT,), output_specs(len(labels) or -1))

    def load_model(self, context: ModelContext) -> None:
        """Open the model. Raises StartError where it is no sequence classifier."""
        super().load_model(context)
        config = self.text_model.config
        if not any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
            raise StartError("text classification needs a ...ForSequenceClassification architecture")
        if context.labels and len(context.labels) != config.num_labels:
            raise StartError(f"{len(context.labels)} labels were given for {config.num_labels} classes")

    def signature(self) -> Signature:
        """Return the served signature with the number of classes the model has."""
        return Signature((TEXT,), output_specs(int(self.text_model.config.num_labels)))

    def predict(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return `logits`, shape (rows, classes)."""
        return {"logits": self.text_model.logits(inputs)}

    def postprocess(self, outputs: Mapping[str, Any]) -> Mapping[str, Array]:
        """Return `probabilities`, FP32 [rows, classes], and `label`, BYTES [rows]."""
        return classify(
            outputs["logits"].float().cpu().numpy(), self.context.labels or self.text_model.labels
        )


HANDLER: Final = TextClassificationHandler
