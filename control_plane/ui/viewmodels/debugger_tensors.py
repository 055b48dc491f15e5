"""Tensors of a debugger run in words: sizes, figures, histograms as digits, and why values are missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.ui.viewmodels import quantities
from control_plane.ui.viewmodels.quantities import NOTHING
from serving_agent.contract.inspection import Histogram, TensorSummary

BARS: Final = 32
"""Bars of a small histogram."""
_TOP: Final = 9


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One tensor of a stage as a row of texts; *bars*: its histogram's heights as digits."""

    name: str
    shape: str
    datatype: str
    device: str
    low: str
    high: str
    mean: str
    std: str
    zeros: str
    nan: str
    inf: str
    bars: str
    bars_label: str
    wrong: bool
    """Whether it holds NaN or an infinity."""


def number(value: float | None) -> str:
    """A figure with four significant digits: 0.01234567 → "0.01235"; "–" where there is none."""
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
    text = f"{value:.4g}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def count(value: int) -> str:
    """How many, with thousands apart; nothing is "0"."""
    return f"{value:,}"


def shape(sizes: Sequence[int]) -> str:
    """A shape: (1, 16, 8) → "1 × 16 × 8"; "scalar" for ()."""
    return " × ".join(str(size) for size in sizes) or "scalar"


def zeros(tensor: TensorSummary) -> str:
    """Share of zeros: "12.5 %"; "–" where elements are no numbers."""
    if tensor.low is None and not tensor.nan and not tensor.inf:
        return NOTHING
    return quantities.share(tensor.zeros / tensor.elements) if tensor.elements else NOTHING


def wrong(tensors: Iterable[TensorSummary]) -> bool:
    """Whether one of *tensors* holds NaN or an infinity."""
    return any(tensor.nan or tensor.inf for tensor in tensors)


def row(tensor: TensorSummary) -> TensorRow:
    """One tensor in words."""
    return TensorRow(
        tensor.name,
        shape(tensor.shape),
        tensor.datatype,
        tensor.device,
        number(tensor.low),
        number(tensor.high),
        number(tensor.mean),
        number(tensor.std),
        zeros(tensor),
        count(tensor.nan),
        count(tensor.inf),
        bars(tensor.histogram),
        bars_label(tensor.histogram),
        wrong((tensor,)),
    )


def bars(histogram: Histogram | None) -> str:
    """Heights of BARS bars as digits 0 to 9, the highest 9; what is there at all is at least 1."""
    if histogram is None or not any(histogram.counts):
        return ""
    merged = _merged(histogram.counts, BARS)
    top = max(merged)
    return "".join(str(max(1, round(each / top * _TOP)) if each else 0) for each in merged)


def bars_label(histogram: Histogram | None) -> str:
    """What the small histogram shows, for who cannot see it."""
    if histogram is None or not any(histogram.counts):
        return ""
    at = max(range(len(histogram.counts)), key=histogram.counts.__getitem__)
    step = (histogram.high - histogram.low) / len(histogram.counts)
    most = number(histogram.low + (at + 0.5) * step)
    return f"histogram from {number(histogram.low)} to {number(histogram.high)}, most near {most}"


def _merged(counts: Sequence[int], bins: int) -> list[int]:
    """*counts* in about *bins* bins, neighbours added."""
    width = max(1, math.ceil(len(counts) / bins))
    return [sum(counts[start : start + width]) for start in range(0, len(counts), width)]


def stopped(words: str) -> str:
    """Words as a sentence with its full stop; a name at its beginning stays as it is."""
    if words.partition(" ")[0].isalpha():
        words = words[:1].upper() + words[1:]
    return words if not words or words[-1] in ".!?" else f"{words}."


def facts(tensor: TensorSummary) -> tuple[tuple[str, str], ...]:
    """A tensor's figures as labels and values."""
    said = row(tensor)
    numbers = (
        ("smallest", said.low),
        ("largest", said.high),
        ("mean", said.mean),
        ("standard deviation", said.std),
        ("zeros", said.zeros),
        ("NaN", f"{said.nan} of {count(tensor.elements)}"),
        ("infinite", f"{said.inf} of {count(tensor.elements)}"),
    )
    return (
        ("shape", f"{said.shape} ({quantities.count(tensor.elements, 'element')})"),
        ("type", f"{said.datatype} on {said.device}"),
        *(numbers if tensor.datatype != "BYTES" else ()),
    )


def not_kept(tensor: TensorSummary) -> str:
    """Why the elements of *tensor* cannot be looked at; "" where they can."""
    if tensor.offset is not None:
        return ""
    if tensor.not_read:
        return tensor.not_read
    return (
        f"Its {quantities.count(tensor.elements, 'element')} were not kept: the run's values reached their "
        "size limit before it. Its figures are of all elements."
    )
