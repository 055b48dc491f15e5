"""The example: really trained, measured on digits it never saw, registered once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.domain.views import JobView
from control_plane.jobs.digits import dataset
from control_plane.services import jobs, versions
from control_plane.services.context import Context
from tests.fakes import checkpoints, example_homes, registry


def load(ctx: Context) -> JobView:
    job = jobs.submit(ctx, "example", subject="digits", params={}, actor="ana")
    return checkpoints.finished(ctx, job.id)


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """A registry in which the example was loaded, and whose worker runs."""
    opened = registry.open_home(example_homes.loaded(tmp_path_factory, tmp_path_factory.mktemp("a") / "home"))
    with checkpoints.worker(opened):
        yield opened
    opened.engine.dispose()


def test_two_versions_the_second_better_on_held_out_digits(ctx: Context) -> None:
    first, better = versions.get(ctx, "digits@1"), versions.get(ctx, "digits@2")
    assert (first.format, better.format) == ("torchscript", "exported_program")
    assert first.details["test_accuracy"] < better.details["test_accuracy"]
    assert first.details["test_accuracy"] > 0.8
    assert better.details["test_accuracy"] > 0.95
    assert first.details["parameters"] < better.details["parameters"]
    for version in (first, better):
        assert version.handler == "image-classification"
        assert version.labels == dataset.LABELS
        assert version.program_accepted_by == "ana"
        assert str(version.signature.inputs[0]) == "image:FP32[-1,1,8,8]"
        assert str(version.signature.outputs[0]) == "logits:FP32[-1,10]"
        assert version.details["dataset"] == "scikit-learn digits"


def test_champion_is_the_first_so_that_the_better_one_can_be_promoted(ctx: Context) -> None:
    assert versions.model(ctx, "digits").aliases == {"champion": "digits@1"}


def test_examples_are_a_hundred_held_out_digits(ctx: Context) -> None:
    examples = versions.examples(ctx, "digits@2")
    assert len(examples) == 100
    digits = dataset.load()
    trained = {tuple(image.flatten().tolist()) for image in digits.train_images}
    for example in examples:
        rows = example.inputs["image"][0]
        assert len(rows) == len(rows[0]) == 8
        assert example.label in dataset.LABELS
        assert tuple(value for row in rows for value in row) not in trained
    assert all(0.0 <= value <= 1.0 for value in examples[0].inputs["image"][0][0])


def test_again_returns_what_is_there(ctx: Context) -> None:
    again = load(ctx)
    assert again.result is not None
    assert again.result["versions"] == ["digits@1", "digits@2"]
    assert versions.search(ctx, model="digits").total == 2


def test_deleted_version_is_made_again(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    opened = registry.open_home(example_homes.loaded(tmp_path_factory, tmp_path / "home"))
    with checkpoints.worker(opened):
        versions.delete(opened, "digits@2", actor="ana")
        again = load(opened)
    assert again.result is not None
    assert again.result["versions"] == ["digits@1", "digits@3"]
    opened.engine.dispose()


def test_another_model_called_digits_is_left_alone(tmp_path: Path) -> None:
    opened = registry.open_home(tmp_path / "home")
    registry.register(opened, "digits")
    with checkpoints.worker(opened):
        done = load(opened)
    assert done.state == "failed"
    assert done.reason is not None
    assert done.reason.code == "conflict"
    assert done.reason.next_step
    assert versions.search(opened, model="digits").total == 1
    opened.engine.dispose()
