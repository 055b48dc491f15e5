"""The extension point for kinds of jobs: one module each, importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from control_plane.domain.views import Reason

if TYPE_CHECKING:
    from control_plane.services.context import Context
    from control_plane.services.jobs import ClaimedJob


class Progress(Protocol):
    """How a job says how far it is."""

    def __call__(self, stage: str, done: float) -> None:
        """Say what is being done and the done share in [0, 1].

        Cheap to call often. Raises services.jobs.JobCancelled when the job must end.
        """


class JobFailedError(Exception):
    """The job cannot be done; `reason` says why, with a code of its own."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.message)
        self.reason = reason


class JobKind(Protocol):
    """One kind of job. Each module of the catalogue holds one as `KIND`."""

    @property
    def name(self) -> str:
        """Key in the catalogue."""

    @property
    def title(self) -> str:
        """Name for people."""

    @property
    def description(self) -> str:
        """One line on what it does."""

    @property
    def submittable(self) -> bool:
        """Whether people may submit it; others are queued by the service that needs them."""

    def run(self, ctx: Context, job: ClaimedJob, progress: Progress) -> Mapping[str, Any]:
        """Do the work and return the result as plain JSON; may import torch.

        A job whose process died is run again, so whatever was done before must not be done twice. Raises
        SignalboxError where it cannot be done.
        """

    def ended(self, ctx: Context, params: Mapping[str, Any], reason: Reason | None) -> None:
        """Put right what waits for a job that failed for *reason*, or was cancelled (None).

        Idempotent; may run in the worker after the job's own process was killed.
        """
