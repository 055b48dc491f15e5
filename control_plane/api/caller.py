"""What routes take from a request besides its body: who calls, and the open registry."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Header, Query, Request

from control_plane.errors import InvalidInputError
from control_plane.services.context import Context
from control_plane.services.paging import MAX_PAGE_SIZE

DEFAULT_ACTOR = "local"
_MAX_ACTOR_CHARS = 64


def context(request: Request) -> Context:
    """The context that the application was made with."""
    return cast(Context, request.app.state.context)


def actor(x_signalbox_actor: Annotated[str | None, Header()] = None) -> str:
    """The display name of who acts, from the header X-Signalbox-Actor."""
    name = (x_signalbox_actor or "").strip() or DEFAULT_ACTOR
    if len(name) > _MAX_ACTOR_CHARS or not name.isprintable():
        raise InvalidInputError(f"X-Signalbox-Actor must be at most {_MAX_ACTOR_CHARS} printable characters")
    return name


Ctx = Annotated[Context, Depends(context)]
Actor = Annotated[str, Depends(actor)]
PageNumber = Annotated[int, Query(ge=1, le=1_000_000)]
PageSize = Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)]
Lines = Annotated[int, Query(ge=1, le=5000)]
