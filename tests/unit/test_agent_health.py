"""The agent's phases, its running requests, and the health checker's test inferences."""

import asyncio
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_agent.contract.manifest import Limits
from serving_agent.contract.options import ServingOptions
from serving_agent.contract.status import CheckStatus
from serving_agent.errors import DeadlineError, ModelError, NotReadyError, QueueFullError, TooManyError
from serving_agent.health import HANGING_GRACE_S, Health
from serving_agent.health_checker import (
    UNHEALTHY_FAILURES,
    HealthChecker,
    after,
    is_unhealthy,
    judged,
    non_finite,
)
from serving_agent.messages import OutputTensor
from tests.fakes.agents import make_manifest
from tests.fakes.handlers import ROWS

STATES = st.sampled_from(["healthy", "unhealthy", "error"])


def health_of(busy_s=lambda: 0.0, **changes):
    return Health(make_manifest(Path("/nowhere"), ROWS, **changes), busy_s)


# phases and requests


def test_an_agent_whose_model_hangs_is_not_ready_and_says_for_how_long():
    busy_s = 10.0 + HANGING_GRACE_S
    health = health_of(lambda: busy_s, limits=Limits(request_timeout_s=10))
    assert not health.is_ready
    health.enter("ready")
    assert health.is_ready
    busy_s += 0.1
    assert not health.is_ready
    assert (health.status().phase, health.status().busy_s) == ("ready", busy_s)
    with pytest.raises(NotReadyError, match="hangs on an earlier request"):
        health.check_answering()


@pytest.mark.parametrize("final", ["draining", "failed"])
def test_the_last_phases_are_final(final):
    health = health_of()
    health.enter(final, "why")
    health.enter("ready")
    assert (health.phase, health.reason) == (final, "why")
    assert not health.is_ready


@pytest.mark.parametrize(
    ("phase", "answers"),
    [("starting", 0), ("loading", 0), ("warming", 0), ("ready", 1), ("draining", 1), ("failed", 0)],
)
def test_requests_are_answered_once_ready_and_while_draining(phase, answers):
    health = health_of()
    health.enter(phase)
    if answers:
        health.check_answering()
        return
    with pytest.raises(NotReadyError, match=f"the agent is {phase}"):
        health.check_answering()


async def test_idle_is_when_the_last_request_has_ended():
    health = health_of()
    await health.idle()
    health.begin_request()
    health.begin_request()
    assert health.in_flight == 2
    health.end_request()
    waiting = asyncio.create_task(health.idle())
    await asyncio.sleep(0)
    assert not waiting.done()
    health.end_request()
    await waiting
    assert health.status().in_flight == 0


def test_more_requests_than_allowed_are_refused():
    health = health_of(options=ServingOptions(max_concurrency=2))
    for _ in range(2):
        health.begin_request()
        health.check_concurrency()
    health.begin_request()
    with pytest.raises(TooManyError, match="2 requests are being answered already"):
        health.check_concurrency()
    unbounded = health_of()
    unbounded.in_flight = 10_000
    unbounded.check_concurrency()


def test_the_status_names_version_and_digest():
    health = health_of()
    health.timings_s["load"] = 1.5
    status = health.status()
    health.timings_s["warm"] = 2.0
    assert (status.agent_id, status.version) == ("agent-1", "digits-cnn@2")
    assert status.digest == "sha256:" + "ab" * 32
    assert (status.timings_s, status.device, status.check) == ({"load": 1.5}, None, CheckStatus())


# test inferences


@given(st.lists(STATES, max_size=12))
def test_failures_in_a_row_count_and_the_last_error_is_kept(states):
    status = CheckStatus()
    for place, state in enumerate(states):
        failed = {} if state == "healthy" else {"error": f"error {place}"}
        status = after(status, state, float(place), duration_s=0.5 if state == "healthy" else None, **failed)
    if not states:
        assert status == CheckStatus()
        return
    since = max((place for place, state in enumerate(states) if state == "healthy"), default=-1)
    row = states[since + 1 :].count("unhealthy")
    assert (status.state, status.at, status.failures) == (states[-1], float(len(states) - 1), row)
    failures = [place for place, state in enumerate(states) if state != "healthy"]
    last = failures[-1] if failures else None
    assert status.last_error_at == last
    assert status.last_error == (None if last is None else f"error {last}")
    assert status.duration_s == (0.5 if "healthy" in states else None)
    assert is_unhealthy(status) == (row >= UNHEALTHY_FAILURES), "an error is no verdict, either way"


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ModelError("no"), "unhealthy"),
        (DeadlineError("late"), "error"),
        (QueueFullError("full"), "error"),
        (NotReadyError("not yet"), "error"),
    ],
)
def test_only_a_model_that_fails_is_unhealthy(error, state):
    assert judged(error) == state


