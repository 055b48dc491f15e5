"""Request bodies. Unknown fields are refused; nothing is converted silently."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

from control_plane.domain import options
from control_plane.errors import InvalidInputError
from serving_agent.contract.options import MAX_ROWS, MOST_KEPT_HOURS, MOST_SAMPLES_PER_MINUTE
from serving_agent.contract.signature import Signature


class Body(BaseModel):
    """Base of all request bodies."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ArchiveChange(Body):
    """PATCH of a version."""

    archived: bool = Field(description="Whether the version is archived.")


class TagValue(Body):
    """PUT of a tag."""

    value: str = Field("", description="The tag's value; it may be empty.")


class VersionPair(Body):
    """POST of a comparison."""

    a: str = Field(description="`model@N` or `model@alias`.")
    b: str = Field(description="`model@N` or `model@alias`.")


class RejudgeBody(Body):
    """POST of another judgement."""

    every: bool = Field(
        False, description="All versions, also those that the present gate has judged already."
    )


class AliasTarget(Body):
    """PUT of an alias."""

    version: int = Field(ge=1, description="Number of the version that the alias points at.")
    waiver: str | None = Field(
        None, description="Why a variant that the optimisation lab rejected is aliased all the same."
    )


class TensorBody(Body):
    """One tensor of a signature."""

    name: str
    datatype: str = Field(description="Element type of the Open Inference Protocol v2, e.g. FP32.")
    shape: list[int] = Field(description="Sizes; -1 for any. The first one is the batch.")


class SignatureBody(Body):
    """Names, types and shapes of inputs and outputs."""

    inputs: list[TensorBody] = Field(max_length=256)
    outputs: list[TensorBody] = Field(default_factory=list, max_length=256)


class DeclaredFile(Body):
    """One file of an upload."""

    path: str = Field(description="Relative path with forward slashes.")
    size_bytes: int = Field(ge=0, lt=2**63)
    modified_ms: int | None = Field(
        None,
        ge=-(2**53),
        le=2**53,
        description="When your file last changed, in milliseconds since the epoch: to know it again.",
    )


class NetworkBody(Body):
    """The network that bare weights belong to: a class with its arguments, or a configuration."""

    model_config = ConfigDict(populate_by_name=False)

    builder: str | None = Field(
        None, alias="class", max_length=500, description="module:Class out of SIGNALBOX_ARCHITECTURES."
    )
    arguments: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the class.")
    config: dict[str, Any] | None = Field(None, description="A Hugging Face config.json.")

    @model_validator(mode="after")
    def _one_of_both(self) -> NetworkBody:
        if (self.builder is None) == (self.config is None):
            raise ValueError("name either a class or a config")
        return self


class UploadBody(Body):
    """POST of an upload."""

    model: str
    files: list[DeclaredFile] = Field(default_factory=list, max_length=1000)
    reference: str | None = Field(
        None,
        min_length=1,
        max_length=2000,
        description="Path or URL to fetch the files from, in place of files to send.",
    )
    details: dict[str, Any] = Field(default_factory=dict, description="Metadata kept with the version.")
    signature: SignatureBody | None = None
    architecture: NetworkBody | None = Field(None, description="The network of bare weights.")
    labels: list[str] = Field(default_factory=list, description="Class names, index by index.")
    handler: str | None = None
    accept_program: bool = Field(
        False, description="The caller accepts to run the program that a TorchScript, .pt2 or ONNX file is."
    )

    @model_validator(mode="after")
    def _files_or_reference(self) -> UploadBody:
        if bool(self.files) == (self.reference is not None):
            raise ValueError("name either the files that you will send or a reference to fetch them from")
        return self


class CompleteBody(Body):
    """POST to complete an upload."""

    sha256: dict[str, Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]] = Field(
        default_factory=dict, max_length=1000, description="What your files hash to, by path; compared."
    )


class UploadAnswer(Body):
    """Answer to what the check of an upload asks."""

    accept_program: bool | None = None
    signature: SignatureBody | None = None
    architecture: NetworkBody | None = Field(None, description="The network of bare weights.")
    labels: list[str] | None = None
    handler: str | None = None


class JobBody(Body):
    """POST of a job."""

    kind: str
    subject: str | None = Field(None, max_length=200, description="What it works on, for people.")
    params: dict[str, Any] = Field(default_factory=dict)


