"""What text handlers share: the input `text`, BYTES [rows], as tokens of the artefact's own tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np

from serving_agent.contract.signature import TensorSpec
from serving_agent.datatypes import Array
from serving_agent.errors import InvalidRequestError, StartError
from serving_agent.formats import catalog, text_model
from serving_agent.formats.huggingface import FORMAT as HUGGING_FACE
from serving_agent.formats.huggingface import HuggingFaceModel
from serving_agent.formats.text_model import TextGraph, TextModel
from serving_agent.model_server import ModelContext, ModelServer

TEXT: Final = TensorSpec("text", "BYTES", (-1,))


class TextHandler(ModelServer):
    """Base of handlers that read text with the artefact's own tokenizer."""

    needs_one_of = text_model.TOKENIZER_FILES
    reads: ClassVar[str] = ""
    """The tensor of the network that the answer is made of: `logits` or `last_hidden_state`."""

    @classmethod
    def applies_to(cls, format_name: str) -> bool:
        """Hugging Face folders, and graphs made of them with the tokenizer beside them."""
        return format_name == HUGGING_FACE.name or format_name in catalog.programs()

    @property
    def text_model(self) -> TextModel:
        """The opened model with its tokenizer. Raises StartError where it has none."""
        if not isinstance(self.model, HuggingFaceModel | TextGraph):
            raise StartError(f"the {self.name} handler needs a model with a tokenizer")
        return self.model

    def load_model(self, context: ModelContext) -> None:
        """Open the network, or the graph made of it. Raises StartError."""
        if context.format.name == HUGGING_FACE.name:
            super().load_model(context)
            return
        self.model = text_model.open_graph(
            context.format, context.artifact_dir, context.device, context.model_signature, self.reads
        )

    def sample_inputs(self, open_size: int) -> dict[str, Array]:
        """Return one text of *open_size* words."""
        return {TEXT.name: np.array([b"signal " * open_size], dtype=object)}

    def preprocess(self, inputs: Mapping[str, Array]) -> Mapping[str, Any]:
        """Return the tokens of `text`. Raises InvalidRequestError where it is not UTF-8."""
        try:
            texts = [item.decode() for item in inputs[TEXT.name].tolist()]
        except UnicodeDecodeError:
            raise InvalidRequestError("input 'text' is not UTF-8") from None
        return self.text_model.tokenize(texts)
