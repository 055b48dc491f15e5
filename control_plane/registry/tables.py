"""The registry's tables, for SQLite and Postgres alike.

Kinds and states are strings checked by the domain (never database enums); ids are UUID4 hex; times are UTC
seconds since the epoch; JSON columns hold plain objects.
"""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

Json = dict[str, Any]


def new_id() -> str:
    """A fresh random id: 32 hexadecimal characters."""
    return uuid.uuid4().hex


class Base(DeclarativeBase):
    """Base of all tables, with named constraints so that migrations can change them on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        Json: JSON,
        list[Json]: JSON,
        list[str]: JSON,
        int: BigInteger,
    }


class Model(Base):
    """A named line of versions."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str] = mapped_column(default="")
    last_number: Mapped[int] = mapped_column(default=0)
    """Highest version number given out; numbers are never used twice."""
    created_at: Mapped[float]

    aliases: Mapped[list[Alias]] = relationship(back_populates="model", cascade="all, delete-orphan")


class Artifact(Base):
    """A content-addressed set of files; several versions may hold the same one."""

    __tablename__ = "artifacts"

    digest: Mapped[str] = mapped_column(primary_key=True)
    """`sha256:<hex>` over the sorted list of (path, sha256) of its files."""
    size_bytes: Mapped[int]
    files: Mapped[list[Json]]
    """[{"path", "size_bytes", "sha256"}], sorted by path."""
    created_at: Mapped[float]


