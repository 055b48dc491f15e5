"""Profiles: what the profiling process is asked for, what a live agent is asked for, and what comes back.

`python -m serving_agent.profiling FD` reads one `ProfileOrder` as JSON from stdin, writes `Said` lines as
JSON to the pipe FD, and leaves files in the order's folder: REPORT (a `Report`), SPEEDSCOPE, and TRACE where
operators were taken. A live agent answers `POST ROUTE` with `LiveOrder` by a `LiveProfile`. All times are
seconds unless a name says otherwise; self times leave out what a node's children took.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from serving_agent.contract.options import AS_STORED, Execution
from serving_agent.contract.signature import Signature

ROUTE: Final = "/internal/profile"
"""On an agent's own REST address; what comes through the gateway is answered 404."""
REPORT: Final = "report.json"
TRACE: Final = "trace.json.gz"
"""Of torch.profiler, in Chrome's format, for Perfetto."""
SPEEDSCOPE: Final = "speedscope.json"
TAKES: Final = ("sweep", "operators", "functions", "samples")
"""What can be taken of a version, in the order in which it is: profilers hold memory, a sweep measures it."""
SWEEP: Final = (1, 2, 4, 8, 16, 32, 64)
"""Batch sizes of a sweep, in rows."""
STAGES: Final = ("queue", "preprocess", "predict", "postprocess", "encode", "other")
"""Of a request; `other` is what lies between them: reading it, and handing it from thread to thread."""
MOST_OPERATORS: Final = 300
MOST_FUNCTIONS: Final = 300
MOST_LAYERS: Final = 1000
"""Rows of a report's tables: one that has so many was cut."""
MAX_REQUESTS: Final = 10_000
MAX_LIVE_S: Final = 120.0
MAX_RATE_HZ: Final = 250

Taken = Literal["sweep", "operators", "functions", "samples"]


class ProfileOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One version, profiled in a process of its own."""

    folder: str
    """The artefact's files."""
    format: str
    handler: str
    signature: Signature
    """What the artefact itself takes and returns."""
    labels: tuple[str, ...] = ()
    allowed_handlers: tuple[str, ...] = ()
    execution: Execution = AS_STORED
    device: str = "auto"
    rows: tuple[dict[str, Any], ...] = ()
    """Rows by input name, as nested lists without the batch dimension; empty: made up by the signature."""
    batch: int = 1
    """Rows of one request."""
    requests: int = 20
    """Requests that each profiler sees, at most."""
    seconds: float = 10.0
    """How long each profiler, and each batch size of the sweep, may take."""
    take: tuple[Taken, ...] = TAKES
    sweep: tuple[int, ...] = SWEEP
    rate_hz: int = 100
    out: str
    """Empty folder for the files."""
    threads: int = 1
    memory_bytes: int | None = None
    """Limit on the process's private memory; None for none."""


class LiveOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a live agent is asked for."""

    requests: int
    """It ends after so many answered requests,"""
    seconds: float
    """or after so long, whichever comes first."""
    rate_hz: int = 100
    """Samples a second."""

    def __post_init__(self) -> None:
        if not 1 <= self.requests <= MAX_REQUESTS:
            raise ValueError(f"requests must be 1 to {MAX_REQUESTS}")
        if not 0 < self.seconds <= MAX_LIVE_S:
            raise ValueError(f"seconds must be more than 0, at most {MAX_LIVE_S:g}")
        if not 1 <= self.rate_hz <= MAX_RATE_HZ:
            raise ValueError(f"rate_hz must be 1 to {MAX_RATE_HZ}")


class Frame(msgspec.Struct, frozen=True):
    """One function, as samples see it."""

    name: str
    file: str = ""
    """Without the folders that differ from machine to machine."""
    line: int = 0


class ThreadSamples(msgspec.Struct, frozen=True, kw_only=True):
    """The samples of one thread, in order: runs of the same stack."""

    name: str
    stacks: tuple[tuple[int, ...], ...]
    """Different stacks, outermost frame first: indexes into the profile's frames."""
    runs: tuple[tuple[int, int], ...]
    """(index of the stack or -1 where the thread waited, number of samples) one after another."""


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """What a sampling profiler saw."""

    frames: tuple[Frame, ...] = ()
    threads: tuple[ThreadSamples, ...] = ()
    samples: int = 0
    """Looks at all threads."""
    interval_s: float = 0.01
    """Measured: time between two looks, on average."""
    seconds: float = 0.0
    cut: bool = False
    """Whether a bound on memory was reached: what came later counts as its outermost frames."""


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of a request over many of them, in seconds."""

    name: str
    mean_s: float
    p50_s: float
    p99_s: float


class LiveProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What a live agent saw of itself."""

    requests: int
    """Requests that the model answered meanwhile."""
    failed: int
    rows: int
    batches: int
    seconds: float
    total: Times | None = None
    """From a request's arrival until its answer was handed to the socket; None without a request."""
    stages: tuple[Times, ...] = ()
    unwritten: int = 0
    """Requests of which writing the answer was not seen: those by gRPC. Their times end with the answer."""
    samples: Samples = Samples()
    peak_bytes: int | None = None
    """Largest resident memory of the process so far."""
    overhead: float = 0.0
    """Share of the time that the profiler held the interpreter."""
    ended: Literal["requests", "seconds", "draining"] = "requests"


