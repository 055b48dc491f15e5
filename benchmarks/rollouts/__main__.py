"""How often rollouts go wrong, and how soon they catch what is wrong, by simulation.

    python -m benchmarks.rollouts [RUNS]

Plays RUNS rollouts (default 3000) of every scenario and writes benchmarks/results/rollouts-DATE.json and .md.
Seeds are fixed: the same code gives the same figures. Some minutes on one core. Exits with 1 when a goal is
missed.
"""

from __future__ import annotations

import datetime
import json
import sys
import time
from pathlib import Path

from benchmarks.rollouts import report, simulation

RESULTS = Path(__file__).parents[1] / "results"


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    played = {}
    for scenario in simulation.scenarios(runs):
        began = time.perf_counter()
        played[scenario.name] = simulation.play(scenario)
        print(f"{scenario.name}: {time.perf_counter() - began:.0f} s", flush=True)
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    found = report.goals(played)
    raw = {
        "measured": day,
        "runs": runs,
        "goals": [vars(goal) for goal in found],
        "scenarios": {name: one.to_json() for name, one in played.items()},
    }
    (RESULTS / f"rollouts-{day}.json").write_text(json.dumps(raw) + "\n")
    (RESULTS / f"rollouts-{day}.md").write_text(report.document(played, day))
    for goal in found:
        print(f"{'met   ' if goal.met else 'MISSED'}  {goal.text}: {goal.found}")
    return 0 if all(goal.met for goal in found) else 1


if __name__ == "__main__":
    sys.exit(main())
