"""`python -m benchmarks.gate_corpus`: the whole corpus through the confined process, one case at a time.

Measured for every case: wall time from the call to the verdict and the most memory that the process held.
Writes every measurement to benchmarks/results/gate_corpus.json and exits with 1 when a verdict is wrong, a
payload ran, or a goal is missed (2 s and 256 MiB for each case).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from control_plane.admission import gate, judging
from tests.corpus import make
from tests.corpus.case import Case

RESULTS: Final = Path(__file__).parent / "results" / "gate_corpus.json"
GOAL_S: Final = 2.0
GOAL_BYTES: Final = 256 * 1024**2


def measured(case: Case, upload: Path) -> dict[str, Any]:
    """One case's verdict, time and memory."""
    with tempfile.TemporaryDirectory(prefix="gate-corpus-") as scratch:
        started = time.monotonic()
        judged = judging.examine(upload, Path(scratch))
        seconds = time.monotonic() - started
    return {
        "name": case.name,
        "kind": case.kind,
        "verdict": judged.verdict.decision,
        "code": judged.verdict.code,
        "right": judged.verdict.decision in case.verdicts,
        "seconds": round(seconds, 4),
        "peak_bytes": judged.peak_bytes,
        "isolation": judged.level,
    }


def summary(rows: list[dict[str, Any]], *, payload_ran: bool) -> dict[str, Any]:
    """What the rows say together."""
    seconds = [row["seconds"] for row in rows]
    return {
        "cases": dict(Counter(row["kind"] for row in rows)),
        "right": dict(Counter(row["kind"] for row in rows if row["right"])),
        "wrong": [row["name"] for row in rows if not row["right"]],
        "payload_ran": payload_ran,
        "isolation": sorted({row["isolation"] for row in rows}),
        "median_s": statistics.median(seconds),
        "worst_s": max(seconds),
        "worst_peak_mib": round(max(row["peak_bytes"] for row in rows) / 1024**2, 1),
        "gate_version": gate.VERSION,
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}",
    }


def main() -> int:
    """Make the corpus, measure every case, write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate_corpus", description=__doc__)
    parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gate-corpus-") as folder:
        out = Path(folder)
        made = make.make(out)
        rows = [measured(case, make.upload(out / case.name)) for case, _ in made.values()]
        told = summary(rows, payload_ran=(out / make.MARKER).exists())
    RESULTS.write_text(json.dumps({"summary": told, "cases": rows}, indent=1) + "\n")
    print(json.dumps(told, indent=1))
    met = told["worst_s"] <= GOAL_S and told["worst_peak_mib"] * 1024**2 <= GOAL_BYTES
    return 0 if met and not told["wrong"] and not told["payload_ran"] else 1


if __name__ == "__main__":
    sys.exit(main())
