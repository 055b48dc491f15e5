"""The job that runs a rollout's gates: queued by the controller in the transaction of its decision."""

from __future__ import annotations

from typing import Final

from sqlalchemy.orm import Session

from control_plane.domain.job import JobState
from control_plane.registry.tables import Event, Job, Rollout

KIND: Final = "gates"
_ACTOR: Final = "controller"


def queue(session: Session, row: Rollout, at: float) -> str:
    """Queue the gates of *row* within the transaction of *session*; returns the job's id.

    Keep that id as `row.gate_job_id` in the same transaction: the job writes nothing into a rollout that
    does not name it.
    """
    job = Job(
        kind=KIND,
        subject=f"{row.candidate.ref} at {row.endpoint}",
        params={"rollout_id": row.id},
        state=JobState.QUEUED,
        stage="",
        progress=0.0,
        cancel_requested=False,
        attempt=0,
        created_by=_ACTOR,
        created_at=at,
    )
    session.add(job)
    session.flush()
    session.add(
        Event(
            at=at,
            actor=_ACTOR,
            action="job.submitted",
            subject=f"job/{job.id}",
            message=f"{_ACTOR} submitted {KIND} of {job.subject}",
            details={"kind": KIND, "rollout": row.id},
        )
    )
    return job.id
