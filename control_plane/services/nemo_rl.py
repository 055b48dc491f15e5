"""Runs of NeMo RL that lie where this machine can read them: found, read, compared, converted by a job.

Only folders inside SIGNALBOX_IMPORT_ROOTS are looked at, by their real paths.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from control_plane.admission.base import Refusal
from control_plane.domain.names import MAX_LABEL_CHARS, check_label
from control_plane.domain.references import check_path, is_url
from control_plane.domain.views import JobView
from control_plane.errors import InvalidInputError, RefusedError
from control_plane.nemo_rl import companions, config_diff, preflight
from control_plane.nemo_rl import run as runs
from control_plane.nemo_rl.config_diff import Change
from control_plane.nemo_rl.preflight import Preflight
from control_plane.nemo_rl.run import Run
from control_plane.registry import session as sessions
from control_plane.services import jobs
from control_plane.services.context import Context

KIND: Final = "import-nemo-rl"
"""Kind of the job that converts a step and registers it."""
DTYPES: Final = ("keep", "bf16")
MAX_LISTED: Final = 200
MAX_VISITED: Final = 5000
LISTED_DEPTH: Final = 4
"""Below a root; deeper runs are opened by their path."""


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run below an allowed root."""

    path: str
    name: str
    """Its path relative to the root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a person asks to convert; paths are checked by `start` and `look`."""

    folder: str
    step: int | None = None
    base: str | None = None
    base_tokenizer: bool = False
    dtype: str | None = None


def found(ctx: Context) -> tuple[FoundRun, ...]:
    """Return the runs below the allowed roots, at most MAX_LISTED, by path. Links are not followed."""
    listed: list[FoundRun] = []
    for root in _roots(ctx):
        for folder in islice(_folders(root, 0), MAX_VISITED):
            if not runs.is_run(folder):
                continue
            listed.append(FoundRun(str(folder), folder.relative_to(root).as_posix()))
    return tuple(sorted(listed[:MAX_LISTED], key=lambda run: run.path))


def read(ctx: Context, folder: str) -> Run:
    """Read the run, step or weights folder at *folder*. Raises InvalidInputError, NotFoundError."""
    return runs.scan(allowed(ctx, folder))


def changes(ctx: Context, folder: str, before: int, after: int) -> tuple[Change, ...]:
    """Return what differs between the configs of two steps of the run at *folder*."""
    run = read(ctx, folder)
    old, new = (runs.config_of(run.step(number))[0] for number in (before, after))
    return config_diff.changes(old, new)


def look(ctx: Context, wanted: Wanted) -> Preflight:
    """Say what converting a step would take, and what is missing. Reads no weights."""
    run = read(ctx, wanted.folder)
    step = run.step(wanted.step)
    base = allowed_base(ctx, wanted.base) if wanted.base else None
    usage = shutil.disk_usage(ctx.settings.root)
    return preflight.look(
        run,
        step,
        base=_base_config(base),
        base_tokenizer=bool(base and wanted.base_tokenizer and companions.holds_tokenizer(base)),
        own_tokenizer=companions.folder_in(Path(step.folder), step.form.folder) is not None,
        dtype=_dtype(wanted.dtype),
        free_bytes=max(0, usage.free - keep_free_bytes(ctx)),
    )


def start(ctx: Context, wanted: Wanted, *, model: str | None, actor: str) -> JobView:
    """Queue the job that converts a step and registers it as the next version of *model*.

    model: None for a name made of the run's. Raises InvalidInputError, NotFoundError, and RefusedError with
    everything that stands in the way.
    """
    seen = look(ctx, wanted)
    if not seen.ready:
        raise RefusedError(
            "The step cannot be converted: " + " ".join(seen.problems),
            next_step=f"Or convert it with NeMo RL: {seen.command}" if seen.command else None,
        )
    run = read(ctx, wanted.folder)
    name = check_label("model", model or model_name(run.name))
    params = {
        "folder": str(allowed(ctx, wanted.folder)),
        "step": run.step(wanted.step).number,
        "base": str(allowed(ctx, wanted.base)) if wanted.base else None,
        "base_tokenizer": wanted.base_tokenizer,
        "dtype": _dtype(wanted.dtype),
        "model": name,
    }
    where = f"step {params['step']}" if params["step"] is not None else "weights"
    with sessions.write(ctx.engine) as session:
        job = jobs.queue(session, KIND, subject=f"{name} from {run.name} {where}", params=params, actor=actor)
        return jobs.view(job)


def allowed(ctx: Context, folder: str) -> Path:
    """Return *folder* without links if it lies inside an allowed root, else raise InvalidInputError."""
    path = Path(folder)
    if is_url(folder) or not path.is_absolute() or "\0" in folder:
        raise InvalidInputError(
            f"{folder[:200]!r} is no absolute path",
            next_step="Give a path on the machine that runs Signalbox, from its first slash on.",
        )
    real = check_path(path.resolve(), _roots(ctx))
    if not real.is_dir():
        raise InvalidInputError(f"There is no folder {str(real)[:200]!r}", next_step="Check the path.")
    return real


def allowed_base(ctx: Context, folder: str) -> Path:
    """Return *folder* as `allowed` does, if the files in it do not lead out of the roots either.

    Hugging Face's cache holds links to its blobs, which lie beside the folder.
    """
    base = allowed(ctx, folder)
    for name in companions.NAMES:
        if (base / name).exists():
            check_path((base / name).resolve(), _roots(ctx))
    return base


def keep_free_bytes(ctx: Context) -> int:
    """Return how many bytes of the home's disk must stay free."""
    return int(shutil.disk_usage(ctx.settings.root).total * ctx.settings.disk_floor)


def model_name(run_name: str) -> str:
    """Return a model's name made of a run's: lower-case letters, digits and hyphens. Pure."""
    name = re.sub(r"[^a-z0-9]+", "-", run_name.lower()).strip("-")[:MAX_LABEL_CHARS].strip("-")
    return name or "nemo-rl"


def _roots(ctx: Context) -> list[Path]:
    return [root.expanduser().resolve() for root in ctx.settings.import_roots]


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """Yield *folder* and the folders below it; a run's own steps and what cannot be read are passed over."""
    yield folder
    if depth >= LISTED_DEPTH or runs.is_run(folder):
        return
    try:
        with os.scandir(folder) as entries:
            inner = sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for path in inner:
        yield from _folders(Path(path), depth + 1)


def _base_config(base: Path | None) -> dict[str, Any] | None:
    """Return the base model's config.json. Raises InvalidInputError where it holds none that can be read."""
    if base is None:
        return None
    try:
        return companions.read_config(base / "config.json")
    except Refusal as refusal:
        raise InvalidInputError(f"In {base}: {refusal.refused.message}") from None


def _dtype(name: str | None) -> str | None:
    if name is None or name in DTYPES:
        return name
    raise InvalidInputError(f"There is no element type {name[:40]!r}; choose {' or '.join(DTYPES)}")
