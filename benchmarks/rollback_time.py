"""How long a rollback takes, from the click until Envoy sends no request to the candidate any more.

    python -m benchmarks.rollback_time [ROUNDS]

Starts the whole product on a temporary home with traffic on one endpoint. Each round promotes a candidate by
blue/green and rolls it back while the old version is warm; then the same in the middle of a canary's step. A
round counts from the REST call until the rollout says `rolled_back`, which it says only once the gateway has
confirmed the routes. Every answer must be right; prints seconds and writes all of them to
benchmarks/results/rollback_time.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.fakes import rollout_traffic as traffic
from tests.fakes import stack as stacks
from tests.fakes.rollout_traffic import Traffic
from tests.fakes.stack import Stack

RESULTS = Path(__file__).parent / "results" / "rollback_time.json"
NAME = "bench"
RATE = 50.0
SWITCHED = {"strategy": "blue-green", "bake_s": 0, "warm_s": 600}
HALF_WAY = {"weights": [0.5, 1.0], "bake_s": 3600}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory(prefix="sb-") as folder:
        home = Path(folder)
        settings = stacks.settings_for(home / "home", handlers=traffic.allowed(), evidence_tick_s=1.0)
        with stacks.running(settings) as stack:
            versions = traffic.register(settings, home / "versions", ("Doubles", "DoublesAgain"))
            stack.deploy(NAME, versions["Doubles"])
            with Traffic(settings.gateway_url, NAME, RATE) as sent:
                measured = {
                    "after_completion_s": [
                        measure(stack, versions["DoublesAgain"], SWITCHED, "completed") for _ in range(rounds)
                    ],
                    "in_a_step_s": [
                        measure(stack, versions["DoublesAgain"], HALF_WAY, "baking") for _ in range(rounds)
                    ],
                }
    assert (sent.failures, sent.wrong) == ([], 0), sent.failures[:3]
    report(measured, sent.answered)


def measure(stack: Stack, candidate: str, wish: dict[str, Any], state: str) -> float:
    """Bring the candidate to *state* and take it back; seconds from the click to the gateway's word."""
    view = traffic.start(stack, NAME, candidate, **wish)
    traffic.wait_for(stack, NAME, state)
    clicked = time.perf_counter()
    answer = stack.api.post(f"/rollouts/{view['id']}/rollback", json={"reason": "measured"})
    assert answer.is_success, answer.text
    traffic.wait_for(stack, NAME, "rolled_back")
    return time.perf_counter() - clicked


def report(measured: dict[str, list[float]], answered: int) -> None:
    for name, seconds in measured.items():
        print(
            f"{name}: median {statistics.median(seconds):.2f}, longest {max(seconds):.2f} of {len(seconds)}"
        )
    print(f"{answered} requests meanwhile, none failed, none wrong")
    RESULTS.write_text(json.dumps({**measured, "requests": answered, "failed": 0}, indent=1) + "\n")


if __name__ == "__main__":
    main()