class FlameNode(msgspec.Struct, frozen=True, kw_only=True):
    """One box of a flame view."""

    name: str
    parent: int
    """Index of the parent in the list, always smaller; -1 for a root."""
    self_s: float
    total_s: float
    calls: int = 0
    kind: str = ""
    """`stage`, `layer`, `operator`, `function`, `other` (small ones taken together) or empty."""


class Flame(msgspec.Struct, frozen=True, kw_only=True):
    """One flame view."""

    name: str
    """`operators` or `samples · <thread>`."""
    nodes: tuple[FlameNode, ...]
    total_s: float
    requests: int = 0
    """Requests that it is of; 0 where samples do not tell."""


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """All calls of one operator with inputs of the same shapes."""

    name: str
    shapes: str
    calls: int
    self_s: float
    total_s: float
    device_self_s: float = 0.0
    device_total_s: float = 0.0
    memory_bytes: int = 0
    """Allocated less freed by itself, over all calls."""


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """One Python function, as cProfile counts it."""

    name: str
    place: str
    calls: int
    primitive_calls: int
    self_s: float
    total_s: float


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One module of the network."""

    path: str
    kind: str
    """Its class."""
    calls: int
    """In all requests."""
    self_s: float
    """In one request, without the modules in it: the median of the requests."""
    total_s: float
    """In one request: the median of the requests."""


class SweepPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One batch size."""

    rows: int
    p50_s: float | None = None
    """Of one request; None where it failed."""
    rows_per_s: float | None = None
    peak_bytes: int | None = None
    """Largest memory while it ran, above what the process held before the model was opened."""
    calls: int = 0
    problem: str = ""


class Overhead(msgspec.Struct, frozen=True, kw_only=True):
    """What one profiler costs, measured turn by turn with plain requests."""

    name: str
    plain_s: float
    """Median of a plain request."""
    profiled_s: float
    """Median of one that is watched."""

    @property
    def factor(self) -> float:
        """How many times as long a watched request takes."""
        return self.profiled_s / self.plain_s if self.plain_s > 0 else 1.0


class KeyFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The report in short."""

    requests: int
    batch: int
    """Rows of one request; 0 where clients chose."""
    wall_s: float
    """Median of one plain request, or of one of the live agent's."""
    rows_per_s: float | None = None
    predict_s: float | None = None
    peak_bytes: int | None = None
    load_s: float | None = None
    knee_rows: int | None = None
    device: str = "cpu"
    threads: int = 1
    top: str = ""
    """The largest cost, by name."""
    top_share: float | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that one profile found; what was not taken is empty."""

    source: Literal["version", "agent"]
    key: KeyFigures
    stages: tuple[Times, ...] = ()
    total: Times | None = None
    flames: tuple[Flame, ...] = ()
    layers: tuple[Layer, ...] = ()
    operators: tuple[Operator, ...] = ()
    functions: tuple[Function, ...] = ()
    memory: tuple[tuple[float, int], ...] = ()
    """(seconds since the profile's begin, bytes that torch holds above what it held then)."""
    memory_device: str = ""
    sweep: tuple[SweepPoint, ...] = ()
    knee: int | None = None
    """Batch size of the knee, in rows."""
    overheads: tuple[Overhead, ...] = ()
    traced_wall_s: float | None = None
    """Time of one request that torch.profiler watched, by the clock: the median."""
    traced_self_s: float | None = None
    """Self times of all that it saw in one request, together: the median."""
    traced_requests: int = 0
    """Requests that the operators are of."""
    function_requests: int = 0
    """Requests that the functions are of."""
    notes: tuple[str, ...] = ()
    """What was left out, and why: one sentence each."""
    seconds: float = 0.0
    libraries: dict[str, str] = {}


class Progressed(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """How far it is."""

    stage: str
    done: float
    """Share of the whole in [0, 1]."""


class Profiled(msgspec.Struct, frozen=True, kw_only=True, tag="profiled"):
    """The files are written."""


class NotProfiled(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """There is no report."""

    code: Literal["cannot_open", "does_not_run", "out_of_memory", "no_space", "profiling_failed"]
    message: str


Said = Progressed | Profiled | NotProfiled
