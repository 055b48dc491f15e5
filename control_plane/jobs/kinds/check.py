"""`check`: judges an upload, asks what only a person knows, tries accepted programs, and registers.

Every step may be repeated: the upload's row says how far it came, and registering an upload twice returns the
version that it became.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import msgspec

from control_plane.admission import judging
from control_plane.admission.base import Accepted, Need, Refusal, Refused, Verdict
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.verdict_record import recorded
from control_plane.domain.upload import UploadState
from control_plane.domain.views import Reason
from control_plane.errors import ConflictError, InvalidInputError, SignalboxError
from control_plane.jobs import candidate, limits, trial
from control_plane.jobs.base import Progress
from control_plane.jobs.candidate import Candidate
from control_plane.services import architectures, catalogs, registration, upload_checks, uploads
from control_plane.services.context import Context
from control_plane.services.jobs import ClaimedJob, JobCancelled
from control_plane.services.upload_checks import Declared
from serving_agent.contract.signature import Signature

CHECK_FAILED: Final = "check-failed"
"""Reason code of an upload whose check did not come to an end."""
WRONG_SIGNATURE: Final = frozenset({ReasonCode.SIGNATURE_MISMATCH, ReasonCode.DOES_NOT_RUN})
"""Reasons that another declared signature may do away with: the person is asked again, the files are kept."""
WRONG_NETWORK: Final = frozenset({ReasonCode.DOES_NOT_LOAD, ReasonCode.DOES_NOT_RUN})
"""Reasons that another network for bare weights may do away with."""
STORE: Final = 0.2
TRY: Final = 0.5
REGISTER: Final = 0.9
"""Shares of the work that are done when these stages begin."""
MOST_SOURCES: Final = 200
"""Files of the upload that a lineage names."""
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
            upload_checks.reject(ctx, upload_id, Reason(CHECK_FAILED, message, SEND_AGAIN))


def _settle(ctx: Context, upload_id: str, progress: Progress) -> None:
    try:
        _check(ctx, upload_id, progress)
    except Refusal as refusal:
        declared = upload_checks.declared(ctx, upload_id)
        need = _correctable(refusal.refused.code, declared)
        if need is None:
            _reject(ctx, upload_id, refusal.refused)
            return
        suggested = declared.signature if refusal.refused.code == ReasonCode.DOES_NOT_RUN else None
        upload_checks.ask_again(ctx, upload_id, _reason(refusal.refused), need, suggested)


def _correctable(code: ReasonCode, declared: Declared) -> Need | None:
    """Return what a person could say differently to do away with the reason; None where nothing."""
    if declared.signature is not None and code in WRONG_SIGNATURE:
        return "signature"
    return "architecture" if declared.architecture is not None and code in WRONG_NETWORK else None


def _check(ctx: Context, upload_id: str, progress: Progress) -> None:
    declared = upload_checks.declared(ctx, upload_id)
    verdict = _judge(ctx, upload_id, progress)
    if isinstance(verdict, Refused):
        _reject(ctx, upload_id, verdict)
        return
    upload_checks.note(ctx, upload_id, _found(verdict, verdict.signature or candidate.NOTHING))
    becoming = candidate.combine(verdict, declared)
    found = _found(verdict, becoming.signature)
    if becoming.needs:
        upload_checks.ask(ctx, upload_id, found, becoming.needs)
        return
    upload_checks.note(ctx, upload_id, found)
    handler = _handler(ctx, becoming, [name for name, _ in verdict.stored])
    artifact_dir = _store(ctx, upload_id, declared, verdict, progress)
    signature = becoming.signature
    if becoming.tried_with is not None:
        progress("try it", TRY)
        measured = trial.run(_trial(ctx, becoming, becoming.tried_with, artifact_dir), progress)
        signature = measured if becoming.is_measured else signature
    _check_served(handler, signature, becoming.labels)
    progress("register", REGISTER)
    ref = registration.register(
        ctx,
        model=declared.model,
        files_dir=artifact_dir,
        format=becoming.format,
        handler=handler,
        signature=signature,
        labels=becoming.labels,
        details=declared.details,
        actor=declared.actor,
        program_accepted_by=declared.program_accepted_by if verdict.program else None,
        program_accepted_at=declared.program_accepted_at if verdict.program else None,
        upload_id=upload_id,
        lineage=_lineage(ctx, upload_id, declared),
        evidence_dir=_evidence(ctx, upload_id, verdict),
        verdict=recorded(verdict),
    )
    upload_checks.registered(ctx, upload_id, ref)


def _judge(ctx: Context, upload_id: str, progress: Progress) -> Verdict:
    progress("read", 0.0)
    scratch = _work(ctx, upload_id, "unpacked")
    return judging.judge(uploads.folder(ctx, upload_id), scratch, progress=_part(progress, 0.0, STORE))


def _store(ctx: Context, upload_id: str, declared: Declared, verdict: Accepted, progress: Progress) -> Path:
    """Write the artefact's files into a folder of their own: weights anew, the rest as it came.

    Raises ConflictError when the files are no longer those that *verdict* was given for.
    """
    progress("store", STORE)
    artifact_dir = _work(ctx, upload_id, "artifact")
    converted = judging.convert(
        uploads.folder(ctx, upload_id),
        _work(ctx, upload_id, "unpacked"),
        artifact_dir,
        progress=_part(progress, STORE, TRY),
    )
    if converted != verdict:
        raise ConflictError("The files changed while they were checked", next_step="Upload them again.")
    if declared.architecture is not None:
        architectures.write(ctx.settings, declared.architecture, artifact_dir)
    return artifact_dir


def _work(ctx: Context, upload_id: str, name: str) -> Path:
    """Return an empty folder beside the upload's files: on the same disk, and gone when the upload ends."""
    folder = uploads.folder(ctx, upload_id).parent / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _part(progress: Progress, start: float, end: float) -> Progress:
    """Return a progress whose 0 to 1 is *start* to *end* of the whole."""
    return lambda stage, done: progress(stage, start + (end - start) * done)


