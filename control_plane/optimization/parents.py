"""Opening a version so that a method can work on it, whatever its format; imports torch when called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from control_plane.optimization.base import BuildError, Parent
from control_plane.optimization.messages import Artefact
from serving_agent.formats.base import name_outputs
from serving_agent.model_server import ModelServer

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

KINDS: Final[dict[str, Literal["eager", "script", "exported"]]] = {
    "state_dict": "eager",
    "huggingface": "eager",
    "torchscript": "script",
    "exported_program": "exported",
}
"""Formats that hold a network of torch."""
HIDDEN: Final = "last_hidden_state"


def parent_of(server: ModelServer, artefact: Artefact, samples: tuple[Tensor, ...]) -> Parent:
    """*server*, opened from *artefact*, as methods take it. Raises BuildError for other formats.

    samples: inputs of a few rows, in the order of the artefact's own signature.
    """
    kind = KINDS.get(artefact.format)
    if kind is None:
        raise BuildError(f"artefacts of format {artefact.format} hold no torch network")
    network = cast("Module", getattr(server.model, "module"))  # noqa: B009  what the formats of KINDS have
    if artefact.format == "huggingface" and artefact.signature.outputs[0].name == HIDDEN:
        network = cast("Module", getattr(network, "base_model", network))  # without the head nobody reads
    return Parent(
        module=network if kind == "script" else in_order(network, artefact),
        kind=kind,
        network=network,
        signature=artefact.signature,
        format=artefact.format,
        artifact_dir=Path(artefact.folder),
        samples=samples,
        labels=artefact.labels,
    )


def in_order(network: Module, artefact: Artefact) -> Module:
    """A module around *network* that takes and returns tensors in the order of the artefact's signature."""
    from torch import nn

    signature = artefact.signature
    names = [spec.name for spec in signature.inputs]
    by_name = artefact.format == "huggingface"

    class InOrder(nn.Module):
        """Tensors in, a tuple of tensors out."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            if by_name:
                named = dict(zip(names, tensors, strict=True))
                result = dict(self.network(**named, return_dict=True))
            else:
                result = self.network(*tensors)
            return tuple(name_outputs(result, signature).values())

    made = InOrder()
    made.training = (
        False  # not eval(): programs of torch.export refuse it, and are what they were exported as
    )
    return made
