"""Layers whose weights are stored in few bits, in terms of operators that every build of torch brings.

Products are made of bfloat16 numbers: torch's kernels for packed weights are written for those, and take
tens of times as long with others.

TorchScript reads the annotations of these layers: they have to be the types themselves, not their names.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn import Module

Layer = Any
"""A module, or one that was scripted."""
TOLERANCE: Final = 0.03
"""Largest difference, relative to the output, between two orders of computing sums in bfloat16."""
FEW: Final = 8
"""Rows up to which unpacking weights on the way is faster than unpacking them first."""


def int8_linear(weight: "Tensor", scale: "Tensor", bias: "Tensor | None") -> "Module":
    """A linear layer of int8 weights (outputs, inputs) with one scale an output (outputs,).

    In TorchScript it has two ways, for few rows and for many; elsewhere the one for many.
    """
    import torch
    from torch import nn

    is_scripting: Callable[[], bool] = torch.jit.is_scripting  # type: ignore[attr-defined]  # it is there

    class Int8Linear(nn.Module):
        """Weights as int8, products in bfloat16."""

        weight: torch.Tensor
        scale: torch.Tensor
        bias: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.few = FEW
            self.register_buffer("weight", weight.contiguous())
            self.register_buffer("scale", scale.to(torch.bfloat16))
            self.register_buffer("bias", torch.zeros(len(weight)) if bias is None else bias.float())
            self.training = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
            if is_scripting() and rows.shape[0] <= self.few:
                made = torch._weight_int8pack_mm(rows, self.weight, self.scale)
            else:
                made = torch.mm(rows, self.weight.to(torch.bfloat16).t()) * self.scale
            made = made.to(self.bias.dtype) + self.bias
            return made.reshape(list(x.shape[:-1]) + [self.weight.shape[0]]).to(x.dtype)  # noqa: RUF005

    return Int8Linear()


def int4_linear(packed: "Tensor", scales_and_zeros: "Tensor", group: int, bias: "Tensor | None") -> "Module":
    """A linear layer of int4 weights, packed (outputs, inputs / 2) for the CPU.

    scales_and_zeros: (inputs / group, outputs, 2).
    """
    import torch
    from torch import nn

    class Int4Linear(nn.Module):
        """Weights as int4, products in bfloat16."""

        packed: torch.Tensor
        scales_and_zeros: torch.Tensor
        bias: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.group = group
            self.register_buffer("packed", packed.contiguous())
            self.register_buffer("scales_and_zeros", scales_and_zeros.to(torch.bfloat16).contiguous())
            self.register_buffer("bias", torch.zeros(len(packed)) if bias is None else bias.float())
            self.training = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
            made: torch.Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
                rows, self.packed, self.group, self.scales_and_zeros
            )
            made = made.to(self.bias.dtype) + self.bias
            return made.reshape(list(x.shape[:-1]) + [self.packed.shape[0]]).to(x.dtype)  # noqa: RUF005

    return Int4Linear()


def int8_embedding(weight: "Tensor", scale: "Tensor") -> "Module":
    """A table of int8 rows (entries, width) with one scale an entry (entries, 1), of the scale's type."""
    import torch
    from torch import nn

    class Int8Embedding(nn.Module):
        """Rows as int8."""

        weight: torch.Tensor
        scale: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", weight.contiguous())
            self.register_buffer("scale", scale.contiguous())
            self.training = False

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            chosen = torch.nn.functional.embedding(ids, self.weight)
            return chosen.to(self.scale.dtype) * torch.nn.functional.embedding(ids, self.scale)

    return Int8Embedding()


def dynamic_int8_linear(layer: "nn.Linear") -> "Module":
    """A linear layer of int8 weights and activations, each row of which gets a scale as it comes.

    Processors without VNNI add pairs of products in 16 bits: there one bit less of each is used.
    """
    import torch
    from torch import nn

    most = 127.0 if torch.cpu._is_vnni_supported() else 63.0
    held = layer.weight.detach().float()
    scales = held.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / most
    weight = (held / scales).round().clamp(-most, most).to(torch.int8)
    bias = layer.bias

    class DynamicInt8Linear(nn.Module):
        """Weights and activations as int8, sums as int32."""

        weight: torch.Tensor
        scale: torch.Tensor
        bias: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.most = most
            self.register_buffer("weight", weight.t())
            self.register_buffer("scale", scales.t().contiguous())
            self.register_buffer("bias", torch.zeros(len(weight)) if bias is None else bias.detach().float())
            self.training = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = x.reshape(-1, x.shape[-1]).float()
            steps = rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / self.most
            whole = (rows / steps).round().clamp(-self.most, self.most).to(torch.int8)
            made = torch._int_mm(whole, self.weight).float() * steps * self.scale + self.bias
            return made.reshape(list(x.shape[:-1]) + [self.scale.shape[1]]).to(x.dtype)  # noqa: RUF005

    return DynamicInt8Linear()


def scripted(layers: Mapping[str, Layer]) -> dict[str, Layer]:
    """*layers* as TorchScript, which keeps both ways of those that have two when it is traced."""
    import torch

    from control_plane.optimization import torchscript

    made: Callable[[Any], Any] = torch.jit.script
    with torchscript.quiet():
        return {name: made(layer) for name, layer in layers.items()}


def int8_rows(weight: "Tensor") -> "tuple[Tensor, Tensor]":
    """*weight* (rows, width) as int8 and the scale of each row (rows, 1), by torchao."""
    from torchao.quantization.granularity import PerRow
    from torchao.quantization.quantize_.workflows.int8.int8_tensor import Int8Tensor

    made = Int8Tensor.from_hp(weight.detach().float(), granularity=PerRow())
    return made.qdata, made.scale


def int4_of(layer: "nn.Linear", group: int, *, fit: bool) -> "Module":
    """*layer* with int4 weights in groups, by torchao. fit: whether its scales are searched (HQQ)."""
    from torchao.prototype.quantization.int4.int4_opaque_tensor import Int4OpaqueTensor
    from torchao.quantization.quantize_.workflows import Int4ChooseQParamsAlgorithm

    algorithm = Int4ChooseQParamsAlgorithm.HQQ if fit else Int4ChooseQParamsAlgorithm.TINYGEMM
    made = Int4OpaqueTensor.from_hp(layer.weight.detach().float(), [1, group], algorithm)
    return int4_linear(made.qdata, made.scale_and_zero, group, layer.bias)