def _evidence(ctx: Context, upload_id: str, verdict: Accepted) -> Path | None:
    """Return the folder of the original files, to be kept sealed; None where the artefact is the original."""
    received = uploads.folder(ctx, upload_id)
    kept = {path for _, path in verdict.stored}
    sent = {path.relative_to(received).as_posix() for path in received.rglob("*") if path.is_file()}
    return None if kept == sent and not verdict.weights else received


def _lineage(ctx: Context, upload_id: str, declared: Declared) -> dict[str, Any]:
    files = [asdict(file) for file in uploads.get(ctx, upload_id).files]
    source = {"kind": "upload", "upload_id": upload_id, "files": files[:MOST_SOURCES]}
    return {"source": source} | ({"architecture": declared.architecture} if declared.architecture else {})


def _found(verdict: Accepted, signature: Signature) -> dict[str, Any]:
    return {
        "format": verdict.format,
        "program": verdict.program,
        "signature": msgspec.to_builtins(signature),
        "verdict": recorded(verdict),
    }


def _handler(ctx: Context, becoming: Candidate, files: Collection[str]) -> str:
    try:
        return catalogs.check_handler(ctx, becoming.handler, becoming.format, files)
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


def _trial(ctx: Context, becoming: Candidate, signature: Signature, artifact_dir: Path) -> trial.Trial:
    return trial.Trial(
        settings=ctx.settings,
        format=becoming.format,
        artifact_dir=artifact_dir,
        signature=signature,
        memory_bytes=limits.memory_bytes(ctx.settings.agent_memory),
        exact=becoming.exact,
    )


def _reject(ctx: Context, upload_id: str, refused: Refused) -> None:
    upload_checks.reject(ctx, upload_id, _reason(refused))


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
