"""Request bodies of the optimisation lab."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from control_plane.api.schemas import Body
from control_plane.domain import optimization as values
from control_plane.domain.optimization_orders import MAX_MINUTES, MIN_MINUTES
from control_plane.domain.optimization_views import CalibrationWish
from control_plane.errors import InvalidInputError

_BUDGET = values.Budget()
_CONDITIONS = values.Conditions()


class CalibrationBody(Body):
    """Which rows calibrate."""

    source: Literal["examples", "captures", "upload"] = Field(
        description="The version's examples, requests kept by rollouts, or rows that were sent before."
    )
    digest: str | None = Field(None, description="Of the rows that were sent; for upload alone.")

    @model_validator(mode="after")
    def _upload_has_a_digest(self) -> Self:
        if (self.source == "upload") != (self.digest is not None):
            raise ValueError("a digest belongs to the source upload, and to no other")
        return self

    @property
    def wish(self) -> CalibrationWish:
        """As services take it."""
        return CalibrationWish(source=self.source, digest=self.digest)


class ConditionsBody(Body):
    """How variants are measured."""

    batches: list[int] = Field(
        default=list(_CONDITIONS.batches),
        min_length=1,
        max_length=32,
        description=f"Batch sizes in rows, ascending, from 1 to {values.MAX_BATCH}.",
    )
    threads: int = Field(
        _CONDITIONS.threads, ge=1, le=values.MAX_THREADS, description="CPU threads of one inference."
    )
    rounds: int = Field(_CONDITIONS.rounds, ge=3, le=101, description="Paired rounds for each batch size.")
    round_s: float = Field(
        _CONDITIONS.round_s, gt=0, le=10, description="How long one side of a round runs, in seconds."
    )

    @property
    def conditions(self) -> values.Conditions:
        """As services take them. Raises InvalidInputError."""
        try:
            return values.Conditions(**{**self.model_dump(), "batches": tuple(self.batches)})
        except ValueError as error:
            raise InvalidInputError(str(error)) from None


class BudgetBody(Body):
    """What a variant may lose, and what it must win at least."""

    min_agreement: float = Field(
        _BUDGET.min_agreement,
        ge=0,
        le=1,
        description="Least 95 % lower bound on the share of rows that both answer alike.",
    )
    max_metric_drop: float = Field(
        _BUDGET.max_metric_drop, ge=0, le=1, description="Largest loss of right answers, as a share."
    )
    min_speedup: float = Field(
        _BUDGET.min_speedup, ge=1, description="Least ratio of times, parent to variant, at any batch size."
    )
    min_shrink: float = Field(
        _BUDGET.min_shrink, ge=1, description="Least ratio of sizes, parent to variant."
    )

    @property
    def budget(self) -> values.Budget:
        """As services take it."""
        return values.Budget(**self.model_dump())


class _JobBody(Body):
    version: str = Field(description="`model@N` or `model@alias`.")
    calibration: CalibrationBody | None = Field(
        None,
        description="Which rows calibrate; without it the version's examples, where a method needs some.",
    )
    conditions: ConditionsBody | None = Field(None, description="How variants are measured.")
    budget: BudgetBody | None = Field(None, description="What a variant may lose and must win.")

    @property
    def wish(self) -> dict[str, Any]:
        """What services take of it by these names."""
        return {
            "calibration": self.calibration.wish if self.calibration else None,
            "conditions": self.conditions.conditions if self.conditions else None,
            "budget": self.budget.budget if self.budget else None,
        }


class OptimizeBody(_JobBody):
    """POST of a job that makes one variant."""

    method: str = Field(description="Name of a method.")
    params: dict[str, Any] = Field(
        default_factory=dict, description="Its parameters; defaults for the others."
    )


class AutotuneBody(_JobBody):
    """POST of a job that finds the best variant."""

    objective: str = Field("latency", description="latency, throughput, memory or size.")
    minutes: float = Field(10.0, ge=MIN_MINUTES, le=MAX_MINUTES, description="How long it may search.")
