"""`golden`: fixed inputs with what is right for them, that candidates are compared on before traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from control_plane.cli.client import Json, part
from control_plane.cli.command import Session, command, group
from control_plane.cli.output import when
from control_plane.domain import golden as golden_file

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model.")]
SENDING_TIMEOUT_S: Final = 300.0
SHOWN_CHARS: Final = 12
"""Of a digest in a list: enough to name it by."""


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    inner = group(app, golden, (add, show))
    command(inner, name="list")(list_all)


def golden(session: Session) -> None:
    """List golden sets, newest first."""
    _list(session, None, 1)


def add(
    session: Session,
    model: Model,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON list or JSON Lines of items.")],
    name: Annotated[str | None, typer.Option("--name", help="Name for people.")] = None,
) -> None:
    """Add a golden set to a model; the same content is kept once."""
    items = golden_file.plain(golden_file.parse(file.read_bytes()))
    body: Json = {"items": items, "name": name or golden_file.check_name(file.stem)}
    kept = session.api.post(f"/models/{part(model)}/golden-sets", body, timeout_s=SENDING_TIMEOUT_S)
    session.out.line(f"{kept['model']}: golden set {kept['name']} of {kept['items']} items")
    session.out.line(kept["digest"])
    session.out.document(kept)


def list_all(
    session: Session,
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Only of this model.")] = None,
    page: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """List golden sets, newest first, of one model or all."""
    _list(session, model, page)


def show(
    session: Session,
    model: Model,
    digest: Annotated[str, typer.Argument(metavar="DIGEST", help="Its digest, or the start of it.")],
) -> None:
    """Show one golden set and its first items."""
    path = f"/models/{part(model)}/golden-sets/{part(digest)}"
    kept = session.api.get(path)
    first = session.api.get(f"{path}/items", page_size=5)
    session.out.line(f"{kept['model']}: golden set {kept['name']}, {kept['digest']}")
    session.out.line(
        f"{kept['items']} items, {kept['labelled']} labelled, {kept['with_outputs']} with outputs"
    )
    session.out.line(f"added {when(kept['created_at'])} by {kept['created_by']}")
    for each in first["items"]:
        session.out.line(_short(each))
    session.out.document({**kept, "first_items": first["items"]})


def _list(session: Session, model: str | None, page: int) -> None:
    found = session.api.get("/golden-sets", model=model, page=page)
    session.out.table(
        ("model", "name", "items", "digest", "added", "by"),
        (
            (
                each["model"],
                each["name"],
                each["items"],
                each["digest"].removeprefix("sha256:")[:SHOWN_CHARS],
                when(each["created_at"]),
                each["created_by"],
            )
            for each in found["items"]
        ),
        empty="No golden sets yet: signalbox golden add MODEL FILE.",
    )
    session.out.document(found)


def _short(item: Json, most: int = 100) -> str:
    text = msgspec.json.encode(item).decode()
    return text if len(text) <= most else text[: most - 1] + "…"
