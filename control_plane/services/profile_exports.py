"""Reports of profiles as files for other programs: tables as CSV, all of it as one HTML page. Pure."""

from __future__ import annotations

import csv as csv_writer
import io
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from control_plane.domain.profile import ProfileView, Summary
from control_plane.domain.profile_summary import described, duration
from control_plane.errors import InvalidInputError
from control_plane.services import profile_drawings
from serving_agent.contract.profile import Flame, Report

Row = Sequence[Any]
OPERATORS: Final = (
    "name", "shapes", "calls", "self_s", "total_s", "device_self_s", "device_total_s", "memory_bytes",
)  # fmt: skip
FUNCTIONS: Final = ("name", "place", "calls", "primitive_calls", "self_s", "total_s")
LAYERS: Final = ("path", "kind", "calls", "self_s", "total_s")
SWEEP: Final = ("rows", "p50_s", "rows_per_s", "peak_bytes", "calls", "problem")
TABLES: Final[dict[str, tuple[tuple[str, ...], Callable[[Report], Iterable[Any]]]]] = {
    "operators": (OPERATORS, lambda report: report.operators),
    "functions": (FUNCTIONS, lambda report: report.functions),
    "layers": (LAYERS, lambda report: report.layers),
    "sweep": (SWEEP, lambda report: report.sweep),
}
"""Name of a table → its columns, which are fields of its rows, and its rows."""
SHOWN: Final = 40
"""Rows of each table on the page."""
FLAME_WIDTH: Final = 1200
FLAME_ROW: Final = 18
DEEPEST: Final = 60
NARROWEST: Final = 1.0
"""Boxes narrower than this, in pixels, are left out."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def csv(report: Report, table: str) -> str:
    """One table of *report*. Raises InvalidInputError listing the tables there are."""
    if table not in TABLES:
        raise InvalidInputError(f"There is no table {table[:40]!r}; known are {', '.join(TABLES)}")
    columns, rows = TABLES[table]
    out = io.StringIO()
    writer = csv_writer.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows(report):
        writer.writerow([_cell(getattr(row, name)) for name in columns])
    return out.getvalue()


def _cell(value: Any) -> Any:
    """A value as spreadsheets read it: a text never becomes a formula."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value


def html(view: ProfileView, summary: Summary, report: Report) -> str:
    """All of a report as one page without scripts that refers to nothing outside itself."""
    title = f"Profile of {view.title}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=note>{escape(_taken(view, report))}</p>",
        _in_words(summary),
        _key(report),
        _table("Stages of a request", ("stage", "mean", "p50", "p99"), _stages(report)),
        *(_flame(flame) for flame in report.flames),
        _table("Layers", ("layer", "class", "calls", "own time", "time"), _layers(report)),
        _table(
            "Operators", ("operator", "input shapes", "calls", "own time", "time", "device"), _ops(report)
        ),
        _table("Functions", ("function", "place", "calls", "own time", "time"), _functions(report)),
        profile_drawings.memory(report),
        profile_drawings.sweep(report),
        _table("Batch sizes", ("rows", "p50", "rows a second", "peak memory", ""), _sweep(report)),
        _table("What profiling costs", ("profiler", "plain", "watched", "factor"), _overheads(report)),
        "".join(f"<p class=note>{escape(note)}.</p>" for note in report.notes),
    ]
    return _PAGE.format(title=escape(title), body="\n".join(part for part in parts if part))


