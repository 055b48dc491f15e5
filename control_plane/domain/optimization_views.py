"""What services return of the optimisation lab: frozen values that pages, REST and command line all show.

Times are UTC seconds since the epoch, sizes bytes, durations seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from control_plane.domain.optimization import Decision, Report
from control_plane.domain.views import Reason


class CalibrationWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which rows calibrate."""

    source: str
    """`examples`, `upload` or `captures`."""
    digest: str | None = None
    """Of the upload, as `CalibrationView` names it; None for the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationView:
    """Rows that were sent to calibrate with."""

    digest: str
    """`sha256:<hex>` of its rows as canonical JSON."""
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationChoice:
    """One place that calibration rows of a version can come from."""

    source: str
    """`examples`, `captures` or `upload`."""
    title: str
    rows: int
    """How many there are; 0 for an upload that has yet to come."""
    problem: str | None
    """Why it cannot be used, in one sentence; None where it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldoutView:
    """What answers of a version's variants are compared on."""

    source: str
    """For people, e.g. `golden set mnist (600 rows)`."""
    rows: int
    """0 where rows are made up."""
    labelled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodView:
    """One method, and what it means for one version."""

    name: str
    title: str
    description: str
    params: dict[str, Any]
    """JSON schema of its parameters; titles, descriptions, defaults and bounds make the form."""
    calibrated: bool
    """Whether it needs calibration rows."""
    inapplicable: str | None
    """Why it does not apply, as a sentence without a full stop; None where it does."""
    estimate_s: float
    """How long building and measuring a variant may take."""
    estimated_from: str
    """`12 variants made here`, or `the method's usual cost and the size of the version`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabView:
    """All that a form for a version needs."""

    ref: str
    """`model@N`."""
    methods: tuple[MethodView, ...]
    calibrations: tuple[CalibrationChoice, ...]
    holdout: HoldoutView
    machine: dict[str, Any]
    """{"cpu", "cores", "flags", "memory_bytes", "gpus"} of where variants are made and measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialView:
    """One method with one set of parameters, tried on a version by a job."""

    job_id: str
    number: int
    """From 1, in the order they were thought of."""
    method: str
    title: str
    """Of the method."""
    params: dict[str, Any]
    state: str
    """A value of `domain.optimization.TrialState`."""
    stage: str
    """What is being done with it now, or was last."""
    reason: Reason | None
    """Why it failed or was dropped."""
    report: Report | None
    """The full measurement; before it the screening, while `screened` is true; None before either."""
    screened: bool
    """Whether `report` is a screening: few rounds, part of the rows."""
    decision: Decision | None
    """Of the full measurement."""
    version_ref: str | None
    """`model@N` it was registered as."""
    registrable: bool
    """Whether it was measured and its artefact is still there, so that it can be registered now."""
    registering_job: str | None
    """Id of the job that registers it or has."""
    follows: int | None
    """Number of the trial that led to it: the same method with fragile layers kept."""
    created_at: float
    updated_at: float

    @property
    def accepted(self) -> bool:
        """Whether it was measured in full and accepted."""
        return self.decision is not None and self.decision.accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchView:
    """What an autotune job is asked for, and where it is."""

    job_id: str
    ref: str
    objective: str
    """A value of `domain.optimization.Objective`."""
    minutes: float
    spent_s: float
    """Time that counted against the minutes so far, over all starts of the job."""
    best: int | None
    """Number of the trial that is best by the objective so far, among the accepted ones."""
    front: tuple[int, ...]
    """Numbers of the trials that no other beats in both the objective and agreement, best objective first."""
    ended: str | None
    """Why the search stopped, in one sentence; None while it goes on."""
