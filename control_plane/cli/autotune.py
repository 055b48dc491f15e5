"""`autotune`: the best variant of a version within some minutes."""

from __future__ import annotations

from typing import Annotated

import typer

from control_plane.cli import lab_options, lab_output, lab_values
from control_plane.cli.command import Session, command
from control_plane.cli.optimize import followed, place
from control_plane.domain.optimization import Objective


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    command(app)(autotune)


def autotune(
    session: Session,
    version: lab_options.Version,
    objective: Annotated[
        Objective, typer.Option("--objective", help="latency, throughput, memory or size.")
    ] = Objective.LATENCY,
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="How long it may search, e.g. 90s, 10m or 1h.")
    ] = "10m",
    calibration: lab_options.Calibration = None,
    threads: lab_options.Threads = None,
    batches: lab_options.Batches = None,
    min_agreement: lab_options.MinAgreement = None,
    max_drop: lab_options.MaxDrop = None,
    min_speedup: lab_options.MinSpeedup = None,
    min_shrink: lab_options.MinShrink = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")] = True,
) -> None:
    """Try what applies to a version for some minutes, and register the best variant."""
    body = lab_values.job(
        version,
        threads=threads,
        sizes=batches,
        budget={
            "min_agreement": min_agreement,
            "max_metric_drop": max_drop,
            "min_speedup": min_speedup,
            "min_shrink": min_shrink,
        },
        calibrated_by=lab_values.calibration(session.api, version, calibration),
        objective=objective.value,
        minutes=lab_values.minutes(budget),
    )
    job = session.api.post("/optimization/autotune", body)
    if not wait:
        session.out.line(place(job))
        session.out.document(job)
        return
    job = followed(session, job)
    found = job["result"]
    lab_output.variants(session.out, found["variants"])
    session.out.line(f"{found['ended']}, in {found['spent_s']:.0f} s")
    session.out.line(f"the best is {found['best']}" if found["best"] else "nothing was registered")
    session.out.document({**found, "job": job["id"]})
