"""Homes in which the example was loaded: trained once in a test run by its real job, then copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from control_plane.services import jobs
from tests.fakes import checkpoints, registry
from tests.fakes.once import made_once


def loaded(factory: pytest.TempPathFactory, home: Path) -> Path:
    """Make *home* one with digits@1 and digits@2, and return it."""
    shutil.copytree(made_once(factory, "example", _load), home)
    return home


def _load(home: Path) -> None:
    ctx = registry.open_home(home)
    with checkpoints.worker(ctx):
        job = jobs.submit(ctx, "example", subject="digits", params={}, actor="ana")
        done = checkpoints.finished(ctx, job.id)
        assert done.state == "succeeded", done.reason
    ctx.engine.dispose()
