"""Raw results as tables people read. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

GOALS: Final = {"mlp": (3.0, 7.0), "cnn": (5.0, 7.0), "encoder": (4.0, 3.5)}
"""Model → times as fast as eager fp32 that is aimed at, within the accuracy budget: batch 1, batch 32."""
HEAD: Final = (
    "| method | ×, batch 1 | ×, batch 32 | size MB | × smaller | load s | build s | agreement | metric "
    "| accepted |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def line(row: dict[str, Any]) -> str:
    """One variant in one line, for the terminal."""
    start = f"{row['model']} t{row['threads']} {name(row)}: "
    if "report" not in row:
        return start + str(row.get("failed") or row.get("inapplicable"))
    speed = ", ".join(f"{each['speedup']:.2f}x at {each['batch']}" for each in row["report"]["timings"])
    verdict = "accepted" if row["decision"]["accepted"] else "; ".join(row["decision"]["reasons"])
    return f"{start}{speed}; {verdict}"


def name(row: dict[str, Any]) -> str:
    """Method and parameters."""
    given = ", ".join(f"{key} {value}" for key, value in row["params"].items() if value not in (None, [], ""))
    return f"{row['method']} ({given})" if given else str(row["method"])


def markdown(whole: dict[str, Any]) -> str:
    """All of it: the machine, one table for each model and number of threads, and the goals."""
    machine = whole["machine"]
    parts = [
        "# Optimisation methods against eager fp32",
        f"{machine['cpu']}, {machine['cores']} cores; {', '.join(machine['flags']) or 'nothing special'}. "
        "Medians of paired ratios of one run, lower to upper quartile in brackets; above 1 is faster.",
    ]
    groups = sorted({(row["model"], row["threads"]) for row in whole["variants"]})
    for model, threads in groups:
        rows = [row for row in whole["variants"] if (row["model"], row["threads"]) == (model, threads)]
        parts += [
            f"## {model}, {threads} thread{'s' if threads > 1 else ''}",
            table(rows),
            goals(model, threads, rows),
        ]
        parts += others(rows)
    return "\n\n".join(part for part in parts if part) + "\n"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Measured variants, fastest at the largest batch first."""
    measured = [row for row in rows if "report" in row]
    measured.sort(key=lambda row: -row["report"]["timings"][-1]["speedup"])
    return "\n".join([HEAD, *(cells(row) for row in measured)])


def cells(row: dict[str, Any]) -> str:
    """One row of the table."""
    report = row["report"]
    said, parent, variant = report["answers"], report["parent"], report["variant"]
    ratios = [
        f"{each['speedup']:.2f} ({each['speedup_low']:.2f}–{each['speedup_high']:.2f})"
        for each in report["timings"]
    ]
    metric = (
        f"{said['parent_right']} → {said['variant_right']} of {said['labelled']}" if said["labelled"] else "–"
    )
    values = [
        name(row),
        *ratios,
        f"{variant['size_bytes'] / 1e6:.2f}",
        f"{parent['size_bytes'] / variant['size_bytes']:.2f}",
        f"{variant['load_s']:.2f}",
        f"{report['build_s']:.0f}",
        f"{said['agreed']} of {said['rows']}",
        metric,
        "yes" if row["decision"]["accepted"] else "no",
    ]
    return f"| {' | '.join(values)} |"


def goals(model: str, threads: int, rows: Sequence[dict[str, Any]]) -> str:
    """Best accepted variant at each batch size, and what was aimed at."""
    accepted = [row for row in rows if row.get("decision", {}).get("accepted")]
    if not accepted:
        return "Nothing was accepted."
    told = [best(model, threads, accepted, at) for at in range(len(accepted[0]["report"]["timings"]))]
    return f"Best within the accuracy budget: {'; '.join(told)}."


def best(model: str, threads: int, accepted: Sequence[dict[str, Any]], at: int) -> str:
    """The fastest of *accepted* at the batch size number *at*."""
    row = max(accepted, key=lambda each: each["report"]["timings"][at]["speedup"])
    timing = row["report"]["timings"][at]
    goal = f" (goal {GOALS[model][at]:g})" if threads == 1 and model in GOALS and at < 2 else ""
    return f"batch {timing['batch']}: {timing['speedup']:.2f}×{goal} by {name(row)}"


def others(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What was not measured, and why."""
    told = [
        f"- {name(row)}: {row.get('failed') or row.get('inapplicable')}"
        for row in rows
        if "report" not in row
    ]
    return ["\n".join(["Not measured:", "", *told])] if told else []
