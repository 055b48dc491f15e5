"""`sparse-2-4`: two of every four weights zero, which some GPUs multiply twice as fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from control_plane.optimization import exporting, layers, torchscript
from control_plane.optimization.base import BuildError, Built, Gains, Machine, NoParams, Subject, Work

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn import Module

LEAST_CAPABILITY: Final = (8, 0)
STEP: Final = 16
"""Rows and columns of a sparse matrix come in multiples of this."""
ROWS: Final = 8
"""Rows of inputs come in multiples of this: the last ones are filled up."""


class Sparse24:
    """torch.sparse.to_sparse_semi_structured, behind the cuSPARSELt operator, in half precision."""

    name = "sparse-2-4"
    title = "2:4 sparsity"
    description = (
        "Keeps the two largest of every four weights of linear layers and stores those alone. Up to 1.6 "
        "times faster on NVIDIA GPUs since Ampere; answers get worse without fine-tuning."
    )
    params = NoParams
    calibrated = False
    cost_s = 4.0
    gains = Gains(latency=1.3, throughput=1.5, size=1.8)

    def inapplicable(self, subject: Subject) -> str | None:
        """Takes a GPU, and a network of modules that can be traced."""
        return (
            insufficient(subject.machine) or layers.irreplaceable(subject) or torchscript.untraceable(subject)
        )

    def candidates(self, subject: Subject) -> tuple[NoParams, ...]:
        """There is one."""
        del subject
        return (NoParams(),)

    def build(self, work: Work, params: NoParams) -> Built:
        """Write `model.pt`, for a GPU. Raises BuildError where no layer fits."""
        del params
        import torch

        layers.without_shortcuts()
        layers.linearise(work.parent.module)
        parent = work.parent
        fitting = {
            name: layer
            for name, layer in layers.linears(parent.network).items()
            if layer.in_features % STEP == 0 and layer.out_features % STEP == 0
        }
        if not fitting:
            raise BuildError(
                f"no linear layer has multiples of {STEP} inputs and outputs, as the GPU takes them"
            )
        if not torch.cuda.is_available():
            raise BuildError("torch sees no GPU, on which the sparse weights are packed")
        work.say(f"make {len(fitting)} layers sparse")
        parent.network.to("cuda", torch.float16)
        layers.replace(
            parent.module,
            {layers.inside(parent, name): sparse_linear(layer) for name, layer in fitting.items()},
        )
        module = exporting.with_edges(parent.signature, "float16")(parent.module)
        samples = tuple(tensor.to("cuda") for tensor in parent.samples)
        program = torchscript.traced(module, samples, parent.signature)
        torchscript.save(program, work.out)
        total = len(layers.linears(parent.network)) + len(fitting)
        return Built(
            format="torchscript",
            notes=(f"{len(fitting)} of {total} linear layers are sparse.", "It runs on a GPU only."),
        )


METHOD: Final = Sparse24()


def insufficient(machine: Machine) -> str | None:
    """Return what *machine* lacks, as a sentence; None where a GPU can multiply such weights."""
    if not machine.gpus:
        return "2:4 sparsity takes an NVIDIA GPU of compute capability 8.0 or more; this machine has none"
    best = max((major, minor) for _, major, minor in machine.gpus)
    if best >= LEAST_CAPABILITY:
        return None
    name = machine.gpus[0][0]
    return f"2:4 sparsity takes compute capability 8.0 or more; the {name} has {best[0]}.{best[1]}"


def pattern(weight: Tensor) -> Tensor:
    """*weight* (outputs, inputs) with the two smaller of every four inputs set to zero."""
    import torch

    fours = weight.reshape(-1, 4)
    largest = fours.abs().topk(2, dim=1).indices
    kept = torch.zeros_like(fours, dtype=torch.bool).scatter_(1, largest, value=True)
    return torch.where(kept, fours, torch.zeros_like(fours)).reshape(weight.shape)


def sparse_linear(layer: nn.Linear) -> Module:
    """*layer* (on a GPU, half precision) with packed weights, as plain tensors that TorchScript can hold."""
    import torch
    from torch import nn
    from torch.sparse import SparseSemiStructuredTensorCUSPARSELT, to_sparse_semi_structured

    # the other kernels, of CUTLASS, know Ampere alone
    torch.sparse.SparseSemiStructuredTensor._FORCE_CUTLASS = False
    sparse: Any = to_sparse_semi_structured(pattern(layer.weight.detach()).contiguous())
    if not isinstance(sparse, SparseSemiStructuredTensorCUSPARSELT):
        raise BuildError("this build of torch lacks cuSPARSELt, whose kernels multiply sparse weights")
    outputs = layer.out_features

    class SparseLinear(nn.Module):
        """Packed weights times filled-up rows."""

        packed: Tensor
        bias: Tensor | None

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("packed", sparse.packed)
            self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())
            self.training = False

        def forward(self, x: Tensor) -> Tensor:
            rows = x.reshape(-1, x.shape[-1])
            count = rows.shape[0]
            rows = nn.functional.pad(rows, (0, 0, 0, (ROWS - count % ROWS) % ROWS))
            made = torch._cslt_sparse_mm(self.packed, rows.t(), bias=self.bias)
            return made.t()[:count].reshape(*x.shape[:-1], outputs)

    return SparseLinear()
