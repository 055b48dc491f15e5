"""Rows, processes and a gateway as plain values: what a plan acts on, for testing plans without any I/O.

Every action is checked as it is carried out: a step that would lose a request raises `UnsafeError`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count

from control_plane.controller import actions as act
from control_plane.controller import judgement
from control_plane.controller.observe import Since, routed
from control_plane.controller.snapshot import (
    AgentSeen,
    EndpointSeen,
    ExitSeen,
    GatesOutcome,
    GatesSeen,
    Limits,
    ProcessSeen,
    RolloutSeen,
    Snapshot,
)
from control_plane.domain import rollout as transitions
from control_plane.domain.endpoint import LIVE_PHASES, AgentPhase, EndpointGoal, ServingSpec
from control_plane.domain.rollout import Command, Plan, Rollout, RolloutState
from control_plane.gateway.traffic_plan import TrafficPlan
from serving_agent.contract.status import AgentStatus, CheckStatus, OptionsEffect, Phase
from tests.fakes.gateway import FakeGateway

HEALTHY = CheckStatus(state="healthy")


class UnsafeError(AssertionError):
    """A plan would have lost requests."""


class StaleError(Exception):
    """A transition was refused because the rollout has moved on: the tick stops there."""


def spec(version: str = "digits@1", *, restart: int = 0, threads: int = 1) -> ServingSpec:
    return ServingSpec(
        version_id=f"id-of-{version}",
        version_ref=version,
        handler="tensor",
        device="cpu",
        threads=threads,
        memory_bytes=None,
        restart=restart,
    )


@dataclass
class Process:
    pid: int
    started_at: float
    phase: Phase = "starting"
    silent: bool = False
    in_flight: int = 0
    check: CheckStatus = HEALTHY
    effect: OptionsEffect | None = None
    busy_s: float = 0.0

    @property
    def fails_tests(self) -> bool:
        """Whether it says on /ready that it is not, because its own tests keep failing."""
        return self.check.failures >= judgement.UNREADY_FAILURES


@dataclass
class World:
    """Everything there is, changed by actions and by the tests' accidents."""

    limits: Limits = field(default_factory=Limits)
    now: float = 1000.0
    endpoints: dict[str, EndpointSeen] = field(default_factory=dict)
    rows: dict[str, AgentSeen] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    exits: dict[str, ExitSeen] = field(default_factory=dict)
    gateway: FakeGateway = field(default_factory=FakeGateway)
    doomed: set[str] = field(default_factory=set)
    """Versions whose agents crash while loading."""
    forced: set[str] = field(default_factory=set)
    """Agents that were ended by force."""
    rollouts: dict[str, RolloutSeen] = field(default_factory=dict)
    """Each endpoint's newest rollout."""
    moves: list[act.MoveRollout] = field(default_factory=list)
    """Transitions the controller has made, in order."""

    def __post_init__(self) -> None:
        self._ids = count(1)
        self.restart_controller()

    def restart_controller(self) -> None:
        """What a controller only remembers is lost; what is written stays."""
        self._silent, self._unrouted, self._draining, self._failing = Since(), Since(), Since(), Since()
        self._unrouted_s: dict[str, float] = {}

    # -- the operator ------------------------------------------------------------------------------------

    def want(self, name: str, wanted: ServingSpec, replicas: int = 1, goal: str = "running") -> None:
        present = self.endpoints.get(name)
        serving = present.serving if present else None
        self.endpoints[name] = EndpointSeen(name, name, EndpointGoal(goal), replicas, wanted, serving)

    def begin(self, name: str, candidate: ServingSpec, plan: Plan, rollout_id: str = "r1") -> Rollout:
        """Start a rollout, as a service would."""
        stable = self.endpoints[name].spec
        rollout = Rollout(
            id=rollout_id,
            endpoint=name,
            stable=stable.version_ref,
            candidate=candidate.version_ref,
            plan=plan,
            state=RolloutState.STARTING,
            step_index=0,
            weight=0.0,
            mirror=0.0,
            entered_at=self.now,
            created_at=self.now,
            created_by="ana",
        )
        self.rollouts[name] = RolloutSeen(rollout=rollout, stable_spec=stable, candidate_spec=candidate)
        return rollout

    def command(self, name: str, command: Command, reason: str | None = None) -> Rollout:
        """Give a person's command. Raises ConflictError when it means nothing now."""
        before = self.rollouts[name].rollout
        after = transitions.apply(before, command, now=self.now, reason=reason)
        self._store(name, before, after)
        return after

    def learn(self, name: str, *, baked_s: float = 0.0, requests: int = 0, **known: object) -> None:
        """Let what is known beside a rollout change: verdict, gates, frozen; or its observed figures."""
        seen = self.rollouts[name]
        rollout = replace(
            seen.rollout,
            baked_s=seen.rollout.baked_s + baked_s,
            step_requests=seen.rollout.step_requests + requests,
        )
        self.rollouts[name] = replace(seen, rollout=rollout, **known)  # type: ignore[arg-type]

    # -- looking -----------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        self._count_requests()
        self.gateway.failing = {agent_id for agent_id, each in self.processes.items() if each.fails_tests}
        gateway = self.gateway.observe()
        agents = [self._seen(row) for row in self.rows.values()]
        live = [agent for agent in agents if agent.phase in LIVE_PHASES]
        silent = self._silent.update([a.id for a in live if a.process and not a.status], self.now)
        draining = self._draining.update([a.id for a in live if a.phase is AgentPhase.DRAINING], self.now)
        failing = self._failing.update([a.id for a in live if judgement.failing(a)], self.now)
        unrouted = self._unrouted.update(
            [a.id for a in live if not routed(a, a.endpoint_id, gateway)], self.now
        )
        self._unrouted_s = unrouted
        seen = tuple(
            replace(
                agent,
                silent_s=silent.get(agent.id, 0.0),
                draining_s=draining.get(agent.id, 0.0),
                unrouted_s=unrouted.get(agent.id, 0.0),
                failing_s=failing.get(agent.id, 0.0),
            )
            for agent in agents
        )
        return Snapshot(
            now=self.now,
            endpoints=tuple(
                replace(endpoint, rollout=self.rollouts.get(endpoint.name))
                for endpoint in self.endpoints.values()
            ),
            agents=seen,
            strays=tuple(sorted(set(self.processes) - set(self.rows))),
            gateway=gateway,
            fresh_ids=tuple(f"a{next(self._ids)}" for _ in range(8)),
            limits=self.limits,
        )

    def _count_requests(self) -> None:
        for endpoint, version in self.gateway.backends:
            agents = [row.id for row in self.rows.values() if row.version == version]
            total = sum(self.processes[a].in_flight for a in agents if a in self.processes)
            self.gateway.set_active(endpoint, version, total)

    def _seen(self, row: AgentSeen) -> AgentSeen:
        process = self.processes.get(row.id)
        if process is None:
            return replace(row, process=None, exit=self.exits.get(row.id), status=None)
        status = AgentStatus(
            phase=process.phase,
            agent_id=row.id,
            version=row.version,
            digest="d",
            in_flight=process.in_flight,
            check=process.check,
            effect=process.effect,
            busy_s=process.busy_s,
        )
        seen = ProcessSeen(process.pid, process.started_at)
        return replace(row, process=seen, status=None if process.silent else status)

    # -- acting ------------------------------------------------------------------------------------------

    def do(self, action: act.Action) -> None:  # noqa: C901  one line per kind of action
        match action:
            case act.RecordProcess():
                self._change(action.agent_id, recorded=action.process)
            case act.RecordPhase():
                ready_at = action.at if action.phase is AgentPhase.READY else None
                timings = action.timings_s
                self._change(action.agent_id, phase=action.phase, ready_at=ready_at, timings_s=timings)
            case act.RecordCheck():
                self._change(action.agent_id, check=action.check, effect=action.effect)
            case act.RecordInTraffic():
                timings = {**self.rows[action.agent_id].timings_s, "gateway": action.gateway_s}
                self._change(action.agent_id, timings_s=timings)
            case act.FailAgent():
                if "test inference" in action.reason:
                    self._refuse_to_run_short(action.agent_id)
                self._change(action.agent_id, phase=AgentPhase.FAILED, ended_at=action.at)
            case act.EndAgent():
                self._change(action.agent_id, phase=AgentPhase.STOPPED, ended_at=action.at)
            case act.DrainAgent():
                self._change(action.agent_id, phase=AgentPhase.DRAINING)
            case act.SetServing():
                endpoint = self.endpoints[action.endpoint]
                self.endpoints[action.endpoint] = replace(endpoint, serving=action.version)
            case act.MoveRollout():
                self._move(action)
            case act.QueueGates():
                self._queue_gates(action)
            case act.CreateAgent():
                self._create(action)
            case act.StartAgent():
                self._start(action.agent_id)
            case act.StopAgent():
                self._stop(action.agent_id)
            case act.KillAgent():
                self._kill(action.agent_id)
            case act.PublishBackends():
                self._publish_backends(action.plans)
            case act.PublishRoutes():
                self._publish_routes(action.plans)
            case act.RemoveEndpoint():
                self._remove(action.endpoint)

    def _move(self, action: act.MoveRollout) -> None:
        name = action.before.endpoint
        if self.rollouts[name].rollout.revision != action.before.revision:
            raise StaleError(name)
        self.moves.append(action)
        self._store(name, self.rollouts[name].rollout, action.after)

    def _store(self, name: str, before: Rollout, after: Rollout) -> None:
        """Write a rollout's next value, and make the version stable that wins by it."""
        seen = self.rollouts[name]
        self.rollouts[name] = replace(seen, rollout=after)
        endpoint = self.endpoints[name]
        if after.state is RolloutState.COMPLETED and after.promotes:
            self.endpoints[name] = replace(endpoint, spec=seen.candidate_spec)
        elif before.state is RolloutState.COMPLETED and after.state is RolloutState.ROLLING_BACK:
            self.endpoints[name] = replace(endpoint, spec=seen.stable_spec)

    def _queue_gates(self, action: act.QueueGates) -> None:
        for name, seen in self.rollouts.items():
            if seen.rollout.id == action.rollout_id and seen.gates.outcome is GatesOutcome.NOT_STARTED:
                self.rollouts[name] = replace(seen, gates=GatesSeen(GatesOutcome.RUNNING))

    def _change(self, agent_id: str, **changes: object) -> None:
        row = self.rows[agent_id]
        assert row.phase in LIVE_PHASES, f"{agent_id} has ended and must not change"
        self.rows[agent_id] = replace(row, **changes)  # type: ignore[arg-type]

    def _create(self, action: act.CreateAgent) -> None:
        assert action.agent_id not in self.rows
        self.rows[action.agent_id] = AgentSeen(
            id=action.agent_id,
            endpoint_id=action.endpoint_id,
            spec=action.spec,
            phase=AgentPhase.STARTING,
            recorded=None,
            rest_address=f"unix:/{action.agent_id}.rest",
            grpc_address=f"unix:/{action.agent_id}.grpc",
            timings_s={},
            created_at=action.at,
        )

    def _start(self, agent_id: str) -> None:
        assert self.rows[agent_id].phase in LIVE_PHASES
        assert agent_id not in self.processes, "started twice"
        self.processes[agent_id] = Process(pid=int(agent_id[1:]), started_at=self.now)

    def _stop(self, agent_id: str) -> None:
        process = self.processes.get(agent_id)
        if process is None:
            return
        self._refuse_to_lose(agent_id, process)
        process.phase = "draining"

    def _kill(self, agent_id: str) -> None:
        process = self.processes.get(agent_id)
        if process is None:
            return
        if self.gateway.live:
            self._refuse_to_lose(agent_id, process, forced=True)
        self.forced.add(agent_id)
        self.end(agent_id, -9)

    def _refuse_to_lose(self, agent_id: str, process: Process, *, forced: bool = False) -> None:
        if any(agent_id in agents for agents in self.gateway.backends.values()):
            raise UnsafeError(f"{agent_id} was ended while the gateway knows it")
        patient = self._unrouted_s.get(agent_id, 0.0) >= self.limits.drain_timeout_s
        if process.in_flight and not forced and not patient and not process.silent:
            raise UnsafeError(f"{agent_id} was ended with {process.in_flight} requests under way")

    def _refuse_to_run_short(self, agent_id: str) -> None:
        """An agent that fails its tests may go when as many as wanted are left, one of them sound or none
        better than itself."""
        row = self.rows[agent_id]
        others = [
            r.id
            for r in self.rows.values()
            if r.spec == row.spec and r.endpoint_id == row.endpoint_id and r.id != agent_id
        ]
        if self.endpoints[row.endpoint_id].spec != row.spec:
            return  # a candidate's agent: stable serves beside it
        left = [a for a in others if self.rows[a].phase in LIVE_PHASES and a in self.processes]
        members = self.gateway.backends.get((row.endpoint_id, row.version), frozenset())
        sound = [a for a in left if a in members and not self.processes[a].fails_tests]
        as_bad = all(self.processes[a].fails_tests for a in left)
        if not (sound or as_bad) or len(left) < self.endpoints[row.endpoint_id].replicas:
            raise UnsafeError(f"{agent_id} fails its tests, but there is no one in its place")

    def _publish_backends(self, plans: tuple[TrafficPlan, ...]) -> None:
        for plan in plans:
            for backend in plan.backends:
                known = self.gateway.backends.get((plan.endpoint, backend.version), frozenset())
                for replica in backend.replicas:
                    if replica.agent_id not in known and not self._ready(replica.agent_id):
                        raise UnsafeError(f"{replica.agent_id} was made known before it was ready")
        self._no_capacity_is_lost(plans)
        self.gateway.publish_backends(plans)

    def _no_capacity_is_lost(self, plans: tuple[TrafficPlan, ...]) -> None:
        """No followed backend may lose its last ready member while ready ones are there."""
        new = {
            (plan.endpoint, b.version): {r.agent_id for r in b.replicas}
            for plan in plans
            for b in plan.backends
        }
        for endpoint, shares in self.gateway.weights.items():
            for version in shares:
                before = {a for a in self.gateway.backends.get((endpoint, version), ()) if self._ready(a)}
                after = {a for a in new.get((endpoint, version), set()) if self._ready(a)}
                if before and not after:
                    raise UnsafeError(
                        f"{endpoint}: the last ready agent of {version} left while requests follow it"
                    )

    def _refuse_unearned_weight(self, plan: TrafficPlan) -> None:
        """A candidate gets its decided share and no more, unless stable has nobody who could answer."""
        seen = self.rollouts.get(plan.endpoint)
        if seen is None or self.endpoints[plan.endpoint].spec == seen.candidate_spec:
            return
        shares = {backend.version: backend.weight for backend in plan.backends}
        share = shares.get(seen.rollout.candidate, 0.0)
        if share <= seen.rollout.weight + 1e-9:
            return
        stable = self.gateway.observe().backends.get((plan.endpoint, seen.rollout.stable))
        able = stable is not None and stable.healthy > 0 and any(map(self._servable, stable.agents))
        stood = {RolloutState.SHIFTING, RolloutState.BAKING, RolloutState.AWAITING_APPROVAL,
                 RolloutState.FINAL, RolloutState.ROLLING_BACK}  # fmt: skip
        if able or seen.rollout.state not in stood:
            raise UnsafeError(f"{seen.rollout.candidate} got {share:.0%}, decided {seen.rollout.weight:.0%}")

    def _servable(self, agent_id: str) -> bool:
        process = self.processes.get(agent_id)
        return process is not None and process.phase == "ready" and not process.silent

    def _publish_routes(self, plans: tuple[TrafficPlan, ...]) -> None:
        for plan in plans:
            self._refuse_unearned_weight(plan)
            for backend in plan.backends:
                if backend.weight > 0 and backend.version not in self.gateway.weights.get(plan.endpoint, {}):
                    self._check_new_target(plan.endpoint, backend.version)
        self.gateway.publish_routes(plans)

    def _check_new_target(self, endpoint: str, version: str) -> None:
        state = self.gateway.observe().backends.get((endpoint, version))
        if state is None or state.healthy < 1:
            raise UnsafeError(
                f"{endpoint}: requests sent to {version}, which the gateway does not find healthy"
            )
        if not any(self._ready(agent_id) for agent_id in state.agents):
            raise UnsafeError(f"{endpoint}: requests sent to {version}, which has no ready agent")

    def _ready(self, agent_id: str) -> bool:
        process = self.processes.get(agent_id)
        return process is not None and process.phase == "ready"

    def _remove(self, name: str) -> None:
        assert self.endpoints[name].goal is EndpointGoal.DELETED
        assert not any(row.endpoint_id == name and row.id in self.processes for row in self.rows.values())
        del self.endpoints[name]
        self.rows = {agent_id: row for agent_id, row in self.rows.items() if row.endpoint_id != name}

    # -- time and accidents ------------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        """Let agents come one phase further, or end."""
        self.now += seconds
        following: dict[Phase, Phase] = {"starting": "loading", "loading": "warming", "warming": "ready"}
        for agent_id, process in list(self.processes.items()):
            row = self.rows.get(agent_id)
            if process.phase == "draining":
                if not process.in_flight:
                    self.end(agent_id, 0)
            elif process.phase == "loading" and row is not None and row.version in self.doomed:
                self.end(agent_id, 3, "the model is broken")
            else:
                process.phase = following.get(process.phase, process.phase)

    def end(self, agent_id: str, code: int | None, reason: str | None = None) -> None:
        """Let a process be gone; code None: nobody knows how, as with another controller's child."""
        del self.processes[agent_id]
        if code is None:
            return
        self.exits[agent_id] = ExitSeen(reason or f"exit code {code}", code)
