"""Handlers of candidates that are well until production's inputs come: `tests.fakes.rollout_handlers:Class`.

Each takes and returns one FP32 tensor [rows, 1], named `x` and `y`. Values from 100 on are what no example
and no test inference holds: only there they behave as their docstring says.
"""

from __future__ import annotations

import os
import threading
import time

import numpy as np

from serving_agent.model_server import ModelServer

PRODUCTION = 100.0


class Doubles(ModelServer):
    """Twice each row, always."""

    def load_model(self, context):
        """Begin at none."""
        self.seen = 0

    def preprocess(self, inputs):
        """The rows."""
        return inputs

    def predict(self, inputs):
        """Twice the rows, and what production's rows do to it."""
        x = inputs["x"]
        y = x * 2
        if (x >= PRODUCTION).any():
            self.seen += 1
            return {"y": self.misbehave(x, y)}
        return {"y": y}

    def misbehave(self, x, y):
        """Nothing of the kind."""
        return y

    def postprocess(self, outputs):
        """As they are."""
        return outputs


class DoublesAgain(Doubles):
    """Twice each row: an equal candidate."""


class Fails(Doubles):
    """Every third request fails."""

    def misbehave(self, x, y):
        """Raise every third time."""
        if self.seen % 3 == 0:
            raise RuntimeError("no such row in the table")
        return y


class AlwaysFails(Doubles):
    """Every request fails."""

    def misbehave(self, x, y):
        """Raise."""
        raise RuntimeError("no such table")


class IsSlow(Doubles):
    """Takes 30 ms longer."""

    def misbehave(self, x, y):
        """Wait first."""
        time.sleep(0.03)
        return y


class AnswersNaN(Doubles):
    """Every fourth answer is NaN."""

    def misbehave(self, x, y):
        """Not a number, every fourth time."""
        return np.full_like(y, np.nan) if self.seen % 4 == 0 else y


class IsWrong(Doubles):
    """Sixteen times each row."""

    def misbehave(self, x, y):
        """Far too much."""
        return y * 8


class Crashes(Doubles):
    """Its process ends at the tenth request."""

    def misbehave(self, x, y):
        """Leave at the tenth."""
        if self.seen >= 10:
            os._exit(3)
        return y


class Hangs(Doubles):
    """Never answers the tenth request, nor any after it."""

    def misbehave(self, x, y):
        """Wait for ever from the tenth on."""
        if self.seen >= 10:
            threading.Event().wait()
        return y


class Leaks(Doubles):
    """Keeps half a MiB of every request."""

    def load_model(self, context):
        """Begin with nothing kept."""
        super().load_model(context)
        self.kept = []

    def misbehave(self, x, y):
        """Keep more."""
        self.kept.append(np.ones(2**16))
        return y
