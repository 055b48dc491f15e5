"""Bare weights: `model.safetensors`, and `architecture.json` that names the network they belong to.

The network's code is the operator's: the control plane writes only names that SIGNALBOX_ARCHITECTURES lists.
"""

from __future__ import annotations

from collections.abc import Container
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from serving_agent.contract import architecture as architectures
from serving_agent.contract.architecture import Architecture
from serving_agent.contract.signature import Signature
from serving_agent.errors import StartError
from serving_agent.formats.base import PositionalModel

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

COUNTER: Final = ".num_batches_tracked"
SHOWN: Final = 5
"""Names of tensors that a message gives; the rest are counted."""


class StateDict:
    """Builds the operator's network and gives it the weights, which must fit exactly."""

    name = "state_dict"
    title = "Weights (state dict)"
    description = "model.safetensors and architecture.json, which names the operator's class for them."
    is_program = False
    is_native = False
    is_module = True
    libraries = ("safetensors.torch",)

    def load(self, artifact_dir: Path, device: str, signature: Signature) -> PositionalModel:
        """Build, fill and open the network in eval mode. Raises StartError."""
        path = artifact_dir / architectures.WEIGHTS
        if not path.exists():
            raise StartError(f"the artefact holds no {architectures.WEIGHTS}")
        module = build(_architecture(artifact_dir))
        from safetensors.torch import load_file

        fill(module, load_file(path))
        return PositionalModel(module.to(device).eval(), signature)


def build(architecture: Architecture) -> Module:
    """Call the class or function with its arguments. Raises StartError."""
    from torch import nn

    try:
        module = _builder(architecture.builder)(**architecture.arguments)
    except Exception as error:
        raise StartError(
            f"the network cannot be built: {architecture.builder} raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(module, nn.Module):
        raise StartError(f"{architecture.builder} made a {type(module).__name__}, which is no torch module")
    return module


def fill(module: Module, weights: dict[str, Tensor]) -> None:
    """Give *module* the weights in their own types. Raises StartError unless all names and shapes match.

    First components that all names share and the network does not know are left out: training wrappers add
    them (`model.` by Lightning, `module.` by DistributedDataParallel, `_orig_mod.` by torch.compile). Batch
    counters that checkpoints of torch before 0.4.1 lack stay as the network has them.
    """
    held = module.state_dict()
    weights = _unwrapped(weights, held)
    old = {name: held[name] for name in held.keys() - weights.keys() if name.endswith(COUNTER)}
    weights = {**weights, **old}
    expected = {name: tuple(tensor.shape) for name, tensor in held.items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    problems = [
        *_listed("the file lacks", expected.keys() - given.keys()),
        *_listed("the network has no", given.keys() - expected.keys()),
        *_listed(
            "other shapes:",
            {
                f"{name} is {list(given[name])}, not {list(shape)}"
                for name, shape in expected.items()
                if name in given and given[name] != shape
            },
        ),
    ]
    if problems:
        raise StartError(f"the weights do not fit the network: {'; '.join(problems)}")
    module.load_state_dict(weights, assign=True)


def _unwrapped(weights: dict[str, Tensor], expected: Container[str]) -> dict[str, Tensor]:
    inner = weights
    while inner and not any(name in expected for name in inner):
        if len({name.partition(".")[0] for name in inner}) > 1:
            return weights
        inner = {name.partition(".")[2]: tensor for name, tensor in inner.items() if "." in name}
    return inner or weights


def _architecture(artifact_dir: Path) -> Architecture:
    try:
        return architectures.read(artifact_dir)
    except FileNotFoundError:
        raise StartError(f"the artefact holds no {architectures.FILE}") from None
    except msgspec.MsgspecError as error:
        raise StartError(f"{architectures.FILE} does not name a network: {error}") from error


def _builder(name: str) -> Any:
    module, _, path = name.partition(":")
    return attrgetter(path)(import_module(module))


def _listed(what: str, names: set[str]) -> list[str]:
    shown = sorted(names)[:SHOWN]
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return [f"{what} {', '.join([*shown, *more])}"] if names else []


FORMAT: Final = StateDict()
