"""`status`, `events`, `jobs`, `cancel`, `example`, `apply`, `export`: the system as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from control_plane.cli import waiting
from control_plane.cli.client import part
from control_plane.cli.command import Session, command
from control_plane.cli.output import size, when
from control_plane.errors import InvalidInputError

Page = Annotated[int, typer.Option(min=1)]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    for function in (status, events, jobs, cancel, example, apply, export):
        command(app)(function)


def status(session: Session) -> None:
    """Say how everything is: endpoints, agents, jobs, gateway, and what needs attention."""
    state = session.api.get("/status")
    endpoints = session.api.get_list("/endpoints")
    out = session.out
    out.line(f"controller {state['controller']}, gateway {state['gateway']}")
    out.line(f"{state['models']} models, {state['versions']} versions")
    out.line(f"{state['agents_ready']} of {state['agents_wanted']} agents ready")
    out.line(f"{state['jobs_running']} jobs running, {state['jobs_queued']} queued")
    out.line(f"{size(state['disk_free_bytes'])} of {size(state['disk_total_bytes'])} disk free")
    out.line(", ".join(state["gpus"]) or "no NVIDIA GPU found")
    for each in state["attention"]:
        out.line(f"! {each['subject']}: {each['message']}")
    out.table(
        ("endpoint", "health", "version", "serves", "ready", "url"),
        (
            (
                each["name"],
                each["health"],
                each["version_ref"],
                each["serving_ref"],
                f"{each['ready']}/{each['replicas']}",
                each["url"],
            )
            for each in endpoints
        ),
        empty="No endpoints yet: signalbox deploy ENDPOINT MODEL@N",
    )
    out.document({**state, "endpoint_list": endpoints})


def events(
    session: Session,
    q: Annotated[str, typer.Option(help="Part of any text of an event.")] = "",
    subject: Annotated[str | None, typer.Option(help="What it is about: endpoint/NAME, MODEL@N.")] = None,
    page: Page = 1,
) -> None:
    """List who did what, newest first."""
    found = session.api.get("/events", q=q, subject=subject, page=page)
    rows = ((when(e["at"]), e["actor"], e["action"], e["subject"], e["message"]) for e in found["items"])
    session.out.table(("at", "actor", "action", "subject", "what"), rows, empty="Nothing has happened yet.")
    session.out.document(found)


def jobs(
    session: Session,
    state: Annotated[str | None, typer.Option(help="queued, running, succeeded, failed, cancelled.")] = None,
    page: Page = 1,
) -> None:
    """List jobs, newest first."""
    found = session.api.get("/jobs", state=state, page=page)
    session.out.table(
        ("job", "kind", "subject", "state", "done", "created", "reason"),
        (
            (
                each["id"],
                each["kind"],
                each["subject"],
                f"queued, {each['ahead']} before it" if each["ahead"] else each["state"],
                f"{each['progress']:.0%}",
                when(each["created_at"]),
                (each["reason"] or {}).get("message", ""),
            )
            for each in found["items"]
        ),
        empty="No jobs yet.",
    )
    session.out.document(found)


def cancel(session: Session, job: Annotated[str, typer.Argument(metavar="JOB", help="Id of a job.")]) -> None:
    """End a job that is queued or runs."""
    ended = session.api.post(f"/jobs/{part(job)}/cancel")
    session.out.line(f"job {ended['id']} of {ended['subject']} is being ended")
    session.out.document(ended)


def example(session: Session) -> None:
    """Train the example: two small networks on handwritten digits, digits@1 and digits@2."""
    job = session.api.post("/jobs", {"kind": "example", "params": {}})
    job = waiting.for_job(session.api, session.out, job["id"])
    session.out.line("the example is there; next: signalbox deploy digits digits@1")
    session.out.document(job)


def apply(
    session: Session,
    file: Annotated[Path, typer.Option("-f", "--file", help="A deployments file (YAML).")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
) -> None:
    """Bring endpoints to what a deployments file says."""
    try:
        document = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} cannot be read: {error}") from error
    answer = session.api.post("/apply", {"document": document, "dry_run": dry_run})
    for change in answer["changes"]:
        session.out.line(("would: " if dry_run else "") + change["sentence"])
    if not answer["changes"]:
        session.out.line("nothing to change")
    session.out.document(answer)


def export(session: Session) -> None:
    """Print every endpoint as a deployments file; applying it brings them back to what they are now."""
    answer = session.api.get("/deployments")
    session.out.line(answer["document"].rstrip("\n"))
    session.out.document(answer)
