"""`signalbox import`: models out of training runs that lie on the server's disk."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from control_plane.cli import waiting
from control_plane.cli.client import Json, part
from control_plane.cli.command import Session, command
from control_plane.cli.output import size


class Source(StrEnum):
    """What models are imported from."""

    NEMO_RL = "nemo-rl"


class Dtype(StrEnum):
    """Element types on offer."""

    KEEP = "keep"
    BF16 = "bf16"


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    command(app, name="import")(import_run)


def import_run(
    session: Session,
    source: Annotated[Source, typer.Argument(help="Kind of training run.")],
    run_dir: Annotated[Path, typer.Argument(help="Its folder, one of its steps, or a weights folder.")],
    step: Annotated[int | None, typer.Option(help="Number of the step; the best one by default.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of the model; made of the run's by default.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="Folder of the base model, where a step brings no config.json.")
    ] = None,
    base_tokenizer: Annotated[
        bool, typer.Option("--base-tokenizer", help="Use the base model's tokenizer if a step has none.")
    ] = False,
    dtype: Annotated[Dtype | None, typer.Option(help="keep or bf16; by default as the run computed.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is registered.")] = False,
) -> None:
    """Convert a step of a training run on this machine, and register it as the next version of a model."""
    del source  # the only one there is
    folder = str(run_dir.expanduser().absolute())
    run = session.api.get("/nemo-rl/run", folder=folder)
    chosen = step if step is not None else _default_step(run)
    body: Json = {"folder": folder, "step": chosen, "model": model, "base_tokenizer": base_tokenizer}
    body["base"] = str(base.expanduser().absolute()) if base else None
    body["dtype"] = dtype.value if dtype else None
    _say(session, run, chosen)
    job = session.api.post("/nemo-rl/imports", body)
    if not wait:
        session.out.line(f"job {job['id']}")
        session.out.document(job)
        return
    result = waiting.for_job(session.api, session.out, job["id"])["result"]
    name, _, number = result["version_ref"].partition("@")
    version = session.api.get(f"/models/{part(name)}/versions/{part(number)}")
    session.out.line(version["ref"])
    session.out.line(f"  {version['format']}, {size(version['size_bytes'])}, {version['digest']}")
    session.out.document(version)


def _default_step(run: Json) -> int | None:
    """The best step, else the newest that can be converted, else none: the server then says why."""
    if run["best"] is not None:
        return int(run["best"])
    able = [step["number"] for step in run["steps"] if step["form"]["convertible"]]
    return able[-1] if able else None


def _say(session: Session, run: Json, step: int | None) -> None:
    facts = run["facts"]
    known = [facts["algorithm"], facts["base_model"], facts["precision"]]
    session.out.note(f"{run['name']}: {', '.join(str(word) for word in known if word)}")
    if step is not None:
        best = f" (best {run['tracked']})" if step == run["best"] else ""
        session.out.note(f"step {step}{best}")
