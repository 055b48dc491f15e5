"""Request bodies of rollouts, freeze windows and webhooks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from control_plane.api.schemas import Body
from control_plane.domain.rollout import DEFAULT_BAKE_S, DEFAULT_MIN_REQUESTS, MAX_STEPS, Step
from control_plane.services.rollout_plans import MAX_FACTOR, MAX_SHARE


class StepBody(Body):
    """One step of a rollout."""

    weight: float = Field(ge=0, le=1, description="The candidate's share of requests.")
    mirror: float = Field(0.0, ge=0, le=1, description="Share of requests copied to it.")
    bake_s: float = Field(DEFAULT_BAKE_S, ge=0, description="Least observed time, in seconds.")
    min_requests: int = Field(DEFAULT_MIN_REQUESTS, ge=0, description="Least requests of the candidate.")
    approval: bool = Field(False, description="Whether a person lets the rollout go on from here.")

    @property
    def step(self) -> Step:
        """The step as services take it."""
        return Step(**self.model_dump())


class GuardrailBody(Body):
    """Change of one guardrail; what is left out keeps its default."""

    tolerance: float | None = Field(
        None,
        ge=0,
        le=MAX_FACTOR,
        description=f"A difference that is not worse: share up to {MAX_SHARE:g}; of times a factor less 1.",
    )
    max_regression: float | None = Field(
        None,
        gt=0,
        le=MAX_FACTOR,
        description='The smallest difference that "safe" must exclude; bounded as the tolerance is.',
    )
    alpha_share: float | None = Field(
        None, ge=0, le=1, description="Its part of the rollout's chance of a false rollback."
    )
    observe_only: bool | None = Field(None, description="Shown, but neither promotes nor rolls back.")

    @property
    def patch(self) -> dict[str, Any]:
        """What was named."""
        return self.model_dump(exclude_none=True)


class PlanBody(Body):
    """What a rollout is to be like."""

    strategy: str = Field("canary", description="canary, blue-green or shadow.")
    weights: list[float] | None = Field(
        None, max_length=MAX_STEPS, description="Weights of a canary, ascending; 1.0 is added at the end."
    )
    steps: list[StepBody] | None = Field(
        None, max_length=MAX_STEPS, description="Whole steps, in place of weights."
    )
    bake_s: float | None = Field(None, description="Least observed time of every measured step, in seconds.")
    min_requests: int | None = Field(None, description="Least requests of every measured step.")
    mirror: float | None = Field(
        None, description="Share copied in a step before the others, or of a shadow rollout."
    )
    guardrails: dict[str, GuardrailBody] = Field(
        default_factory=dict, description="Changes of guardrails, by name."
    )

    @property
    def wish(self) -> dict[str, Any]:
        """The plan as keyword arguments of services."""
        return {
            "strategy": self.strategy,
            "weights": self.weights,
            "steps": None if self.steps is None else [each.step for each in self.steps],
            "bake_s": self.bake_s,
            "min_requests": self.min_requests,
            "mirror": self.mirror,
            "guardrails": {name: each.patch for name, each in self.guardrails.items()} or None,
        }


class StartBody(PlanBody):
    """POST of a rollout."""

    endpoint: str
    candidate: str = Field(description="`model@N` or `model@alias`.")
    approval: bool | list[bool] = Field(
        False, description="Whether steps wait for a person: all but the last, or one answer a step."
    )
    auto_advance: bool = Field(True, description="Whether proven steps are followed without a person.")
    supersede: bool = Field(False, description="End a standing rollout of the endpoint for this one.")
    skip_gates: str | None = Field(None, description="Why the gates are left out; a second person approves.")
    break_freeze: str | None = Field(
        None, description="Why freeze windows do not hold it; a second person approves."
    )
    expected_revision: int | None = Field(None, description="The endpoint's revision that the caller saw.")
    warm_s: float | None = Field(
        None, description="How long the old version stays warm afterwards, in seconds."
    )
    waiver: str | None = Field(
        None, description="Why a variant that the optimisation lab rejected is a candidate all the same."
    )


class CommandBody(Body):
    """A command to a rollout."""

    reason: str | None = Field(None, description="Why; kept with the event.")
    expected_step: int | None = Field(None, ge=1, description="Number of the step that the caller saw.")
    expected_revision: int | None = Field(None, description="The rollout's revision that the caller saw.")


class ExtendBody(Body):
    """A longer bake."""

    seconds: float = Field(gt=0, description="How much longer the present step bakes.")
    expected_step: int | None = Field(None, ge=1)
    expected_revision: int | None = None


class SimulateBody(PlanBody):
    """POST of a simulation; figures that are left out are measured at the endpoint, or assumed."""

    endpoint: str | None = Field(None, description="Whose traffic is measured.")
    rate: float | None = Field(None, gt=0, description="Requests per second.")
    error_rate: float | None = Field(None, ge=0, lt=1, description="Share of requests that fail at stable.")
    p50_s: float | None = Field(None, gt=0, description="Stable's median latency, in seconds.")
    p95_s: float | None = Field(None, gt=0, description="Stable's 95th percentile of latency, in seconds.")


class StickyBody(Body):
    """What keeps a client at one version."""

    kind: Literal["header", "cookie"]
    name: str = Field(min_length=1, max_length=100)


class PolicyBody(Body):
    """PUT of an endpoint's rollout policy; what is left out takes its default."""

    tester_header: bool | None = Field(
        None, description="Clients may choose a version by the header `x-signalbox-version`."
    )
    sticky: StickyBody | None = None
    staging_endpoint: str | None = Field(
        None, description="A version must have completed a rollout there first."
    )
    golden_set: str | None = Field(
        None, description="Digest of the golden set that candidates must not lose against stable."
    )
    golden_margin: float | None = Field(None, ge=0, lt=1, description="Largest loss of accuracy on it.")
    warm_s: float | None = Field(
        None, ge=0, description="How long the old version stays warm after a rollout, in seconds."
    )

    @property
    def policy(self) -> dict[str, Any]:
        """The policy as services take it."""
        return self.model_dump(exclude_none=True)


class FreezeBody(Body):
    """POST of a freeze window."""

    endpoint: str | None = Field(None, description="Left out: every endpoint.")
    starts_at: float = Field(description="UTC seconds since the epoch.")
    ends_at: float = Field(description="UTC seconds since the epoch.")
    weekly: bool = Field(False, description="Whether it comes again every seven days.")
    reason: str


class WebhookBody(Body):
    """POST of a webhook."""

    url: str = Field(description="http or https address.")
    endpoint: str | None = Field(None, description="Left out: rollouts of every endpoint.")
