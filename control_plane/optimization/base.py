"""The extension point for optimisation methods: one module each, importable without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from control_plane.domain.optimization import Objective
from serving_agent.contract.signature import Signature

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


class Params(BaseModel):
    """Parameters of a method. Titles, descriptions and bounds of its fields make the form."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoParams(Params):
    """Of a method that has none."""


class BuildError(Exception):
    """The method cannot make this variant; the message says why in one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the machine can do, as far as methods ask."""

    cpu: str
    """Its name."""
    cores: int
    flags: frozenset[str]
    """CPU features by their names in /proc/cpuinfo, e.g. `avx512_vnni`."""
    memory_bytes: int
    gpus: tuple[tuple[str, int, int], ...] = ()
    """Name and compute capability (major, minor) of each NVIDIA GPU."""
    compiler: str | None = None
    """Path of a C++ compiler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is known of a version without opening it."""

    ref: str
    format: str
    handler: str
    signature: Signature
    """What the artefact itself takes and returns."""
    size_bytes: int
    labels: tuple[str, ...]
    architecture: str | None
    """Name of the transformers class, where the artefact is a Hugging Face folder."""
    machine: Machine

    @property
    def is_language_model(self) -> bool:
        """Whether it is a causal language model, which answers a distribution over tokens at each place."""
        return bool(self.architecture and self.architecture.endswith(("ForCausalLM", "LMHeadModel")))

    @property
    def is_eager(self) -> bool:
        """Whether opening it gives a network of modules, which can be changed one by one."""
        return self.format in ("state_dict", "huggingface")


@dataclass(slots=True, kw_only=True)
class Parent:
    """An opened version, in a process of its own: a method may change it as it likes."""

    module: Module
    """Called with tensors in the order of the signature's inputs; returns a tuple of tensors in the order of
    its outputs. In eval mode. For `script` it is a ScriptModule, for `exported` a GraphModule behind a
    wrapper."""
    kind: Literal["eager", "script", "exported"]
    network: Module
    """What *module* wraps: changing its layers in place changes *module*."""
    signature: Signature
    format: str
    artifact_dir: Path
    samples: tuple[Tensor, ...]
    """Inputs of a few rows (at least 2), in order: real ones where there are any."""
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Inputs of the kind the model will see."""

    batches: tuple[tuple[Tensor, ...], ...]
    """Tensors in the order of the signature's inputs; a few rows each. Empty where there are none."""
    rows: int
    digest: str
    """`sha256:<hex>` of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a method is given to build with."""

    parent: Parent
    calibration: Calibration
    out: Path
    """Empty folder for the artefact. Tokenizer and configuration of the parent are added by the caller."""
    say: Callable[[str], None]
    """Tells the job's log what is being done."""


@dataclass(frozen=True, slots=True)
class Gains:
    """How many times better than its parent a variant has been seen to be, at its best, on a CPU."""

    latency: float
    throughput: float
    size: float
    """Of the artefact, and about of the memory too."""

    def of(self, objective: Objective) -> float:
        """The gain by *objective*; 1 for none at all."""
        by_name = {Objective.LATENCY: self.latency, Objective.THROUGHPUT: self.throughput}
        return by_name.get(objective, self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An artefact that a method has written."""

    format: str
    """Name in the agent's catalogue of formats."""
    notes: tuple[str, ...] = ()
    """Sentences people should read beside its figures."""
    libraries: Sequence[str] = field(default=("torch",))
    """Distributions whose versions belong into its lineage."""


class Method(Protocol):
    """One way to make a variant. Each module of the catalogue holds one as `METHOD`."""

    @property
    def name(self) -> str:
        """Key in the catalogue."""

    @property
    def title(self) -> str:
        """Name for people."""

    @property
    def description(self) -> str:
        """One or two lines: what it does and what to expect."""

    @property
    def params(self) -> type[Params]:
        """Model of its parameters."""

    @property
    def calibrated(self) -> bool:
        """Whether it needs calibration rows."""

    @property
    def cost_s(self) -> float:
        """Rough time to build a variant of a small model, in seconds."""

    @property
    def gains(self) -> Gains:
        """What may be hoped for: autotune tries much hope for little time first, and no hope never."""

    def inapplicable(self, subject: Subject) -> str | None:
        """Return why it does not apply, as a sentence without a full stop; None where it does. No torch."""

    def candidates(self, subject: Subject) -> tuple[Params, ...]:
        """Return the parameters worth trying on *subject*, likeliest first; never empty where it applies."""

    def build(self, work: Work, params: Any) -> Built:
        """Write the variant's artefact into *work.out*; imports torch. params: an instance of `self.params`.

        Runs without autograd, in a process that is thrown away afterwards: process-wide settings may be
        changed. Raises BuildError with a sentence; any other exception counts as the variant's failure too.
        """
