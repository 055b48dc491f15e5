"""`webhook …`: addresses that are told of rollouts' transitions."""

from __future__ import annotations

from typing import Annotated

import typer

from control_plane.cli.client import Json, part
from control_plane.cli.command import Session, command, group
from control_plane.cli.output import when


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    inner = group(app, webhook, (add, remove))
    command(inner, name="list")(list_all)


def webhook(session: Session) -> None:
    """List webhooks, the oldest first."""
    list_all(session)


def add(
    session: Session,
    url: Annotated[str, typer.Argument(metavar="URL", help="http or https address.")],
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", help="Only its rollouts; else those of all.")
    ] = None,
) -> None:
    """Tell an address of every transition of rollouts; prints the secret that signs them, this once."""
    body: Json = {"url": url} | ({"endpoint": endpoint} if endpoint else {})
    added = session.api.post("/webhooks", body)
    session.out.line(f"webhook {added['webhook']['id']}")
    session.out.line(f"secret {added['secret']} (it is not shown again)")
    session.out.document(added)


def list_all(session: Session) -> None:
    """List webhooks with what is on its way to them."""
    found = session.api.get_list("/webhooks")
    for each in found:
        session.out.line(f"{each['id']}  {each['url']}  rollouts of {each['endpoint'] or 'every endpoint'}")
        session.out.line(f"  {_deliveries(each)}; added {when(each['created_at'])} by {each['created_by']}")
    if not found:
        session.out.line("No webhooks: signalbox webhook add URL")
    session.out.document({"items": found})


def _deliveries(webhook: Json) -> str:
    last = f" ({webhook['last_error']})" if webhook["last_error"] else ""
    return f"{webhook['pending']} messages on their way, {webhook['given_up']} given up{last}"


def remove(session: Session, webhook: Annotated[str, typer.Argument(help="The webhook's id.")]) -> None:
    """Tell an address nothing more, messages on their way included."""
    session.api.delete(f"/webhooks/{part(webhook)}")
    session.out.line(f"webhook {webhook} is removed")
    session.out.document({"removed": webhook})
