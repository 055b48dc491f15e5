"""`check`: judges an upload, asks what only a person knows, tries accepted programs, and registers.

Every step may be repeated: the upload's row says how far it came, and registering an upload twice returns the
version that it became.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import msgspec

from control_plane.admission import gate
from control_plane.admission.base import Accepted, Refusal, Refused
from control_plane.admission.reasons import ReasonCode
from control_plane.domain.upload import UploadState
from control_plane.domain.views import Reason
from control_plane.errors import InvalidInputError, SignalboxError
from control_plane.jobs import limits, trial
from control_plane.jobs.base import Progress
from control_plane.services import catalogs, registration, uploads
from control_plane.services.context import Context
from control_plane.services.jobs import ClaimedJob, JobCancelled
from control_plane.services.uploads import Declared
from serving_agent.contract.signature import Signature, TensorSpec

CHECK_FAILED: Final = "check-failed"
"""Reason code of an upload whose check did not come to an end."""
CORRECTABLE: Final = frozenset({ReasonCode.SIGNATURE_MISMATCH, ReasonCode.DOES_NOT_RUN})
"""Reasons that another declared signature may do away with: the person is asked again, the files are kept."""
SEND_AGAIN: Final = "Upload it again; if that fails too, see the log of its job."


class Check:
    """Parameters: {"upload_id"}. Result: {"outcome": "registered" | "needs input" | "rejected", ...}."""

    name = "check"
    title = "Check an upload"
    submittable = False
    description = "Reads the files without running them, tries accepted programs, registers the version."

    def run(self, ctx: Context, job: ClaimedJob, progress: Progress) -> Mapping[str, Any]:
        """Take the upload one step on: registered, rejected, or waiting for a person."""
        upload_id = str(job.params["upload_id"])
        if uploads.get(ctx, upload_id).state != UploadState.CHECKING:
            return _outcome(
                ctx, upload_id
            )  # an earlier attempt came to an end and was killed before it said so
        try:
            _settle(ctx, upload_id, progress)
        except (SignalboxError, OSError):
            if uploads.get(ctx, upload_id).state == UploadState.CANCELLED:
                raise JobCancelled(job.id) from None  # its files went under our hands
            raise
        return _outcome(ctx, upload_id)

    def ended(self, ctx: Context, params: Mapping[str, Any], reason: Reason | None) -> None:
        """Reject the upload whose check failed, cancel the one whose check was cancelled."""
        upload_id = str(params["upload_id"])
        if uploads.get(ctx, upload_id).state != UploadState.CHECKING:
            return
        if reason is None:
            uploads.cancel(ctx, upload_id, actor="worker")
        else:
            message = f"The check itself failed: {reason.message}"
            uploads.reject(ctx, upload_id, Reason(CHECK_FAILED, message, SEND_AGAIN))


def _settle(ctx: Context, upload_id: str, progress: Progress) -> None:
    try:
        _check(ctx, upload_id, progress)
    except Refusal as refusal:
        declared = uploads.declared(ctx, upload_id).signature
        if declared is None or refusal.refused.code not in CORRECTABLE:
            _reject(ctx, upload_id, refusal.refused)
            return
        suggested = declared if refusal.refused.code == ReasonCode.DOES_NOT_RUN else None
        uploads.ask_again(ctx, upload_id, _reason(refusal.refused), suggested)


def _check(ctx: Context, upload_id: str, progress: Progress) -> None:
    progress("read", 0.05)
    declared = uploads.declared(ctx, upload_id)
    verdict = gate.judge(uploads.folder(ctx, upload_id))
    if isinstance(verdict, Refused):
        _reject(ctx, upload_id, verdict)
        return
    uploads.note(ctx, upload_id, _found(verdict, verdict.signature or Signature(inputs=(), outputs=())))
    signature = _signature(verdict, declared)
    needs = _needs(verdict, declared)
    found = _found(verdict, signature)
    if needs:
        uploads.ask(ctx, upload_id, found, needs)
        return
    uploads.note(ctx, upload_id, found)
    handler = _handler(ctx, verdict, declared)
    progress("store", 0.2)
    artifact_dir = _stage(ctx, upload_id, verdict)
    if verdict.program:
        progress("try it", 0.3)
        signature = trial.run(_trial(ctx, verdict, artifact_dir, signature), progress)
    labels = declared.labels or verdict.labels
    _check_served(handler, signature, labels)
    progress("register", 0.9)
    ref = registration.register(
        ctx,
        model=declared.model,
        files_dir=artifact_dir,
        format=verdict.format,
        handler=handler,
        signature=signature,
        labels=labels,
        details=declared.details,
        actor=declared.actor,
        program_accepted_by=declared.program_accepted_by if verdict.program else None,
        program_accepted_at=declared.program_accepted_at if verdict.program else None,
        upload_id=upload_id,
    )
    uploads.registered(ctx, upload_id, ref)


def _needs(verdict: Accepted, declared: Declared) -> tuple[str, ...]:
    """Return what a person has still to give."""
    given = {
        "acceptance": declared.program_accepted_by is not None,
        "signature": declared.signature is not None,
    }
    return tuple(need for need in verdict.needs if not given[need])


def _found(verdict: Accepted, signature: Signature) -> dict[str, Any]:
    return {
        "format": verdict.format,
        "program": verdict.program,
        "signature": msgspec.to_builtins(signature),
    }


def _signature(verdict: Accepted, declared: Declared) -> Signature:
    """Return the file's own signature, with what a person declared where the file does not say it."""
    known = verdict.signature or Signature(inputs=(), outputs=())
    given = declared.signature
    if given is None or not verdict.program:
        return known
    if "signature" not in verdict.needs and known.outputs:
        return known
    return Signature(inputs=_ordered(known.inputs, given.inputs), outputs=given.outputs)


