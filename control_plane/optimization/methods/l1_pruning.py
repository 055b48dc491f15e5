"""`l1-pruning`: the smallest weights set to zero, in the parent's own format."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from control_plane.optimization import containers, exporting, torchscript
from control_plane.optimization.base import BuildError, Built, Gains, Params, Subject, Work
from serving_agent.contract import architecture

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

FORMATS: Final = ("state_dict", "huggingface", "torchscript", "exported_program")
NOTE: Final = (
    "Zeros are still multiplied and stored: nothing is faster or smaller. It is a start for fine-tuning, or "
    "for methods that make use of zeros."
)


class L1PruningParams(Params):
    """How many weights become zero."""

    amount: float = Field(
        default=0.3,
        gt=0,
        lt=1,
        title="Share of weights",
        description="Weights that are set to zero, as a share.",
    )
    scope: Literal["layer", "network"] = Field(
        default="layer",
        title="Compared within",
        description="Take the smallest weights of each layer, or the smallest of all.",
    )


class L1Pruning:
    """L1 unstructured pruning as torch.nn.utils.prune does it, made permanent."""

    name = "l1-pruning"
    title = "L1 unstructured pruning"
    description = (
        "Sets the smallest weights to zero. By itself nothing gets faster or smaller, because zeros are "
        "still multiplied and stored, and answers get worse without fine-tuning afterwards."
    )
    params = L1PruningParams
    calibrated = False
    cost_s = 2.0
    gains = Gains(latency=1.0, throughput=1.0, size=1.0)

    def inapplicable(self, subject: Subject) -> str | None:
        """Weights have to be there to be set."""
        if subject.format not in FORMATS:
            return f"weights in a version of format {subject.format} cannot be set one by one"
        return None

    def candidates(self, subject: Subject) -> tuple[L1PruningParams, ...]:
        """A little: more than that breaks answers without fine-tuning."""
        del subject
        return (L1PruningParams(),)

    def build(self, work: Work, params: L1PruningParams) -> Built:
        """Write the artefact again with zeros. Raises BuildError where it has no weights to set."""
        if work.parent.format == "exported_program":
            return self._exported(work, params)
        weights = weights_of(work.parent.network)
        zeros = prune(weights, params)
        work.say(f"{zeros} weights of {len(weights)} tensors are zero")
        if work.parent.format == "torchscript":
            torchscript.save(work.parent.network, work.out)
        else:
            save_eager(work)
        return Built(format=work.parent.format, notes=(NOTE,))

    def _exported(self, work: Work, params: L1PruningParams) -> Built:
        import torch

        (path,) = work.parent.artifact_dir.glob("*.pt2")
        program = torch.export.load(path)
        held = {name: t for name, t in program.state_dict.items() if is_weight(name, t)}
        zeros = prune(held, params)
        work.say(f"{zeros} weights of {len(held)} tensors are zero")
        containers.save_program(program, work.out)
        return Built(format=work.parent.format, notes=(NOTE,))


METHOD: Final = L1Pruning()


def weights_of(network: Module) -> dict[str, Tensor]:
    """Weights of linear and convolutional layers; of a program, all that look like them."""
    import torch
    from torch import nn

    if isinstance(network, torch.jit.ScriptModule):
        return {name: tensor for name, tensor in network.named_parameters() if is_weight(name, tensor)}
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    found = {name: layer.weight for name, layer in network.named_modules() if isinstance(layer, kinds)}
    tied = {id(table.weight) for table in network.modules() if isinstance(table, nn.Embedding)}
    return {name: weight for name, weight in found.items() if id(weight) not in tied}


def is_weight(name: str, tensor: Tensor) -> bool:
    """Whether a program's tensor looks like weights of a layer: tables of embeddings are none."""
    own = name.rpartition(".")[2]
    return (
        own.startswith("weight") and tensor.dim() > 1 and tensor.is_floating_point() and "embed" not in name
    )


def prune(weights: Mapping[str, Tensor], params: L1PruningParams) -> int:
    """Set the smallest of *weights* to zero in place and return how many. Raises BuildError for none."""
    import torch
    from torch.nn.utils import prune as pruning

    if not weights:
        raise BuildError("it has no weights that could be set to zero: they are constants of its program")
    method: Any = pruning.L1Unstructured(params.amount)
    with torch.no_grad():
        if params.scope == "network":
            masks = _masks_of_all(weights, method)
        else:
            masks = {n: method.compute_mask(w.detach(), torch.ones_like(w)) for n, w in weights.items()}
        for name, weight in weights.items():
            weight.mul_(masks[name])
    return sum(int((mask == 0).sum()) for mask in masks.values())


def _masks_of_all(weights: Mapping[str, Tensor], method: Any) -> dict[str, Tensor]:
    import torch

    flat = torch.cat([weight.detach().flatten().float() for weight in weights.values()])
    mask = method.compute_mask(flat, torch.ones_like(flat))
    parts = mask.split([weight.numel() for weight in weights.values()])
    return {
        name: part.reshape(weight.shape).to(weight.dtype)
        for (name, weight), part in zip(weights.items(), parts, strict=True)
    }


def save_eager(work: Work) -> None:
    """Write safetensors and what names the network, as the parent has them."""
    from safetensors.torch import save_file

    network, out = work.parent.network, work.out
    if work.parent.format == "huggingface":
        with exporting.quiet():
            network.save_pretrained(out)  # type: ignore[operator]  # a network of transformers
        return
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, out / architecture.WEIGHTS)
    shutil.copyfile(work.parent.artifact_dir / architecture.FILE, Path(out) / architecture.FILE)
