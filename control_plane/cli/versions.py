"""`models` and `versions`: what is in the registry."""

from __future__ import annotations

from typing import Annotated

import typer

from control_plane.cli.command import Session, command
from control_plane.cli.output import size, when


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    for function in (models, versions):
        command(app)(function)


def models(
    session: Session,
    q: Annotated[str, typer.Option(help="Part of a model's name.")] = "",
    page: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """List the models."""
    found = session.api.get("/models", q=q, page=page)
    session.out.table(
        ("model", "versions", "latest", "aliases", "created"),
        (
            (
                each["name"],
                each["version_count"],
                each["latest"],
                ", ".join(f"{alias} → {ref}" for alias, ref in each["aliases"].items()),
                when(each["created_at"]),
            )
            for each in found["items"]
        ),
        empty="No models yet: signalbox push PATH --model NAME, or signalbox example.",
    )
    session.out.document(found)


def versions(
    session: Session,
    model: Annotated[str | None, typer.Option(help="Only versions of this model.")] = None,
    q: Annotated[str, typer.Option(help="Part of a model name, tag or creator, or a digest's start.")] = "",
    page: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """List versions, newest first."""
    found = session.api.get("/versions", model=model, q=q, page=page)
    session.out.table(
        ("version", "format", "size", "aliases", "served by", "created", "by"),
        (
            (
                each["ref"],
                each["format"],
                size(each["size_bytes"]),
                ", ".join(each["aliases"]),
                ", ".join(each["served_by"]),
                when(each["created_at"]),
                each["created_by"],
            )
            for each in found["items"]
        ),
        empty="No such versions.",
    )
    shown, total = len(found["items"]), found["total"]
    if shown < total:
        session.out.line(f"{shown} of {total}; more with --page {page + 1}")
    session.out.document(found)
