"""A rollout as services return it, to be changed with `replace`."""

from __future__ import annotations

from control_plane.domain.views import RolloutView, StepView

NOW = 1_000_000.0
WEIGHTS = (0.05, 0.25, 1.0)


def steps(current: int, *, ended: bool = False) -> tuple[StepView, ...]:
    return tuple(
        StepView(
            number=number,
            weight=weight,
            mirror=0.0,
            bake_s=300.0,
            min_requests=100,
            approval=False,
            place="done" if number < current else "ahead" if number > current or ended else "current",
        )
        for number, weight in enumerate(WEIGHTS, 1)
    )


VIEW = RolloutView(
    id="r1",
    endpoint="digits",
    strategy="canary",
    stable_ref="digits@1",
    candidate_ref="digits@2",
    stable_digest="sha256:" + "1" * 64,
    candidate_digest="sha256:" + "2" * 64,
    state="baking",
    phase="baking",
    sentence="digits@2 gets 25 % of the requests",
    holds=(),
    frozen=None,
    step=2,
    steps=steps(2),
    weight=0.25,
    observed_weight=0.248,
    mirror=0.0,
    next_weight=1.0,
    verdict="WAIT",
    reason="latency is not decided yet",
    code="undecided",
    verdict_at=NOW - 3,
    eta_s=95.0,
    readings=(),
    baked_s=142.0,
    bake_left_s=158.0,
    step_requests=604,
    auto_advance=True,
    skip_gates=None,
    gates=(),
    revision=7,
    commands=("promote", "promote-full", "hold", "abort", "rollback"),
    preview_url="http://127.0.0.1:8080/preview/digits",
    tester_header=False,
    warm_until=None,
    entered_at=NOW - 142,
    created_by="ana",
    created_at=NOW - 600,
    ended_at=None,
    controller_age_s=None,
)
