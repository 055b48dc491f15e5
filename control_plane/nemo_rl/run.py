"""A run of NeMo RL as its folder tells it: steps, metrics and settings, in seconds and without unpickling.

Reads file names and sizes, `training_info.json`, `config.yaml` and `latest_checkpoint_status.json`, nothing
else. A running training deletes steps while we look: a step that goes is left out and counted.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from control_plane.errors import ConflictError, InvalidInputError, NotFoundError
from control_plane.nemo_rl import documents, facts, forms, listing, metrics
from control_plane.nemo_rl.facts import Facts
from control_plane.nemo_rl.forms import Form

STEP: Final = re.compile(r"step_(\d{1,9})")
UNFINISHED: Final = re.compile(r"(tmp|old)_step_\d+")
INFO: Final = "training_info.json"
CONFIG: Final = "config.yaml"
STATUS: Final = "latest_checkpoint_status.json"
MAX_STEPS: Final = 2000
COUNTERS: Final = frozenset(
    {
        "step", "current_step", "total_steps", "epoch", "current_epoch", "consumed_samples",
        "total_valid_tokens",
    }
)  # fmt: skip
"""Numbers of training_info.json that count and do not measure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One checkpoint of a run."""

    number: int | None
    """By the folder's name (the `step` inside counts within an epoch); None for bare weights."""
    folder: str
    """Absolute path."""
    form: Form
    info: dict[str, Any]
    """training_info.json verbatim; NaN and infinities as words."""
    values: dict[str, float | None]
    """Every number of it; None where it is missing, NaN or the sentinel."""
    problem: str | None
    """What of its small files could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run folder, a step folder (then one step), or a weights folder."""

    folder: str
    """Absolute path of the run; of the step or weights where there is no run around them."""
    name: str
    facts: Facts
    steps: tuple[Step, ...]
    """By number."""
    series: dict[str, tuple[float | None, ...]]
    """Metric → its values over the steps; counters are left out."""
    tracked: str | None
    """Name of the metric that decides which steps are kept, where any step has it."""
    best: int | None
    """Number of the best step by that metric."""
    latest: int | None
    """Last step whose save is known to be complete; None where the run does not say it."""
    ignored: tuple[str, ...]
    """Leftovers of unfinished saves: tmp_step_N, old_step_N."""
    vanished: int
    """Steps that went while they were read."""

    def step(self, number: int | None) -> Step:
        """Return the step called *number*; the only one for None. Raises NotFoundError, InvalidInputError."""
        if number is None and len(self.steps) != 1:
            raise InvalidInputError(
                f"{self.name} holds {len(self.steps)} steps",
                next_step="Choose one: " + ", ".join(str(step.number) for step in self.steps[-10:]),
            )
        for step in self.steps:
            if number is None or step.number == number:
                return step
        raise NotFoundError(
            f"{self.name} holds no step {number}",
            next_step="Read the run again: a running training keeps only some of its steps.",
        )


def scan(folder: Path) -> Run:
    """Read the run, step or weights folder at *folder* (absolute).

    Raises NotFoundError where nothing of a run is there, InvalidInputError where it cannot be read.
    """
    if not folder.is_dir():
        raise NotFoundError(f"There is no folder {folder}", next_step="Check the path.")
    root, chosen = _place(folder)
    found = _read_steps(chosen)
    steps = tuple(step for step in found if step is not None)
    if not steps or all(not step.form.weights and not step.info for step in steps):
        raise NotFoundError(
            f"{folder} holds no checkpoint of NeMo RL: no step_N folder and no weights of a known form",
            next_step="Name a run's folder (the one that holds step_N), a step, or its weights folder.",
        )
    known = facts.of(_newest_config(steps))
    series = metrics.series([_measured(step) for step in steps])
    tracked = metrics.tracked(known.metric_name, series)
    best = metrics.best(series[tracked], higher_is_better=known.higher_is_better) if tracked else None
    return Run(
        folder=str(root),
        name=root.name,
        facts=known,
        steps=steps,
        series=series,
        tracked=tracked,
        best=None if best is None else steps[best].number,
        latest=_latest(root),
        ignored=_unfinished(root),
        vanished=len(found) - len(steps),
    )


def _measured(step: Step) -> dict[str, float | None]:
    return {name: held for name, held in step.values.items() if name not in COUNTERS}


def config_of(step: Step) -> tuple[dict[str, Any], str | None]:
    """Return a step's config and the sha256 of its file, ({}, None) where it has none."""
    path = Path(step.folder) / CONFIG
    try:
        data = listing.small_file(path, documents.MAX_CONFIG_BYTES)
    except NotFoundError:
        return {}, None
    return documents.config(data, CONFIG), hashlib.sha256(data).hexdigest()


def is_run(folder: Path) -> bool:
    """Tell whether *folder* holds a step_N folder. Cheap; what cannot be read is none."""
    try:
        return any(_is_step(entry) for entry in folder.iterdir())
    except OSError:
        return False


def _place(folder: Path) -> tuple[Path, list[Path]]:
    """Return the run's folder and the steps to read: all of a run's, or the one that *folder* is or is in."""
    steps = [path for path in _children(folder) if _is_step(path)]
    if steps:
        return folder, sorted(steps, key=_number)[-MAX_STEPS:]
    for inner in (folder, *folder.parents[:4]):
        if STEP.fullmatch(inner.name):
            return inner.parent, [inner]
    return folder, [folder]


def _is_step(path: Path) -> bool:
    """Tell whether *path* is a step's own folder; a link may lead anywhere."""
    return bool(STEP.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()


def _number(step: Path) -> int:
    matched = STEP.fullmatch(step.name)
    return int(matched[1]) if matched else -1


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except PermissionError:
        raise InvalidInputError(
            f"{folder} cannot be read by the user that Signalbox runs as",
            next_step="Allow that user to read the run's folder.",
        ) from None


def _read_steps(folders: list[Path]) -> list[Step | None]:
    """Read each step; None for one that went meanwhile, which is an error where it is the only one."""
    found: list[Step | None] = []
    for folder in folders:
        try:
            found.append(_read_step(folder))
        except (ConflictError, NotFoundError):
            if len(folders) == 1:
                raise
            found.append(None)
    return found


def _read_step(folder: Path) -> Step:
    files = listing.files(folder)
    info, problem = _info(folder) if INFO in files else ({}, f"{INFO} is missing")
    matched = STEP.fullmatch(folder.name)
    return Step(
        number=int(matched[1]) if matched else None,
        folder=str(folder),
        form=forms.detect(files),
        info=documents.finite(info),
        values=metrics.values(info),
        problem=problem if matched else None,
    )


def _info(folder: Path) -> tuple[dict[str, Any], str | None]:
    try:
        data = listing.small_file(folder / INFO, documents.MAX_INFO_BYTES)
        return documents.training_info(data, INFO), None
    except NotFoundError:
        raise listing.gone(folder) from None
    except InvalidInputError as error:
        return {}, error.message


def _newest_config(steps: tuple[Step, ...]) -> dict[str, Any]:
    for step in reversed(steps):
        try:
            config, digest = config_of(step)
        except InvalidInputError:
            continue
        if digest is not None:
            return config
    return {}


def _latest(root: Path) -> int | None:
    try:
        status = documents.training_info(listing.small_file(root / STATUS, documents.MAX_INFO_BYTES), STATUS)
    except (NotFoundError, InvalidInputError):
        return None
    number = status.get("last_checkpoint_step")
    return number if type(number) is int else None


def _unfinished(root: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in _children(root) if UNFINISHED.fullmatch(path.name)))
