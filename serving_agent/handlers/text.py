"""What text handlers share: the input `text`, BYTES [rows], as tokens of a Hugging Face model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from serving_agent.contract.signature import TensorSpec
from serving_agent.datatypes import Array
from serving_agent.errors import InvalidRequestError, StartError
from serving_agent.formats.huggingface import HuggingFaceModel
from serving_agent.model_server import ModelServer

TEXT: Final = TensorSpec("text", "BYTES", (-1,))


class TextHandler(ModelServer):
    """Base of handlers that read text with the artefact's own tokenizer."""

    @classmethod
    def applies_to(cls, format_name: str) -> bool:
        """Only Hugging Face folders bring a tokenizer."""
        return format_name == "huggingface"

    @property
    def huggingface(self) -> HuggingFaceModel:
        """The opened folder. Raises StartError where the format is another."""
        if not isinstance(self.model, HuggingFaceModel):
            raise StartError(f"the {self.name} handler needs a Hugging Face folder")
        return self.model

    def sample_inputs(self, open_size: int) -> dict[str, Array]:
        """Return one text of *open_size* words."""
        return {TEXT.name: np.array([b"signal " * open_size], dtype=object)}

    def preprocess(self, inputs: Mapping[str, Array]) -> Mapping[str, Any]:
        """Return the tokens of `text`. Raises InvalidRequestError where it is not UTF-8."""
        try:
            texts = [item.decode() for item in inputs[TEXT.name].tolist()]
        except UnicodeDecodeError:
            raise InvalidRequestError("input 'text' is not UTF-8") from None
        return self.huggingface.tokenize(texts)
