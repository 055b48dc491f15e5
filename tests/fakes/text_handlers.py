"""Handlers of texts, for agents under test: `tests.fakes.text_handlers:Class`."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving_agent.model_server import ModelServer


class Sizes(ModelServer):
    """The size in bytes of each text: BYTES `x` [rows] to INT64 `y` [rows]."""

    def load_model(self, context: Any) -> None:
        """Nothing to load."""

    def preprocess(self, inputs: Any) -> Any:
        """The texts."""
        return inputs

    def predict(self, inputs: Any) -> Any:
        """Their sizes."""
        return {"y": np.array([len(text) for text in inputs["x"].tolist()], np.int64)}

    def postprocess(self, outputs: Any) -> Any:
        """As they are."""
        return outputs
