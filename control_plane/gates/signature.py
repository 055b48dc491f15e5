"""`signature`: the candidate takes and gives what stable does, by what their agents themselves say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from control_plane.gates.asking import Asking
from control_plane.gates.base import Finding, Outcome
from control_plane.gates.scene import Scene
from control_plane.services.rollout_start import signature_differences
from serving_agent.contract.signature import Signature

MOST_TOLD: Final = 3
"""Differences that the sentence names."""


@dataclass(frozen=True, slots=True)
class Signatures:
    """What clients see of both; None where no agent tells."""

    stable: Signature | None
    candidate: Signature | None


class SameSignature:
    """Compares names, datatypes and shapes; order does not matter to clients, who name tensors."""

    name = "signature"
    title = "Signature"
    always = False
    decisive = True

    def inapplicable(self, scene: Scene) -> str | None:
        """It always applies."""

    def gather(self, scene: Scene, _asking: Asking) -> Signatures:
        """What was asked of the agents when the scene was set."""
        return Signatures(scene.stable.signature, scene.candidate.signature)

    def decide(self, evidence: Signatures) -> Finding:
        """Fail on any difference."""
        stable, candidate = evidence.stable, evidence.candidate
        if stable is None or candidate is None:
            which = "stable" if stable is None else "the candidate"
            return Finding(Outcome.FAILED, f"no agent of {which} tells what it takes and gives")
        differences = signature_differences(stable, candidate)
        if not differences:
            counts = f"{len(stable.inputs)} inputs and {len(stable.outputs)} outputs"
            return Finding(Outcome.PASSED, f"the same {counts} as stable")
        more = f", and {len(differences) - MOST_TOLD} more" if len(differences) > MOST_TOLD else ""
        told = "; ".join(differences[:MOST_TOLD])
        return Finding(
            Outcome.FAILED, f"clients would notice: {told}{more}", {"differences": list(differences)}
        )


GATE: Final = SameSignature()
