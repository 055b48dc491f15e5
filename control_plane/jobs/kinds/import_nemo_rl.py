"""`import-nemo-rl`: converts one step of a NeMo RL run and registers it with where it came from.

Its folder under the home's `imports/` holds the step's files and the finished shards. A job that failed, was
cancelled or whose process died goes on from there when it is run again; folders of jobs that nobody takes up
again are removed after a day.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import psutil

from control_plane.admission import judging, verdict_record
from control_plane.admission.base import Refused
from control_plane.admission.formats import hf_architecture
from control_plane.domain.job import FINAL_STATES
from control_plane.domain.views import Reason
from control_plane.errors import NotFoundError, RefusedError
from control_plane.jobs.base import Progress
from control_plane.nemo_rl.convert import SHARD_BYTES, Converted, Order, convert
from control_plane.nemo_rl.plan import Wishes
from control_plane.services import jobs, nemo_rl, registration, versions
from control_plane.services.context import Context
from control_plane.services.jobs import ClaimedJob
from serving_agent.contract.signature import Signature, TensorSpec

MARK: Final = "import_job"
"""Key of the detail by which the version that a job made is known."""
KEPT_S: Final = 24 * 3600.0
DATATYPES: Final = {"F32": "FP32", "BF16": "BF16", "F16": "FP16", "F64": "FP64"}
LATER: Final = "Raw logits for token ids; text generation comes with language-model endpoints"


class ImportNemoRl:
    """Parameters: as `services.nemo_rl.start` queues them. Result: {"version_ref", "seconds", ...}."""

    name = nemo_rl.KIND
    title = "Import from NeMo RL"
    submittable = False
    description = "Converts a step of a NeMo RL run without unpickling it, checks it, registers the version."

    def run(self, ctx: Context, job: ClaimedJob, progress: Progress) -> Mapping[str, Any]:
        """Convert and register. Raises SignalboxError where the step is damaged, incomplete or gone."""
        model = str(job.params["model"])
        known = _registered(ctx, model, job.id)
        if known is not None:
            return {"version_ref": known}
        work = _folder(ctx, job.id)
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(ctx, time.time())
        started = time.monotonic()
        converted = convert(_order(ctx, job, work), progress)
        seconds = round(time.monotonic() - started, 2)
        progress("register", 0.97)
        ref = _register(ctx, job, model, converted)
        shutil.rmtree(work, ignore_errors=True)
        return {
            "version_ref": ref,
            "seconds": seconds,
            "weight_bytes": converted.size_bytes,
            "checks": converted.lineage["checks"],
        }

    def ended(self, ctx: Context, params: Mapping[str, Any], reason: Reason | None) -> None:
        """Nothing waits for it; its folder stays for another try."""


def _order(ctx: Context, job: ClaimedJob, work: Path) -> Order:
    params = job.params
    return Order(
        folder=nemo_rl.allowed(ctx, params["folder"]) if not (work / "held.json").exists() else work,
        step=params["step"],
        wishes=Wishes(
            base=nemo_rl.allowed_base(ctx, params["base"]) if params["base"] else None,
            base_tokenizer=params["base_tokenizer"],
            dtype=params["dtype"],
            shard_bytes=SHARD_BYTES,
        ),
        work=work,
        keep_free_bytes=nemo_rl.keep_free_bytes(ctx),
        free_memory_bytes=psutil.virtual_memory().available,
    )


def _register(ctx: Context, job: ClaimedJob, model: str, converted: Converted) -> str:
    handler, signature, labels = _served(converted)
    return registration.register(
        ctx,
        model=model,
        files_dir=converted.folder,
        format="huggingface",
        handler=handler,
        signature=signature,
        labels=labels,
        details=_details(converted, job.id),
        actor=job.created_by,
        lineage={**converted.lineage, "job": job.id},
        verdict=_verdict(converted.folder),
    )


def _verdict(folder: Path) -> dict[str, Any]:
    """Have the gate judge the converted folder as it judges uploads. Raises RefusedError."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        verdict = judging.judge(folder, Path(scratch))
    if isinstance(verdict, Refused):
        raise RefusedError(
            verdict.message,
            next_step=verdict.next_step,
            reason=verdict.code,
            file=verdict.file,
            member=verdict.member,
        )
    return verdict_record.recorded(verdict)


def _served(converted: Converted) -> tuple[str, Signature, tuple[str, ...]]:
    """Return handler, signature and labels: a score for text, or logits for token ids."""
    datatype = DATATYPES.get(converted.dtype, "FP32")
    if converted.reward_model:
        return (
            "score",
            Signature((TensorSpec("text", "BYTES", (-1,)),), (TensorSpec("score", "FP32", (-1,)),)),
            (),
        )
    logits = TensorSpec("logits", datatype, (-1, -1, converted.vocabulary))
    return "tensor", Signature(hf_architecture.TOKENS, (logits,)), ()


def _details(converted: Converted, job_id: str) -> dict[str, Any]:
    lineage = converted.lineage
    details = {
        "source": "NeMo RL",
        "algorithm": lineage["algorithm"],
        "step": lineage["step"],
        "base_model": lineage["base_model"],
        "weights": f"{lineage['dtype']['saved']} written as {lineage['dtype']['written']}",
        "smoke_test": lineage["checks"]["run"],
        "serving": "A score for each text" if converted.reward_model else LATER,
        MARK: job_id,
    }
    metrics = {
        key: value
        for key, value in lineage["training_info"].items()
        if key.startswith(("val", "train:")) and isinstance(value, int | float)
    }
    return {
        key: value for key, value in (details | dict(list(metrics.items())[:50])).items() if value is not None
    }


def _registered(ctx: Context, model: str, job_id: str) -> str | None:
    """Return the version that an earlier attempt of this job registered."""
    page = versions.search(ctx, model=model, archived=True, page_size=200)
    return next((each.ref for each in page.items if each.details.get(MARK) == job_id), None)


def _folder(ctx: Context, job_id: str) -> Path:
    return ctx.settings.root / "imports" / job_id


def _sweep(ctx: Context, now: float) -> None:
    """Remove the folders of ended jobs that nothing was written to for KEPT_S."""
    for folder in (ctx.settings.root / "imports").iterdir():
        if folder.stat().st_mtime < now - KEPT_S and _has_ended(ctx, folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def _has_ended(ctx: Context, job_id: str) -> bool:
    try:
        return jobs.get(ctx, job_id).state in FINAL_STATES
    except NotFoundError:
        return True


KIND: Final = ImportNemoRl()
