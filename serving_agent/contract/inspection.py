"""What the debugger asks of the process that looks inside a model, and what it gets back.

`python -m serving_agent.inspection FD` reads one `InspectionOrder` as JSON from stdin, writes `Said` lines as
JSON to the pipe FD, and leaves two files in the order's folder: RUN (an `InspectedRun`) and VALUES (elements
of the tensors that were kept, one after the other in raw little-endian form, C order).
"""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

from serving_agent.contract.capture import CapturedTensor
from serving_agent.contract.manifest import NanPolicy
from serving_agent.contract.options import AS_STORED, Execution
from serving_agent.contract.signature import Signature

RUN: Final = "run.json"
"""File of the folder: an `InspectedRun`."""
VALUES: Final = "values.bin"
"""File of the folder: elements of the kept tensors."""
BINS: Final = 64
"""Bars of a histogram."""
ATTENTION: Final = "attention_weights"
"""Name of a tensor beside a layer's outputs: its attention, shape (rows, heads, queries, keys)."""
STAGES: Final = ("inputs", "preprocess", "predict", "postprocess")
"""Steps of a request, in order, by their names in `pipeline.StepRecorder`."""

Word = Literal["nan", "inf", "-inf"]
"""What JSON has no numbers for."""
StageName = Literal["inputs", "preprocess", "predict", "postprocess"]


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """Elements of one tensor overwritten before the run goes on."""

    point: str
    """`Point.id` whose output is edited, or `inputs` / `preprocess` for what goes into the model."""
    tensor: int | str = 0
    """Which of its tensors: its place, or its name for a stage."""
    index: tuple[int | None, ...] = ()
    """One place per dimension, None for all of that dimension; empty for the whole tensor."""
    value: float | Word = 0.0
    """What the elements become: a finite number, or the word for what is none."""

    def __post_init__(self) -> None:
        if not isinstance(self.value, str) and not math.isfinite(self.value):
            msgspec.structs.force_setattr(self, "value", repr(float(self.value)))

    @property
    def number(self) -> float:
        """`value` as a number."""
        return float(self.value)


class InspectionOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one artefact on one input."""

    folder: str
    """The artefact's files."""
    format: str
    handler: str
    signature: Signature
    """What the artefact itself takes and returns."""
    labels: tuple[str, ...] = ()
    allowed_handlers: tuple[str, ...] = ()
    execution: Execution = AS_STORED
    inputs: tuple[CapturedTensor, ...]
    """As clients send them, with their data."""
    parameters: dict[str, str | int | float | bool] = {}
    edits: tuple[Edit, ...] = ()
    out: str
    """Empty folder for RUN and VALUES."""
    keep_bytes: int
    """Most bytes in VALUES; tensors beyond it have statistics only."""
    memory_bytes: int | None = None
    """Limit on the process's memory; None for none."""
    threads: int = 1
    device: str = "cpu"
    """`auto`, `cpu` or `cuda:N`, as agents take it."""
    nan_policy: NanPolicy = "pass"
    """Whether NaN and infinities in the inputs are refused, as an endpoint may, or go into the model."""


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of finite elements in BINS equal bins from *low* to *high*."""

    low: float
    high: float
    counts: tuple[int, ...]


class TensorSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor: what it is, its figures over finite elements, and where its elements are kept."""

    name: str
    datatype: str
    """The protocol's name (FP32, INT64, BYTES, ...), or torch's where the protocol has none (qint8, ...)."""
    shape: tuple[int, ...]
    device: str
    elements: int
    zeros: int = 0
    nan: int = 0
    inf: int = 0
    low: float | None = None
    """Smallest finite element; None where there is none, or where elements are no numbers."""
    high: float | None = None
    mean: float | None = None
    std: float | None = None
    """Population standard deviation of the finite elements."""
    histogram: Histogram | None = None
    offset: int | None = None
    """Where its elements begin in VALUES, in bytes; None where they are not kept. Quantised tensors are kept
    dequantised as FP32, BYTES as JSON list of strings."""
    kept_datatype: str = ""
    """Of the elements in VALUES: BOOL, INT*, UINT*, FP16, FP32, FP64 (BF16 is kept as FP32) or BYTES."""
    kept_bytes: int = 0
    not_read: str = ""
    """Why its elements are not kept whatever room there is, as a sentence; empty for others."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An error, and where it came from."""

    type: str
    message: str
    place: str
    """`file:line in function` of the innermost frame of the model's or the handler's own code, and the module
    path in which it happened where one is known."""
    module: str = ""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the request."""

    name: StageName
    state: Literal["done", "failed", "not_reached"]
    seconds: float = 0.0
    tensors: tuple[TensorSummary, ...] = ()
    """What it produced."""
    failure: Failure | None = None


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One layer (module call) or one node of a graph, in the order in which their outputs were there.

    So what holds others comes behind them: the first point with a NaN is where it arose.
    """

    id: str
    """Unique in the run, stable from run to run: module path (its class for the whole network), or
    `module path/node name`, with `#n` for its n-th call (n ≥ 1 from the second call on)."""
    module: str = ""
    """Path of the module that it belongs to, as the original network names it; empty where none is known.
    The last point of a module holds that module's output: two runs are aligned by it."""
    kind: str
    """Class of the module, or operator of the node."""
    source: str = ""
    """`file:line` of the model's own code, where it is known."""
    seconds: float | None = None
    """Time it took, itself and what it called; None where it was not timed by itself."""
    depth: int = 0
    """How many recorded modules it lies in."""
    outputs: tuple[TensorSummary, ...] = ()
    not_captured: str = ""
    """Why there are no outputs, as a sentence; empty where there are."""
    edited: bool = False


class InspectedRun(msgspec.Struct, frozen=True, kw_only=True):
    """All that was seen in one run."""

    level: Literal["module", "node", "none"]
    """What points are: modules of a network; nodes of a graph, and modules behind their nodes where the graph
    tells of them; or nothing: `note` says why."""
    note: str = ""
    stages: tuple[Stage, ...]
    points: tuple[Point, ...] = ()
    edits: tuple[Edit, ...] = ()
    load_s: float
    plain_s: float | None = None
    """Time of one inference without recording, in seconds; None where the run failed."""
    recorded_s: float | None = None
    """Time of the recorded one."""
    same_outputs: bool | None = None
    """Whether both gave the same outputs bit for bit; None with edits, or where the run failed."""
    tokens: tuple[tuple[str, ...], ...] = ()
    """Pieces of each row's text, where a tokenizer made them."""
    device: str = "cpu"
    libraries: dict[str, str] = {}


class Progressed(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """How far it is."""

    stage: str
    done: float
    """Share of the whole in [0, 1]."""


class Inspected(msgspec.Struct, frozen=True, kw_only=True, tag="inspected"):
    """The files are written. A model that fails is inspected too: its `Stage.failure` says how."""


class NotInspected(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """There is nothing to show: the artefact cannot be opened, or a limit was reached."""

    code: Literal["cannot_open", "out_of_memory", "no_space", "edit_refused", "inspection_failed"]
    message: str


Said = Progressed | Inspected | NotInspected
