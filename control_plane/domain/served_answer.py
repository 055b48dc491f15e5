"""The answer that a client got, beside the one that the debugger saw. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from serving_agent.contract.capture import CapturedTensor


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a client got for a request that was kept."""

    by: str
    """`model@N` that gave it."""
    outputs: tuple[CapturedTensor, ...]


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """The answer that a client got, beside the one that was inspected."""

    compared: tuple[str, ...]
    """Outputs that both have, by name."""
    left_out: tuple[str, ...] = ()
    """Outputs of which one of them was not kept."""
    different: tuple[str, ...] = ()
    """Those of the compared ones that are not the same bit for bit."""
    max_abs: float | None = None
    """Largest difference of finite numbers among them; None where there is none that can be told."""
    sentence: str
    """What it comes down to, without a full stop."""


def told(by: str, compared: Sequence[str], different: Sequence[str], max_abs: float | None) -> str:
    """The sentence of a `Served`, about the answer that *by* gave."""
    if not compared:
        return (
            "The answer that the client got cannot be compared with this one: its data was not kept, or the "
            "endpoint's handler makes other outputs than the version's"
        )
    if not different:
        return f"The answer of {by} is, bit for bit, the one that the client got"
    differ = "differ" if len(different) > 1 else "differs"
    apart = "" if max_abs is None else f", by at most {max_abs:.3g}"
    return (
        f"The client got another answer of {by}: {', '.join(different)} {differ}{apart}. Batches, threads "
        "and the endpoint's options change the last digits"
    )
