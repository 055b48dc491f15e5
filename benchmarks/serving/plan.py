"""What is measured, and in which order. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from benchmarks.serving.peers.base import Peer, Variant, Wire
from benchmarks.serving.workloads import CNN5, LARGE, TINY, Workload

T = TypeVar("T")

OURS: Final = "signalbox"
GATEWAY: Final = "gateway"
BARE_ENVOY: Final = "bare-envoy"
BOUND: Final = "bound"
TORCH: Final = "torch"
"""The model in a loop: no server, rows per call in place of concurrency."""
TORCH_WIRE: Final = "none"
TORCH_BATCHES: Final = (1, 4, 8, 16)

KINDS: Final[dict[Wire, str]] = {
    "oip_json": "json",
    "own_json": "json",
    "oip_binary": "binary",
    "grpc": "grpc",
}
"""Which ways of carrying tensors are compared with each other."""
GRID: Final[dict[str, dict[str, tuple[int, ...]]]] = {
    TINY.name: {"json": (1, 4, 16), "grpc": (1, 4, 16)},
    LARGE.name: {"json": (1, 4), "binary": (1, 4, 16), "grpc": (1, 4, 16)},
    CNN5.name: {"json": (1, 4, 16), "grpc": (1, 16)},
}
"""Concurrencies by workload and kind."""
START_S: Final = 6.0
"""What a start and the checks around the measurements take, roughly, in seconds."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement: how tensors travel and how many requests are under way."""

    wire: Wire
    concurrency: int


@dataclass(frozen=True, slots=True)
class Session:
    """One start of one server and the measurements made while it is up; no cells for the torch loop."""

    server: str
    variant: Variant
    workload: Workload
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of everything to measure; None for all."""

    servers: frozenset[str] | None = None
    workloads: frozenset[str] | None = None
    kinds: frozenset[str] | None = None
    concurrencies: frozenset[int] | None = None


def sessions(peers: Iterable[Peer], workloads: Iterable[Workload], selection: Selection) -> list[Session]:
    """Return every session of one round, in a fixed order; sessions without a measurement are left out."""
    found = []
    for workload in (each for each in workloads if _in(each.name, selection.workloads)):
        for peer in (each for each in peers if _in(each.name, selection.servers)):
            for variant in (each for each in peer.variants if takes_part(peer.name, each, workload)):
                chosen = cells(peer, workload, selection)
                if chosen:
                    found.append(Session(peer.name, variant, workload, chosen))
        if workload is CNN5 and _in(TORCH, selection.servers):
            found.append(Session(TORCH, Variant(), workload, ()))
    return found


def takes_part(server: str, variant: Variant, workload: Workload) -> bool:
    """Peers batch where it helps them; ours shows everywhere what batching costs or gains."""
    if server in (GATEWAY, BARE_ENVOY):
        return workload is TINY
    return not variant.batching or workload is CNN5 or (server == OURS and not variant.tuned)


def cells(peer: Peer, workload: Workload, selection: Selection) -> tuple[Cell, ...]:
    """Return what is measured while *peer* serves *workload*."""
    return tuple(
        Cell(wire, concurrency)
        for wire in sorted(peer.wires)
        if _in(KINDS[wire], selection.kinds)
        for concurrency in GRID[workload.name].get(KINDS[wire], ())
        if _in(concurrency, selection.concurrencies)
    )


def shuffled(all_sessions: Sequence[Session], seed: int, round_number: int) -> list[Session]:
    """Return one round's sessions, and the cells in each, in an order of its own; the same on each call.

    Workloads come one after another, so that what is compared is measured within minutes.
    """
    order = random.Random(f"{seed}/{round_number}")
    workloads = list(dict.fromkeys(each.workload for each in all_sessions))
    mixed = []
    for workload in order.sample(workloads, len(workloads)):
        here = [each for each in all_sessions if each.workload == workload]
        for each in order.sample(here, len(here)):
            cells = tuple(order.sample(each.cells, len(each.cells)))
            mixed.append(Session(each.server, each.variant, each.workload, cells))
    return mixed


def duration_s(all_sessions: Iterable[Session], seconds: float, warm_up_s: float) -> float:
    """Return about how long one round takes, in seconds."""
    return sum(
        START_S + (len(each.cells) or len(TORCH_BATCHES)) * (seconds + warm_up_s) for each in all_sessions
    )


def _in(value: T, chosen: frozenset[T] | None) -> bool:
    return chosen is None or value in chosen
