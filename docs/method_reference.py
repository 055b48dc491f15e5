"""Write docs/reference/methods.md from the catalogue of methods. Run it after changing a method."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from control_plane.optimization import catalog
from control_plane.optimization.base import Method

PAGE = Path(__file__).parent / "reference" / "methods.md"
HEAD = """# Optimisation methods

What `signalbox optimize MODEL@N --method METHOD --param NAME=VALUE` and the form of the page take. Which
of them apply to a version, and why others do not, says `signalbox optimize MODEL@N --list`;
[the lab](../optimization.md) says how variants are measured and judged.
"""


def render(methods: Iterable[Method]) -> str:
    """The page: one section a method, in the catalogue's order."""
    return HEAD + "".join(_section(method) for method in methods)


def _section(method: Method) -> str:
    calibrated = "\n\nCalibrated: it needs rows of the kind the model will see." if method.calibrated else ""
    fields = method.params.model_json_schema().get("properties", {})
    table = _table(fields) if fields else "\n\nNo parameters.\n"
    return f"\n## `{method.name}`\n\n{method.title}. {method.description}{calibrated}{table}"


def _table(fields: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| `{name}` | {_default(field)} | {field.get('title', name)}. {field.get('description', '')} |"
        for name, field in fields.items()
    )
    return f"\n\n| parameter | default | meaning |\n|---|---|---|\n{rows}\n"


def _default(field: dict[str, Any]) -> str:
    value = field.get("default")
    return "" if value is None else "none" if value in ([], ()) else f"`{str(value).lower()}`"


if __name__ == "__main__":
    PAGE.write_text(render(catalog.methods()))