def _taken(view: ProfileView, report: Report) -> str:
    at = datetime.fromtimestamp(view.created_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    libraries = ", ".join(f"{name} {version}" for name, version in report.libraries.items())
    where = f"a serving agent of {view.endpoint}" if view.endpoint else "a process of its own"
    return f"{view.ref}, in {where}; {at}, by {view.created_by}. {libraries}"


def _in_words(summary: Summary) -> str:
    costs = "".join(
        f"<li>{escape(described(cost))}: {duration(cost.seconds)}, {cost.share:.0%} of the request</li>"
        for cost in summary.costs
    )
    hints = "".join(
        f"<li>{escape(hint.sentence)}{f' ({escape(hint.method)})' if hint.method else ''}.</li>"
        for hint in summary.hints
    )
    what_helps = f"<h2>What usually helps</h2><ul>{hints}</ul>" if hints else ""
    return f"<p><b>{escape(summary.headline)}</b></p><ol>{costs}</ol>{what_helps}"


def _key(report: Report) -> str:
    key = report.key
    figures = [
        ("request (p50)", duration(key.wall_s)),
        ("rows a second", f"{key.rows_per_s:,.0f}" if key.rows_per_s else "–"),
        ("peak memory", _mib(key.peak_bytes)),
        ("knee of the sweep", f"{key.knee_rows} rows" if key.knee_rows else "–"),
        ("device", key.device),
        ("requests", str(key.requests)),
    ]
    cells = "".join(f"<div><small>{escape(name)}</small>{escape(value)}</div>" for name, value in figures)
    return f"<div class=key>{cells}</div>"


def _stages(report: Report) -> list[Row]:
    listed = [*report.stages, *([report.total] if report.total else [])]
    return [(each.name, duration(each.mean_s), duration(each.p50_s), duration(each.p99_s)) for each in listed]


def _layers(report: Report) -> list[Row]:
    return [
        (each.path, each.kind, each.calls, duration(each.self_s), duration(each.total_s))
        for each in report.layers[:SHOWN]
    ]


def _ops(report: Report) -> list[Row]:
    return [
        (
            each.name, each.shapes, each.calls, duration(each.self_s), duration(each.total_s),
            duration(each.device_self_s) if each.device_self_s else "",
        )
        for each in report.operators[:SHOWN]
    ]  # fmt: skip


def _functions(report: Report) -> list[Row]:
    return [
        (each.name, each.place, each.calls, duration(each.self_s), duration(each.total_s))
        for each in report.functions[:SHOWN]
    ]


def _sweep(report: Report) -> list[Row]:
    return [
        (
            each.rows,
            duration(each.p50_s) if each.p50_s is not None else each.problem,
            f"{each.rows_per_s:,.0f}" if each.rows_per_s else "",
            _mib(each.peak_bytes),
            "knee" if each.rows == report.knee else "",
        )
        for each in report.sweep
    ]


def _overheads(report: Report) -> list[Row]:
    return [
        (each.name, duration(each.plain_s), duration(each.profiled_s), f"{each.factor:.2f}×")
        for each in report.overheads
    ]


def _table(title: str, columns: Sequence[str], rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<h2>{escape(title)}</h2><table><tr>{head}</tr>{body}</table>"


def _flame(flame: Flame) -> str:
    """An icicle: each box as wide as its time; its figures show when it is pointed at."""
    if not flame.nodes or flame.total_s <= 0:
        return ""
    left: list[float] = []
    depth: list[int] = []
    filled: dict[int, float] = {}
    boxes: list[str] = []
    deepest = 0
    for node in flame.nodes:
        at = filled.get(node.parent, left[node.parent] if node.parent >= 0 else 0.0)
        width = FLAME_WIDTH * node.total_s / flame.total_s
        level = depth[node.parent] + 1 if node.parent >= 0 else 0
        left.append(at)
        depth.append(level)
        filled[node.parent] = at + width
        if width >= NARROWEST and level < DEEPEST:
            deepest = max(deepest, level)
            boxes.append(_box(node.name, node.self_s, node.total_s, flame.total_s, at, width, level))
    height = (deepest + 1) * FLAME_ROW
    return (
        f"<h2>Flame: {escape(flame.name)}</h2>"
        f'<svg viewBox="0 0 {FLAME_WIDTH} {height}" width="100%" role="img" '
        f'aria-label="Flame view, {escape(flame.name)}">{"".join(boxes)}</svg>'
    )


def _box(
    name: str, self_s: float, total_s: float, whole_s: float, at: float, width: float, level: int
) -> str:
    share = self_s / total_s if total_s > 0 else 0.0
    fits = int(width / 6.5)
    label = name if len(name) <= fits else name[: max(0, fits - 1)] + "…"
    text = f'<text x="{at + 3:.1f}" y="{level * FLAME_ROW + 12}">{escape(label)}</text>' if fits >= 4 else ""
    told = f"{name}: {duration(total_s)} ({total_s / whole_s:.1%}), itself {duration(self_s)}"
    return (
        f'<g><rect x="{at:.1f}" y="{level * FLAME_ROW}" width="{max(0.5, width - 0.5):.1f}" '
        f'height="{FLAME_ROW - 1}" fill="hsl({45 - 30 * share:.0f} 85% {86 - 22 * share:.0f}%)"/>'
        f"{text}<title>{escape(told)}</title></g>"
    )


def _mib(size: int | None) -> str:
    return "–" if size is None else f"{size / 1024**2:,.1f} MiB"


_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
body {{ font: 14px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 1200px; padding: 0 1rem;
  color: #0b1220; background: #fff; }}
h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1.05rem; margin: 1.6rem 0 .4rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ border-bottom: 1px solid #d3dae1; padding: .2rem .7rem .2rem 0; text-align: left;
  overflow-wrap: anywhere; }}
.note, small {{ color: #4a5560; }} .key {{ display: flex; flex-wrap: wrap; gap: 1.8rem; margin: 1rem 0; }}
.key small {{ display: block; }} .key div {{ font-size: 1.2rem; }} .key small {{ font-size: .8rem; }}
svg text {{ font: 11px ui-monospace, monospace; fill: #0b1220; }}
</style></head><body>
{body}
</body></html>
"""
