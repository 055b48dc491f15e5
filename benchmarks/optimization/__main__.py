"""`python -m benchmarks.optimization [--models mlp,cnn] [--threads 1,2] [--methods a,b] [--out FILE]`.

Builds every variant that the catalogue's methods offer for each model and measures it against the model as it
is, in eager fp32, at batch 1 and 32: side by side in one run, answers compared. Results are kept after every
variant; a run that is started again with the same `--out` goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.optimization import tables
from benchmarks.optimization.subjects import MODELS, Model
from control_plane.domain import acceptance
from control_plane.domain.optimization import Budget, Conditions, Report
from control_plane.optimization import building, catalog, machine, measuring
from control_plane.optimization.base import Method, Params
from control_plane.optimization.children import ChildError
from control_plane.optimization.messages import Artefact, BuildOrder, BuildReply, MeasureOrder

ROOT = Path(__file__).parents[2]
BUILD_TIMEOUT_S = 900.0
ANSWER_TIMEOUT_S = 600.0


def main() -> int:
    """Run what the command line asks for. Returns the exit code."""
    asked = parsed()
    held: list[dict[str, Any]] = json.loads(asked.out.read_text())["variants"] if asked.out.exists() else []
    with tempfile.TemporaryDirectory(prefix="signalbox-optimization-") as folder:
        for name in asked.models:
            model = MODELS[name](Path(folder) / name)
            for threads in asked.threads:
                run_model(model, threads, asked, held)
    return 0


def parsed() -> argparse.Namespace:
    """The command line's values."""
    known = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    known.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    known.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    known.add_argument("--methods", type=lambda text: text.split(","), default=list(catalog.names()))
    known.add_argument("--rounds", type=int, default=9)
    day = time.strftime("%Y-%m-%d")
    known.add_argument("--out", type=Path, default=ROOT / f"benchmarks/results/optimization-{day}.json")
    return known.parse_args()


def run_model(model: Model, threads: int, asked: argparse.Namespace, held: list[dict[str, Any]]) -> None:
    """All variants of one model at one number of threads."""
    done = {key(row) for row in held}
    conditions = Conditions(threads=threads, rounds=asked.rounds)
    for method in (catalog.get(name) for name in asked.methods):
        for params in offered(method, model):
            plain = params.model_dump(mode="json") if params is not None else {}
            row = {"model": model.name, "threads": threads, "method": method.name, "params": plain}
            if key(row) in done:
                continue
            row |= tried(model, method, params, conditions)
            held.append(row)
            keep(held, asked.out)
            sys.stdout.write(tables.line(row) + "\n")
            sys.stdout.flush()


def offered(method: Method, model: Model) -> tuple[Params | None, ...]:
    """What the method would try; (None,) where it does not apply."""
    return (None,) if method.inapplicable(model.subject) else method.candidates(model.subject)


def tried(model: Model, method: Method, params: Params | None, conditions: Conditions) -> dict[str, Any]:
    """Build and measure one variant; what went wrong is a result as well."""
    if params is None:
        return {"inapplicable": method.inapplicable(model.subject)}
    with tempfile.TemporaryDirectory(prefix="signalbox-variant-") as folder:
        try:
            built = build(model, method, params, Path(folder), conditions.threads)
            report = measure(model, built, Path(folder) / "out", conditions)
        except (building.BuildFailedError, measuring.MeasureError, ChildError) as error:
            return {"failed": str(error), "code": error.code}
    decision = acceptance.decide(report, Budget())
    return {"report": msgspec.to_builtins(report), "decision": msgspec.to_builtins(decision)}


def build(model: Model, method: Method, params: Params, folder: Path, threads: int) -> BuildReply:
    """Build one variant into *folder*/out."""
    rows = folder / "rows.json"
    rows.write_text(json.dumps(model.calibration))
    (folder / "out").mkdir()
    order = BuildOrder(
        parent=model.artefact,
        method=method.name,
        params=params.model_dump(mode="json"),
        rows_file=str(rows),
        out=str(folder / "out"),
        threads=threads,
    )
    return building.build(order, environment(), lambda: None, BUILD_TIMEOUT_S)


def measure(model: Model, built: BuildReply, out: Path, conditions: Conditions) -> Report:
    """Measure one variant beside its parent."""
    variant = Artefact(
        folder=str(out),
        format=built.format,
        handler=model.artefact.handler,
        signature=model.artefact.signature,
        labels=model.artefact.labels,
    )
    order = MeasureOrder(parent=model.artefact, variant=variant, rows=model.holdout, conditions=conditions)
    found = measuring.measure(order, environment(), lambda _: None, ANSWER_TIMEOUT_S)
    return Report(
        conditions=conditions,
        timings=found.timings,
        parent=found.parent,
        variant=found.variant,
        answers=found.answers,
        build_s=built.seconds,
        machine=machine.described(machine.this_machine()),
        libraries=built.libraries,
        notes=built.notes,
    )


def environment() -> dict[str, str]:
    """Ours, with the operator's classes in reach."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def key(row: dict[str, Any]) -> str:
    """What makes a row one of its kind."""
    return json.dumps([row["model"], row["threads"], row["method"], row["params"]], sort_keys=True)


def keep(held: list[dict[str, Any]], out: Path) -> None:
    """Write raw results and the tables beside them."""
    out.parent.mkdir(parents=True, exist_ok=True)
    whole = {"machine": machine.described(machine.this_machine()), "variants": held}
    out.write_text(json.dumps(whole, indent=1) + "\n")
    out.with_suffix(".md").write_text(tables.markdown(whole))


if __name__ == "__main__":
    raise SystemExit(main())
