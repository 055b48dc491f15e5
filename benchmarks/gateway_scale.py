"""How long the gateway takes to follow a decision when it serves very many endpoints.

    python -m benchmarks.gateway_scale [ENDPOINTS] [ROUNDS]

Starts a real Envoy on a temporary home and gives it ENDPOINTS endpoints of two versions each; their agents
do not exist, so health checks fail all the while, as in the worst of times. One endpoint is under comparison.
Each round moves its weight: measured is `publish_routes` from the call until Envoy has confirmed the change,
and how long `observe` and a reading of all statistics take. Processor time is reported beside the time that
passed: on a busy machine only the former says what the work itself costs. Writes
benchmarks/results/gateway_scale.json.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from control_plane.gateway.traffic_plan import Backend, Comparison, Replica, TrafficPlan
from tests.fakes.envoy import RunningEnvoy, running_envoy

RESULTS = Path(__file__).parent / "results" / "gateway_scale.json"
GOAL_S = 2.0
BATCH = 100
LADDER = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 0.0)


def main() -> None:
    endpoints = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    with tempfile.TemporaryDirectory(prefix="sb-") as home, running_envoy(Path(home)) as envoy:
        result = measure(envoy, endpoints, rounds)
    print(json.dumps(result, indent=1))
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


def measure(envoy: RunningEnvoy, endpoints: int, rounds: int) -> dict[str, Any]:
    others = [plan(number, 0.5) for number in range(1, endpoints)]
    first = [compared(LADDER[-1]), *others]
    deploy(envoy, first)
    backends_s = timed(partial(envoy.gateway.publish_backends, [*first, plan(endpoints, 0.5)]))
    decided = [[compared(LADDER[i % len(LADDER)]), *others] for i in range(rounds)]
    confirmed_s, processor_s, observed_s, read_s = [], [], [], []
    for plans in decided:
        before_s = used_s(envoy)
        confirmed_s.append(timed(partial(envoy.gateway.publish_routes, plans)))
        processor_s.append(used_s(envoy) - before_s)
        observed_s.append(timed(envoy.gateway.observe))
        read_s.append(timed(envoy.gateway.metrics))
        in_force = envoy.gateway.observe().weights[plans[0].endpoint]
        assert in_force == {each.version: each.weight for each in plans[0].backends if each.weight}
    return {
        "endpoints": endpoints,
        "versions_each": 2,
        "cpus": os.cpu_count(),
        "load_average_5_min": round(os.getloadavg()[1], 1),
        "goal_s": GOAL_S,
        "decision_to_confirmation_s": figures(confirmed_s),
        "processor_s_of_controller_and_envoy": figures(processor_s),
        "observe_s": figures(observed_s),
        "read_statistics_s": figures(read_s),
        "one_more_endpoint_s": round(backends_s, 3),
        "envoy_rss_mb": round(psutil.Process(envoy.pid).memory_info().rss / 2**20),
        "measured_at": time.strftime("%Y-%m-%d"),
    }


def deploy(envoy: RunningEnvoy, plans: list[TrafficPlan]) -> None:
    """Endpoints are deployed one after another: nobody gives a gateway a thousand at once."""
    for count in range(0, len(plans), BATCH):
        envoy.gateway.publish_backends(plans[: count + BATCH])
    envoy.gateway.publish_routes(plans)


def plan(number: int, share: float) -> TrafficPlan:
    name = f"endpoint-{number}"
    backends = tuple(
        Backend(f"model-{number}@{version}", (replica(f"{name}-{version}"),), weight)
        for version, weight in ((1, 1 - share), (2, share))
    )
    return TrafficPlan(name, backends)


def compared(share: float) -> TrafficPlan:
    made = plan(0, share)
    stable, candidate = (backend.version for backend in made.backends)
    comparison = Comparison(rollout="bench", stable=stable, candidate=candidate, tester_header=True)
    return replace(made, comparison=comparison)


def replica(agent: str) -> Replica:
    return Replica(agent, f"unix:/nowhere/{agent}.rest", f"unix:/nowhere/{agent}.grpc")


def used_s(envoy: RunningEnvoy) -> float:
    """Processor time used so far by Envoy, its health checks included, and by this process."""
    theirs = psutil.Process(envoy.pid).cpu_times()
    return theirs.user + theirs.system + time.process_time()


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def figures(took_s: list[float]) -> dict[str, float]:
    ordered = sorted(took_s)
    return {
        "rounds": len(ordered),
        "p50": round(statistics.median(ordered), 3),
        "p95": round(ordered[int(0.95 * (len(ordered) - 1))], 3),
        "max": round(ordered[-1], 3),
    }


if __name__ == "__main__":
    main()
