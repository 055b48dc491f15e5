"""What services return: frozen values that pages, REST and command line all show.

Times are UTC seconds since the epoch, sizes bytes, durations seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from control_plane.domain.endpoint import UNCHECKED, HealthCheck
from control_plane.domain.options import DEFAULT
from serving_agent.contract.options import ServingOptions
from serving_agent.contract.signature import Signature
from serving_agent.contract.status import OptionsEffect

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a longer list; pages count from 1."""

    items: tuple[T, ...]
    total: int
    page: int
    page_size: int


@dataclass(frozen=True, slots=True)
class ModelView:
    """A named line of versions."""

    name: str
    description: str
    version_count: int
    latest: str | None
    """`model@N` of the highest version, if there is one."""
    aliases: dict[str, str]
    """Alias to `model@N`."""
    created_at: float


@dataclass(frozen=True, slots=True)
class FileView:
    """One file of an artefact."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionView:
    """A version as a list shows it."""

    id: str
    ref: str
    """`model@N`."""
    model: str
    number: int
    format: str
    handler: str
    digest: str
    size_bytes: int
    aliases: tuple[str, ...]
    tags: dict[str, str]
    details: dict[str, Any]
    served_by: tuple[str, ...]
    """Endpoints that serve it or have it as their goal."""
    created_by: str
    created_at: float
    archived_at: float | None
    decision: str | None = None
    """The gate's latest word: accept, convert, sandbox or refuse; None where no gate has judged it."""
    method: str | None = None
    """How it was optimised from its parent; None for what is no variant."""
    accepted: bool | None = None
    """Whether it was measured to be an improvement; None for what is no variant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionDetail(VersionView):
    """Everything known of a version."""

    signature: Signature
    labels: tuple[str, ...]
    files: tuple[FileView, ...]
    parent: str | None
    """`model@N` it was made from."""
    program_accepted_by: str | None
    program_accepted_at: float | None
    example_count: int
    lineage: dict[str, Any] = field(default_factory=dict)
    """Where it came from: what the job that made it says of run, step, base model, source hashes."""
    evidence_digest: str | None = None
    """The sealed original upload."""
    evidence_files: tuple[FileView, ...] = ()
    gate_version: str | None = None
    """The gate that judged it last."""
    verdict: dict[str, Any] | None = None
    """What it said: decision, code, left_out, and for a refusal file, message and next_step."""
    manifest: dict[str, Any] | None = None
    """Its signed statement (DSSE envelope)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageNode:
    """One version in a tree of descent."""

    ref: str
    """`model@N`."""
    depth: int
    """Generations from the oldest that is shown, which has 0."""
    focus: bool
    """Whether the tree was asked for this one."""
    format: str
    created_by: str
    created_at: float
    decision: str | None
    """The gate's latest word."""
    archived: bool
    method: str | None = None
    """How it was optimised from its parent; None for what is no variant."""
    accepted: bool | None = None
    """Whether it was measured to be an improvement; None for what is no variant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a version comes from and what came of it."""

    ref: str
    nodes: tuple[LineageNode, ...]
    """Its line of parents, itself and all made from it: each followed by its own children."""
    complete: bool
    """Whether there are no more relatives than these."""
    source: dict[str, Any]
    """What the job that made it says: upload or run, step, base model, hashes."""
    evidence_digest: str | None
    evidence_files: tuple[FileView, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One example input: by tensor name, nested lists without the batch dimension."""

    inputs: dict[str, Any]
    label: str | None = None


@dataclass(frozen=True, slots=True)
class UploadFile:
    """One file of an upload and how much of it has arrived."""

    path: str
    size_bytes: int
    received_bytes: int
    sha256: str | None
    """Of the whole file, once it has arrived; hexadecimal."""
    modified_ms: int | None = None
    """When the sender's file last changed, in milliseconds since the epoch."""
    transfer_id: str | None = None
    """Of the tus upload at /api/v1/tus/{transfer_id}; None before it began."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something was refused or failed: stable code, sentence, next step, and the file if there is one."""

    code: str
    message: str
    next_step: str | None = None
    file: str | None = None

    @property
    def sentence(self) -> str:
        """The message, after the file's name where it does not say it."""
        named = self.file is None or self.file in self.message
        return self.message if named else f"{self.file}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadView:
    """An upload on its way to becoming a version."""

    id: str
    model_name: str
    state: str
    files: tuple[UploadFile, ...]
    size_bytes: int
    received_bytes: int
    format: str | None
    """What the check found."""
    program: bool
    """Whether serving it means running a program from the file."""
    signature: Signature | None
    """Read from the file or declared; may still lack outputs (empty tuple) before the program was tried."""
    needs: tuple[str, ...]
    """What a person must give: "acceptance", "signature", "architecture"."""
    reason: Reason | None
    job_id: str | None
    version_ref: str | None
    program_accepted_by: str | None
    created_by: str
    created_at: float
    updated_at: float
    reference: str | None = None
    """Where the files are fetched from; None when a client sends them."""
    verdict: Mapping[str, Any] | None = None
    """What the gate said: {"decision", "code", "left_out"}; None before it spoke."""
    declaration_sha256: str | None = None
    """Of what was said of it beside its files (see `domain.upload.declaration_hash`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job and how far it is."""

    id: str
    kind: str
    subject: str
    state: str
    stage: str
    progress: float
    """Done share in [0, 1]."""
    time_left_s: float | None
    """Estimated from progress so far; None before there is any."""
    result: dict[str, Any] | None
    reason: Reason | None
    attempt: int
    created_by: str
    created_at: float
    started_at: float | None
    finished_at: float | None
    lane: str = "main"
    """A value of `domain.job.Lane`: the jobs that it waits for."""
    ahead: int | None = None
    """Queued jobs of its lane that come before it; None where it does not wait or was not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """One serving process."""

    id: str
    endpoint: str
    version_ref: str
    phase: str
    pid: int | None
    device: str | None
    timings_s: dict[str, float]
    """Seconds per start-up stage, in order: start, verify, import, load, warm, gateway."""
    reason: str | None
    exit_code: int | None
    log_tail: tuple[str, ...]
    """Last 20 log lines, for failed agents."""
    created_at: float
    ready_at: float | None
    ended_at: float | None
    check: HealthCheck = UNCHECKED
    """What its own test inferences say."""
    effect: OptionsEffect | None = None
    """What its execution options change, where there are any and they were measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointView:
    """An endpoint: its goal, what serves it, and how it is doing."""

    name: str
    goal: str
    health: str
    """A value of EndpointHealth."""
    sentence: str
    """Its state in one sentence, e.g. "2 of 3 agents ready; agent k3x9 is loading digits@2"."""
    version_ref: str
    """The version it should serve."""
    serving_ref: str | None
    """The version requests go to now."""
    replicas: int
    ready: int
    handler: str
    device: str
    threads: int
    memory_bytes: int | None
    options: ServingOptions = DEFAULT
    """How its agents are to serve."""
    revision: int
    url: str
    """Address of the endpoint at the gateway: `http://127.0.0.1:8080/e/<name>`."""
    agents: tuple[AgentView, ...]
    """Live agents and the latest failed one, newest first."""
    runs_program: bool = False
    """Whether its agents run what an uploader wrote, and not weights alone."""
    warnings: tuple[str, ...] = ()
    """Sentences on what is wrong with what it serves, e.g. that the gate refuses it by now."""
    created_by: str
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer of an endpoint to one predict request."""

    status: int
    """HTTP status of the gateway's answer."""
    body: dict[str, Any]
    latency_ms: float
    version_ref: str | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class EventView:
    """One audit record."""

    id: int
    at: float
    actor: str
    action: str
    subject: str
    message: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The whole system in a few figures."""

    models: int
    versions: int
    endpoints: int
    agents_ready: int
    agents_wanted: int
    jobs_running: int
    jobs_queued: int
    controller: str
    """`leading` or `not running`."""
    gateway: str
    """`serving` or `not answering`."""
    disk_free_bytes: int
    disk_total_bytes: int
    gpus: tuple[str, ...]
    attention: tuple[Attention, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Attention:
    """Something a person should look at."""

    kind: str
    """`agent`, `endpoint`, `job`, `disk`, `controller`, `gateway`, `upload`."""
    subject: str
    message: str
    link: str
    """Page and query that shows it, e.g. `/endpoints?name=digits`."""
    at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """One step of a rollout and whether it lies behind, now or ahead."""

    number: int
    """From 1."""
    weight: float
    mirror: float
    bake_s: float
    min_requests: int
    approval: bool
    place: str
    """`done`, `current` or `ahead`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateView:
    """What one gate before traffic said."""

    name: str
    title: str
    outcome: str
    """`passed`, `failed`, `waived`, `not_applicable`, or `running`."""
    sentence: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutView:
    """A rollout: where it is, what the evidence says, and what can be done about it."""

    id: str
    endpoint: str
    strategy: str
    stable_ref: str
    candidate_ref: str
    stable_digest: str
    candidate_digest: str
    state: str
    """A value of RolloutState, or `held` while it is held."""
    phase: str
    """The value of RolloutState beneath a hold."""
    sentence: str
    """Where it stands, in one sentence for people."""
    holds: tuple[str, ...]
    """Why it is held: `operator`, `freeze`."""
    frozen: str | None
    """The freeze window that holds it, in one sentence."""
    step: int
    """Number of its step, from 1."""
    steps: tuple[StepView, ...]
    weight: float
    """The candidate's share of requests as decided."""
    observed_weight: float | None
    """Its share of the requests of the last minute; None without any."""
    mirror: float
    next_weight: float | None
    """Weight of the next step; None at the last."""
    verdict: str | None
    """PASS, WAIT, FAIL or NO_DATA; None before the first."""
    reason: str
    """Why, in one sentence: of the verdict, or of its end."""
    code: str | None
    verdict_at: float | None
    eta_s: float | None
    """Estimated time to a decision at the present rate, in seconds."""
    readings: tuple[Mapping[str, Any], ...]
    """One `analysis.base.Reading` a guardrail, as plain JSON."""
    baked_s: float
    bake_left_s: float
    step_requests: int
    auto_advance: bool
    skip_gates: str | None
    gates: tuple[GateView, ...]
    revision: int
    commands: tuple[str, ...]
    """What may be done now: values of `domain.rollout.Command`."""
    preview_url: str
    """Where the candidate answers beside the endpoint while it runs."""
    tester_header: bool
    warm_until: float | None
    """Until when rolling back needs no new agents; UTC seconds."""
    entered_at: float
    created_by: str
    created_at: float
    ended_at: float | None
    controller_age_s: float | None
    """Seconds since the controller renewed its lease last; None while it leads."""
    waiting_for: str | None = None
    """What a rollout that starts waits for, in one sentence: capacity, agents, gates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisagreementView:
    """One request that both versions answered, differently."""

    id: str
    at: float
    request_id: str
    distance: float
    inputs: Mapping[str, Any] | None
    answers: Mapping[str, Any]
    debug_link: str
    """Page and query that opens it in the debugger."""
