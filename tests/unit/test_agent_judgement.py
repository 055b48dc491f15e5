"""What the controller makes of an agent's own words: that its model hangs on a request."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec

from control_plane.controller import actions as act
from control_plane.controller.judgement import judge
from control_plane.controller.plan import plan
from control_plane.controller.snapshot import AgentSeen, Limits, ProcessSeen
from control_plane.domain.endpoint import AgentPhase
from serving_agent.contract.manifest import Limits as AgentLimits
from serving_agent.contract.status import AgentStatus
from tests.fakes.world import World, spec

NOW = 1000.0
LIMITS = Limits()


def agent(row: AgentPhase = AgentPhase.READY, /, **status: object) -> AgentSeen:
    process = ProcessSeen(7, NOW - 10)
    words = {"phase": "ready", "agent_id": "a1", "version": "digits@1", "digest": "d", **status}
    return AgentSeen(
        id="a1",
        endpoint_id="digits",
        spec=spec(),
        phase=row,
        recorded=process,
        rest_address="unix:/r",
        grpc_address="unix:/g",
        timings_s={},
        created_at=NOW - 10,
        ready_at=None if row is AgentPhase.LOADING else NOW - 5,
        process=process,
        status=msgspec.convert(words, AgentStatus),
    )


def failures(seen: AgentSeen) -> list[str]:
    _, actions = judge(seen, NOW, LIMITS)
    return [action.reason for action in actions if isinstance(action, act.FailAgent)]


def test_the_limit_leaves_the_agent_time_to_say_that_it_is_not_ready() -> None:
    assert LIMITS.busy_kill_s == 2 * AgentLimits().request_timeout_s + 30


def test_a_model_that_hangs_on_a_request_is_given_up() -> None:
    assert failures(agent(busy_s=LIMITS.busy_kill_s)) == []
    assert failures(agent(busy_s=LIMITS.busy_kill_s + 0.6)) == [
        "one request has run for 151 s: the model hangs"
    ]


def test_an_agent_that_drains_has_its_own_patience() -> None:
    assert failures(agent(AgentPhase.DRAINING, busy_s=1e6)) == []


@dataclass
class HangingWorld(World):
    """Some of its agents run one request for ever."""

    busy_s: dict[str, float] = field(default_factory=dict)

    def _seen(self, row: AgentSeen) -> AgentSeen:
        seen = super()._seen(row)
        if seen.status is None or row.id not in self.busy_s:
            return seen
        return replace(seen, status=msgspec.structs.replace(seen.status, busy_s=self.busy_s[row.id]))


def run(world: World, ticks: int = 30) -> None:
    for _ in range(ticks):
        for action in plan(world.snapshot()):
            world.do(action)
        world.pass_time(0.25)


def test_a_hanging_agent_is_killed_and_replaced() -> None:
    world = HangingWorld()
    world.want("digits", spec())
    run(world)
    (hanging,) = world.processes
    world.busy_s[hanging] = world.limits.busy_kill_s + 1
    run(world)
    assert world.rows[hanging].phase is AgentPhase.FAILED
    assert hanging not in world.processes
    assert hanging in world.forced
    assert len(world.processes) == 1
    assert world.gateway.weights == {"digits": {"digits@1": 1.0}}
