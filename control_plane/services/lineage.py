"""Where a version comes from and what was made from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from sqlalchemy.orm import Session

from control_plane.domain.optimization import variant_of
from control_plane.domain.verdict import decision_of
from control_plane.domain.views import Lineage, LineageNode
from control_plane.registry import session as sessions
from control_plane.registry import versions as rows
from control_plane.registry.tables import Version
from control_plane.services import versions
from control_plane.services.context import Context

MAX_ANCESTORS: Final = 32
MAX_DESCENDANTS: Final = 200


def tree(ctx: Context, ref: str) -> Lineage:
    """Parents and descendants of *ref*, with what is known of its source. Raises NotFoundError."""
    detail = versions.get(ctx, ref)
    with sessions.read(ctx.engine) as session:
        focus = versions.find(session, detail.ref)
        above = rows.ancestors(session, focus, MAX_ANCESTORS + 1)
        below, complete = _descendants(session, focus)
        shown = above[:MAX_ANCESTORS][::-1]
        nodes = (
            *(_node(row, depth, focus) for depth, row in enumerate(shown)),
            *_walk(focus, len(shown), below, focus),
        )
    return Lineage(
        ref=detail.ref,
        nodes=nodes,
        complete=complete and len(above) <= MAX_ANCESTORS,
        source=detail.lineage,
        evidence_digest=detail.evidence_digest,
        evidence_files=detail.evidence_files,
    )


def _descendants(session: Session, focus: Version) -> tuple[dict[str, list[Version]], bool]:
    """Children by parent, generation by generation until there are too many; whether that is all."""
    found: defaultdict[str, list[Version]] = defaultdict(list)
    generation, room = [focus.id], MAX_DESCENDANTS
    while generation:
        born = rows.children(session, generation)
        for child in born[:room]:
            found[child.parent_id or ""].append(child)
        if len(born) > room:
            return found, False
        room -= len(born)
        generation = [child.id for child in born]
    return found, True


def _walk(row: Version, depth: int, below: dict[str, list[Version]], focus: Version) -> Iterator[LineageNode]:
    yield _node(row, depth, focus)
    for child in below.get(row.id, ()):
        yield from _walk(child, depth + 1, below, focus)


def _node(row: Version, depth: int, focus: Version) -> LineageNode:
    method, accepted = variant_of(row.lineage)
    return LineageNode(
        ref=row.ref,
        depth=depth,
        focus=row.id == focus.id,
        format=row.format,
        created_by=row.created_by,
        created_at=row.created_at,
        decision=decision_of(row.verdict),
        archived=row.archived_at is not None,
        method=method,
        accepted=accepted,
    )
