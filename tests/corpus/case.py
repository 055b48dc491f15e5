"""One file or folder of the corpus and what the gate must say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Tensors = Mapping[str, "torch.Tensor"]
"""What a conversion must hold, bit by bit."""
Write = Callable[[Path], Tensors | None]
"""Writes the case's files into an empty folder; returns the weights that a benign one holds."""
Kind = Literal["malicious", "hostile", "benign"]
"""malicious: a naive loader runs its payload. hostile: misleads readers. benign: as people save."""


@dataclass(frozen=True, slots=True)
class Case:
    """One upload."""

    name: str
    kind: Kind
    verdicts: tuple[str, ...]
    """Verdicts that are right; several where the upload may be read or refused, but never run."""
    write: Write
    codes: tuple[str, ...] = ()
    """Advisory reason codes; empty where any will do."""


def refused(name: str, kind: Kind, write: Write, *codes: str) -> Case:
    """A case that must be refused."""
    return Case(name, kind, ("refuse",), write, codes)


def one_file(name: str, content: bytes | Callable[[], bytes]) -> Write:
    """Writes the one file *name*; large content is best made when it is written."""

    def write(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content())

    return write
