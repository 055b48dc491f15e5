"""Handlers an operator could have written, for agents under test: `tests.fakes.operator_handlers:Class`.

Each takes and returns one FP32 tensor [rows, 1], named `x` and `y` as in SCALAR, and behaves as its docstring
says.
"""

from __future__ import annotations

import threading
import time

import numpy as np

from serving_agent.model_server import ModelServer


class Doubles(ModelServer):
    """Twice each row."""

    def load_model(self, context):
        """Nothing to load."""

    def preprocess(self, inputs):
        """The rows."""
        return inputs

    def predict(self, inputs):
        """Twice the rows."""
        return {"y": inputs["x"] * 2}

    def postprocess(self, outputs):
        """As they are."""
        return outputs


class CountsRows(Doubles):
    """Answers with the number of rows of the batch, after as many milliseconds as its largest value says.

    To values below 1, which the agent's own trials use, it answers row by row.
    """

    def predict(self, inputs):
        """The batch's rows."""
        x = inputs["x"]
        time.sleep(max(0.0, float(x.max())) / 1000)
        return {"y": x * 2 if (x < 1).all() else np.full_like(x, len(x))}


class Raises(Doubles):
    """Fails on -1, leaves the process on -2, answers NaN to -3 and too few rows to -4."""

    def predict(self, inputs):
        """Twice the rows, or not."""
        x = inputs["x"]
        if (x == -1).any():
            raise RuntimeError("cannot take -1 from /srv/secret/place")
        if (x == -2).any():
            raise SystemExit(0)
        if (x == -4).any():
            return {"y": x[:0]}
        return {"y": np.where(x == -3, np.float32(np.nan), x * 2)}


class Hangs(Doubles):
    """Never returns where a row is -1."""

    def predict(self, inputs):
        """Twice the rows, or never."""
        if (inputs["x"] == -1).any():
            threading.Event().wait()
        return {"y": inputs["x"] * 2}


class Leaks(Doubles):
    """Keeps 8 MiB of every request."""

    def load_model(self, context):
        """Begin with nothing kept."""
        self.kept = []

    def predict(self, inputs):
        """Twice the rows."""
        self.kept.append(np.ones(2**20))
        return {"y": inputs["x"] * 2}


class MixesRows(Doubles):
    """Each answer is the sum of all rows that came with it: its rows may not share a batch."""

    row_wise = False

    def predict(self, inputs):
        """The sum, for every row."""
        return {"y": np.full_like(inputs["x"], inputs["x"].sum())}


class Echoes(Doubles):
    """Answers with the request parameter `gain` times each row."""

    def predict(self, inputs):
        """The rows times the gain."""
        return {"y": inputs["x"] * np.float32(dict(self.parameters).get("gain", 1.0))}


class Sickens(Doubles):
    """Answers well until it has seen a -1; from then on it fails on everything."""

    def load_model(self, context):
        """Begin well."""
        self.is_sick = False

    def predict(self, inputs):
        """Twice the rows, while well."""
        self.is_sick = self.is_sick or bool((inputs["x"] == -1).any())
        if self.is_sick:
            raise RuntimeError("device-side assert")
        return {"y": inputs["x"] * 2}
