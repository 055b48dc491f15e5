"""How long a batch takes by its rows: duration = slope · rows + overhead, learnt while serving. Pure."""

from __future__ import annotations

from typing import Final

DECAY: Final = 0.98
"""Weight of all earlier observations at each new one: the fit remembers about the last fifty batches."""
LEVEL: Final = 1e-3
"""Relative variance of the rows below which they say nothing about the slope."""
ENOUGH: Final = 8
"""Observations before the fit may be acted upon."""


class DurationModel:
    """Least squares with exponentially fading weights over (rows, seconds).

    Neither coefficient is let below zero: a batch of more rows never seems faster, nor an empty one negative.
    """

    def __init__(self) -> None:
        self.observations = 0
        self._weight = self._rows = self._rows_rows = self._seconds = self._rows_seconds = 0.0
        self._fit = (0.0, 0.0)

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from one batch."""
        self.observations += 1
        self._weight = DECAY * self._weight + 1.0
        self._rows = DECAY * self._rows + rows
        self._rows_rows = DECAY * self._rows_rows + rows * rows
        self._seconds = DECAY * self._seconds + seconds
        self._rows_seconds = DECAY * self._rows_seconds + rows * seconds
        self._fit = self._solve()

    @property
    def is_trusted(self) -> bool:
        """Whether enough has been seen to act upon."""
        return self.observations >= ENOUGH

    def predict(self, rows: int) -> float:
        """Return the seconds a batch of *rows* rows is expected to take."""
        slope, overhead = self._fit
        return slope * rows + overhead

    @property
    def overhead_s(self) -> float:
        """What a batch takes whatever its rows: what two batches cost more than one of the same rows."""
        return self._fit[1]

    def _solve(self) -> tuple[float, float]:
        mean_rows, mean_seconds = self._rows / self._weight, self._seconds / self._weight
        variance = self._rows_rows / self._weight - mean_rows * mean_rows
        if variance <= LEVEL * mean_rows * mean_rows:
            return self._scaled(mean_rows, mean_seconds)
        covariance = self._rows_seconds / self._weight - mean_rows * mean_seconds
        slope = max(0.0, covariance / variance)
        overhead = mean_seconds - slope * mean_rows
        return (slope, overhead) if overhead >= 0 else (mean_seconds / mean_rows, 0.0)

    def _scaled(self, rows: float, seconds: float) -> tuple[float, float]:
        """Return the last fit, made faster or slower as a whole: batches of one size leave its shape open."""
        slope, overhead = self._fit
        predicted = slope * rows + overhead
        if predicted <= 0:
            return seconds / rows, 0.0
        return slope * seconds / predicted, overhead * seconds / predicted
