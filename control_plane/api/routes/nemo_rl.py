"""Routes of NeMo RL runs in the folders that may be imported from."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from control_plane.api.caller import Actor, Ctx
from control_plane.api.encoding import Json
from control_plane.api.schemas import Body
from control_plane.services import nemo_rl
from control_plane.services.nemo_rl import Wanted

router = APIRouter(tags=["nemo-rl"])

Folder = Annotated[str, Query(max_length=4096, description="Absolute path on this machine.")]


class NemoRlBody(Body):
    """Which step to convert, and how."""

    folder: str = Field(max_length=4096, description="Run, step or weights folder: an absolute path.")
    step: int | None = Field(None, ge=0, description="Number of the step; null where there is only one.")
    base: str | None = Field(
        None, max_length=4096, description="Folder of the base model, for steps without a config.json."
    )
    base_tokenizer: bool = Field(
        False, description="Use the base model's tokenizer where the step holds none."
    )
    dtype: str | None = Field(
        None, description="keep or bf16; null: bf16 where the run trained in bfloat16 and saved float32."
    )


class NemoRlImportBody(NemoRlBody):
    """POST of an import."""

    model: str | None = Field(None, description="Name of the model; null for one made of the run's name.")


@router.get("/nemo-rl/runs")
def list_nemo_rl_runs(ctx: Ctx) -> Response:
    """Runs below the folders that may be imported from."""
    return Json(nemo_rl.found(ctx))


@router.get("/nemo-rl/run")
def get_nemo_rl_run(ctx: Ctx, folder: Folder) -> Response:
    """One run: settings, steps and metrics."""
    return Json(nemo_rl.read(ctx, folder))


@router.get("/nemo-rl/changes")
def get_nemo_rl_changes(ctx: Ctx, folder: Folder, before: int, after: int) -> Response:
    """What differs between the settings of two steps."""
    return Json(nemo_rl.changes(ctx, folder, before, after))


@router.post("/nemo-rl/preflight")
def check_nemo_rl_import(ctx: Ctx, body: NemoRlBody) -> Response:
    """What converting a step would take, and what is missing."""
    return Json(nemo_rl.look(ctx, _wanted(body)))


@router.post("/nemo-rl/imports", status_code=201)
def create_nemo_rl_import(ctx: Ctx, actor: Actor, body: NemoRlImportBody) -> Response:
    """Convert a step and register it; the answer is the job that does."""
    return Json(nemo_rl.start(ctx, _wanted(body), model=body.model, actor=actor), status_code=201)


def _wanted(body: NemoRlBody) -> Wanted:
    return Wanted(
        folder=body.folder,
        step=body.step,
        base=body.base,
        base_tokenizer=body.base_tokenizer,
        dtype=body.dtype,
    )
