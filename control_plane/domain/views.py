"""What services return: frozen values that pages, REST and command line all show.

Times are UTC seconds since the epoch, sizes bytes, durations seconds.
"""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something was refused or failed: stable code, sentence, next step, and the file if there is one."""

    code: str
    message: str
    next_step: str | None = None
    file: str | None = None


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
    """What a person must give: "acceptance", "signature"."""
    reason: Reason | None
    job_id: str | None
    version_ref: str | None
    program_accepted_by: str | None
    created_by: str
    created_at: float
    updated_at: float


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
    """Seconds per start-up stage, in order: start, import, load, warm, gateway."""
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
