"""Who takes part, by name."""

from __future__ import annotations

from typing import Final

from benchmarks.serving.peers.bare_envoy import BareEnvoy
from benchmarks.serving.peers.base import Peer
from benchmarks.serving.peers.bentoml import BentoML
from benchmarks.serving.peers.bound import Bound
from benchmarks.serving.peers.kserve import KServe
from benchmarks.serving.peers.litserve import LitServe
from benchmarks.serving.peers.mlserver import MLServer
from benchmarks.serving.peers.signalbox import Signalbox, SignalboxGateway
from benchmarks.serving.peers.triton import Triton

PEERS: Final[tuple[Peer, ...]] = (
    *(Signalbox(), SignalboxGateway()),
    *(MLServer(), KServe(), LitServe(), BentoML(), Triton()),
    *(Bound(), BareEnvoy()),
)
