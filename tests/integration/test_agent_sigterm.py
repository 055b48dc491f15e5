"""Agents told to end under load, behind the gateway, fifty times: no request is lost, no process left."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.gateway.traffic_plan import Replica
from tests.fakes import models
from tests.fakes.agents import RunningAgent, make_manifest, start_agent
from tests.fakes.envoy import RunningEnvoy, plan, running_envoy
from tests.fakes.load import Load
from tests.fakes.nursery import Nursery

TIMES = 50
HANDLER = "tests.fakes.operator_handlers:Doubles"


@contextlib.contextmanager
def agent(nursery: Nursery, home: Path, number: int) -> Iterator[RunningAgent]:
    manifest = make_manifest(
        home,
        models.SCALAR,
        agent_id=f"agent-{number}",
        handler=HANDLER,
        allowed_handlers=(HANDLER,),
        rest_address=f"unix:{home}/{number}.rest",
        grpc_address=f"unix:{home}/{number}.grpc",
    )
    with start_agent(manifest, home / str(number), wait=False, nursery=nursery) as running:
        yield running


def replica(running: RunningAgent) -> Replica:
    manifest = running.manifest
    return Replica(manifest.agent_id, manifest.rest_address, manifest.grpc_address)


def is_double(answer: dict[str, Any]) -> None:
    assert answer == {"predictions": [[42.0]]}, answer


def serve(envoy: RunningEnvoy, *running: RunningAgent) -> None:
    envoy.apply(plan("digits", v1=(1.0, [replica(one) for one in running])))


@pytest.mark.timeout(600)
def test_fifty_sigterms_under_load_lose_nothing(tmp_path_factory: Any, nursery: Nursery) -> None:
    """Each agent is ended while the gateway sends to it; only then does its successor take its place."""
    home = tmp_path_factory.mktemp("s")
    with contextlib.ExitStack() as stack:
        envoy = stack.enter_context(running_envoy(home / "gateway"))
        agents = [stack.enter_context(agent(nursery, home, number)) for number in range(4)]
        for one in agents[:3]:
            one.wait_phase("ready")
        serve(envoy, *agents[:2])
        url = f"{envoy.url}/e/digits/predict"
        with Load(url, {"input": [[21.0]]}, is_double) as load:
            for number in range(TIMES):
                ending, staying, successor, spare = agents
                ending.process.send_signal(signal.SIGTERM)
                assert ending.process.wait(60) == 0
                load.wait_for_more(20)
                serve(envoy, staying, successor)
                agents = [staying, successor, spare, stack.enter_context(agent(nursery, home, number + 4))]
                spare.wait_phase("ready")
        assert load.failures == []
        assert load.answered > 20 * TIMES
