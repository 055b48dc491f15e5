"""Files without a byte: locks and marks are left out, a file that lost its content is not. Pure."""

from __future__ import annotations

import re
from typing import Final

from control_plane.admission.base import LeftOut, Received, ReceivedFile
from control_plane.admission.formats.hf_left_out import CACHE

MATTERS: Final = re.compile(
    r"(?i).*\.(pt2?|pth|bin|ckpt|safetensors|distcp|metadata|npy|npz|onnx|pkl|json|jinja|model)"
    r"|(.*/)?(vocab|merges)\.txt"
)
"""Names of files that are read or kept."""


def sort_out(files: Received) -> tuple[Received, tuple[LeftOut, ...]]:
    """Return the files that hold something or should, and the empty ones that nothing needs."""
    idle = {file.path for file in files if file.size_bytes == 0 and not _matters(file)}
    return (
        tuple(file for file in files if file.path not in idle),
        tuple(LeftOut(path, 0, "empty") for path in sorted(idle)),
    )


def _matters(file: ReceivedFile) -> bool:
    return MATTERS.fullmatch(file.path) is not None and CACHE.fullmatch(file.path) is None
