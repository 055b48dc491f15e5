"""`profile`: where the time of a request goes, in a version or in the serving agent of an endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from control_plane.cli import waiting
from control_plane.cli.client import Json, part
from control_plane.cli.command import Session, command
from control_plane.domain.profile_summary import duration
from control_plane.errors import InvalidInputError

TABLES: Final = ("operators", "functions", "layers", "sweep")


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    command(app)(profile)


def profile(
    session: Session,
    version: Annotated[
        str | None, typer.Argument(metavar="[MODEL@N]", help="model@N or model@alias.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", help="Profile a serving agent of this endpoint instead.")
    ] = None,
    requests: Annotated[
        int | None, typer.Option("--requests", min=1, help="Requests that are watched, at most.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", help="How long each profiler may take, or the agent is watched."),
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Rows of one request.")] = None,
    take: Annotated[
        str | None,
        typer.Option("--take", metavar="LIST", help="Of sweep, operators, functions, samples; all without."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads of one inference.")
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="Make inputs up instead of using examples.")
    ] = False,
    name: Annotated[str | None, typer.Option("--name", help="Name for people.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write the report's files into this folder.")
    ] = None,
) -> None:
    """Measure where the time of a request goes, and say what usually helps."""
    if (version is None) == (endpoint is None):
        raise InvalidInputError(
            "name either a version or --endpoint", next_step="signalbox profile MODEL@N, or --endpoint NAME."
        )
    wanted: dict[str, Any] = {
        "version": version,
        "endpoint": endpoint,
        "requests": requests,
        "seconds": seconds,
        "batch": batch,
        "take": [each.strip() for each in take.split(",")] if take else None,
        "threads": threads,
        "input": "random" if random else None,
        "name": name,
    }
    queued = session.api.post("/profiles", {key: value for key, value in wanted.items() if value is not None})
    waiting.for_job(session.api, session.out, queued["job_id"])
    found = session.api.get(f"/profiles/{part(queued['id'])}")
    _tell(session, found)
    files = _write(session, found["profile"], out) if out is not None else []
    session.out.document({**found, "written": files})


def _tell(session: Session, found: Json) -> None:
    summary, view = found["summary"], found["profile"]
    session.out.line(summary["headline"])
    session.out.table(
        ("largest costs", "", "a request", "share"),
        (
            (each["name"], each["kind"], duration(each["seconds"]), f"{each['share']:.0%}")
            for each in summary["costs"]
        ),
        empty="",
    )
    for hint in summary["hints"]:
        session.out.line(f"- {hint['sentence']}{_how(hint, view['ref'])}")
    session.out.line(f"{session.settings.web_url}/profiling?run={view['id']}")


def _how(hint: Json, ref: str) -> str:
    """The command that does what *hint* says, where there is one."""
    if hint["profiles_version"]:
        return f" (signalbox profile {ref})"
    return f" (signalbox optimize {ref} --method {hint['method']})" if hint["method"] else ""


def _write(session: Session, view: Json, out: Path) -> list[str]:
    """Write all files of the report; their names."""
    out.mkdir(parents=True, exist_ok=True)
    base = f"/profiles/{part(view['id'])}"
    written = ["report.json", "report.html"]
    (out / "report.json").write_bytes(session.api.get_bytes(f"{base}/report"))
    (out / "report.html").write_bytes(session.api.get_bytes(f"{base}/report.html"))
    for name in view["files"]:
        if name != "report.json":
            (out / name).write_bytes(session.api.get_bytes(f"{base}/{name}"))
            written.append(name)
    for table in TABLES:
        (out / f"{table}.csv").write_bytes(session.api.get_bytes(f"{base}/{table}.csv"))
        written.append(f"{table}.csv")
    session.out.line(f"written to {out}: {', '.join(written)}")
    return written