def outputs_of(value, datatype="FP32"):
    return (OutputTensor("y", datatype, np.array([1, value])),)


def test_outputs_that_are_not_finite_are_named():
    for value in (np.nan, np.inf, -np.inf):
        assert non_finite(outputs_of(value)) == "y"
    assert non_finite(outputs_of(1.0)) is None
    assert non_finite((OutputTensor("y", "BYTES", np.array([b"a"], dtype=object)),)) is None


async def test_a_model_that_answers_with_infinity_by_nature_is_healthy():
    tests = Trials(outputs_of(-np.inf), outputs_of(np.nan), outputs_of(1.0), outputs_of(np.nan))
    for _ in range(4):
        await tests.checker.check()
    assert [status.state for status in tests.statuses] == ["healthy"] * 3 + ["unhealthy"]
    assert "'y' of the test inference holds NaN or infinite values" in tests.statuses[-1].last_error


async def test_a_test_that_breaks_in_our_own_hands_is_an_error_and_tests_go_on():
    tests = Trials(RuntimeError("ours"), outputs_of(1.0))
    await tests.checker.check()
    await tests.checker.check()
    assert [status.state for status in tests.statuses] == ["error", "healthy"]


def test_an_agent_that_fails_its_tests_is_not_ready_until_it_passes_one():
    health = health_of()
    health.enter("ready")
    failing = CheckStatus(state="unhealthy", failures=UNHEALTHY_FAILURES)
    health.check = msgspec.structs.replace(failing, failures=UNHEALTHY_FAILURES - 1)
    assert health.is_ready
    health.check = failing
    assert not health.is_ready
    health.check = msgspec.structs.replace(failing, state="error")
    assert not health.is_ready
    health.check = after(failing, "healthy", 1.0, duration_s=0.1)
    assert health.is_ready


class Trials:
    """Test inferences that answer, or raise, one outcome after another, and the statuses they led to."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.statuses: list[CheckStatus] = []
        self.changed = asyncio.Event()
        self.checker = HealthChecker(self.infer, 0.001, self.take)

    async def infer(self):
        if not self.outcomes:
            await asyncio.Event().wait()
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def take(self, status):
        self.statuses.append(status)
        self.changed.set()


async def test_a_checker_tells_what_each_test_showed_and_goes_on():
    tests = Trials(
        outputs_of(1.0), ModelError("boom"), outputs_of(np.nan), DeadlineError("late"), outputs_of(2.0)
    )
    tests.checker.start()
    async with asyncio.timeout(5):
        while tests.outcomes or len(tests.statuses) < 5:
            await tests.changed.wait()
            tests.changed.clear()
    tests.checker.stop()
    assert [status.state for status in tests.statuses] == [
        "healthy",
        "unhealthy",
        "unhealthy",
        "error",
        "healthy",
    ]
    assert [status.failures for status in tests.statuses] == [0, 1, 2, 2, 0]
    assert [status.last_error for status in tests.statuses[1:]][::3] == ["boom", "late"]
    assert tests.statuses[0].duration_s >= 0
    assert tests.statuses[-1].at == pytest.approx(tests.statuses[0].at, abs=5)


async def test_an_interval_of_0_is_no_checker():
    tests = Trials(outputs_of(1.0))
    checker = HealthChecker(tests.infer, 0, tests.take)
    checker.start()
    for _ in range(5):
        await asyncio.sleep(0)
    checker.stop()
    assert len(tests.outcomes) == 1


async def test_a_stopped_checker_drops_the_test_that_runs():
    tests = Trials()
    tests.checker.start()
    await asyncio.sleep(0)
    tests.checker.stop()
    for _ in range(5):
        await asyncio.sleep(0)
    assert tests.statuses == []
    assert len(asyncio.all_tasks()) == 1
