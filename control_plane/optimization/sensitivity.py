"""Which layers are fragile: one layer at a time is rounded, and the answers are compared.

Rounding is simulated, weights by channel and activations as they come, so that one ranking serves all int8
and int4 methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from control_plane.optimization.base import Work

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

MOST_BATCHES: Final = 4
"""Batches that are compared: the ranking needs few."""
WORST: Final = -300.0
"""SQNR in dB of answers that are not finite."""
BEST: Final = 300.0
"""SQNR in dB of answers without any error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """How coarsely a layer is rounded."""

    weight_bits: int
    group: int | None = None
    """Inputs of a weight that share a scale; None for all inputs of one output channel."""
    activation_bits: int | None = None
    """None leaves activations as they are."""


INT8: Final = Rounding(weight_bits=8, activation_bits=8)
INT8_WEIGHTS: Final = Rounding(weight_bits=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragility:
    """What rounding one layer does to the answers."""

    name: str
    sqnr_db: float
    """Signal-to-quantisation-noise ratio of the outputs, in decibels: the lower, the more fragile."""
    cosine: float
    """Smallest cosine between the answers to one row."""


def ranked(
    module: Callable[..., Sequence[Tensor]],
    layers: Mapping[str, Module],
    batches: Sequence[Sequence[Tensor]],
    rounding: Rounding,
) -> tuple[Fragility, ...]:
    """Return *layers* with what rounding each alone does to *module*, the most fragile first.

    module: tensors in, tensors out; calls the *layers*, whose weights are put back afterwards. batches:
    inputs; the first MOST_BATCHES are compared.
    """
    import torch

    batches = batches[:MOST_BATCHES]
    found = []
    with torch.no_grad():
        answers = [[output.clone() for output in module(*batch)] for batch in batches]
        for name, layer in layers.items():
            with rounded(layer, rounding):
                found.append(_fragility(name, answers, [module(*batch) for batch in batches]))
    return tuple(sorted(found, key=lambda each: (each.sqnr_db, each.name)))


@contextmanager
def rounded(layer: Module, rounding: Rounding) -> Iterator[None]:
    """Simulate rounded weights, and activations where asked for, while the block runs."""
    import torch

    weights = [
        p for name, p in layer.named_parameters() if "weight" in name.rpartition(".")[2] and p.dim() > 1
    ]
    before = [weight.detach().clone() for weight in weights]
    bits = rounding.activation_bits

    def round_inputs(_: Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(_round_activation(each, bits) if bits else each for each in inputs)

    hook = layer.register_forward_pre_hook(round_inputs)
    try:
        with torch.no_grad():
            for weight in weights:
                weight.copy_(round_weight(weight, rounding.weight_bits, rounding.group))
        yield
    finally:
        hook.remove()
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)


def round_weight(weight: Tensor, bits: int, group: int | None) -> Tensor:
    """*weight* (outputs, ...) rounded symmetrically to *bits*, one scale an output or a group of inputs."""
    import torch

    most = 2 ** (bits - 1) - 1
    rows = weight.detach().reshape(weight.shape[0], -1).float()
    width = rows.shape[1]
    size = group or width
    rows = torch.nn.functional.pad(rows, (0, -width % size)).reshape(len(rows), -1, size)
    scale = rows.abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / most
    near: Tensor = (rows / scale).round().clamp(-most - 1, most) * scale
    return near.reshape(len(near), -1)[:, :width].reshape(weight.shape).to(weight.dtype)


def _round_activation(value: Any, bits: int) -> Any:
    """*value* rounded affinely over its whole range; anything but a floating tensor as it is."""
    import torch

    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not value.numel():
        return value
    low, high = value.amin().clamp(max=0), value.amax().clamp(min=0)
    scale = ((high - low) / (2**bits - 1)).clamp_min(torch.finfo(torch.float32).tiny)
    return ((value - low) / scale).round() * scale + low


def _fragility(
    name: str, answers: Sequence[Sequence[Tensor]], others: Sequence[Sequence[Tensor]]
) -> Fragility:
    signal = noise = 0.0
    cosine = 1.0
    for ours, theirs in zip(answers, others, strict=True):
        for true, other in zip(ours, theirs, strict=True):
            if not true.is_floating_point():
                continue
            exact, near = true.double().reshape(len(true), -1), other.double().reshape(len(other), -1)
            signal += float(exact.square().sum())
            noise += float((exact - near).square().sum())
            cosine = min(cosine, _least_cosine(exact, near))
    return Fragility(name=name, sqnr_db=sqnr(signal, noise), cosine=cosine)


def sqnr(signal: float, noise: float) -> float:
    """Ratio of the two energies in decibels, between WORST and BEST."""
    if not math.isfinite(noise) or not math.isfinite(signal) or signal <= 0:
        return WORST if noise else BEST
    return BEST if noise <= 0 else max(WORST, min(BEST, 10 * (math.log10(signal) - math.log10(noise))))


def _least_cosine(exact: Tensor, near: Tensor) -> float:
    import torch

    least = float(torch.nn.functional.cosine_similarity(exact, near, dim=1).min())
    return least if math.isfinite(least) else -1.0


def most_fragile(work: Work, layers: Mapping[str, Module], rounding: Rounding, count: int) -> tuple[str, ...]:
    """The names of the *count* most fragile of *layers*; the job's log gets the ranking."""
    work.say(f"find the {count} most fragile of {len(layers)} layers")
    batches = work.calibration.batches or (work.parent.samples,)
    found = ranked(work.parent.module, layers, batches, rounding)[:count]
    for each in found:
        work.say(f"{each.name}: {each.sqnr_db:.1f} dB, cosine {each.cosine:.4f}")
    return tuple(each.name for each in found)
