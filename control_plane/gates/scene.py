"""What gates know of a rollout before they ask anything: two versions, their agents, inputs to try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.domain.golden import GoldenItem
from control_plane.domain.optimization import Budget
from control_plane.gates.infer_codec import Row
from serving_agent.contract.signature import Signature, TensorSpec

_MADE_UP_SIZE: Final = 1
"""What a made-up input has where the signature allows any size."""


@dataclass(frozen=True, slots=True)
class AgentAt:
    """One ready agent: REST address (`unix:/path` or `host:port`) and process."""

    id: str
    address: str
    pid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two versions."""

    ref: str
    """`model@N`."""
    labels: tuple[str, ...]
    """Names of its classes, index by index."""
    agents: tuple[AgentAt, ...]
    signature: Signature | None
    """What its agents take and give, by themselves; None where none of them tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """The items to compare on."""

    items: tuple[GoldenItem, ...]
    source: str
    """Where they are from, for people: `golden set held-out (sha256:1234abcd)`."""
    named: bool
    """Whether the endpoint's policy names them; if not, they are the stable version's own examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One rollout in preflight."""

    endpoint: str
    replicas: int
    stable: Side
    candidate: Side
    golden: Golden | None
    golden_problem: str | None = None
    """Why the golden set that the policy names cannot be used, in one sentence."""
    golden_margin: float = 0.05
    """Largest loss of accuracy that is let through, in [0, 1)."""
    examples: tuple[Row, ...] = ()
    """Example inputs, stable's own first; empty where there is none."""
    memory_limit: int = 0
    """Bytes one agent may use."""
    cached: bool = False
    """Whether agents give the answer of an equal request again."""
    optimisation: str | None = None
    """Method by which the candidate was made from stable; None where it was not."""
    budget: Budget | None = None
    """What the optimisation lab judged it by; None where no lab has judged it."""


def example(scene: Scene) -> tuple[Row, bool]:
    """An input to try, and whether it had to be made up: zeros and empty texts of the right shape."""
    if scene.examples:
        return scene.examples[0], False
    signature = scene.stable.signature or scene.candidate.signature
    return (made_up(signature.inputs) if signature else {}), True


def made_up(specs: Sequence[TensorSpec]) -> Row:
    """One row of zeros (empty texts, false) for the inputs *specs*."""
    return {spec.name: _filled(spec.shape[1:], _zero(spec.datatype)) for spec in specs}


def _zero(datatype: str) -> object:
    return "" if datatype == "BYTES" else False if datatype == "BOOL" else 0


def _filled(shape: tuple[int, ...], value: object) -> object:
    for size in reversed(shape):
        value = [value] * (_MADE_UP_SIZE if size < 0 else size)
    return value