class BatchingBody(Body):
    """Change of how requests are run together."""

    max_rows: int | None = Field(
        None, ge=1, le=MAX_ROWS, description="Most rows of one batch; 1 turns batching off."
    )
    max_delay_ms: float | None = Field(
        None, ge=0, le=1000, description="How long a request may wait for others while the model is idle."
    )
    buckets: list[int] | None = Field(
        None, max_length=64, description="Batch sizes, ascending, that batches are padded to; empty for none."
    )
    adaptive: bool | None = Field(
        None, description="Refuse at once what would miss its deadline, by the measured batch durations."
    )


class CacheBody(Body):
    """Change of the response cache."""

    max_bytes: int | None = Field(
        None, ge=0, le=options.MAX_CACHE_BYTES, description="Memory for answers; 0 turns the cache off."
    )
    ttl_s: float | None = Field(
        None,
        ge=options.MIN_TTL_S,
        le=options.MAX_TTL_S,
        description="How long an answer may be given again, in seconds.",
    )


class ExecutionBody(Body):
    """Change of how torch runs the model."""

    channels_last: bool | None = Field(None, description="Keep four-dimensional tensors channels last.")
    autocast: Literal["off", "bf16"] | None = Field(None, description="Let torch compute in bfloat16.")
    compile: bool | None = Field(None, description="Translate the model with torch.compile at start.")


class SamplingBody(Body):
    """Change of which requests are kept for the debugger."""

    per_minute: int | None = Field(
        None,
        ge=0,
        le=MOST_SAMPLES_PER_MINUTE,
        description="Requests that each agent keeps in a minute, at most; 0 turns it off.",
    )
    keep_hours: float | None = Field(
        None, ge=options.MIN_KEEP_HOURS, le=MOST_KEPT_HOURS, description="After how long they are forgotten."
    )
    redact: list[str] | None = Field(
        None, max_length=64, description="Names of inputs and outputs whose data is never kept."
    )


class OptionsBody(Body):
    """Change of the serving options: what is left out stays, null goes back to the default."""

    batching: BatchingBody | None = None
    cache: CacheBody | None = None
    execution: ExecutionBody | None = None
    sampling: SamplingBody | None = None
    max_concurrency: int | None = Field(
        None,
        ge=1,
        le=options.MAX_CONCURRENCY,
        description="Requests an agent takes at a time before it answers 429; null for no bound.",
    )
    check_interval_s: float | None = Field(
        None,
        ge=0,
        le=options.MAX_CHECK_INTERVAL_S,
        description="Seconds between two test inferences; 0 turns them off.",
    )

    @property
    def patch(self) -> options.Patch:
        """What was named, null included."""
        return self.model_dump(exclude_unset=True)


class DeployBody(Body):
    """PUT of an endpoint; a setting that is left out keeps its value."""

    version: str = Field(description="`model@N` or `model@alias`.")
    replicas: int | None = None
    threads: int | None = None
    device: str | None = Field(None, description="auto, cpu or cuda:N.")
    handler: str | None = None
    memory_bytes: int | None = Field(None, description="Limit of one agent; 0 for the default.")
    options: OptionsBody | None = Field(None, description="Batching, cache, execution and self-test.")
    waiver: str | None = Field(
        None, description="Why a variant that the optimisation lab rejected is deployed all the same."
    )
    expected_revision: int | None = Field(
        None, description="Revision the caller saw; 0: there was no such endpoint. Else a conflict."
    )


class ScaleBody(Body):
    """How many agents are wanted."""

    replicas: int
    expected_revision: int | None = None


class GoalBody(Body):
    """Restart, stop or start."""

    expected_revision: int | None = None


class PredictBody(BaseModel):
    """A predict request, passed on to the endpoint as it is."""

    model_config = ConfigDict(extra="allow")


class ApplyBody(Body):
    """A deployments file."""

    document: str = Field(description="The YAML text.")
    dry_run: bool = Field(False, description="Only say what would change.")


def network_of(body: NetworkBody | None) -> dict[str, Any] | None:
    """The network as services take it."""
    if body is None or body.config is not None:
        return None if body is None else {"config": body.config}
    return {"class": body.builder, "arguments": body.arguments}


def signature_of(body: SignatureBody | None) -> Signature | None:
    """*body* as a signature. Raises InvalidInputError."""
    if body is None:
        return None
    try:
        return msgspec.convert(body.model_dump(), Signature)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"The signature is not usable: {error}") from error
