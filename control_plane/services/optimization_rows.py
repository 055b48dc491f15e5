"""Rows that calibrate variants, and rows that their answers are compared on: never the same ones.

Rows to compare on are the newest golden set of the model that fits the version; without one the version's
examples; without examples none, and rows are then made up by the signature. Where examples calibrate and are
compared on too, every second one calibrates and the others are compared on. A row that calibrates is left out
of what is compared on wherever it comes from.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy.orm import Session

from control_plane.domain import calibration
from control_plane.domain.calibration import Row
from control_plane.domain.optimization_views import (
    CalibrationChoice,
    CalibrationView,
    CalibrationWish,
    HoldoutView,
)
from control_plane.errors import InvalidInputError, NoSpaceError, NotFoundError
from control_plane.optimization.messages import HoldoutRow
from control_plane.provenance.statement import hash_of
from control_plane.registry import golden_sets, rollout_history
from control_plane.registry import session as sessions
from control_plane.services.context import Context
from control_plane.services.optimization_subjects import Known
from serving_agent.contract.signature import Signature

EXAMPLES: Final = "examples"
UPLOAD: Final = "upload"
CAPTURES: Final = "captures"
SOURCES: Final = (EXAMPLES, CAPTURES, UPLOAD)
ALGORITHM: Final = "sha256:"
CAPTURED_REQUESTS: Final = 1000
"""Newest kept requests that are looked at."""
CHECKED_GOLDEN_SETS: Final = 20
"""Newest golden sets that may fit the version."""
NO_EXAMPLES: Final = "it has no examples"
NO_CAPTURES: Final = (
    "no request to this model is kept: requests are kept while a rollout compares two of its versions"
)
_SEND: Final = "Send rows: `signalbox optimize … --calibration FILE`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrating:
    """Rows that calibrate."""

    rows: tuple[Row, ...]
    source: str
    """`examples`, `upload` or `captures`."""
    digest: str
    """`sha256:<hex>` of the rows as canonical JSON."""

    def recorded(self) -> dict[str, Any]:
        """As a version's lineage names it."""
        return {"source": self.source, "rows": len(self.rows), "digest": self.digest}


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdout:
    """Rows that answers are compared on."""

    rows: tuple[HoldoutRow, ...]
    source: str
    """For people."""

    def view(self) -> HoldoutView:
        """As services return it."""
        labelled = sum(row.label is not None for row in self.rows)
        return HoldoutView(source=self.source, rows=len(self.rows), labelled=labelled)


def add(ctx: Context, found: Known, content: bytes) -> CalibrationView:
    """Keep the rows in *content* for calibrating variants of *found*; the same rows are kept once.

    Raises InvalidInputError naming row and input, TooLargeError, NoSpaceError.
    """
    rows = calibration.parse(content)
    calibration.check(rows, found.served)
    digest = ALGORITHM + hash_of(rows)
    stored = msgspec.json.encode(rows)
    _write(_file(ctx, digest), stored)
    return CalibrationView(digest=digest, rows=len(rows), size_bytes=len(stored))


def choices(ctx: Context, found: Known) -> tuple[CalibrationChoice, ...]:
    """Where calibration rows of *found* can come from."""
    examples = _fitting([each["inputs"] for each in found.examples], found.served)
    captured = _captured(ctx, found)
    return (
        CalibrationChoice(
            source=EXAMPLES,
            title=f"The examples of {found.ref}",
            rows=len(examples),
            problem=None if examples else NO_EXAMPLES,
        ),
        CalibrationChoice(
            source=CAPTURES,
            title="Requests kept by rollouts",
            rows=len(captured),
            problem=None if captured else NO_CAPTURES,
        ),
        CalibrationChoice(source=UPLOAD, title="A file", rows=0, problem=None),
    )


def calibrating(ctx: Context, found: Known, wish: CalibrationWish) -> Calibrating:
    """The rows that *wish* asks for, USED_ROWS at most. Raises InvalidInputError, NotFoundError."""
    if wish.source == UPLOAD:
        rows = _uploaded(ctx, wish.digest)
        calibration.check(rows, found.served)
    elif wish.source == EXAMPLES:
        rows = _examples_to_calibrate(ctx, found)
    elif wish.source == CAPTURES:
        rows = _captured(ctx, found)
        if not rows:
            raise InvalidInputError(NO_CAPTURES, next_step=_SEND)
    else:
        raise InvalidInputError(
            f"calibration rows do not come from {wish.source[:40]!r}; they come from {', '.join(SOURCES)}"
        )
    used = calibration.spread(rows, calibration.USED_ROWS)
    return Calibrating(rows=tuple(used), source=wish.source, digest=ALGORITHM + hash_of(used))


