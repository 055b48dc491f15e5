"""What pages show of profiles: names, states, key figures, tables, memory and sweep. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

from control_plane.domain.profile import Cost, Hint, ProfileView
from control_plane.domain.profile_comparison import Comparison, Difference
from control_plane.domain.profile_summary import described, duration
from control_plane.ui.viewmodels import quantities
from control_plane.ui.viewmodels.badges import Badge, badge
from control_plane.ui.viewmodels.profiling_flames import signed
from serving_agent.contract.profile import Report, Times

Row = dict[str, Any]
STAGES: Final = {
    "queue": "Queue",
    "preprocess": "Preprocess",
    "predict": "Predict",
    "postprocess": "Postprocess",
    "encode": "Encode",
    "other": "Between",
}
TAKEN: Final = {
    "sweep": "Batch-size sweep",
    "operators": "Operators and layers (torch.profiler)",
    "functions": "Functions (cProfile)",
    "samples": "Samples (100 a second)",
}
FLAME, OPERATORS, FUNCTIONS, MEMORY, SWEEP, COMPARE = (
    "Flame", "Operators", "Functions", "Memory", "Sweep", "Compare",
)  # fmt: skip
SHOWN: Final = 25
"""Rows of a comparison's table."""


def lead(view: ProfileView, now: float) -> str:
    """What was profiled, by whom and when."""
    where = f"agent of {view.endpoint}" if view.endpoint else "a process of its own"
    named = f"{view.ref} · " if view.name else ""
    return f"{named}{where} · by {view.created_by} {quantities.ago(view.created_at, now)}"


def state(view: ProfileView) -> Badge:
    """Where it is."""
    return badge(view.state)


def short(view: ProfileView) -> str:
    """A finished profile in one line."""
    key = view.summary
    if key is None:
        return view.reason.message if view.reason else ""
    top = f" · most in {key.top}" + (f" ({key.top_share:.0%})" if key.top_share else "") if key.top else ""
    return f"{duration(key.wall_s)} a request{top}"


def key_figures(report: Report) -> list[tuple[str, str, str]]:
    """(label, value, note) of the figures at the head."""
    key = report.key
    rows = quantities.count(key.batch, "row") if key.batch else "as clients send them"
    live = report.source == "agent"
    figures = [
        ("Request", duration(key.wall_s), f"p50 · {rows}"),
        ("Model", _known(key.predict_s), "predict, p50"),
        ("Throughput", f"{key.rows_per_s:,.0f} rows/s" if key.rows_per_s else quantities.NOTHING,
         "while watched" if live else "one request at a time"),
        ("Peak memory", quantities.size(key.peak_bytes) if key.peak_bytes is not None else quantities.NOTHING,
         "of the agent" if live else "model and request"),
        ("Knee", quantities.count(key.knee_rows, "row") if key.knee_rows else quantities.NOTHING,
         "of the sweep"),
        ("Largest cost", key.top or quantities.NOTHING,
         f"{key.top_share:.0%} of the model" if key.top_share else ""),
    ]  # fmt: skip
    return [figure for figure in figures if not (live and figure[0] == "Knee")]


def cost_bars(costs: Sequence[Cost]) -> list[tuple[str, float, str]]:
    """(label, share, text) of the largest costs."""
    return [
        (_upper(described(cost)), cost.share, f"{duration(cost.seconds)} · {cost.share:.0%}")
        for cost in costs
    ]


def hint_link(ref: str, hint: Hint) -> str | None:
    """Where what the hint names is done; None for what people set themselves."""
    if hint.profiles_version:
        return "/profiling?" + urlencode({"version": ref})
    if hint.method is None:
        return None
    return "/optimization?" + urlencode({"version": ref, "method": hint.method})


def hint_label(hint: Hint) -> str:
    """What the hint's link says."""
    return f"Try {hint.method}" if hint.method is not None else "Profile the version"


def stage_rows(report: Report) -> list[Row]:
    """Stages with their times and share of the whole."""
    whole = sum(stage.mean_s for stage in report.stages) or 1.0
    rows = [_stage(STAGES.get(each.name, each.name), each, each.mean_s / whole) for each in report.stages]
    return [*rows, *([_stage("Whole request", report.total, None)] if report.total else [])]


def _stage(name: str, times: Times, share: float | None) -> Row:
    return {
        "Stage": name,
        "Mean": duration(times.mean_s),
        "p50": duration(times.p50_s),
        "p99": duration(times.p99_s),
        "Share": quantities.share(share) if share is not None else "",
    }


