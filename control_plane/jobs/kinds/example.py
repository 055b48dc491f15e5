"""`example`: trains two networks on handwritten digits and registers them as `digits@1` and `digits@2`.

Their programs are our own; who started the job is recorded as having accepted to run them. Run again, it
returns what is there and adds only what is missing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from control_plane.domain.views import Example, Reason
from control_plane.errors import ConflictError, NotFoundError
from control_plane.jobs.base import Progress
from control_plane.jobs.digits import dataset, saving, training
from control_plane.services import registration, versions
from control_plane.services.context import Context
from control_plane.services.jobs import ClaimedJob

if TYPE_CHECKING:
    from torch import nn

MODEL: Final = "digits"
EXAMPLE_COUNT: Final = 100
ALIAS: Final = "champion"
MARK: Final = "example"
"""Key of the detail by which a version of the example is known."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of the two versions."""

    mark: str
    """Value of the detail `example`."""
    stage: str
    recipe: training.Recipe
    format: str
    file: str
    save: Callable[[nn.Module, Path], None]
    span: tuple[float, float]
    """From where to where the job's progress runs while it trains."""


PARTS: Final = (
    Part(
        "first",
        "train digits@1",
        training.FIRST,
        "torchscript",
        "model.pt",
        saving.as_torchscript,
        (0.1, 0.3),
    ),
    Part(
        "better",
        "train digits@2",
        training.BETTER,
        "exported_program",
        "model.pt2",
        saving.as_exported_program,
        (0.35, 0.75),
    ),
)


class LoadExample:
    """No parameters. Result: {"versions": ["digits@1", "digits@2"], "test_accuracy": {ref: share}}."""

    name = "example"
    title = "Load the example"
    submittable = True
    description = (
        "Trains two small networks on handwritten digits and registers them as digits@1 and digits@2."
    )

    def run(self, ctx: Context, job: ClaimedJob, progress: Progress) -> Mapping[str, Any]:
        """Train and register what is missing. Raises ConflictError where `digits` is another model."""
        refs = _present(ctx)
        if missing := [part for part in PARTS if part.mark not in refs]:
            progress("data", 0.02)
            digits = dataset.load()
            for part in missing:
                refs[part.mark] = _make(ctx, part, digits, job.created_by, progress)
        _point_alias(ctx, refs[PARTS[0].mark], job.created_by)
        ordered = [refs[part.mark] for part in PARTS]
        return {"versions": ordered, "test_accuracy": {ref: _accuracy(ctx, ref) for ref in ordered}}

    def ended(self, ctx: Context, params: Mapping[str, Any], reason: Reason | None) -> None:
        """Nothing waits for it."""


def _present(ctx: Context) -> dict[str, str]:
    """Return the example's versions that exist, by mark. Raises ConflictError."""
    found = versions.search(ctx, model=MODEL, archived=True, page_size=200).items
    refs = {str(version.details[MARK]): version.ref for version in found if MARK in version.details}
    if found and not refs:
        raise ConflictError(
            f"a model called {MODEL} exists that is not the example",
            next_step=f"Delete the versions of {MODEL} first, or keep working with them.",
        )
    return refs


def _make(ctx: Context, part: Part, digits: dataset.Digits, actor: str, progress: Progress) -> str:
    start, end = part.span
    trained = training.train(
        part.recipe, digits, lambda done: progress(part.stage, start + (end - start) * done)
    )
    progress(f"save {part.file}", end)
    with tempfile.TemporaryDirectory(prefix="signalbox-example-") as folder:
        part.save(trained.network, Path(folder) / part.file)
        progress("register", end + 0.03)
        return registration.register(
            ctx,
            model=MODEL,
            files_dir=Path(folder),
            format=part.format,
            handler="image-classification",
            signature=saving.SIGNATURE,
            labels=dataset.LABELS,
            details=_details(part, trained),
            examples=_examples(digits),
            actor=actor,
            program_accepted_by=actor,
            program_accepted_at=time.time(),
        )


def _details(part: Part, trained: training.Trained) -> dict[str, Any]:
    return {
        MARK: part.mark,
        "dataset": "scikit-learn digits",
        "test_accuracy": round(trained.test_accuracy, 4),
        "test_images": dataset.TEST_COUNT,
        "train_seconds": round(trained.train_s, 2),
        "parameters": trained.parameters,
        "epochs": part.recipe.epochs,
    }


def _examples(digits: dataset.Digits) -> tuple[Example, ...]:
    """Return the first held-out digits, each FP32 [1, 8, 8] with its true label."""
    images, labels = digits.test_images[:EXAMPLE_COUNT], digits.test_labels[:EXAMPLE_COUNT]
    pairs = zip(images.tolist(), labels.tolist(), strict=True)
    return tuple(Example({"image": image}, dataset.LABELS[label]) for image, label in pairs)


def _point_alias(ctx: Context, ref: str, actor: str) -> None:
    """Make the first version the champion: the better one is there to be promoted. Keeps an existing one."""
    if ALIAS not in versions.model(ctx, MODEL).aliases:
        versions.set_alias(ctx, MODEL, ALIAS, int(ref.rpartition("@")[2]), actor=actor)


def _accuracy(ctx: Context, ref: str) -> float | None:
    try:
        return versions.get(ctx, ref).details.get("test_accuracy")
    except NotFoundError:
        return None  # deleted meanwhile


KIND: Final = LoadExample()
