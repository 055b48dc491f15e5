"""The serving benchmark: `python -m benchmarks.serving [setup|run|report]`, all three when nothing is said.

setup builds the peers' environments under .peers/, the models and the load generator (a few minutes, a few
GiB, the first time). run measures and writes benchmarks/results/serving-<date>.json after every server, so
that an interrupted run is worth what it has measured. report prints Markdown from the newest results, or from
--output, and writes it beside them.
"""

from __future__ import annotations

import argparse
import datetime
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.serving import agent_costs, environments, load, machine, plan, records, report, rounds
from benchmarks.serving.peers import catalog
from benchmarks.serving.peers.base import Variant
from benchmarks.serving.plan import BARE_ENVOY, GATEWAY, OURS, TORCH, Selection
from benchmarks.serving.records import Record, Results
from benchmarks.serving.rounds import MODELS, Conditions
from benchmarks.serving.workloads import WORKLOADS

RESULTS: Final = Path(__file__).parents[1] / "results"
AGENT_STARTS: Final = 5
HERE: Final = frozenset({OURS, GATEWAY, BARE_ENVOY})
"""Servers that need no environment of their own."""


def main() -> int:
    """Do what the command line says; exit code 1 when an environment cannot be built."""
    arguments = _parser().parse_args()
    signal.signal(
        signal.SIGTERM, lambda number, _frame: sys.exit(128 + number)
    )  # ends the servers on the way
    steps = [arguments.step] if arguments.step else ["setup", "run", "report"]
    selection = _selection(arguments)
    try:
        if "setup" in steps:
            setup(selection)
    except environments.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    if "run" in steps:
        arguments.output = arguments.output or _new_file()
        run(selection, arguments, arguments.output)
    if "report" in steps:
        write_report(arguments.output or _newest_file())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", nargs="?", choices=["setup", "run", "report"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one measurement")
    parser.add_argument("--warm-up", type=float, default=1.0, help="discarded seconds before it")
    parser.add_argument("--servers", help=f"of {', '.join(_server_names())}; default: all")
    parser.add_argument("--workloads", help=f"of {', '.join(WORKLOADS)}; default: all")
    parser.add_argument("--kinds", help="of json, binary, grpc; default: all")
    parser.add_argument("--concurrency", help="of 1, 4, 16; default: all")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1, help="of the order within rounds")
    parser.add_argument("--output", type=Path, help="results file; default: a new one named by the date")
    parser.add_argument("--skip-agent-costs", action="store_true", help="leave memory and start-up out")
    return parser


def _server_names() -> list[str]:
    return [*(peer.name for peer in catalog.PEERS), TORCH]


def _selection(arguments: argparse.Namespace) -> Selection:
    concurrencies = _words(arguments.concurrency)
    return Selection(
        _words(arguments.servers),
        _words(arguments.workloads),
        _words(arguments.kinds),
        None if concurrencies is None else frozenset(map(int, concurrencies)),
    )


def _words(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(text.split(","))


def setup(selection: Selection) -> None:
    """Build what is missing or out of date for the selected servers. Raises SetupError."""
    print("load generator ...", flush=True)
    load.build()
    for peer in catalog.PEERS:
        if peer.name not in HERE and _is_needed(peer.name, selection):
            print(f"environment {peer.name} ...", flush=True)
            environments.build(peer.name, peer.prepare)
    print("models ...", flush=True)
    subprocess.run(
        [sys.executable, "-m", "benchmarks.serving.model_files", str(MODELS)],
        cwd=environments.ROOT,
        check=True,
    )


def _is_needed(name: str, selection: Selection) -> bool:
    """The torch loop runs in the bound's environment."""
    servers = selection.servers
    return servers is None or name in servers or (name == plan.BOUND and TORCH in servers)


def run(selection: Selection, arguments: argparse.Namespace, output: Path) -> None:
    """Measure everything selected, round by round, and write the results to *output* as they come."""
    conditions = Conditions(arguments.seconds, arguments.warm_up, arguments.server_core, arguments.load_core)
    sessions = plan.sessions(catalog.PEERS, WORKLOADS.values(), selection)
    per_round_s = plan.duration_s(sessions, conditions.seconds, conditions.warm_up_s)
    print(f"{arguments.rounds} rounds of about {per_round_s / 60:.0f} minutes → {output}", flush=True)
    results = _results(arguments, conditions, {session.server for session in sessions})
    if not arguments.skip_agent_costs and _is_needed(OURS, selection):
        results.agent = agent_costs.measure(AGENT_STARTS, conditions.server_core)
    peers = {peer.name: peer for peer in catalog.PEERS}

    def keep(record: Record) -> None:
        results.records.append(record)
        print(_line(record), flush=True)

    for number in range(1, arguments.rounds + 1):
        for session in plan.shuffled(sessions, arguments.seed, number):
            rounds.measure(session, number, peers, conditions, keep)
            results.write(output)


def _results(arguments: argparse.Namespace, conditions: Conditions, servers: set[str]) -> Results:
    settings = {
        "rounds": arguments.rounds,
        "seed": arguments.seed,
        "seconds": conditions.seconds,
        "warm_up_s": conditions.warm_up_s,
        "server_core": conditions.server_core,
        "load_core": conditions.load_core,
    }
    versions = {OURS: machine.own_versions()} | {
        name: machine.peer_versions(name) for name in sorted(servers - HERE - {TORCH})
    }
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Results(now, settings, machine.describe(), versions, [])


def _line(record: Record) -> str:
    head = f"{record.round:2} {record.server:10} {Variant(record.tuned, record.batching)!s:18}"
    head += f"{record.workload:6} {record.wire:10} c={record.concurrency:<3}"
    if record.void is not None:
        return f"{head} VOID {record.void[:120]}"
    figures = record.figures
    return f"{head} {figures['rps']:9.1f}/s  p50 {figures['p50_us']:9.0f} µs  p99 {figures['p99_us']:9.0f} µs"


def _new_file() -> Path:
    """Return a name by the date that is not taken."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    names = [f"serving-{today}.json", *(f"serving-{today}-{number}.json" for number in range(2, 100))]
    return next(path for path in (RESULTS / name for name in names) if not path.exists())


def _newest_file() -> Path:
    found = sorted(RESULTS.glob("serving-*.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise SystemExit("no results yet: python -m benchmarks.serving run")
    return found[-1]


def write_report(path: Path) -> None:
    """Print the report of the results in *path* and write it beside them."""
    text = report.markdown(records.read(path))
    path.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    raise SystemExit(main())
