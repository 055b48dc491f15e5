"""`debug` and `debug-runs`: what happened inside a version on one input, and the runs that were made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.cli import debug_output, debug_values, waiting
from control_plane.cli.client import Json, part
from control_plane.cli.command import Session, command, group
from control_plane.cli.output import size, when
from control_plane.errors import InvalidInputError

Version = Annotated[str, typer.Argument(metavar="MODEL@N", help="model@N or model@alias.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="Id of a debugger run.")]
Edits = Annotated[
    list[str] | None,
    typer.Option(
        "--edit",
        metavar="POINT[TENSOR][I,J]=VALUE",
        help="Overwrite elements on the way, * for all places; may be repeated.",
    ),
]
Export = Annotated[
    Path | None, typer.Option("--export", metavar="FILE", help="Write the run to FILE.html or FILE.json.")
]
Name = Annotated[str, typer.Option("--name", help="Save the run under this name, which keeps it longer.")]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    command(app)(debug)
    inner = group(app, debug_runs, (show, edit, save, delete), name="debug-runs")
    command(inner, name="list")(list_all)


def debug(
    session: Session,
    version: Version,
    against: Annotated[
        str | None, typer.Option("--against", metavar="MODEL@N", help="A version to run beside it.")
    ] = None,
    example: Annotated[
        int | None, typer.Option("--example", min=1, help="Number of an example of the version.")
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--input", metavar="FILE", help='JSON as `/predict` takes it: {"input": …}.'),
    ] = None,
    npy: Annotated[
        list[str] | None,
        typer.Option("--npy", metavar="[NAME=]FILE", help="A NumPy array for an input; may be repeated."),
    ] = None,
    image: Annotated[
        str | None, typer.Option("--image", metavar="[NAME=]FILE", help="A PNG or JPEG for an input.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="A text for the input of type BYTES.")] = None,
    random: Annotated[
        int | None, typer.Option("--random", min=0, metavar="SEED", help="A random input by the signature.")
    ] = None,
    captured: Annotated[
        str | None,
        typer.Option("--captured", metavar="ENDPOINT", help="The newest request that an endpoint keeps."),
    ] = None,
    edits: Edits = None,
    name: Name = "",
    export: Export = None,
) -> None:
    """Run one input through a version, or two, and show what every layer made of it."""
    body: Json = {
        "version": version,
        "against": against,
        "input": debug_values.source(
            example=example,
            json_file=json_file,
            npy=npy or (),
            image=image,
            text=text,
            random=random,
            capture=debug_values.captured(session.api, captured) if captured is not None else None,
        ),
        "edits": debug_values.edits(edits or ()),
        "name": name,
    }
    started = session.api.post("/debug-runs", body, timeout_s=debug_values.SENDING_TIMEOUT_S)
    _follow(session, started, export)


def debug_runs(session: Session) -> None:
    """List debugger runs, newest first."""
    _list(session)


def list_all(
    session: Session,
    q: Annotated[str, typer.Option("--query", help="Part of a name, a version or a creator.")] = "",
    saved: Annotated[
        bool | None, typer.Option("--saved/--unsaved", help="Only runs with a name, or without.")
    ] = None,
    page: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """List debugger runs, newest first, those that were named or all."""
    _list(session, q=q, saved=saved, page=page)


def show(
    session: Session,
    run: Run,
    until: Annotated[
        str | None,
        typer.Option(
            "--break", metavar="CONDITION", help="Show the points up to the first that meets it, e.g. nan."
        ),
    ] = None,
    export: Export = None,
) -> None:
    """Show one run again, and write it to a file."""
    _show(session, run, export, until)


def edit(
    session: Session,
    run: Run,
    edits: Edits = None,
    name: Name = "",
    export: Export = None,
) -> None:
    """Run again on the same input, with more edits; the first run stays as it is."""
    body: Json = {"edits": debug_values.edits(edits or ()), "name": name}
    _follow(session, session.api.post(f"/debug-runs/{part(run)}/edits", body), export)


def save(
    session: Session,
    run: Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name; an empty one takes it away.")],
) -> None:
    """Name a run, which keeps it longer."""
    kept = session.api.put(f"/debug-runs/{part(run)}/name", {"name": name})
    session.out.line(f"run {kept['id']} is kept until {when(kept['expires_at'])}")
    session.out.document(kept)


def delete(session: Session, run: Run) -> None:
    """Delete a run and all that it kept."""
    session.api.delete(f"/debug-runs/{part(run)}")
    session.out.line(f"run {run} is deleted")
    session.out.document({"deleted": run})


def _follow(session: Session, started: Json, export: Path | None) -> None:
    session.out.note(f"run {started['id']} is queued as job {started['job_id']}")
    waiting.for_job(session.api, session.out, started["job_id"])
    _show(session, started["id"], export, None)


def _show(session: Session, run: str, export: Path | None, until: str | None) -> None:
    found = session.api.get(f"/debug-runs/{part(run)}")
    last: int | None = None
    if until is not None:
        last = session.api.get(f"/debug-runs/{part(run)}/find", condition=until)["place"]
        session.out.line(debug_output.stopped(found, until, last))
    debug_output.run(session.out, found, last)
    if export is not None:
        _export(session, run, export)
    session.out.document(found)


def _export(session: Session, run: str, file: Path) -> None:
    form = file.suffix.lower().removeprefix(".")
    if form not in ("html", "json"):
        raise InvalidInputError(f"{file} is neither .html nor .json", next_step="Name a file that ends so.")
    content = session.api.get_text(f"/debug-runs/{part(run)}/export", form=form)
    file.write_text(content)
    session.out.line(f"written to {file}")


def _list(session: Session, **asked: Any) -> None:
    found = session.api.get("/debug-runs", **asked)
    session.out.table(
        ("run", "name", "versions", "input", "state", "what came of it", "size", "started", "by"),
        (
            (
                each["id"],
                each["name"],
                " against ".join(filter(None, (each["a"], each["b"]))),
                each["input"],
                each["state"],
                each["summary"],
                size(each["size_bytes"]),
                when(each["created_at"]),
                each["created_by"],
            )
            for each in found["items"]
        ),
        empty="No debugger runs yet: signalbox debug MODEL@N --random 0.",
    )
    session.out.document(found)
