"""Stock clients get from our agent, directly and through the gateway, what a real Triton answered them.

The calls are those of `python -m benchmarks.conformance --record`, which wrote tests/fakes/oracle/triton.json
with a real Triton; here only our side runs. Values are compared bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.conformance import differences, matrix, recorded, targets
from benchmarks.conformance.checks import Check
from benchmarks.conformance.matrix import Addresses
from tests.fakes.agents import RunningAgent
from tests.fakes.nursery import Nursery

ORACLE = recorded.read()
MODELS = sorted({check.model for check in matrix.CHECKS})

# tritonclient's asyncio health calls leave an answer with a body unread; aiohttp says so when it is collected
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[dict[str, RunningAgent]]:
    with targets.agents(tmp_path_factory.mktemp("agents"), MODELS, nursery) as agents:
        yield agents


@pytest.fixture(scope="module")
def gateway(
    running: dict[str, RunningAgent], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Addresses]:
    with targets.gateway(running, tmp_path_factory.mktemp("envoy")) as addresses:
        yield addresses


async def compare(check: Check, target: str, addresses: Addresses) -> None:
    for flavour in check.flavours:
        seen = await matrix.run_check(check, flavour, addresses)
        verdict = differences.judge(check.name, target, seen, ORACLE[check.name], check.expected)
        assert not verdict.is_fault, (flavour, verdict.why, seen, ORACLE[check.name])


@pytest.mark.parametrize("check", matrix.CHECKS, ids=lambda check: check.name)
async def test_agent_answers_as_triton(check: Check, running: dict[str, RunningAgent]) -> None:
    await compare(check, targets.AGENT, targets.agent_addresses(running))


@pytest.mark.parametrize("check", matrix.CHECKS, ids=lambda check: check.name)
async def test_gateway_answers_as_triton(check: Check, gateway: Addresses) -> None:
    await compare(check, targets.GATEWAY, gateway)


def test_the_recorded_answers_are_those_to_the_checks() -> None:
    assert ORACLE.keys() == matrix.BY_NAME.keys()


def test_every_intended_difference_is_about_a_check() -> None:
    names = {*matrix.BY_NAME, "kserve/rest/live", "kserve/rest/ready"}
    for difference in differences.INTENDED:
        assert any(difference.covers(name, target) for name in names for target in difference.targets)
