"""What there is, as a deployments file: applying it changes nothing."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import yaml
from sqlalchemy.orm import Session

from control_plane.domain.endpoint import EndpointGoal
from control_plane.domain.options import DEFAULT
from control_plane.registry import endpoints, versions
from control_plane.registry import session as sessions
from control_plane.registry.tables import Endpoint
from control_plane.services.context import Context
from serving_agent.contract.options import ServingOptions

_USUAL: Final = "default"


def export(ctx: Context) -> str:
    """Every endpoint with all its settings, and the aliases of the models they serve, as YAML.

    The file is complete: applied later, it brings those endpoints back to what they are now.
    """
    with sessions.read(ctx.engine) as session:
        rows = [row for row in endpoints.every(session) if row.goal != EndpointGoal.DELETED]
        models = _models(session, sorted({row.version.model.name for row in rows}))
        document = {"models": models} if models else {}
        return yaml.safe_dump(
            {**document, "deployments": [_deployment(row) for row in rows]},
            sort_keys=False,
            allow_unicode=True,
            default_flow_style=False,
        )


def _models(session: Session, names: list[str]) -> dict[str, Any]:
    by_id = {row.id: name for name in names if (row := versions.find_model(session, name))}
    found = versions.aliases_of_models(session, list(by_id))
    aliases = {by_id[model_id]: dict(sorted(numbers.items())) for model_id, numbers in found.items()}
    return {name: {"aliases": aliases[name]} for name in names if aliases.get(name)}


def _deployment(row: Endpoint) -> dict[str, Any]:
    return {
        "endpoint": row.name,
        "version": row.version.ref,
        "state": row.goal,
        "replicas": row.replicas,
        "threads": row.threads,
        "device": row.device,
        "handler": row.handler,
        "memory": row.memory_bytes or "default",
        "options": options_entry(endpoints.options(row)),
    }


def options_entry(options: ServingOptions) -> dict[str, Any] | str:
    """The `options` of a deployments file that give exactly *options*, whatever is there; `default` for all
    that is usual. Pure."""
    present, usual = (msgspec.to_builtins(each) for each in (options, DEFAULT))
    entry = {name: _entry(present[name], usual[name]) for name in usual}
    return _USUAL if present == usual else entry


def _entry(value: Any, usual: Any) -> Any:
    if value == usual:
        return _USUAL
    if isinstance(value, dict):
        return {name: _entry(value[name], usual[name]) for name in value}
    return list(value) if isinstance(value, tuple | list) else value
