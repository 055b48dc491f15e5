"""Endpoints: cards, the way of an agent to readiness, agents' table, and what an operator may do now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from control_plane.domain.endpoint import LIVE_PHASES, AgentPhase, EndpointGoal, EndpointHealth
from control_plane.domain.views import AgentView, EndpointView
from control_plane.ui.viewmodels import badges, quantities, serving_options

StepState = Literal["done", "now", "next", "failed"]
_STAGES: Final[tuple[tuple[str, AgentPhase, tuple[str, ...]], ...]] = (
    ("Starting", AgentPhase.STARTING, ("start", "verify", "import")),
    ("Loading", AgentPhase.LOADING, ("load",)),
    ("Warming", AgentPhase.WARMING, ("warm",)),
    ("Ready", AgentPhase.READY, ("gateway",)),
)
"""Word, phase and the timings that belong to it, in order."""
_PHASE_ORDER: Final = {phase: i for i, (_, phase, _) in enumerate(_STAGES)}
_TIMING_WORDS: Final = {
    "start": "process", "verify": "check files", "import": "imports", "load": "load model", "warm": "warm up",
    "gateway": "into traffic",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of an agent's way to readiness; *time* is in words, with its unit."""

    word: str
    state: StepState
    time: str
    hint: str


@dataclass(frozen=True, slots=True)
class Verbs:
    """What the state of an endpoint allows now."""

    start: bool
    stop: bool
    restart: bool
    scale: bool
    delete: bool


def steps(agent: AgentView, now: float) -> tuple[Step, ...]:
    """The strip starting → loading → warming → ready of one agent, with measured times."""
    reached = _reached(agent)
    return tuple(
        Step(word, state, _step_time(agent, keys, state, now), _hint(agent, keys))
        for i, (word, _, keys) in enumerate(_STAGES)
        for state in (_step_state(agent, i, reached),)
    )


def _reached(agent: AgentView) -> int:
    """Index of the stage an agent is in; for one that ended, the first stage without a finished timing."""
    if agent.phase in _PHASE_ORDER:
        return _PHASE_ORDER[AgentPhase(agent.phase)]
    if agent.ready_at is not None:
        return len(_STAGES) - 1
    last_keys = [keys[-1] for _, _, keys in _STAGES[:-1]]
    return next((i for i, key in enumerate(last_keys) if key not in agent.timings_s), len(_STAGES) - 1)


def _step_state(agent: AgentView, index: int, reached: int) -> StepState:
    if index != reached:
        return "done" if index < reached else "next"
    if agent.phase == AgentPhase.FAILED:
        return "failed"
    return "done" if index == len(_STAGES) - 1 else "now"


def _step_time(agent: AgentView, keys: Sequence[str], state: StepState, now: float) -> str:
    """Measured seconds of a stage; for the present one the seconds it has taken so far."""
    if state == "now":
        spent = sum(agent.timings_s.values())
        return f"{max(0.0, now - agent.created_at - spent):.0f} s …"
    known = [agent.timings_s[key] for key in keys if key in agent.timings_s]
    return quantities.duration(sum(known)) if known and state == "done" else ""


def _hint(agent: AgentView, keys: Sequence[str]) -> str:
    parts = [
        f"{_TIMING_WORDS[key]} {quantities.duration(agent.timings_s[key])}"
        for key in keys
        if key in agent.timings_s
    ]
    return ", ".join(parts)


def time_to_ready(agent: AgentView) -> str | None:
    """Time from the decision to start an agent until it was ready, in words."""
    return None if agent.ready_at is None else quantities.duration(agent.ready_at - agent.created_at)


def verbs(endpoint: EndpointView) -> Verbs:
    """Buttons that make sense for *endpoint* now."""
    running = endpoint.goal == EndpointGoal.RUNNING
    deleted = endpoint.goal == EndpointGoal.DELETED
    stopped = endpoint.goal == EndpointGoal.STOPPED
    return Verbs(start=stopped, stop=running, restart=running, scale=not deleted, delete=not deleted)


def on_the_way(endpoint: EndpointView) -> tuple[AgentView, ...]:
    """Agents whose start is worth watching: those not ready yet, else nothing."""
    waiting = {AgentPhase.STARTING, AgentPhase.LOADING, AgentPhase.WARMING}
    return tuple(agent for agent in endpoint.agents if agent.phase in waiting)