def operator_rows(report: Report) -> list[Row]:
    """Operators as numbers, for a sortable table: milliseconds and bytes."""
    on_device = any(each.device_total_s for each in report.operators)
    return [
        {
            "Operator": each.name,
            "Input shapes": each.shapes,
            "Calls": each.calls,
            "Own ms": _ms(each.self_s),
            "Total ms": _ms(each.total_s),
            **({"Device own ms": _ms(each.device_self_s), "Device total ms": _ms(each.device_total_s)}
               if on_device else {}),
            "Memory B": each.memory_bytes,
        }
        for each in report.operators
    ]  # fmt: skip


def layer_rows(report: Report) -> list[Row]:
    """Layers as numbers: milliseconds in one request."""
    whole = sum(layer.self_s for layer in report.layers) or 1.0
    return [
        {
            "Layer": layer.path,
            "Class": layer.kind,
            "Calls": layer.calls,
            "Own ms a request": _ms(layer.self_s),
            "Total ms a request": _ms(layer.total_s),
            "Own share %": round(100 * layer.self_s / whole, 1),
        }
        for layer in report.layers
    ]


def function_rows(report: Report) -> list[Row]:
    """Functions in cProfile's own terms."""
    return [
        {
            "ncalls": each.calls,
            "tottime ms": _ms(each.self_s),
            "cumtime ms": _ms(each.total_s),
            "Function": each.name,
            "Place": each.place,
        }
        for each in report.functions
    ]


def sweep_rows(report: Report) -> list[Row]:
    """The sweep as a table."""
    return [
        {
            "Rows": str(point.rows) + (" · knee" if point.rows == report.knee else ""),
            "p50": duration(point.p50_s) if point.p50_s is not None else quantities.NOTHING,
            "Rows a second": f"{point.rows_per_s:,.0f}" if point.rows_per_s else quantities.NOTHING,
            "Peak memory": quantities.size(point.peak_bytes) if point.peak_bytes is not None else "–",
            "Calls": point.calls or "",
            **({"Problem": point.problem} if any(each.problem for each in report.sweep) else {}),
        }
        for point in report.sweep
    ]


def knee_words(report: Report) -> str:
    """What the knee says."""
    if report.knee is None:
        return "Fewer than two sizes ran: there is no knee."
    largest = max(point.rows for point in report.sweep if point.rows_per_s)
    if report.knee == largest:
        return (
            f"Throughput still grows at {largest} rows, the largest size that ran: larger ones may pay too."
        )
    return (
        f"The knee is at {quantities.count(report.knee, 'row')}: beyond it, doubling the batch brings less "
        "than 1.25 times the throughput."
    )


def overhead_words(report: Report) -> str:
    """What profiling cost, as a sentence."""
    if not report.overheads:
        return next((f"{note}." for note in report.notes if "interpreter" in note), "")
    named = {"operators": "torch.profiler", "functions": "cProfile", "samples": "sampling"}
    told = ", ".join(f"{named.get(each.name, each.name)} {each.factor:.2f}×" for each in report.overheads)
    return (
        f"Watched requests took, beside plain ones of the same run: {told}. Key figures and stages are of "
        "plain requests."
    )


def added_words(report: Report) -> str:
    """How well self times add up to the clock's time."""
    if not report.traced_wall_s or report.traced_self_s is None:
        return ""
    share = report.traced_self_s / report.traced_wall_s
    return (
        f"Own times add up to {share:.1%} of the time by the clock, over "
        f"{quantities.count(report.traced_requests, 'request')}."
    )


def memory_drawing(report: Report, view: str) -> Row:
    """What torch holds over time."""
    xs = [1000 * at for at, _ in report.memory]
    ys = [held / 1024 for _, held in report.memory]
    highest = max(ys, default=0.0)
    return {
        "view": view,
        "alt": f"Memory over time: {quantities.size(highest * 1024)} at its highest",
        "height": 260,
        "note": f"Memory that torch holds on {report.memory_device or 'cpu'} above what it held when the "
        "first watched request began.",
        "traces": [
            {
                "type": "scatter",
                "mode": "lines",
                "x": xs,
                "y": ys,
                "line": {"shape": "hv", "width": 1.4, "color": "@0"},
                "fill": "tozeroy",
                "hovertemplate": "%{y:,.1f} KiB at %{x:.3f} ms<extra></extra>",
            }
        ],
        "layout": {
            "xaxis": {"title": {"text": "ms since the first request", "standoff": 6}, "nticks": 8},
            "yaxis": {"title": {"text": "KiB", "standoff": 6}, "nticks": 5},
        },
    }


