"""Write docs/reference/rest.md from the routes themselves. Run it after changing a route."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from control_plane.api.app import create_api
from control_plane.config import Settings
from control_plane.services.context import Context, open_context

PAGE = Path(__file__).parent / "reference" / "rest.md"
HEAD = """# REST API

Everything below is under `/api/v1` of the dashboard's address, takes and gives JSON unless it says otherwise,
and answers errors as [errors](errors.md) tells. The header `X-Signalbox-Actor` names who acts, for the
activity log. The full schema is served at `/api/v1/openapi.json`. Beside it the web process answers
`GET /health` and `GET /ready`.

| method and path | what it does |
|---|---|
"""


def render(schema: dict[str, Any]) -> str:
    """The page for an OpenAPI schema: one row a route, in the schema's order."""
    rows = [
        f"| `{method.upper()} {path}` | {_summary(operation)} |"
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    ]
    return HEAD + "\n".join(rows) + "\n"


def _summary(operation: dict[str, Any]) -> str:
    return str(operation["description"]).splitlines()[0]


def schema() -> dict[str, Any]:
    """The API's own OpenAPI schema, without opening a registry file."""
    context: Context = open_context(Settings(database_url="sqlite://"))
    try:
        return create_api(context).openapi()
    finally:
        context.engine.dispose()


if __name__ == "__main__":
    PAGE.write_text(render(schema()))