def latest_failure(endpoint: EndpointView) -> AgentView | None:
    """The failed agent to explain, while the endpoint is not ready."""
    if endpoint.health in {EndpointHealth.READY, EndpointHealth.STOPPED}:
        return None
    return next((agent for agent in endpoint.agents if agent.phase == AgentPhase.FAILED), None)


def shown_strip(endpoint: EndpointView) -> AgentView | None:
    """The agent whose steps the overview draws: one on its way, else the latest ready one."""
    waiting = on_the_way(endpoint)
    if waiting:
        return waiting[0]
    failed = latest_failure(endpoint)
    return failed or next((agent for agent in endpoint.agents if agent.phase == AgentPhase.READY), None)


def agent_rows(agents: Sequence[AgentView], now: float) -> list[dict[str, Any]]:
    """Rows of the agents' table; what execution options change has a column where it was measured."""
    measured = any(agent.effect is not None for agent in agents)
    return [
        {
            "Agent": agent.id,
            "Phase": agent.phase,
            "Version": agent.version_ref,
            "PID": agent.pid,
            "Device": agent.device or quantities.NOTHING,
            "Ready in": time_to_ready(agent) or quantities.NOTHING,
            "Started": quantities.ago(agent.created_at, now),
            "Self-test": badges.check(agent.check.state) if agent.phase in LIVE_PHASES else "",
            **({"Options": _effect(agent)} if measured else {}),
            "Reason": agent.reason or serving_options.check_words(agent.check, now),
        }
        for agent in agents
    ]


def _effect(agent: AgentView) -> str:
    return serving_options.effect_words(agent.effect) if agent.effect else quantities.NOTHING


def agent_notes(agent: AgentView, now: float) -> list[str]:
    """Sentences about one agent: what its options change, and its last failed test."""
    effect = f"Options: {_effect(agent)}." if agent.effect else ""
    return [note for note in (effect, serving_options.check_words(agent.check, now)) if note]


def replica_words(endpoint: EndpointView) -> str:
    """ "2 of 3 ready"."""
    return f"{endpoint.ready} of {endpoint.replicas} ready"


def version_words(endpoint: EndpointView) -> str:
    """The version served, and the one to come when it differs: "digits@1 → digits@2"."""
    serving = endpoint.serving_ref
    if serving is None or serving == endpoint.version_ref:
        return endpoint.version_ref
    return f"{serving} → {endpoint.version_ref}"


def live_agent_count(endpoint: EndpointView) -> int:
    """Processes of an endpoint that exist or are about to."""
    return sum(agent.phase in LIVE_PHASES for agent in endpoint.agents)


ISOLATION: Final = "a process of its own with limits; it serves weights"
PROGRAM_ISOLATION: Final = "a process of its own with limits, no sandbox yet; it runs an uploaded program"
"""How far an agent is kept from the machine."""


def setting_rows(endpoint: EndpointView) -> list[tuple[str, str]]:
    """Serving settings as label and value."""
    memory = "machine default" if endpoint.memory_bytes is None else quantities.size(endpoint.memory_bytes)
    return [
        ("Handler", endpoint.handler),
        ("Device", endpoint.device),
        ("CPU threads", quantities.count(endpoint.threads, "thread") + " per agent"),
        ("Memory limit", memory),
        ("Isolation", PROGRAM_ISOLATION if endpoint.runs_program else ISOLATION),
        *serving_options.rows(endpoint.options),
        ("Revision", str(endpoint.revision)),
    ]


def suggested_name(version_ref: str, taken: Mapping[str, object] | Iterable[str]) -> str:
    """An endpoint name for a version: its model's name, numbered when taken."""
    names = set(taken)
    model = version_ref.partition("@")[0]
    if model not in names:
        return model
    return next(f"{model}-{i}" for i in range(2, len(names) + 3) if f"{model}-{i}" not in names)


def devices(gpu_count: int) -> tuple[str, ...]:
    """Devices that can be chosen: auto, cpu and one entry a GPU."""
    return ("auto", "cpu", *(f"cuda:{i}" for i in range(gpu_count)))
