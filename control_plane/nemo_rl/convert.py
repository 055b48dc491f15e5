"""A step as a Hugging Face folder: held, converted shard by shard, checked. Runs in a process of its own.

Nothing of the step is unpickled and no distributed-checkpoint code of torch is called; memory stays at a few
blocks (and, for the last check, the model where it is small enough).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from control_plane.admission.base import Refusal
from control_plane.errors import NoSpaceError, RefusedError
from control_plane.nemo_rl import checks, companions, documents, listing, plan, shards, staging
from control_plane.nemo_rl import run as runs
from control_plane.nemo_rl.plan import Plan, Wishes
from control_plane.nemo_rl.run import Run, Step

VERSION: Final = "nemo-rl/1"
"""Of this converter; kept in the lineage of what it made."""
SHARD_BYTES: Final = 2 * 1024**3
HELD: Final = "held.json"
"""Of a conversion's folder: says that all files of the step are held, and where they came from."""
MAX_LISTED_FILES: Final = 2000

Progress = Callable[[str, float], object]
"""Told a stage and the done share in [0, 1]; what it raises ends the conversion, which can go on later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to convert, and how."""

    folder: Path
    """The run, step or weights folder."""
    step: int | None
    wishes: Wishes
    work: Path
    """Folder of this conversion alone; what is in it is used when the same order is given again."""
    keep_free_bytes: int
    """Of the work folder's disk."""
    free_memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A checked Hugging Face folder."""

    folder: Path
    size_bytes: int
    """Of its weights."""
    reward_model: bool
    dtype: str
    """Safetensors' name of the weights' floating-point type."""
    vocabulary: int
    lineage: dict[str, Any]


def convert(order: Order, progress: Progress) -> Converted:
    """Convert the step that *order* names; calling again with the same work folder goes on where it ended.

    Raises RefusedError for damaged, incomplete or hostile files (`details`: reason, file, member),
    ConflictError where a running training deleted the step before it was held, NoSpaceError, and whatever
    *progress* raises.
    """
    try:
        origin = _hold(order, progress)
        held = runs.scan(order.work / "source" / origin["name"])
        return _converted(order, held, origin, progress)
    except Refusal as refusal:
        said = refusal.refused
        raise RefusedError(
            said.message, next_step=said.next_step, reason=said.code, file=said.file, member=said.member
        ) from refusal


def _hold(order: Order, progress: Progress) -> dict[str, Any]:
    """Make sure that the step's files cannot go; return where they came from."""
    marker = order.work / HELD
    if marker.is_file():
        known: dict[str, Any] = json.loads(marker.read_bytes())
        return known
    found = runs.scan(order.folder)
    step = found.step(order.step)
    folder = Path(step.folder)
    if not step.form.convertible:
        raise RefusedError(f"{folder.name} cannot be converted. {step.form.reason}")
    tell = _Share(progress, "hold the step's files", 0.0, 0.1, step.form.weight_bytes)
    linked = staging.take(
        folder,
        _wanted(folder, step),
        order.work / "source" / folder.name,
        keep_free=order.keep_free_bytes,
        progress=tell,
    )
    origin = {"run": found.folder, "folder": str(folder), "name": folder.name, "linked": linked}
    marker.write_text(json.dumps(origin))
    return origin


def _wanted(folder: Path, step: Step) -> list[str]:
    """Return the files of a step that conversion reads: never optimiser, data loader or replay state."""
    files = listing.files(folder)
    small = [runs.INFO, runs.CONFIG]
    if step.form.config:
        beside = step.form.config.rpartition("/")[0]
        small += [step.form.config, f"{beside}/{companions.GENERATION}"]
    tokenizer = companions.folder_in(folder, step.form.folder)
    if tokenizer is not None:
        inside = tokenizer.relative_to(folder).as_posix()
        small += [f"{inside}/{name}" for name in companions.TOKENIZER_FILES]
    present = [path for path in dict.fromkeys(small) if path in files]
    return [*(path for path in present if path not in step.form.weights), *step.form.weights]


def _converted(order: Order, held: Run, origin: dict[str, Any], progress: Progress) -> Converted:
    step = held.step(None)
    source, target = Path(step.folder), order.work / "model"
    target.mkdir(parents=True, exist_ok=True)
    with staging.Hashes(source, step.form.weights) as hashes:
        progress("compare with the architecture", 0.1)
        planned = plan.make(step, held, order.wishes, target)
        _check_space(order, planned)
        tell = _Share(progress, "convert", 0.15, 0.8, planned.size_bytes)
        made = shards.write(planned.files, target, cast=planned.dtype.cast, progress=tell, source=source.name)
        checked = _check(order, planned, target, progress)
        progress("hash the step's files", 0.95)
        digests = hashes.wait()
    lineage = {
        **plan.lineage(step, held, planned, order.wishes),
        "run": origin["run"],
        "step_folder": origin["folder"],
        "held_by": "hard links" if origin["linked"] else "copies",
        "config_sha256": runs.config_of(step)[1],
        "converter": VERSION,
        "source_files": _listed(source, digests),
        "source_sha256": _joined(digests),
        "shards_sha256": made.digests,
        "shards_reused": made.reused,
        "checks": checked,
    }
    return Converted(
        folder=target,
        size_bytes=planned.size_bytes,
        reward_model=planned.reward_model,
        dtype=planned.dtype.written,
        vocabulary=planned.vocabulary,
        lineage=documents.finite(lineage),
    )


def _check(order: Order, planned: Plan, target: Path, progress: Progress) -> dict[str, Any]:
    progress("check samples", 0.8)
    sampled = checks.samples(planned.files, target, seed=_seed(planned))
    progress("run it once", 0.85)
    ran = checks.smoke(
        target,
        reward_model=planned.reward_model,
        size_bytes=planned.size_bytes,
        free_bytes=order.free_memory_bytes,
    )
    return {"sampled": asdict(sampled), "run": ran}


class _Share:
    """Turns bytes that were written into a stage's share of the whole."""

    def __init__(self, progress: Progress, stage: str, start: float, end: float, total_bytes: int) -> None:
        self._progress = progress
        self._stage = stage
        self._start = start
        self._width = end - start
        self._total = max(1, total_bytes)
        self._done = 0
        self(0)

    def __call__(self, count: int) -> None:
        self._done += count
        self._progress(self._stage, self._start + self._width * min(1.0, self._done / self._total))


def _check_space(order: Order, planned: Plan) -> None:
    free = shutil.disk_usage(order.work).free
    if free - planned.size_bytes < order.keep_free_bytes:
        raise NoSpaceError(
            f"The converted weights take {planned.size_bytes} bytes; the disk has {free} left",
            next_step="Delete versions or other files, then retry the job.",
        )


def _seed(planned: Plan) -> int:
    """Return a seed that is the same for the same checkpoint."""
    names = "\n".join(f"{tensor.name} {tensor.shape}" for tensor in planned.weights.tensors)
    return int.from_bytes(hashlib.sha256(names.encode()).digest()[:8], "little")


def _listed(source: Path, digests: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"path": path, "size_bytes": (source / path).stat().st_size, "sha256": digest}
        for path, digest in sorted(digests.items())[:MAX_LISTED_FILES]
    ]


def _joined(digests: Mapping[str, str]) -> str:
    lines = "\n".join(f"{path}\0{digest}" for path, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
