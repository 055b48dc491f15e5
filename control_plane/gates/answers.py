"""What a reply to one item is worth: its class, whether it is right, whether it is finite. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from control_plane.domain.golden import GoldenItem
from control_plane.domain.pairs import ABSOLUTE_NOISE, RELATIVE_NOISE
from control_plane.gates.asking import Answer, Reply
from serving_agent import answers, tensors
from serving_agent.datatypes import FLOATS
from serving_agent.messages import OutputTensor

Labels = tuple[str, ...]
NO_CLASS: Final = (
    "the answers hold no class to compare labels with (an output `label`, `probabilities` or `logits`)"
)


def decision(reply: Reply, labels: Labels) -> str | None:
    """The class, or the likeliest last token, that a reply to one row comes down to; None where to none."""
    if not isinstance(reply, Answer):
        return None
    decided = answers.summary(reply.outputs, labels).decisions
    return decided[0] if len(decided) == 1 else None


def is_finite(reply: Reply) -> bool:
    """Whether there are outputs, and no NaN and no infinity in them."""
    return isinstance(reply, Answer) and all(
        tensors.is_finite(output.array, output.datatype) for output in reply.outputs
    )


def is_right(item: GoldenItem, reply: Reply, labels: Labels) -> bool:
    """Whether *reply* meets the item: its label where it has one, else all its reference outputs."""
    if not isinstance(reply, Answer):
        return False
    if item.label is not None:
        return decision(reply, labels) == item.label[: answers.MAX_NAME_CHARS]
    return meets(item.outputs or {}, reply.outputs)


def meets(reference: Mapping[str, Any], outputs: Sequence[OutputTensor]) -> bool:
    """Whether the outputs named in *reference* (one row, nested lists) have its values, within noise.

    Noise is what shadow comparison takes for it: `domain.pairs`.
    """
    by_name = {output.name: output for output in outputs}
    return all(name in by_name and _same(values, by_name[name]) for name, values in reference.items())


def relative_difference(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Largest |a - b| over the largest magnitude in either, in [0, 2]; both finite, of one shape."""
    scale = max(float(np.abs(a).max(initial=0.0)), float(np.abs(b).max(initial=0.0)))
    if not scale:
        return 0.0
    return float(np.abs(a / scale - b / scale).max(initial=0.0))  # a - b itself could overflow


def _same(values: Any, output: OutputTensor) -> bool:
    if output.datatype == "BYTES":
        texts = np.array([each.decode(errors="replace") for each in output.array.ravel().tolist()], object)
        wanted = np.array([values], dtype=object)
        return wanted.shape == output.array.shape and wanted.ravel().tolist() == texts.tolist()
    wanted = np.array([values])
    if wanted.shape != output.array.shape:
        return False
    if output.datatype not in FLOATS:
        return bool((wanted == output.array).all())
    found, wished = output.array.astype(np.float64), wanted.astype(np.float64)
    if not np.isfinite(found).all():
        return False
    close = float(np.abs(found - wished).max(initial=0.0)) <= ABSOLUTE_NOISE
    return close or relative_difference(found, wished) <= RELATIVE_NOISE[output.datatype]
