"""`image-classification`: an image tensor in, probabilities and a class name out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from serving_agent.contract.signature import Signature
from serving_agent.datatypes import FLOATS, Array
from serving_agent.errors import StartError
from serving_agent.formats import catalog
from serving_agent.handlers.classification import classify, output_specs
from serving_agent.model_server import ModelServer


class ImageClassificationHandler(ModelServer):
    """Turns the first output, logits of shape [rows, classes], into probabilities and labels."""

    name = "image-classification"
    title = "Image classification"
    description = "Image tensors in; probabilities and the likeliest class's name out."

    @classmethod
    def applies_to(cls, format_name: str) -> bool:
        """Programs only: a Hugging Face folder's image processor is not run."""
        return format_name in catalog.programs()

    @classmethod
    def served_signature(cls, signature: Signature, labels: tuple[str, ...]) -> Signature:
        """Replace the outputs by `probabilities` and `label`. Raises StartError without float logits."""
        logits = signature.outputs[0]
        if logits.datatype not in FLOATS or len(logits.shape) != 2:
            raise StartError(
                f"image classification needs float logits of shape [rows, classes], not {logits}"
            )
        if labels and logits.shape[1] not in (-1, len(labels)):
            raise StartError(f"{len(labels)} labels were given for {logits.shape[1]} classes")
        return Signature(signature.inputs, output_specs(logits.shape[1]))

    def postprocess(self, outputs: Mapping[str, Any]) -> Mapping[str, Array]:
        """Return `probabilities`, FP32 [rows, classes], and `label`, BYTES [rows]."""
        logits = outputs[self.context.model_signature.outputs[0].name]
        return classify(logits.float().cpu().numpy(), self.context.labels)


HANDLER: Final = ImageClassificationHandler
