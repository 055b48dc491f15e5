"""How a job asks the inspection process: whatever becomes of it, the job learns why, and nothing stays."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from control_plane.jobs import inspecting, limits
from control_plane.jobs.inspecting import NotInspectedError
from serving_agent.contract.capture import CapturedTensor
from serving_agent.contract.inspection import InspectionOrder
from tests.fakes import models

FAKE = "tests.fakes.inspections"
LONG_S = 300.0


class StopError(Exception):
    """What a job raises when it is cancelled."""


def order(tmp_path: Path, handler: str, size: int = 4) -> InspectionOrder:
    given = CapturedTensor(name="x", datatype="UINT8", shape=(size,), data=b"\0" * size)
    return InspectionOrder(
        folder=str(tmp_path),
        format="torchscript",
        handler=handler,
        signature=models.DIGITS,
        inputs=(given,),
        out=str(tmp_path),
        keep_bytes=1,
    )


def children() -> set[int]:
    return {each.pid for each in psutil.Process().children(recursive=True)}


def inspect(tmp_path: Path, handler: str, timeout_s: float = LONG_S, **more: Any) -> list[float]:
    """Ask the stand-in; the shares that were told."""
    told: list[float] = []
    given = order(tmp_path, handler, more.pop("size", 4))
    environment = {**os.environ, **more.pop("environment", {})}
    share = more.pop("share", told.append)
    inspecting.inspect(given, environment, share, timeout_s, module=FAKE, **more)
    return told


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        ("die", "out_of_memory"),
        ("lie", "inspection_failed"),
        ("refuse", "no_space"),
        ("say nothing", "crashed"),
    ],
)
def test_how_an_inspection_ends_is_told_with_what_to_do(tmp_path: Path, handler: str, code: str) -> None:
    before = children()
    with pytest.raises(NotInspectedError) as failed:
        inspect(tmp_path, handler)
    assert failed.value.reason.code == code
    assert failed.value.reason.next_step
    assert children() == before


def test_one_that_takes_too_long_is_ended_even_where_it_reads_nothing(tmp_path: Path) -> None:
    before = children()
    with pytest.raises(NotInspectedError, match=r"not inspected within 0\.5 s") as failed:
        inspect(tmp_path, "hang", 0.5, environment={"FAKE_INSPECTION": "mute"}, size=2_000_000)
    assert failed.value.reason.code == "timed_out"
    assert "SIGNALBOX_DEBUG_TIMEOUT_S" in (failed.value.reason.next_step or "")
    assert children() == before


def test_its_memory_is_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 1024**3
    for free, expected in ((60, 0.5 * 64), (10, 8), (0.1, 1)):
        machine = SimpleNamespace(total=64 * gib, available=int(free * gib))
        monkeypatch.setattr(limits.psutil, "virtual_memory", lambda machine=machine: machine)
        assert limits.spare_bytes(0.5) == pytest.approx(expected * gib, abs=1)


def test_a_cancelled_one_is_ended_and_others_go_before_it(tmp_path: Path) -> None:
    before, seen, scores = children(), [], []

    def share(done: float) -> None:
        new = children() - before
        seen.extend(psutil.Process(pid).nice() for pid in new)
        scores.extend(Path(f"/proc/{pid}/oom_score_adj").read_text().strip() for pid in new)
        if done >= 0.25:
            raise StopError

    with pytest.raises(StopError):
        inspect(tmp_path, "hang", share=share)
    assert set(scores) == {inspecting.FIRST_TO_GO}
    assert max(seen) == max(inspecting.NICENESS, psutil.Process().nice())
    assert children() == before