class Version(Base):
    """One immutable version of a model; only tags, aliases, the archive mark and the gate's verdict may
    change."""

    __tablename__ = "versions"
    __table_args__ = (
        UniqueConstraint("model_id", "number"),
        Index("ix_versions_created_at", "created_at"),
        Index("ix_versions_artifact_digest", "artifact_digest"),
        Index("ix_versions_created_by", "created_by"),
        Index("ix_versions_evidence_digest", "evidence_digest"),
        Index("ix_versions_parent_id", "parent_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int]
    artifact_digest: Mapped[str] = mapped_column(ForeignKey("artifacts.digest"))
    format: Mapped[str]
    handler: Mapped[str]
    """Handler suggested for serving; an endpoint may choose another."""
    signature: Mapped[Json]
    """`serving_agent.contract.signature.Signature` as JSON."""
    labels: Mapped[list[str]]
    details: Mapped[Json]
    """Metadata given by the uploader or measured by a job, e.g. {"test_accuracy": 0.97}."""
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("versions.id"))
    program_accepted_by: Mapped[str | None]
    """Who accepted to run this program (TorchScript and exported programs), None for plain weights."""
    program_accepted_at: Mapped[float | None]
    lineage: Mapped[Json] = mapped_column(default=dict, server_default="{}")
    """Where it came from, as free JSON: run, step, base model, source hashes, ..."""
    evidence_digest: Mapped[str | None] = mapped_column(ForeignKey("artifacts.digest"))
    """The sealed original upload: kept as long as the version, never served."""
    gate_version: Mapped[str | None]
    """`control_plane.admission.gate.VERSION` that judged it last; None for what no gate has judged."""
    verdict: Mapped[Json | None]
    """What that gate said: {"decision", "code", "left_out": [{"path", "size_bytes", "why"}]} and, where it
    refuses, "file", "message" and "next_step"."""
    manifest: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    """The signed statement of what it is made of, as a DSSE envelope; None until it is signed."""
    created_by: Mapped[str]
    created_at: Mapped[float]
    archived_at: Mapped[float | None]

    model: Mapped[Model] = relationship(lazy="joined")
    artifact: Mapped[Artifact] = relationship(foreign_keys=[artifact_digest], lazy="joined")
    evidence: Mapped[Artifact | None] = relationship(foreign_keys=[evidence_digest])
    tags: Mapped[list[Tag]] = relationship(cascade="all, delete-orphan", lazy="selectin")
    examples: Mapped[Examples | None] = relationship(cascade="all, delete-orphan")

    @property
    def ref(self) -> str:
        """`model@N`."""
        return f"{self.model.name}@{self.number}"


class Tag(Base):
    """A free key and value on a version."""

    __tablename__ = "version_tags"
    __table_args__ = (Index("ix_version_tags_key_value", "key", "value"),)

    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(default="")


class Alias(Base):
    """A movable name that points at one version of a model, e.g. `champion`."""

    __tablename__ = "aliases"

    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"))

    model: Mapped[Model] = relationship(back_populates="aliases")
    version: Mapped[Version] = relationship()


class Examples(Base):
    """Example inputs of a version, as the body of a predict request, each with what is known of it."""

    __tablename__ = "examples"

    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"), primary_key=True)
    items: Mapped[list[Json]]
    """[{"inputs": {name: nested list without the batch dimension}, "label": str | None}]"""


class Upload(Base):
    """Files on their way to becoming a version."""

    __tablename__ = "uploads"
    __table_args__ = (Index("ix_uploads_created_at", "created_at"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    model_name: Mapped[str]
    state: Mapped[str]
    reference: Mapped[str | None]
    """Where a job fetches the files from (a path or a URL); None when a client sends them."""
    details: Mapped[Json]
    """Metadata for the version."""
    declared_signature: Mapped[Json | None]
    """Signature given by a person where the file does not hold one; may lack outputs."""
    architecture: Mapped[Json | None]
    """The network of bare weights, given by a person: {"class", "arguments"} or {"config"}."""
    labels: Mapped[list[str]]
    handler: Mapped[str | None]
    found: Mapped[Json]
    """What the check read: {"format", "program": bool, "signature" | None,
    "verdict", "needs": ["acceptance", "signature", "architecture"]}."""
    reason: Mapped[Json | None]
    """Why it was rejected: {"code", "file", "message", "next_step"}."""
    program_accepted_by: Mapped[str | None]
    program_accepted_at: Mapped[float | None]
    job_id: Mapped[str | None]
    version_id: Mapped[str | None] = mapped_column(ForeignKey("versions.id"))
    created_by: Mapped[str]
    created_at: Mapped[float]
    updated_at: Mapped[float]

    version: Mapped[Version | None] = relationship()
    files: Mapped[list[UploadedFile]] = relationship(
        cascade="all, delete-orphan", lazy="selectin", order_by="UploadedFile.position"
    )


class UploadedFile(Base):
    """One declared file of an upload, and how much of it is safely on the disk."""

    __tablename__ = "upload_files"
    __table_args__ = (UniqueConstraint("upload_id", "path"),)

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """In the order they were declared, from 0."""
    path: Mapped[str]
    size_bytes: Mapped[int]
    modified_ms: Mapped[int | None]
    """When the sender's file last changed, as its sender says: by it the same file is known again."""
    transfer_id: Mapped[str | None] = mapped_column(unique=True)
    """Names the transfer that is under way or done (the tus upload); None before the first byte."""
    received_bytes: Mapped[int] = mapped_column(default=0)
    """Bytes from the start that a crash of process or machine cannot take away."""
    declared_sha256: Mapped[str | None]
    """What the sender says the whole file hashes to; hexadecimal."""
    sha256: Mapped[str | None]
    """Of the whole file, once it lies in its place; hexadecimal."""


class Job(Base):
    """Long work in a process of its own."""

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_state_created_at", "state", "created_at"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    kind: Mapped[str]
    subject: Mapped[str]
    """What it works on, for people: `digits@1`, an upload's model name, ..."""
    params: Mapped[Json]
    state: Mapped[str]
    stage: Mapped[str] = mapped_column(default="")
    progress: Mapped[float] = mapped_column(default=0.0)
    """Done share in [0, 1]."""
    result: Mapped[Json | None]
    error: Mapped[Json | None]
    """{"code", "message", "next_step"}"""
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    attempt: Mapped[int] = mapped_column(default=0)
    pid: Mapped[int | None]
    pid_started_at: Mapped[float | None]
    """Creation time of that process: together they name a process once and for all."""
    created_by: Mapped[str]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]


class OptimizationTrial(Base):
    """One method with one set of parameters, tried on a version by a job: the job's journal."""

    __tablename__ = "optimization_trials"
    __table_args__ = (
        UniqueConstraint("job_id", "number"),
        Index("ix_optimization_trials_method_state", "method", "state"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int]
    """From 1, in the order they were thought of."""
    method: Mapped[str]
    params: Mapped[Json]
    follows: Mapped[int | None]
    """Number of the trial that led to this one."""
    state: Mapped[str]
    """`domain.optimization.TrialState`."""
    stage: Mapped[str] = mapped_column(default="")
    reason: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    """{"code", "message", "next_step"} of one that failed or was dropped."""
    build: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    """What was built: {"format", "notes", "libraries", "seconds"}."""
    screening: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    """`Report` as JSON: few rounds, part of the rows."""
    report: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    """`Report` as JSON: the full measurement."""
    decision: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    """`Decision` as JSON: of the full measurement."""
    version_id: Mapped[str | None] = mapped_column(ForeignKey("versions.id"))
    """The version it was registered as."""
    registering_job_id: Mapped[str | None]
    created_at: Mapped[float]
    updated_at: Mapped[float]

    version: Mapped[Version | None] = relationship()


class ProfileReport(Base):
    """A profile that was ordered, and what its report says in short; its files lie under `profiles/<id>/`."""

    __tablename__ = "profile_reports"
    __table_args__ = (
        UniqueConstraint("job_id"),
        Index("ix_profile_reports_ref", "ref"),
        Index("ix_profile_reports_created_at", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    ref: Mapped[str]
    """`model@N`. A name, not a key: a report can be read when its version is gone, and numbers are never used
    again."""
    endpoint: Mapped[str | None]
    """Name of the endpoint whose serving agent is profiled; None: the version in a process of its own."""
    name: Mapped[str] = mapped_column(default="")
    asked: Mapped[Json]
    """`domain.profile.Wish` as JSON."""
    summary: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    """`contract.profile.KeyFigures` as JSON, of one that is finished."""
    size_bytes: Mapped[int] = mapped_column(default=0)
    """Of its files."""
    created_by: Mapped[str]
    created_at: Mapped[float]
    expires_at: Mapped[float]

    job: Mapped[Job] = relationship(lazy="joined")


class DebugRun(Base):
    """One run of the debugger: a version, or two, inspected on one input; files in `debug_runs/<id>/`."""

    __tablename__ = "debug_runs"
    __table_args__ = (
        Index("ix_debug_runs_created_at", "created_at"),
        Index("ix_debug_runs_expires_at", "expires_at"),
        Index("ix_debug_runs_parent_id", "parent_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(default="")
    """Given by people; it saves the run."""
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    a: Mapped[str]
    """`model@N`. Names, not keys: a run can be looked at when its versions are gone, and numbers are never
    used again."""
    b: Mapped[str | None]
    input: Mapped[str]
    """Where the input came from, for people."""
    inputs: Mapped[list[Json]]
    """[{"name", "datatype", "shape"}]; their data is in the folder."""
    edits: Mapped[list[Json]]
    """`contract.inspection.Edit` as JSON, in the order in which they were made."""
    parent_id: Mapped[str | None]
    """The run whose input it took; it may be gone."""
    size_bytes: Mapped[int] = mapped_column(default=0)
    """Of its folder."""
    summary: Mapped[str] = mapped_column(default="")
    created_by: Mapped[str]
    created_at: Mapped[float]
    expires_at: Mapped[float]

    job: Mapped[Job] = relationship(lazy="joined")


class Endpoint(Base):
    """The stable name clients call: its goal (written by people), what serves it (by the controller)."""

    __tablename__ = "endpoints"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    goal: Mapped[str]
    """EndpointGoal: running, stopped or deleted."""
    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"))
    """The version it should serve."""
    replicas: Mapped[int]
    handler: Mapped[str]
    device: Mapped[str]
    threads: Mapped[int]
    memory_bytes: Mapped[int | None]
    """Memory limit of one agent; None for the setting's default."""
    restart: Mapped[int] = mapped_column(default=0)
    options: Mapped[Json] = mapped_column(default=dict, server_default="{}")
    """`ServingOptions` as JSON; what it does not name has its default."""
    rollout_policy: Mapped[Json] = mapped_column(default=dict, server_default="{}")
    """`domain.rollout_policy.RolloutPolicy` as JSON; what it does not name has its default."""
    revision: Mapped[int] = mapped_column(default=1)
    """Counts changes of the goal; writers name the revision they saw (optimistic lock)."""
    serving_version_id: Mapped[str | None] = mapped_column(ForeignKey("versions.id"))
    """Controller's decision: the version that requests go to now."""
    created_by: Mapped[str]
    created_at: Mapped[float]
    updated_at: Mapped[float]

    version: Mapped[Version] = relationship(foreign_keys=[version_id], lazy="joined")
    serving_version: Mapped[Version | None] = relationship(foreign_keys=[serving_version_id])


class Agent(Base):
    """One serving process of one version."""

    __tablename__ = "agents"
    __table_args__ = (
        Index("ix_agents_endpoint_id_phase", "endpoint_id", "phase"),
        Index("ix_agents_created_at", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """Short id, unique among agents: part of socket paths and log names."""
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("endpoints.id"))
    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"))
    spec: Mapped[Json]
    """`ServingSpec` as JSON: what the agent was started with."""
    phase: Mapped[str]
    pid: Mapped[int | None]
    pid_started_at: Mapped[float | None]
    rest_address: Mapped[str | None]
    grpc_address: Mapped[str | None]
    device: Mapped[str | None]
    timings_s: Mapped[Json]
    """Seconds per start-up stage: start, verify, import, load, warm, gateway."""
    reason: Mapped[str | None]
    """Why it failed, in one sentence."""
    exit_code: Mapped[int | None]
    log_tail: Mapped[list[str] | None]
    """Last 20 log lines of a failed agent."""
    health_check: Mapped[Json | None]
    """`HealthCheck` as JSON: what its test inferences say; None before the first."""
    effect: Mapped[Json | None]
    """`OptionsEffect` as JSON: what its execution options change; None where nothing was measured."""
    created_at: Mapped[float]
    ready_at: Mapped[float | None]
    ended_at: Mapped[float | None]

    endpoint: Mapped[Endpoint] = relationship()
    version: Mapped[Version] = relationship()


class Event(Base):
    """Audit record: who did what to what, in the same transaction as the change."""

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_at", "at"),
        Index("ix_events_subject_at", "subject", "at"),
    )

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    at: Mapped[float]
    actor: Mapped[str]
    action: Mapped[str]
    """verb.noun in the past tense: `endpoint.deployed`, `agent.failed`."""
    subject: Mapped[str]
    """Name of the thing: `digits@2`, `endpoint/digits`, `job/<id>`."""
    message: Mapped[str]
    """One sentence for people."""
    details: Mapped[Json]


class Rollout(Base):
    """One candidate's way to stable: `domain.rollout.Rollout`, and what is known beside it."""

    __tablename__ = "rollouts"
    __table_args__ = (
        Index("ix_rollouts_endpoint_created_at", "endpoint", "created_at"),
        Index("ix_rollouts_state", "state"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    endpoint: Mapped[str]
    """The endpoint's name: a rollout's record outlives its endpoint."""
    stable_version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"))
    candidate_version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"))
    stable_handler: Mapped[str]
    """Handler that stable is served with; comes back with it."""
    candidate_handler: Mapped[str]
    plan: Mapped[Json]
    """`domain.rollout.Plan` as JSON."""
    state: Mapped[str]
    step_index: Mapped[int]
    weight: Mapped[float]
    mirror: Mapped[float]
    holds: Mapped[list[str]]
    entered_at: Mapped[float]
    baked_s: Mapped[float]
    step_requests: Mapped[int]
    revision: Mapped[int]
    warm_until: Mapped[float | None]
    ending: Mapped[str | None]
    reason: Mapped[str | None]
    reason_code: Mapped[str | None]
    full: Mapped[bool]
    gate_job_id: Mapped[str | None]
    gates: Mapped[list[Json] | None] = mapped_column(JSON(none_as_null=True))
    """[{"name", "outcome": "passed" | "failed" | "waived" | "not_applicable", "sentence", "figures"}]"""
    verdict: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    """`analysis.base.Verdict` as JSON: the latest one."""
    created_by: Mapped[str]
    created_at: Mapped[float]
    ended_at: Mapped[float | None]

    stable: Mapped[Version] = relationship(foreign_keys=[stable_version_id], lazy="joined")
    candidate: Mapped[Version] = relationship(foreign_keys=[candidate_version_id], lazy="joined")


class RolloutEvidence(Base):
    """What a rollout's evidence adds up to, and up to where it has been counted: written together."""

    __tablename__ = "rollout_evidence"

    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    cursor_ms: Mapped[int]
    """End of the last tick that is counted, in milliseconds since the epoch: no tick counts twice."""
    state: Mapped[Json]
    """`analysis.base.Evidence` as JSON; floats come back bit for bit."""
    captures: Mapped[Json] = mapped_column(default=dict, server_default="{}")
    """Sequence number of the last capture read of each agent: {"<agent id>": n}."""


class Disagreement(Base):
    """One request that stable and candidate answered differently; the worst of a rollout are kept."""

    __tablename__ = "rollout_disagreements"
    __table_args__ = (Index("ix_rollout_disagreements_rollout_id", "rollout_id"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id"))
    at: Mapped[float]
    request_id: Mapped[str]
    distance: Mapped[float]
    """How far apart the answers are; what it measures is in `answers`."""
    inputs: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    """The request's tensors by name as nested lists; None where they were too large to keep."""
    answers: Mapped[Json]
    """{"stable": {...}, "candidate": {...}, "measure": "..."}"""


class GoldenSet(Base):
    """Fixed inputs with labels or reference outputs, versioned by digest; never changed."""

    __tablename__ = "golden_sets"
    __table_args__ = (UniqueConstraint("model_id", "digest"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    digest: Mapped[str]
    """`sha256:<hex>` of the canonical JSON of its items."""
    name: Mapped[str]
    items: Mapped[list[Json]]
    """[{"inputs": {name: nested list without the batch dimension}, "label": str | None,
    "outputs": {name: nested list} | None}]"""
    created_by: Mapped[str]
    created_at: Mapped[float]

    model: Mapped[Model] = relationship(lazy="joined")


class FreezeWindow(Base):
    """A time in which nothing is promoted."""

    __tablename__ = "freeze_windows"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    endpoint: Mapped[str | None]
    """None: every endpoint."""
    starts_at: Mapped[float]
    ends_at: Mapped[float]
    weekly: Mapped[bool] = mapped_column(default=False)
    """Whether it comes again every seven days."""
    reason: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[float]


class Webhook(Base):
    """An address that is told of rollouts' transitions."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    url: Mapped[str]
    secret: Mapped[str]
    """`whsec_<base64>`: signs what is sent (Standard Webhooks)."""
    endpoint: Mapped[str | None]
    """None: rollouts of every endpoint."""
    created_by: Mapped[str]
    created_at: Mapped[float]


class WebhookDelivery(Base):
    """One transition on its way to one webhook: written in the transaction of the transition."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (Index("ix_webhook_deliveries_state_next_at", "state", "next_at"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event: Mapped[Json]
    state: Mapped[str]
    """pending, delivered or given_up."""
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[float]
    last_error: Mapped[str | None]
    created_at: Mapped[float]


class Lease(Base):
    """A role that one process at a time may hold, with a fencing token that only grows."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    token: Mapped[int]
    expires_at: Mapped[float]
