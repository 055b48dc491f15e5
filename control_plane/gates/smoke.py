"""`smoke-test`: every agent of the candidate answers one example input, with finite numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from control_plane.gates.asking import Asking, Refused, Reply
from control_plane.gates.base import Finding, Outcome
from control_plane.gates.scene import Scene, example
from serving_agent import tensors


@dataclass(frozen=True, slots=True)
class Smoke:
    """What each agent of the candidate has wrong, by agent id; None: nothing."""

    problems: dict[str, str | None]
    made_up: bool
    """Whether the input was made up, for want of an example."""
    stable_problem: str | None = None
    """What stable has wrong with the same input; asked only where the input is made up."""


class SmokeTest:
    """Runs before every rollout, whatever is waived: one request an agent."""

    name = "smoke-test"
    title = "Smoke test"
    always = True
    decisive = True

    def inapplicable(self, scene: Scene) -> str | None:
        """It always applies."""

    def gather(self, scene: Scene, asking: Asking) -> Smoke:
        """Ask each agent of the candidate, and stable where the input is not a real one."""
        row, made_up = example(scene)
        signature = scene.candidate.signature
        if signature is None:
            silent = "it does not answer"
            return Smoke({agent.id: silent for agent in scene.candidate.agents}, made_up)
        problems = {
            agent.id: problem_of(asking.one(agent, row, signature)) for agent in scene.candidate.agents
        }
        stable_problem = problem_of(asking.some(scene.stable, [row])[0]) if made_up else None
        return Smoke(problems, made_up, stable_problem)

    def decide(self, evidence: Smoke) -> Finding:
        """Fail when any agent has a problem, unless stable has one with the same made-up input."""
        bad = {agent: problem for agent, problem in evidence.problems.items() if problem}
        figures = {"agents": len(evidence.problems), "failed": len(bad), "made_up_input": evidence.made_up}
        which = "a made-up input" if evidence.made_up else "an example input"
        if not evidence.problems:
            return Finding(Outcome.FAILED, "the candidate has no ready agent", figures)
        if not bad:
            count = len(evidence.problems)
            who = "its agent answers" if count == 1 else f"all {count} agents answer"
            return Finding(Outcome.PASSED, f"{who} {which} with finite numbers", figures)
        if evidence.stable_problem is not None:
            return Finding(
                Outcome.NOT_APPLICABLE,
                "neither stable nor the candidate answers a made-up input; store an example with the version",
                figures,
            )
        agent, problem = next(iter(bad.items()))
        return Finding(Outcome.FAILED, f"agent {agent} fails on {which}: {problem}", figures)


def problem_of(reply: Reply) -> str | None:
    """What is wrong with *reply*, in words; None: it was answered with finite numbers."""
    if isinstance(reply, Refused):
        return f"answered {reply.status}: {reply.sentence}" if reply.status else reply.sentence
    broken = [each.name for each in reply.outputs if not tensors.is_finite(each.array, each.datatype)]
    return f"output {broken[0]!r} holds NaN or infinite values" if broken else None


GATE: Final = SmokeTest()
