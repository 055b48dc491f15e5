"""Building and measuring in real processes of their own."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from control_plane.domain.optimization import Conditions
from control_plane.jobs.digits import dataset, saving, training
from control_plane.optimization import building, measuring
from control_plane.optimization.children import Child, ChildError
from control_plane.optimization.messages import Artefact, BuildOrder, HoldoutRow, MeasureOrder
from serving_agent.contract.signature import Signature, TensorSpec
from tests.fakes import models

pytestmark = pytest.mark.timeout(180)
ENVIRONMENT = dict(os.environ)
QUICK = Conditions(batches=(1, 4), threads=1, rounds=3, round_s=0.02)
DEADLINE_S = 60.0


class Enough(Exception):  # noqa: N818  what a cancelled job raises
    """The job was cancelled."""


def lab_processes() -> list[psutil.Process]:
    """Processes of the lab that this one started; those of other fixtures come and go meanwhile."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "control_plane.optimization." in " ".join(child.cmdline()):
                found.append(child)
    return found


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert lab_processes() == []


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artefact, tuple[HoldoutRow, ...]]:
    folder = tmp_path_factory.mktemp("digits")
    data = dataset.load()
    trained = training.train(training.FIRST, data, lambda done: None)
    saving.as_exported_program(trained.network, folder / "model.pt2")
    rows = tuple(
        HoldoutRow(inputs={"image": image}, label=dataset.LABELS[label])
        for image, label in zip(data.test_images[:40].tolist(), data.test_labels[:40].tolist(), strict=True)
    )
    return Artefact(
        folder=str(folder),
        format="exported_program",
        handler="image-classification",
        signature=saving.SIGNATURE,
        labels=dataset.LABELS,
    ), rows


def never(done: float) -> None:
    assert 0 <= done <= 1


def test_a_trace_of_a_trained_network_answers_alike(
    digits: tuple[Artefact, tuple[HoldoutRow, ...]], tmp_path: Path
) -> None:
    parent, rows = digits
    order = BuildOrder(
        parent=parent, method="torchscript-trace", params={}, rows_file=None, out=str(tmp_path), threads=1
    )
    built = building.build(order, ENVIRONMENT, lambda: None, DEADLINE_S)
    assert built.format == "torchscript"
    assert "torch" in built.libraries
    variant = Artefact(
        folder=str(tmp_path),
        format=built.format,
        handler=parent.handler,
        signature=parent.signature,
        labels=parent.labels,
    )
    told: list[float] = []
    found = measuring.measure(
        MeasureOrder(parent=parent, variant=variant, rows=rows, conditions=QUICK),
        ENVIRONMENT,
        told.append,
        DEADLINE_S,
    )
    assert [timing.batch for timing in found.timings] == [1, 4]
    assert all(timing.speedup > 0 and timing.parent_ms > 0 for timing in found.timings)
    assert found.answers.rows == found.answers.agreed == found.answers.labelled == 40
    assert found.answers.parent_right == found.answers.variant_right > 30
    assert found.answers.min_cosine == pytest.approx(1.0, abs=1e-5)
    assert found.variant.size_bytes == (tmp_path / "model.pt").stat().st_size
    assert found.parent.memory_bytes > 0
    assert told == sorted(told)
    assert told[-1] >= 0.8


def test_a_variant_that_cannot_be_opened_is_named(
    digits: tuple[Artefact, tuple[HoldoutRow, ...]], tmp_path: Path
) -> None:
    parent, rows = digits
    (tmp_path / "model.pt").write_bytes(b"no program")
    broken = Artefact(
        folder=str(tmp_path), format="torchscript", handler="tensor", signature=parent.signature
    )
    with pytest.raises(measuring.MeasureError, match="the variant fails") as failed:
        measuring.measure(
            MeasureOrder(parent=parent, variant=broken, rows=rows, conditions=QUICK),
            ENVIRONMENT,
            never,
            DEADLINE_S,
        )
    assert failed.value.side == "variant"


def test_cancelling_ends_both_sides_at_once(digits: tuple[Artefact, tuple[HoldoutRow, ...]]) -> None:
    parent, rows = digits
    alive: list[int] = []

    def cancel(done: float) -> None:
        alive.append(len(lab_processes()))
        if done >= 0.1:
            raise Enough

    order = MeasureOrder(parent=parent, variant=parent, rows=rows, conditions=QUICK)
    with pytest.raises(Enough):
        measuring.measure(order, ENVIRONMENT, cancel, DEADLINE_S)
    assert max(alive) >= 2


def test_a_process_that_dies_is_told_by_its_signal(tmp_path: Path) -> None:
    with Child(measuring.MODULE, ENVIRONMENT) as child:
        psutil.Process(child.pid).kill()
        with pytest.raises(ChildError, match="killed") as died:
            child.hear(lambda: None, DEADLINE_S)
    assert died.value.code == "out_of_memory"


def test_a_process_that_takes_too_long_is_ended() -> None:
    with Child(measuring.MODULE, ENVIRONMENT) as child, pytest.raises(ChildError) as late:
        child.hear(lambda: None, 0.0)
    assert late.value.code == "timed_out"


class Greedy(torch.nn.Module):
    """Wants a pebibyte."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3] + torch.zeros(1 << 50, dtype=torch.uint8)[0]


def test_running_out_of_memory_is_called_so(tmp_path: Path) -> None:
    signature = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 3)),))
    with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):
        models.save_torchscript(Greedy(), tmp_path)
    parent = Artefact(folder=str(tmp_path), format="torchscript", handler="tensor", signature=signature)
    order = MeasureOrder(parent=parent, variant=parent, rows=(), conditions=QUICK)
    with pytest.raises(measuring.MeasureError, match="memory") as failed:
        measuring.measure(order, ENVIRONMENT, never, DEADLINE_S)
    assert failed.value.code == "out_of_memory"
