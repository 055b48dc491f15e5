"""`freeze …`: times in which nothing is promoted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from control_plane.cli.client import Json, part
from control_plane.cli.command import Session, command, group
from control_plane.cli.output import when
from control_plane.errors import InvalidInputError

_TIME = "ISO 8601, e.g. 2026-12-24T18:00Z; without a zone it is UTC."
From = Annotated[str, typer.Option("--from", metavar="TIME", help=f"Its start, {_TIME}")]
Until = Annotated[str, typer.Option("--until", metavar="TIME", help=f"Its end, {_TIME}")]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    inner = group(app, freeze, (add, remove))
    command(inner, name="list")(list_all)


def freeze(session: Session) -> None:
    """List freeze windows, the earliest first."""
    _list(session, None)


def add(
    session: Session,
    start: From,
    end: Until,
    reason: Annotated[str, typer.Option("--reason", help="Why; shown where something is refused.")],
    endpoint: Annotated[str | None, typer.Option("--endpoint", help="Only this one; else all.")] = None,
    weekly: Annotated[bool, typer.Option("--weekly", help="Again every seven days.")] = False,
) -> None:
    """Let nothing be promoted from one time up to another."""
    body: Json = {"starts_at": moment(start), "ends_at": moment(end), "reason": reason, "weekly": weekly}
    window = session.api.post("/freeze-windows", body | ({"endpoint": endpoint} if endpoint else {}))
    session.out.line(f"freeze window {window['id']}: {_what(window)} {_when(window)}")
    session.out.document(window)


def list_all(
    session: Session,
    endpoint: Annotated[str | None, typer.Option(help="Only windows that freeze this endpoint.")] = None,
) -> None:
    """List freeze windows, the earliest first, of one endpoint or all."""
    _list(session, endpoint)


def remove(session: Session, window: Annotated[str, typer.Argument(help="The window's id.")]) -> None:
    """Take a freeze window away."""
    session.api.delete(f"/freeze-windows/{part(window)}")
    session.out.line(f"freeze window {window} is removed")
    session.out.document({"removed": window})


def moment(text: str) -> float:
    """An ISO 8601 time as UTC seconds since the epoch; without a zone it is UTC. Raises InvalidInputError."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError(
            f"{text!r} is no time", next_step="Write for example 2026-12-24T18:00Z."
        ) from error
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _list(session: Session, endpoint: str | None) -> None:
    path = "/freeze-windows" + (f"?endpoint={part(endpoint)}" if endpoint else "")
    windows = session.api.get_list(path)
    for each in windows:
        now = ", frozen now" if each["active"] else ""
        session.out.line(f"{each['id']}  {_what(each)} {_when(each)}{now}")
        session.out.line(f"  {each['reason']} (by {each['created_by']})")
    if not windows:
        session.out.line("No freeze windows.")
    session.out.document({"items": windows})


def _what(window: Json) -> str:
    return window["endpoint"] or "every endpoint"


def _when(window: Json) -> str:
    again = ", every week" if window["weekly"] else ""
    return f"from {when(window['starts_at'])} until {when(window['ends_at'])}{again}"