def holdout(ctx: Context, found: Known, taken: Sequence[Mapping[str, Any]] = ()) -> Holdout:
    """Rows to compare answers of *found* and its variants on, none of which is in *taken*."""
    labelled, source = _candidates(ctx, found)
    calibrated = {hash_of(dict(row)) for row in taken}
    left = [row for row in labelled if hash_of(row.inputs) not in calibrated]
    if not left:
        why = "all rows calibrate" if labelled else "there is neither a golden set nor an example"
        return Holdout(rows=(), source=f"rows made up by the signature: {why}")
    used = calibration.spread(left, calibration.COMPARED_ROWS)
    return Holdout(rows=tuple(used), source=f"{source} ({len(used)} rows)")


def _candidates(ctx: Context, found: Known) -> tuple[list[HoldoutRow], str]:
    with sessions.read(ctx.engine) as session:
        golden = _golden(session, found)
    if golden is not None:
        return golden
    fitting = [each for each in found.examples if not calibration.misfit(each["inputs"], found.served)]
    rows = [HoldoutRow(inputs=each["inputs"], label=_label(found, each.get("label"))) for each in fitting]
    return rows, f"examples of {found.ref}"


def _golden(session: Session, found: Known) -> tuple[list[HoldoutRow], str] | None:
    """The newest golden set that fits, if there is one."""
    kept, _ = golden_sets.page(session, model=found.model, offset=0, limit=CHECKED_GOLDEN_SETS)
    for each in kept:
        if not any(calibration.misfit(item["inputs"], found.served) for item in each.items):
            rows = [
                HoldoutRow(inputs=item["inputs"], label=_label(found, item["label"])) for item in each.items
            ]
            return rows, f"golden set {each.name}"
    return None


def _label(found: Known, label: str | None) -> str | None:
    """The label, where the version knows that class."""
    return label if label is not None and (not found.labels or label in found.labels) else None


def _examples_to_calibrate(ctx: Context, found: Known) -> list[Row]:
    """Every example, or every second one where the others are needed to compare on."""
    rows = _fitting([each["inputs"] for each in found.examples], found.served)
    if not rows:
        raise InvalidInputError(
            f"{found.ref} cannot be calibrated with its examples: {NO_EXAMPLES}", next_step=_SEND
        )
    with sessions.read(ctx.engine) as session:
        shared = _golden(session, found) is None
    return rows[::2] if shared and len(rows) > 1 else rows


def _captured(ctx: Context, found: Known) -> list[Row]:
    """Rows of kept requests that *found* would take, each once, newest first."""
    with sessions.read(ctx.engine) as session:
        requests = rollout_history.captured_inputs(session, found.model_id, limit=CAPTURED_REQUESTS)
    rows = [row for request in requests for row in calibration.single_rows(request)]
    once = {hash_of(row): row for row in _fitting(rows, found.served)}
    return list(once.values())


def _fitting(rows: Sequence[Row], signature: Signature) -> list[Row]:
    return [row for row in rows if not calibration.misfit(row, signature)]


def _uploaded(ctx: Context, digest: str | None) -> list[Row]:
    if digest is None:
        raise InvalidInputError("calibration by an upload needs its digest", next_step=_SEND)
    file = _file(ctx, digest)
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"There are no calibration rows {digest[:80]}", next_step=_SEND) from None
    rows: list[Row] = msgspec.json.decode(content)
    return rows


def _file(ctx: Context, digest: str) -> Path:
    """Where the rows with that digest lie. Raises InvalidInputError for what is no digest."""
    name = digest.removeprefix(ALGORITHM)
    if len(name) != 64 or not set(name) <= set("0123456789abcdef"):
        raise InvalidInputError(f"{digest[:80]!r} is not a digest", next_step=_SEND)
    return ctx.settings.optimization_dir / "calibration" / f"{name}.json"


def _write(file: Path, content: bytes) -> None:
    """Put *content* at *file* whole or not at all. Raises NoSpaceError."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    waiting = file.with_suffix(f".{os.getpid()}-{os.urandom(4).hex()}")
    try:
        with waiting.open("xb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        waiting.replace(file)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(
                "The disk is full", next_step="Delete versions or other files first."
            ) from error
        raise
    finally:
        waiting.unlink(missing_ok=True)
