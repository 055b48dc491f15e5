"""Gates before traffic with real agents: a good candidate passes, each bad one fails at the gate for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from control_plane.domain.golden import items_of
from control_plane.domain.rollout import RolloutState
from control_plane.domain.views import Reason
from control_plane.gates import asking
from control_plane.jobs import run
from control_plane.jobs.kinds import gates
from control_plane.services import golden_sets, jobs
from control_plane.services.context import Context
from control_plane.services.jobs import ClaimedJob, JobCancelled
from serving_agent.contract.signature import Signature, TensorSpec
from tests.fakes import checkpoints, gated_rollouts, models, registry
from tests.fakes.gated_rollouts import Candidate, Fleet
from tests.fakes.nursery import Nursery
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.timeout(300)

OTHER = Signature(models.DIGITS.inputs, (TensorSpec("logits", "FP32", (-1, 12)),))


class Turned(nn.Module):
    """Names every digit by its neighbour."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.inner(image).roll(1, 1)


class Leaky(nn.Module):
    """Returns NaN for digits that it takes for a 3."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = self.inner(image)
        three = (logits.argmax(1, keepdim=True) == 3).float()
        return logits + three * float("inf") * 0.0 if bool(three.any()) else logits


class Slow(nn.Module):
    """Right, and some ten milliseconds late."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("weights", torch.eye(700))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        y = self.weights
        for _ in range(12):
            y = y @ self.weights
        return self.inner(image) + 0.0 * y[0, 1]


class Wide(nn.Module):
    """Knows two classes more."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = self.inner(image)
        return torch.cat([logits, logits[:, :2] - 100.0], 1)


class Broken(nn.Module):
    """Has lost its weights: NaN for every input."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.inner(image) * float("nan")


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    opened = registry.open_home(tmp_path_factory.mktemp("home"))
    yield opened
    opened.engine.dispose()


@pytest.fixture(scope="module")
def served(ctx: Context, tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Fleet]:
    """A stable version and one candidate of every kind, with their agents."""
    plain = models.digits_model()
    optimised = {"method": "int8"}
    fleet = Fleet(
        ctx,
        tmp_path_factory.mktemp("a"),
        {
            "stable": Candidate(plain),
            "optimised": Candidate(plain, lineage=optimised),
            "turned": Candidate(Turned(plain).eval()),
            "optimised-turned": Candidate(Turned(plain).eval(), lineage=optimised, agent_of="turned"),
            "leaky": Candidate(Leaky(plain).eval()),
            "slow": Candidate(Slow(plain).eval()),
            "broken": Candidate(Broken(plain).eval()),
            "wide": Candidate(Wide(plain).eval(), OTHER),
        },
        nursery,
    )
    yield fleet
    fleet.close()


@pytest.fixture(autouse=True)
def plain_policy(ctx: Context, served: Fleet) -> None:
    """Every test begins with an endpoint that has no rules of its own."""
    gated_rollouts.set_policy(ctx)


def begin(ctx: Context, served: Fleet, candidate: str, **more: Any) -> tuple[str, ClaimedJob]:
    """A rollout of *candidate* in preflight, and the job of its gates, claimed."""
    rollout_id, job_id = gated_rollouts.begin(ctx, served["stable"].ref, served[candidate].ref, **more)
    job = jobs.claim(ctx, 1, 1.0)
    assert job is not None
    assert (job.id, job.kind) == (job_id, "gates")
    return rollout_id, job


