"""The debugger's orders and views: frozen values that the job, pages, REST and command line all use.

Times are UTC seconds since the epoch, sizes bytes, durations seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from control_plane.domain.divergence import Comparison
from control_plane.domain.job import FINAL_STATES
from control_plane.domain.served_answer import Served
from control_plane.domain.token_scores import TokenScores
from control_plane.domain.views import Reason
from serving_agent.contract.inspection import Edit, InspectedRun
from serving_agent.contract.signature import Signature

DEBUG: Final = "debug"
"""The job's kind."""
SIDES: Final = ("a", "b")
MAX_EDITS: Final = 100
MAX_NAME_CHARS: Final = 100
MAX_VALUES: Final = 65_536
"""Elements of one answer to `services.debugger.values`."""

Side = Literal["a", "b"]
KeptFor = Literal["sampling", "rollout"]
"""Why an agent keeps a request: by its endpoint's option `sampling`, or for a rollout to compare."""


class ExampleSource(msgspec.Struct, frozen=True, kw_only=True, tag="example", tag_field="kind"):
    """One of the version's examples."""

    number: int = 1
    """From 1, in the order they were given."""


class CaptureSource(msgspec.Struct, frozen=True, kw_only=True, tag="capture", tag_field="kind"):
    """A request that an agent of an endpoint has kept."""

    endpoint: str
    agent: str
    seq: int
    why: KeptFor = "sampling"


class DisagreementSource(msgspec.Struct, frozen=True, kw_only=True, tag="disagreement", tag_field="kind"):
    """A request of a rollout's gallery that both versions answered differently."""

    rollout: str
    disagreement: str


class JsonSource(msgspec.Struct, frozen=True, kw_only=True, tag="json", tag_field="kind"):
    """What `POST /predict` takes as `input`: nested lists, or an object of them by input name."""

    input: Any


class NpySource(msgspec.Struct, frozen=True, kw_only=True, tag="npy", tag_field="kind"):
    """NumPy array files."""

    files: dict[str, bytes]
    """Whole `.npy` files by input name; the empty name stands for the only input."""


class ImageSource(msgspec.Struct, frozen=True, kw_only=True, tag="image", tag_field="kind"):
    """A PNG or JPEG, scaled to the input's shape: floats from 0 to 1, integers from 0 to 255."""

    content: bytes
    name: str = ""
    """Of the input; empty for the only one that is a picture."""


class TextSource(msgspec.Struct, frozen=True, kw_only=True, tag="text", tag_field="kind"):
    """A text for a BYTES input."""

    text: str
    name: str = ""
    """Of the input; empty for the only one that is of type BYTES."""


class RandomSource(msgspec.Struct, frozen=True, kw_only=True, tag="random", tag_field="kind"):
    """Standard normal floats and small integers in the signature's shapes: the same for the same seed."""

    seed: int = 0
    rows: int = 1
    open_size: int = 16
    """Size wherever else the signature leaves one open."""


class RunSource(msgspec.Struct, frozen=True, kw_only=True, tag="run", tag_field="kind"):
    """The inputs of an earlier run."""

    run: str


InputSource = (
    ExampleSource
    | CaptureSource
    | DisagreementSource
    | JsonSource
    | NpySource
    | ImageSource
    | TextSource
    | RandomSource
    | RunSource
)
"""Where a run's input comes from; as JSON `{"kind": …, …}`, bytes as base64."""


class DebugOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The job's parameters: everything else is in the run's row and folder."""

    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InputView:
    """One tensor that a run was given."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DebugRunView:
    """A run as a list shows it."""

    id: str
    name: str
    """Given by people; empty for one that is not saved."""
    saved: bool
    """Whether it is kept longer: it has a name."""
    state: str
    """A value of `domain.job.JobState`."""
    stage: str
    """What its job is doing, or did last."""
    progress: float
    reason: Reason | None
    """Why its job failed."""
    job_id: str
    a: str
    """`model@N`."""
    b: str | None
    """`model@N` of the other side."""
    input: str
    """Where the input came from, for people: `example 3 of digits@1`, `a picture`, ..."""
    inputs: tuple[InputView, ...]
    edits: tuple[Edit, ...]
    """All of them, those of the runs before it included."""
    parent_id: str | None
    """The run whose input it took, with more edits; None for one of its own, or where that run is gone."""
    size_bytes: int
    """On the disk."""
    summary: str
    """What came of it in one sentence: `A stopped in predict`, `first NaN at relu2`, ...; empty before."""
    created_by: str
    created_at: float
    expires_at: float

    @property
    def ended(self) -> bool:
        """Whether its job has come to an end."""
        return self.state in FINAL_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class SideView:
    """One version's part of a run."""

    side: Side
    ref: str
    """`model@N`."""
    run: InspectedRun | None
    """What was seen; None while it goes on, and where `problem` says why there is nothing."""
    problem: Reason | None
    """Why it could not be inspected: its process was killed, took too long, could not open the artefact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DebugRunDetail:
    """A run with all that was seen in it."""

    view: DebugRunView
    sides: tuple[SideView, ...]
    """A, and B where there is one."""
    comparison: Comparison | None
    """None without a second side, and until both are there."""
    tokens: TokenScores | None
    """None for what is no causal language model."""
    ancestors: tuple[DebugRunView, ...]
    """The runs it came from, oldest first."""
    children: tuple[DebugRunView, ...]
    """Runs that came from it, oldest first."""
    served: Served | None = None
    """A's answer beside the one that a client got; None unless that was kept, and for another version."""

    @property
    def a(self) -> SideView:
        """The first side."""
        return self.sides[0]

    @property
    def b(self) -> SideView | None:
        """The second side, where there is one."""
        return self.sides[1] if len(self.sides) > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesView:
    """A part of one kept tensor."""

    name: str
    datatype: str
    """Of the elements in `values`: a kept datatype (BF16 and quantised ones are FP32 here)."""
    shape: tuple[int, ...]
    """Of the whole tensor."""
    start: tuple[int, ...]
    stop: tuple[int, ...]
    """Bounds of the part in every dimension: from *start* up to and without *stop*."""
    values: Any
    """Nested lists in the part's shape; a plain value for a tensor without dimensions. Numbers may be NaN or
    infinite."""
    truncated: bool
    """Whether the part is smaller than what was asked for: MAX_VALUES elements at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureView:
    """A kept request that a run can be given."""

    endpoint: str
    agent: str
    seq: int
    why: KeptFor
    at: float
    request_id: str
    inputs: tuple[InputView, ...]
    complete: bool
    """Whether all of its inputs' data was kept."""
    error: str
    """Code of the error it ended with; empty where it was answered."""

    @property
    def source(self) -> CaptureSource:
        """As `services.debugger.start` takes it."""
        return CaptureSource(endpoint=self.endpoint, agent=self.agent, seq=self.seq, why=self.why)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputChoices:
    """What a version can be debugged on."""

    ref: str
    """`model@N`."""
    signature: Signature
    """What clients send and get."""
    examples: tuple[str, ...]
    """One title each, in order: `Example 1, labelled 7`; a run takes them by number, from 1."""
    endpoints: tuple[str, ...]
    """Endpoints whose agents may keep requests that it can take, by name."""
    image_inputs: tuple[str, ...]
    """Names of inputs that a picture fits."""
    text_inputs: tuple[str, ...]
    """Names of inputs of type BYTES."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisagreementView:
    """A request of a rollout's gallery, as the debugger opens it."""

    rollout: str
    disagreement: str
    endpoint: str
    a: str
    """`model@N` of stable."""
    b: str
    """`model@N` of the candidate."""
    complete: bool
    """Whether its inputs were kept."""
    request_id: str

    @property
    def source(self) -> DisagreementSource:
        """As `services.debugger.start` takes it."""
        return DisagreementSource(rollout=self.rollout, disagreement=self.disagreement)
