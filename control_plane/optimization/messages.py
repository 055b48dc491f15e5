"""What the job and its two kinds of processes say to each other, one JSON value a line."""

from __future__ import annotations

from typing import Any

import msgspec

from control_plane.domain.optimization import Conditions
from serving_agent.contract.signature import Signature


class Artefact(msgspec.Struct, frozen=True, kw_only=True):
    """One side: files, and how they are served."""

    folder: str
    format: str
    handler: str
    signature: Signature
    """What the artefact itself takes and returns."""
    labels: tuple[str, ...] = ()
    allowed_handlers: tuple[str, ...] = ()


class BuildOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Told to the building process on its stdin."""

    parent: Artefact
    method: str
    params: dict[str, Any]
    rows_file: str | None
    """JSON list of rows to calibrate with, each {input name: nested list} as `/predict` takes them."""
    out: str
    """Empty folder for the artefact."""
    threads: int


class BuildReply(msgspec.Struct, frozen=True, kw_only=True):
    """The building process's only answer."""

    format: str = ""
    notes: tuple[str, ...] = ()
    libraries: dict[str, str] = {}
    """Versions of the distributions that had a part in it."""
    seconds: float = 0.0
    failed: str | None = None
    """Why there is no artefact, as a sentence."""
    code: str = ""
    """Of the failure: `cannot_build`, `out_of_memory`, `no_space` or `build_failed`."""


class HoldoutRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row to compare answers on."""

    inputs: dict[str, Any]
    """By input name, as nested lists without the batch dimension."""
    label: str | None = None
    """Its right class, where one is known."""


class MeasureOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Two artefacts to be measured side by side."""

    parent: Artefact
    variant: Artefact
    rows: tuple[HoldoutRow, ...]
    """Empty for none: answers are then compared on made-up rows."""
    conditions: Conditions


class Open(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """First command to a measuring process: open the artefact."""

    artefact: Artefact
    rows: tuple[HoldoutRow, ...]
    threads: int
    cores: tuple[int, ...]
    """CPUs it may run on."""


class Time(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Run a batch of *rows* rows again and again, for at least *seconds* and twice."""

    rows: int
    seconds: float


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Answer all hold-out rows into the file `out` (`.npz`, see `answers.write`)."""

    out: str


Command = Open | Time | Answer


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """It is open."""

    load_s: float
    rows: int
    """Rows to answer, made-up ones included."""


class Timed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How long one call took."""

    median_s: float
    calls: int
    quiet: float
    """Share of the calls that no other process interrupted."""
    tokens: int
    """Token places in one batch; 0 for what reads no tokens."""
    memory_bytes: int
    """Peak resident memory so far, above what the process held before it opened the artefact."""


class Answered(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The file is written."""

    memory_bytes: int


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """It could not be done."""

    code: str
    """`out_of_memory` or `does_not_run`."""
    message: str


Said = Opened | Timed | Answered | Failed
