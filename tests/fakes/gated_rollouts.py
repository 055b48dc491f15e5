"""Rollouts in preflight as the controller writes them, with agents that really run beside the registry."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from torch import nn

from control_plane.domain.endpoint import AgentPhase, EndpointGoal
from control_plane.domain.rollout import Plan, RolloutState, Strategy, default_steps
from control_plane.domain.rollout_policy import RolloutPolicy
from control_plane.domain.views import Example
from control_plane.registry import endpoints, gate_jobs, rollouts
from control_plane.registry import session as sessions
from control_plane.registry.endpoints import spec_json, wanted_spec
from control_plane.registry.tables import Agent, Endpoint, Rollout, new_id
from control_plane.services import registration, versions
from control_plane.services.context import Context
from serving_agent.contract.signature import Signature
from tests.fakes import models
from tests.fakes.agents import RunningAgent, make_manifest, start_agent
from tests.fakes.nursery import Nursery

ENDPOINT = "digits"
MODEL = "digits"


@dataclass(frozen=True)
class Candidate:
    """What a version is made of, and how."""

    module: nn.Module
    signature: Signature = models.DIGITS
    lineage: dict[str, Any] = field(default_factory=dict)
    agent_of: str | None = None
    """Name of another candidate with the same module, whose agent serves this one too."""


@dataclass(frozen=True)
class Served:
    """A version and the agent that serves it."""

    ref: str
    agent: RunningAgent


class Fleet:
    """Versions by name, each with an agent that is started when somebody first asks for it.

    The first one is stable and has examples; all others are its children.
    """

    def __init__(
        self, ctx: Context, folder: Path, candidates: Mapping[str, Candidate], nursery: Nursery
    ) -> None:
        self._ctx, self._folder, self._candidates, self._nursery = ctx, folder, candidates, nursery
        self._agents = ExitStack()
        self._running: dict[str, RunningAgent] = {}
        self._served: dict[str, Served] = {}
        self._refs = {name: self._register(name, each) for name, each in candidates.items()}
        add_endpoint(ctx, self._refs[next(iter(candidates))])

    def __getitem__(self, name: str) -> Served:
        if name not in self._served:
            agent = self._agent(self._candidates[name].agent_of or name)
            self._served[name] = Served(self._refs[name], agent)
            add_agent(self._ctx, self._served[name])
        return self._served[name]

    def close(self) -> None:
        self._agents.close()

    def _register(self, name: str, candidate: Candidate) -> str:
        is_first = name == next(iter(self._candidates))
        return registration.register(
            self._ctx,
            model=MODEL,
            files_dir=models.save_torchscript(candidate.module, self._folder / name),
            format="torchscript",
            handler="tensor",
            signature=candidate.signature,
            examples=examples() if is_first else (),
            actor="ana",
            parent_ref=None if is_first else f"{MODEL}@1",
            lineage=candidate.lineage,
        )

    def _agent(self, name: str) -> RunningAgent:
        if name not in self._running:
            manifest = make_manifest(
                self._folder / name,
                self._candidates[name].signature,
                endpoint=ENDPOINT,
                model=MODEL,
                version=int(self._refs[name].rpartition("@")[2]),
                rest_address=f"unix:{self._folder}/{name}.sock",
            )
            folder = self._folder / f"{name}-agent"
            starting = start_agent(manifest, folder, nursery=self._nursery)
            self._running[name] = self._agents.enter_context(starting)
        return self._running[name]


def examples(count: int = 100) -> list[Example]:
    """The last digits, which no model here was trained on, with their classes."""
    images, classes = models.digits_data()
    return [
        Example({"image": image.tolist()}, str(label))
        for image, label in zip(images[-count:], classes[-count:], strict=True)
    ]


def add_endpoint(ctx: Context, stable: str) -> None:
    """An endpoint that serves the version *stable*, `model@N`."""
    now = time.time()
    with sessions.write(ctx.engine) as session:
        version = versions.find(session, stable)
        row = Endpoint(
            name=ENDPOINT,
            goal=EndpointGoal.RUNNING,
            version_id=version.id,
            serving_version_id=version.id,
            replicas=1,
            handler="tensor",
            device="cpu",
            threads=1,
            memory_bytes=None,
            options={},
            created_by="ana",
            created_at=now,
            updated_at=now,
        )
        session.add(row)


def add_agent(ctx: Context, served: Served) -> None:
    """The row of a running agent, ready."""
    with sessions.write(ctx.engine) as session:
        endpoint = endpoints.find(session, ENDPOINT)
        assert endpoint is not None
        version = versions.find(session, served.ref)
        session.add(
            Agent(
                id=new_id()[:8],
                endpoint_id=endpoint.id,
                version_id=version.id,
                spec=spec_json(wanted_spec(endpoint)),
                phase=AgentPhase.READY,
                pid=served.agent.process.pid,
                rest_address=served.agent.manifest.rest_address,
                timings_s={},
                created_at=time.time(),
                ready_at=time.time(),
            )
        )


def set_policy(ctx: Context, **policy: Any) -> None:
    """Give the endpoint another rollout policy."""
    with sessions.write(ctx.engine) as session:
        endpoint = endpoints.find(session, ENDPOINT)
        assert endpoint is not None
        endpoint.rollout_policy = msgspec.to_builtins(RolloutPolicy(**policy))


def begin(ctx: Context, stable: str, candidate: str, *, skip_gates: str | None = None) -> tuple[str, str]:
    """A rollout in preflight and the queued job of its gates; returns both ids."""
    now = time.time()
    plan = Plan(strategy=Strategy.CANARY, steps=default_steps(Strategy.CANARY), skip_gates=skip_gates)
    with sessions.write(ctx.engine) as session:
        row = Rollout(
            endpoint=ENDPOINT,
            stable_version_id=versions.find(session, stable).id,
            candidate_version_id=versions.find(session, candidate).id,
            stable_handler="tensor",
            candidate_handler="tensor",
            plan=rollouts.plan_json(plan),
            state=RolloutState.PREFLIGHT,
            step_index=0,
            weight=0.0,
            mirror=0.0,
            holds=[],
            entered_at=now,
            baked_s=0.0,
            step_requests=0,
            revision=1,
            full=False,
            created_by="ana",
            created_at=now,
        )
        session.add(row)
        session.flush()
        session.refresh(row)
        row.gate_job_id = gate_jobs.queue(session, row, now)
        return row.id, row.gate_job_id


def move(ctx: Context, rollout_id: str, state: RolloutState) -> None:
    """Put the rollout into *state*, as a controller or a person would."""
    with sessions.write(ctx.engine) as session:
        row = rollouts.locked(session, rollout_id)
        assert row is not None
        row.state = state


def told(ctx: Context, rollout_id: str) -> dict[str, dict[str, Any]]:
    """What the gates say, by name."""
    with sessions.read(ctx.engine) as session:
        row = rollouts.find(session, rollout_id)
        assert row is not None
        return {gate["name"]: gate for gate in row.gates or ()}
