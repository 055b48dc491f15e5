"""What ran out while a variant was built is named, whatever its method made of the error."""

from __future__ import annotations

import errno
import os
from collections import namedtuple
from pathlib import Path

import pytest

from control_plane.optimization import build_process
from control_plane.optimization.base import BuildError
from serving_agent.errors import StartError

NO_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 17592186044416 bytes"
NO_SPACE = os.strerror(errno.ENOSPC)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BuildError("it has no layer that could be changed"), "cannot_build"),
        (StartError("the file is damaged"), "cannot_build"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError(NO_MEMORY), "out_of_memory"),
        (BuildError(f"torch.jit.trace cannot follow it: {NO_MEMORY}"), "out_of_memory"),
        (OSError(errno.ENOSPC, NO_SPACE), "no_space"),
        (BuildError(f"the package cannot be written: {NO_SPACE}"), "no_space"),
        (OSError(errno.EACCES, "Permission denied"), "build_failed"),
        (ValueError("first line\nsecond line"), "build_failed"),
        (ValueError(), "build_failed"),
    ],
    ids=str,
)
def test_each_failure_has_its_code(tmp_path: Path, error: Exception, code: str) -> None:
    reply = build_process.failure(error, tmp_path)
    assert reply.code == code
    assert reply.failed
    assert "\n" not in reply.failed


def test_an_engine_that_says_nothing_of_a_full_disk_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(build_process.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 0))
    reply = build_process.failure(RuntimeError("file write failed"), tmp_path)
    assert (reply.code, reply.failed) == ("no_space", "the disk is full")
