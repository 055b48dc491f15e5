"""A version worth optimising: a small network of linear layers, really trained on the bundled digits."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from safetensors.torch import save_file
from torch import nn

from control_plane.domain import binomial
from control_plane.domain.job import lane_of
from control_plane.domain.optimization import (
    METHOD,
    REPORT,
    Answers,
    Budget,
    Conditions,
    Decision,
    Footprint,
    Recorded,
    Report,
    Timing,
)
from control_plane.domain.views import Example, JobView
from control_plane.jobs import processes, run
from control_plane.services import jobs, registration
from control_plane.services.context import Context
from tests.fakes import models, networks

NETWORK: Final = "tests.fakes.networks:Digits"
HIDDEN: Final = 1024
LABELS: Final = tuple(str(digit) for digit in range(10))
QUICK: Final = Conditions(batches=(1, 8), rounds=3, round_s=0.02)
"""Conditions under which a measurement takes a second or two beside the start of its processes."""
LENIENT: Final = Budget(min_agreement=0.9, max_metric_drop=0.1, min_speedup=1.0, min_shrink=1.0)
"""Accepts whatever answers nearly as its parent."""


@cache
def trained() -> nn.Module:
    """The network, right on more than nine of ten digits it has not seen."""
    torch.manual_seed(0)
    images, classes = (torch.from_numpy(part) for part in models.digits_data())
    model = networks.Digits(HIDDEN)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[:1500]), classes[:1500]).backward()
        optimizer.step()
    return model.eval()


def examples(count: int = 60) -> tuple[Example, ...]:
    """Digits that the network has not seen, with their classes."""
    images, classes = models.digits_data()
    chosen = range(1500, 1500 + count)
    return tuple(Example({"image": images[at].tolist()}, str(classes[at])) for at in chosen)


def register(
    ctx: Context, folder: Path, *, model: str = "digits", network: str = NETWORK, **changes: Any
) -> str:
    """Register the weights as those of *network*, an operator's class; returns `model@N`.

    The context's settings must list it among the architectures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file(trained().state_dict(), folder / "model.safetensors")
    arguments = {"hidden": HIDDEN}
    (folder / "architecture.json").write_text(json.dumps({"class": network, "arguments": arguments}))
    given: dict[str, Any] = {
        "format": "state_dict",
        "handler": "tensor",
        "signature": models.DIGITS,
        "labels": LABELS,
        "examples": examples(),
        "actor": "ana",
        **changes,
    }
    return registration.register(ctx, model=model, files_dir=folder, **given)


def report(
    *, speedup: float = 2.0, agreed: int = 100, rows: int = 100, size_bytes: int = 10, **changes: Any
) -> Report:
    """A measurement at batches 1 and 8 of a variant of a parent of 40 bytes."""
    timings = tuple(
        Timing(
            batch=batch, speedup=speedup, speedup_low=speedup, speedup_high=speedup,
            parent_ms=speedup, variant_ms=1.0, rounds=3,
        )
        for batch in (1, 8)
    )  # fmt: skip
    answers = Answers(
        rows=rows, agreed=agreed, agreement_bound=binomial.lower(agreed, rows, 0.05),
        max_error=0.1, mean_error=0.01, min_cosine=0.9, mean_cosine=0.99,
    )  # fmt: skip
    given: dict[str, Any] = {
        "conditions": QUICK,
        "timings": timings,
        "parent": Footprint(size_bytes=40, load_s=0.1, memory_bytes=3000),
        "variant": Footprint(size_bytes=size_bytes, load_s=0.1, memory_bytes=1000),
        "answers": answers,
        "build_s": 2.0,
        "machine": {"cpu": "a test's", "cores": 2, "flags": [], "memory_bytes": 1, "gpus": []},
        "libraries": {"torch": "2"},
    }
    return Report(**{**given, **changes})


def lineage(*, accepted: bool, reason: str = "the same answer on 3 of 60 rows") -> dict[str, Any]:
    """What a registered variant of digits@1 says of how it was made."""
    recorded = Recorded(
        parent="digits@1",
        method="l1-pruning",
        params={"amount": 0.9},
        calibration=None,
        job="0" * 32,
        trial=1,
        report=report(),
        decision=Decision(accepted=accepted, reasons=(reason,)),
        budget=Budget(),
    )
    return {METHOD: recorded.method, REPORT: msgspec.to_builtins(recorded), "job": recorded.job, "trial": 1}


def perform(ctx: Context, job_id: str) -> JobView:
    """Carry the queued job *job_id* out in this process, as its own process would; the job afterwards."""
    lane = lane_of(jobs.get(ctx, job_id).kind)
    claimed = jobs.claim(ctx, os.getpid(), processes.started_at(os.getpid()) or 0.0, lane=lane)
    assert claimed is not None
    assert claimed.id == job_id
    run.perform(ctx, claimed)
    return jobs.get(ctx, job_id)


def left_behind(ctx: Context, job_id: str) -> list[str]:
    """Files below the folder that the job works in, and the folder itself."""
    work = ctx.settings.optimization_dir / "work"
    found = (path.relative_to(work) for path in work.rglob("*"))
    return sorted(path.as_posix() for path in found if path.parts[0] == job_id)