def judged(
    ctx: Context, served: Fleet, candidate: str, **more: Any
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The result of the job, and what the gates say by name."""
    rollout_id, job = begin(ctx, served, candidate, **more)
    run.perform(ctx, job)
    done = jobs.get(ctx, job.id)
    assert done.state == "succeeded", done.reason
    assert done.result is not None
    return done.result, gated_rollouts.told(ctx, rollout_id)


def outcomes(told: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: gate["outcome"] for name, gate in told.items()}


def test_good_optimised_candidate_passes_every_gate(ctx: Context, served: Fleet) -> None:
    result, told = judged(ctx, served, "optimised")
    assert result == {"passed": True, "failed": []}
    assert outcomes(told) == dict.fromkeys(
        ["signature", "smoke-test", "memory", "warm-up", "golden-set", "equivalence"], "passed"
    )
    assert told["golden-set"]["figures"]["items"] == 100
    assert "the labelled examples of digits@1" in told["golden-set"]["sentence"]
    assert told["equivalence"]["figures"]["outputs"]["logits"]["max_error"] == 0
    assert told["memory"]["figures"]["agent_bytes"] > 50 * 1024**2
    assert told["warm-up"]["figures"]["stable_median_s"] > 0


@pytest.mark.parametrize(
    ("candidate", "gate", "words"),
    [
        ("turned", "golden-set", "0.0% right against"),
        ("leaky", "golden-set", "NaN or infinite outputs on"),
        ("slow", "warm-up", "more than 2 times as long"),
        ("broken", "smoke-test", "output 'logits' holds NaN"),
        ("wide", "signature", "output logits: FP32[-1,10] became FP32[-1,12]"),
    ],
)
def test_bad_candidate_fails_at_the_gate_for_it(
    ctx: Context, served: Fleet, candidate: str, gate: str, words: str
) -> None:
    result, told = judged(ctx, served, candidate)
    assert result == {"passed": False, "failed": [gate]}
    assert told[gate]["outcome"] == "failed"
    assert words in told[gate]["sentence"]
    assert told["equivalence"]["outcome"] == "not_applicable"


def test_optimised_candidate_that_disagrees_is_not_equivalent(ctx: Context, served: Fleet) -> None:
    result, told = judged(ctx, served, "optimised-turned")
    assert result["failed"] == ["golden-set", "equivalence"]
    assert "int8: the same answer on 0 of 100 inputs" in told["equivalence"]["sentence"]


def test_gates_after_a_decisive_failure_are_not_run(ctx: Context, served: Fleet) -> None:
    _, told = judged(ctx, served, "broken")
    assert outcomes(told)["warm-up"] == outcomes(told)["golden-set"] == "not_applicable"
    assert "not run: the candidate fails at “Smoke test”" in told["golden-set"]["sentence"]


def test_waived_gates_say_why_and_the_smoke_test_still_runs(ctx: Context, served: Fleet) -> None:
    result, told = judged(ctx, served, "turned", skip_gates="a fire")
    assert result["passed"]
    assert outcomes(told) == {
        "signature": "waived", "smoke-test": "passed", "memory": "waived", "warm-up": "waived",
        "golden-set": "waived", "equivalence": "waived",
    }  # fmt: skip
    assert told["golden-set"]["sentence"] == "left out: a fire"
    result, _ = judged(ctx, served, "broken", skip_gates="a fire")
    assert result["failed"] == ["smoke-test"]


def test_named_golden_set_with_reference_outputs_decides(ctx: Context, served: Fleet) -> None:
    images, _ = models.digits_data()
    with torch.inference_mode():
        logits = models.digits_model()(torch.from_numpy(images[:40])).numpy()
    items = [
        {"inputs": {"image": image.tolist()}, "outputs": {"logits": wanted.tolist()}}
        for image, wanted in zip(images, logits, strict=False)
    ]
    kept = golden_sets.add(ctx, "digits", items_of(items), name="references", actor="ana")
    gated_rollouts.set_policy(ctx, golden_set=kept.digest, golden_margin=0.1)
    result, told = judged(ctx, served, "optimised")
    assert result["passed"], told
    assert "on 40 items of golden set references" in told["golden-set"]["sentence"]
    result, told = judged(ctx, served, "turned")
    assert result["failed"] == ["golden-set"]


def test_golden_set_that_is_gone_fails_by_name(ctx: Context, served: Fleet) -> None:
    gated_rollouts.set_policy(ctx, golden_set="sha256:beef")
    result, told = judged(ctx, served, "optimised")
    assert result["failed"] == ["golden-set"]
    assert "sha256:beef that the endpoint's policy names is not stored" in told["golden-set"]["sentence"]


def test_candidate_whose_agent_is_gone_fails_the_smoke_test(ctx: Context, served: Fleet) -> None:
    ref = registry.register(ctx, "digits", content=b"never served")
    rollout_id, job_id = gated_rollouts.begin(ctx, served["stable"].ref, ref, skip_gates="none of them")
    job = jobs.claim(ctx, 1, 1.0)
    assert job is not None
    assert job.id == job_id
    run.perform(ctx, job)
    assert gated_rollouts.told(ctx, rollout_id)["smoke-test"]["sentence"] == (
        "the candidate has no ready agent"
    )


# accidents


def test_silent_stable_breaks_the_job_and_blames_no_candidate(
    ctx: Context, served: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout_id, job = begin(ctx, served, "optimised")
    post, silent = asking.socket_http.post, served["stable"].agent.manifest.rest_address

    def unheard(address: str, *rest: Any) -> Any:
        if address == silent:
            raise asking.socket_http.NoAnswerError("nobody is there")
        return post(address, *rest)

    monkeypatch.setattr(asking.socket_http, "post", unheard)
    run.perform(ctx, job)
    done = jobs.get(ctx, job.id)
    assert done.state == "failed"
    assert done.reason is not None
    assert "no agent of digits@1 answers" in done.reason.message
    assert "running" not in outcomes(gated_rollouts.told(ctx, rollout_id)).values()


def test_candidate_that_falls_silent_is_not_asked_again_and_again(
    ctx: Context, served: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    post, address = asking.socket_http.post, served["optimised"].agent.manifest.rest_address
    asked = []

    def dying(to: str, *rest: Any) -> Any:
        if to == address:
            asked.append(1)
            if len(asked) > 20:
                raise asking.socket_http.NoAnswerError("it is gone")
        return post(to, *rest)

    monkeypatch.setattr(asking.socket_http, "post", dying)
    result, told = judged(ctx, served, "optimised")
    assert result["failed"] == ["golden-set", "equivalence"]
    assert "it is gone" in told["golden-set"]["sentence"]
    assert len(asked) < 30


@pytest.mark.parametrize("state", [RolloutState.ROLLING_BACK, RolloutState.SUPERSEDED])
def test_rollout_that_moved_on_is_left_alone(ctx: Context, served: Fleet, state: RolloutState) -> None:
    rollout_id, job = begin(ctx, served, "optimised")
    before: list[dict[str, Any]] = []

    def progress(stage: str, done: float) -> None:
        if stage == "Memory" and not before:
            gated_rollouts.move(ctx, rollout_id, state)
            before.append(gated_rollouts.told(ctx, rollout_id))

    with pytest.raises(JobCancelled):
        gates.KIND.run(ctx, job, progress)
    gates.KIND.ended(ctx, job.params, Reason("job_failed", "late"))
    assert [gated_rollouts.told(ctx, rollout_id)] == before
    jobs.cancelled(ctx, job.id)


def test_other_job_writes_nothing(ctx: Context, served: Fleet) -> None:
    rollout_id, job = begin(ctx, served, "optimised")
    other = ClaimedJob(
        id="other", kind="gates", subject="x", params=job.params, attempt=1, created_by="controller"
    )
    with pytest.raises(JobCancelled):
        gates.KIND.run(ctx, other, lambda stage, done: None)
    assert gated_rollouts.told(ctx, rollout_id) == {}
    jobs.cancelled(ctx, job.id)


class Killed(BaseException):
    """Stands for kill -9 at a point of our choice."""


@pytest.mark.parametrize("stage", ["Signature", "Memory", "Golden set", "Equivalence"])
def test_job_killed_in_a_gate_says_the_same_when_run_again(ctx: Context, served: Fleet, stage: str) -> None:
    rollout_id, job = begin(ctx, served, "turned")

    def killing(seen: str, done: float) -> None:
        if seen == stage:
            raise Killed

    with pytest.raises(Killed):
        gates.KIND.run(ctx, job, killing)
    run.perform(ctx, job)
    assert jobs.get(ctx, job.id).result == {"passed": False, "failed": ["golden-set"]}
    assert len(gated_rollouts.told(ctx, rollout_id)) == 6


def test_killed_process_is_run_again_and_a_cancelled_one_ends_at_once(ctx: Context, served: Fleet) -> None:
    images, classes = models.digits_data()
    many = np.random.default_rng(0).integers(0, 1500, 3000)
    items = [
        {"inputs": {"image": (images[at] * (1 - n / 1e5)).tolist()}, "label": str(classes[at])}
        for n, at in enumerate(many)
    ]
    kept = golden_sets.add(ctx, "digits", items_of(items), actor="ana")
    gated_rollouts.set_policy(ctx, golden_set=kept.digest)
    with checkpoints.worker(ctx):
        rollout_id, job_id = gated_rollouts.begin(ctx, served["stable"].ref, served["optimised"].ref)
        psutil.Process(running(ctx, job_id, "Golden set")).kill()
        done = checkpoints.finished(ctx, job_id)
        assert (done.state, done.attempt, done.result) == ("succeeded", 2, {"passed": True, "failed": []})
        assert gated_rollouts.told(ctx, rollout_id)["golden-set"]["figures"]["items"] == 3000
        rollout_id, job_id = gated_rollouts.begin(ctx, served["stable"].ref, served["optimised"].ref)
        running(ctx, job_id, "Golden set")
        jobs.cancel(ctx, job_id, actor="ana")
        assert checkpoints.finished(ctx, job_id).state == "cancelled"
        assert "running" not in outcomes(gated_rollouts.told(ctx, rollout_id)).values()


def running(ctx: Context, job_id: str, stage: str) -> int:
    """Wait until the job has come to *stage*; the id of its process."""

    def look() -> int | None:
        job = next((each for each in jobs.running(ctx) if each.id == job_id), None)
        return job.pid if job and jobs.get(ctx, job_id).stage == stage else None

    return wait_until(look, timeout_s=60, what=lambda: checkpoints.described(ctx, job_id), pause_s=0.01)


def test_clients_are_answered_while_gates_ask(ctx: Context, served: Fleet) -> None:
    """Stable's agent gets one small request of the gates at a time: others wait for one of them at most."""
    row = {"input": gated_rollouts.examples(1)[0].inputs}
    slowest: list[float] = []
    over = threading.Event()
    agent = served["stable"].agent  # before the thread: whoever asks first starts it

    def client() -> None:
        with agent.http as http:
            while not over.is_set():
                started = time.monotonic()
                assert http.post("/predict", json=row).is_success
                slowest.append(time.monotonic() - started)

    thread = threading.Thread(target=client)
    thread.start()
    try:
        result, _ = judged(ctx, served, "optimised")
    finally:
        over.set()
        thread.join(60)
    assert result["passed"]
    assert np.median(slowest) < 0.1