def _ordered(known: tuple[TensorSpec, ...], given: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Return the declared inputs in the order of the program's arguments. Raises Refusal."""
    names = [spec.name for spec in known]
    by_name = {spec.name: spec for spec in given}
    if set(names) == set(by_name):
        return tuple(by_name[name] for name in names)
    raise Refusal(
        ReasonCode.SIGNATURE_MISMATCH,
        f"the program takes the inputs {', '.join(names)}; declared are {', '.join(by_name) or 'none'}",
        "Name the inputs as the program does.",
    )


def _handler(ctx: Context, verdict: Accepted, declared: Declared) -> str:
    try:
        return catalogs.check_handler(ctx, declared.handler or verdict.handler, verdict.format)
    except InvalidInputError as error:
        raise _handler_refusal(error) from None


def _check_served(handler: str, signature: Signature, labels: tuple[str, ...]) -> None:
    try:
        catalogs.served_signature(handler, signature, labels)
    except InvalidInputError as error:
        raise _handler_refusal(error) from None


def _handler_refusal(error: InvalidInputError) -> Refusal:
    next_step = error.next_step or "Upload it again with another handler, or with none."
    return Refusal(ReasonCode.HANDLER_MISMATCH, error.message, next_step)


def _stage(ctx: Context, upload_id: str, verdict: Accepted) -> Path:
    """Link the artefact's files under their names in the artefact into a folder of their own. Idempotent."""
    received = uploads.folder(ctx, upload_id)
    staged = received.parent / "artifact"
    shutil.rmtree(staged, ignore_errors=True)
    for name, path in verdict.stored:
        target = staged / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(received / path)
    return staged


def _trial(ctx: Context, verdict: Accepted, artifact_dir: Path, signature: Signature) -> trial.Trial:
    return trial.Trial(
        settings=ctx.settings,
        format=verdict.format,
        artifact_dir=artifact_dir,
        signature=signature,
        memory_bytes=limits.memory_bytes(ctx.settings.agent_memory),
    )


def _reject(ctx: Context, upload_id: str, refused: Refused) -> None:
    uploads.reject(ctx, upload_id, _reason(refused))


def _reason(refused: Refused) -> Reason:
    return Reason(refused.code, refused.message, refused.next_step, refused.file)


def _outcome(ctx: Context, upload_id: str) -> dict[str, Any]:
    upload = uploads.get(ctx, upload_id)
    if upload.state == UploadState.REGISTERED:
        return {"outcome": "registered", "version_ref": upload.version_ref}
    if upload.state == UploadState.NEEDS_INPUT:
        return {"outcome": "needs input", "needs": list(upload.needs)}
    return {"outcome": upload.state, "reason": asdict(upload.reason) if upload.reason else None}


KIND: Final = Check()
