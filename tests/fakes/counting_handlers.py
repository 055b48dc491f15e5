"""A handler that notes what it ran, for agents under test: `tests.fakes.counting_handlers:Counts`."""

from __future__ import annotations

import time
from typing import Any

from serving_agent.model_server import ModelServer


class Counts(ModelServer):
    """Each row as it is, after 10 ms; the file `rows` beside the artefact grows by one byte for each."""

    def load_model(self, context: Any) -> None:
        """Note where to count."""
        self.path = context.artifact_dir / "rows"

    def preprocess(self, inputs: Any) -> Any:
        """The rows."""
        return inputs

    def predict(self, inputs: Any) -> Any:
        """Count, and take a while."""
        with self.path.open("ab") as file:
            file.write(bytes(len(inputs["x"])))
        time.sleep(0.01)
        return {"y": inputs["x"]}

    def postprocess(self, outputs: Any) -> Any:
        """As they are."""
        return outputs