def sweep_drawing(report: Report, view: str) -> Row:
    """Throughput and time by batch size, the knee marked."""
    ran = [point for point in report.sweep if point.rows_per_s and point.p50_s is not None]
    rows = [str(point.rows) for point in ran]
    knee = str(report.knee) if report.knee is not None else None
    per_s = [point.rows_per_s for point in ran]
    traces: list[Row] = [
        {
            "type": "scatter", "mode": "lines+markers", "name": "rows a second", "x": rows, "y": per_s,
            "line": {"width": 2, "color": "@0"}, "marker": {"size": 7, "color": "@0"},
            "hovertemplate": "%{y:,.0f} rows/s<extra>%{x} rows</extra>",
        },
        {
            "type": "scatter", "mode": "lines+markers", "name": "p50 of a request, ms", "x": rows,
            "y": [1000 * (point.p50_s or 0.0) for point in ran], "yaxis": "y2",
            "line": {"width": 2, "color": "@1", "dash": "dot"},
            "marker": {"size": 7, "color": "@1", "symbol": "square"},
            "hovertemplate": "%{y:.3g} ms<extra>%{x} rows</extra>",
        },
    ]  # fmt: skip
    if knee in rows:
        at = rows.index(knee)
        traces.append(
            {
                "type": "scatter", "mode": "markers+text", "name": "knee", "x": [knee], "y": [per_s[at]],
                "marker": {"size": 15, "color": "@7", "symbol": "circle-open", "line": {"width": 2.5}},
                "text": ["knee"], "textposition": "top center", "hoverinfo": "skip", "cliponaxis": False,
            }
        )  # fmt: skip
    return {
        "view": view,
        "alt": f"Throughput and time of a request at {quantities.count(len(rows), 'batch size')}. "
        + knee_words(report),
        "height": 300,
        "note": "",
        "traces": traces,
        "layout": {
            "xaxis": {"title": {"text": "rows in a batch", "standoff": 6}, "type": "category"},
            "yaxis": {"title": {"text": "rows a second", "standoff": 6}, "rangemode": "tozero", "nticks": 5},
            "yaxis2": {
                "title": {"text": "ms a request", "standoff": 6},
                "rangemode": "tozero",
                "overlaying": "y",
                "side": "right",
                "showgrid": False,
                "tickmode": "auto",
                "tickformat": ".3~g",
                "nticks": 5,
            },
            "showlegend": True,
            "legend": {"orientation": "h", "x": 0, "y": 1.04, "yanchor": "bottom"},
        },
    }


def difference_rows(found: Sequence[Difference]) -> list[Row]:
    """What differs, as a table with signed numbers; the largest differences."""
    return [
        {
            "Name": each.name,
            "A": _known(each.a_s),
            "B": _known(each.b_s),
            "B − A": signed(each.delta_s) if each.delta_s is not None else quantities.NOTHING,
            "B / A": _times_as_long(each),
            "Change": _change(each),
        }
        for each in found[:SHOWN]
        if each.a_s or each.b_s
    ]


def _times_as_long(each: Difference) -> str:
    if each.delta_s is None:
        return quantities.NOTHING
    return f"{each.ratio:.2f}×" if each.ratio is not None else "new"


def _change(each: Difference) -> Badge:
    if each.delta_s is None:
        return Badge("○", "Not known", "idle")
    if each.ratio is not None and 0.95 <= each.ratio <= 1.05:
        return Badge("○", "Same", "idle")
    return Badge("▲", "Slower", "warn") if each.delta_s > 0 else Badge("▼", "Faster", "good")


def comparison_words(a: ProfileView, b: ProfileView, found: Comparison) -> str:
    """Both in one sentence."""
    wall = found.wall
    ratio = f" ({wall.ratio:.2f}×)" if wall.ratio is not None else ""
    return (
        f"A: {a.title}, {_known(wall.a_s)} a request. B: {b.title}, {_known(wall.b_s)}: "
        f"{signed(wall.delta_s or 0.0)}{ratio}."
    )


def _known(seconds: float | None) -> str:
    return quantities.NOTHING if seconds is None else duration(seconds)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 4)


def _upper(words: str) -> str:
    return words[:1].upper() + words[1:]
