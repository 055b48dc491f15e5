"""`optimize` and `trials`: one variant of a version, and what optimisation jobs have tried."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from control_plane.cli import lab_options, lab_output, lab_values, waiting
from control_plane.cli.client import Json, part
from control_plane.cli.command import Session, command
from control_plane.errors import InvalidInputError


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    for function in (optimize, trials):
        command(app)(function)


def optimize(
    session: Session,
    version: lab_options.Version,
    method: Annotated[str | None, typer.Option("--method", help="Name of a method.")] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="A parameter of the method.")
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="Say which methods apply to the version, and which do not and why.")
    ] = False,
    calibration: lab_options.Calibration = None,
    threads: lab_options.Threads = None,
    batches: lab_options.Batches = None,
    min_agreement: lab_options.MinAgreement = None,
    max_drop: lab_options.MaxDrop = None,
    min_speedup: lab_options.MinSpeedup = None,
    min_shrink: lab_options.MinShrink = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is measured.")] = False,
) -> None:
    """Make a variant of a version, measure it against the version, and register it."""
    if listed:
        lab = session.api.get("/optimization/methods", version=version)
        lab_output.methods(session.out, lab)
        session.out.document(lab)
        return
    if method is None:
        raise InvalidInputError(
            "no method is named", next_step=f"See `signalbox optimize {version} --list`, then name one."
        )
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
        method=method,
        params=lab_values.params(param or ()),
    )
    job = session.api.post("/optimization/jobs", body)
    if not wait:
        session.out.line(place(job))
        session.out.document(job)
        return
    job = followed(session, job)
    lab_output.result(session.out, job["result"])
    session.out.document(job["result"])


def trials(
    session: Session,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of an optimisation job.")],
    register: Annotated[
        int | None, typer.Option("--register", metavar="N", help="Register trial N as a version.")
    ] = None,
) -> None:
    """List what an optimisation job has tried, or register one of its variants."""
    if register is not None:
        queued = session.api.post(f"/jobs/{part(job)}/trials/{register}/register")
        done = waiting.for_job(session.api, session.out, queued["id"])
        trial = session.api.get(f"/jobs/{part(job)}/trials/{register}")
        session.out.line(f"trial {register} is {trial['version_ref']}")
        session.out.document({**trial, "job": done["id"]})
        return
    found = session.api.get_list(f"/jobs/{part(job)}/trials")
    lab_output.variants(session.out, [_variant(each) for each in found])
    session.out.document({"trials": found})


def followed(session: Session, job: Json) -> Json:
    """The job once it has succeeded; Ctrl-C leaves it running and says so."""
    session.out.note(place(job))
    try:
        return waiting.for_job(session.api, session.out, job["id"])
    except KeyboardInterrupt:
        session.out.note(
            f"job {job['id']} goes on; see `signalbox trials {job['id']}`, "
            f"or end it with `signalbox cancel {job['id']}`"
        )
        raise


def place(job: Json) -> str:
    """Where a new job stands in its queue."""
    ahead = job.get("ahead")
    return f"job {job['id']} is queued" + (f", {ahead} before it" if ahead else "")


def _variant(trial: Json) -> Json:
    """A trial as lists of variants show it."""
    report: dict[str, Any] | None = trial["report"]
    decision = trial["decision"] or {"accepted": False, "reasons": []}
    answers = report["answers"] if report else None
    sizes = (report["parent"]["size_bytes"], max(1, report["variant"]["size_bytes"])) if report else None
    return {
        "number": trial["number"],
        "method": trial["method"],
        "params": trial["params"],
        "state": trial["state"],
        "accepted": decision["accepted"],
        "speedup": max(each["speedup"] for each in report["timings"]) if report else None,
        "size_ratio": sizes[0] / sizes[1] if sizes else None,
        "agreement": answers["agreed"] / max(1, answers["rows"]) if answers else None,
        "version": trial["version_ref"],
        "reasons": [trial["reason"]["message"]] if trial["reason"] else decision["reasons"],
    }
