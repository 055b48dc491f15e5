"""How long a deploy takes from the click to the first answer, and where the time goes.

    python -m benchmarks.deploy_time [ROUNDS]

Starts the whole product on a temporary home, loads the example, and deploys digits@1 and digits@2 in turn to
fresh endpoints. A round counts from the REST call until the endpoint is said to be ready; right after it one
prediction must come back as 200 from the version asked for. Prints medians in seconds and writes every
measurement to benchmarks/results/deploy_time.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from tests.fakes import stack as stacks
from tests.fakes.stack import Stack
from tests.fakes.waiting import wait_until

RESULTS = Path(__file__).parent / "results" / "deploy_time.json"
STAGES = ("start", "import", "load", "warm", "gateway")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with (
        tempfile.TemporaryDirectory(prefix="sb-") as home,
        stacks.running(stacks.settings_for(Path(home))) as stack,
    ):
        image = load_example(stack)
        measured = [
            measure(stack, f"bench-{version}-{i}", f"digits@{version}", image)
            for i in range(rounds)
            for version in (1, 2)
        ]
    report(measured)
    RESULTS.write_text(json.dumps(measured, indent=1) + "\n")


def load_example(stack: Stack) -> Any:
    job = stack.api.post("/jobs", json={"kind": "example", "params": {}}).json()
    wait_until(
        lambda: stack.api.get(f"/jobs/{job['id']}").json()["state"] == "succeeded",
        timeout_s=120,
        what=lambda: stack.api.get(f"/jobs/{job['id']}").text,
    )
    return stack.api.get("/models/digits/versions/1/examples").json()[0]["inputs"]["image"]


def measure(stack: Stack, name: str, version: str, image: Any) -> dict[str, Any]:
    started = time.perf_counter()
    view = stack.deploy(name, version)
    ready_s = time.perf_counter() - started
    answer = httpx.post(f"{stack.settings.gateway_url}/e/{name}/predict", json={"input": [image]})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-signalbox-version"] == version
    stack.api.delete(f"/endpoints/{name}").raise_for_status()
    wait_until(
        lambda: stack.api.get(f"/endpoints/{name}").status_code == 404, timeout_s=60, what=lambda: name
    )
    return {"version": version, "ready_s": ready_s, **view["agents"][0]["timings_s"]}


def report(measured: list[dict[str, Any]]) -> None:
    print(f"{'version':10}{'ready':>8}" + "".join(f"{stage:>9}" for stage in STAGES) + "   medians, seconds")
    for version in sorted({row["version"] for row in measured}):
        rows = [row for row in measured if row["version"] == version]
        figures = [statistics.median(row[stage] for row in rows) for stage in ("ready_s", *STAGES)]
        print(f"{version:10}{figures[0]:8.2f}" + "".join(f"{figure:9.2f}" for figure in figures[1:]))
        print(f"{'':10}{min(r['ready_s'] for r in rows):8.2f} to {max(r['ready_s'] for r in rows):.2f}")


if __name__ == "__main__":
    main()
