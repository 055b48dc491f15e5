"""What the gate is given, what it answers, and what a format's module looks like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from control_plane.admission.reasons import ReasonCode
from control_plane.admission.tensors import SourceTensor
from serving_agent.contract.signature import Signature

Need = Literal["acceptance", "signature", "architecture"]
"""What a person may have to give: to run a program (acceptance), a signature, the network of bare weights."""
Decision = Literal["accept", "convert", "sandbox", "refuse"]
"""accept: weights that no code touches. convert: weights out of a container that could hold more.
sandbox: a program, which runs only after an acceptance. refuse: not let in."""


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """One plain file of an upload."""

    path: str
    """Its name in the upload: relative, with forward slashes."""
    location: Path
    """Where its bytes lie."""
    size_bytes: int

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    def head(self, count: int) -> bytes:
        """Return its first *count* bytes, fewer where it is shorter."""
        with self.location.open("rb") as file:
            return file.read(count)


Received = tuple[ReceivedFile, ...]
"""All files of one upload, sorted by path; never empty, none of size 0."""


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A safetensors file of the artefact and the tensors that go into it."""

    name: str
    """Its name in the artefact."""
    tensors: tuple[SourceTensor, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something of an upload that does not become part of the version."""

    path: str
    """The file's path in the upload; with `!/` and a member's name or key where it is a part of a file."""
    size_bytes: int
    why: str
    """A few words: `optimiser state`, `resume state`, `not weights`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The files are of a kind we serve."""

    format: str
    """A name of `serving_agent.formats.catalog`."""
    handler: str
    """Handler suggested for it."""
    signature: Signature | None
    """What the files say; inputs alone (no outputs) where they say no more, None where they say nothing."""
    program: bool
    """Whether serving it runs what the uploader wrote."""
    labels: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    """What a person must give before it can be registered."""
    stored: tuple[tuple[str, str], ...]
    """The artefact's files that are kept as they came: (name in the artefact, path in the upload)."""
    weights: tuple[WeightsFile, ...] = ()
    """The artefact's safetensors files, to be written anew by `safetensors_writer`."""
    left_out: tuple[LeftOut, ...] = ()
    """What the upload holds besides and the version does not: reported, never silently dropped."""
    converted: bool = False
    """Whether the weights come out of a container that could hold more than weights."""
    code: ReasonCode = ReasonCode.PLAIN_WEIGHTS
    """Why it is let in."""

    @property
    def decision(self) -> Decision:
        """The gate's verdict in one word."""
        return "sandbox" if self.program else "convert" if self.converted else "accept"


@dataclass(frozen=True, slots=True)
class Refused:
    """The files are not let in."""

    code: ReasonCode
    file: str | None
    message: str
    """One sentence: what is wrong."""
    next_step: str
    """What the uploader can do about it."""
    member: str | None = None
    """The member of *file*, or the key in it, that is the reason; None where the file as a whole is."""

    @property
    def decision(self) -> Decision:
        """The gate's verdict in one word."""
        return "refuse"


Verdict = Accepted | Refused


class Refusal(Exception):  # noqa: N818  it is an answer, not a fault
    """Raised by readers deep inside a file; the gate turns it into `Refused`."""

    def __init__(
        self,
        code: ReasonCode,
        message: str,
        next_step: str,
        *,
        file: str | None = None,
        member: str | None = None,
    ) -> None:
        super().__init__(message)
        self.refused = Refused(code, file, message, next_step, member)


class Format(Protocol):
    """One kind of upload; each module of the catalogue holds one as `FORMAT` and imports no torch."""

    @property
    def name(self) -> str:
        """Name of the format in `serving_agent.formats.catalog`."""

    def recognises(self, received: Received) -> bool:
        """Tell whether these files mean to be of this format. Cheap; hostile bytes make it False."""

    def read(self, received: Received) -> Accepted:
        """Judge the files. Raises Refusal. Time and memory are bounded by constants and the files' size."""
