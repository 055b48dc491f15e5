"""Flame views for `components.flame`: one report's, or two laid over each other. Pure."""

from __future__ import annotations

from typing import Any, Final

from control_plane.domain.profile_comparison import DifferingFlame
from control_plane.domain.profile_summary import duration
from control_plane.ui.viewmodels.quantities import count
from serving_agent.contract.profile import Flame

Drawing = dict[str, Any]
OF_OPERATORS: Final = "operators"
UNCHANGED: Final = 0.02
"""Differences below this share of the whole have no colour: the next profile would show others."""


def title(name: str) -> str:
    """The view's name for people."""
    return "Operators and layers" if name == OF_OPERATORS else name[:1].upper() + name[1:]


def drawing(flame: Flame) -> Drawing:
    """A view coloured by the time that each box takes itself."""
    hottest = max((node.self_s for node in flame.nodes), default=0.0) or 1.0
    whole = flame.total_s or 1.0
    sampled = flame.name != OF_OPERATORS
    nodes = [
        {
            "name": node.name,
            "kind": node.kind,
            "parent": node.parent,
            "width": node.total_s,
            "heat": 0.0 if node.kind == "other" else round(node.self_s / hottest, 4),
            "look": "",
            "told": f"{node.name}: {duration(node.total_s)} ({node.total_s / whole:.1%}), itself "
            f"{duration(node.self_s)}, {count(node.calls, 'sample' if sampled else 'call')}",
        }
        for node in flame.nodes
    ]
    return {
        "nodes": nodes,
        "alt": f"Flame view of {title(flame.name)}: {duration(flame.total_s)} in {len(flame.nodes)} boxes",
        "note": "Width: time, with all that is called. Colour: time of the box itself. "
        + ("Seen by sampling." if sampled else "Layers are bold.")
        + " Click to zoom, Escape to zoom out.",
    }


def compared(flame: DifferingFlame) -> Drawing:
    """Both views over each other, coloured by what takes longer or shorter itself in B."""
    nodes = flame.nodes
    width = [max(node.a_self_s, node.b_self_s) for node in nodes]
    for at in range(len(nodes) - 1, -1, -1):
        if nodes[at].parent >= 0:
            width[nodes[at].parent] += width[at]
    whole = sum(width[at] for at, node in enumerate(nodes) if node.parent < 0) or 1.0
    changes = [node.b_self_s - node.a_self_s for node in nodes]
    largest = max((abs(each) for each in changes), default=0.0) or 1.0
    return {
        "nodes": [
            {
                "name": f"{signed(node.b_total_s - node.a_total_s)} {node.name}",
                "kind": node.kind,
                "parent": node.parent,
                "width": width[at],
                "heat": round(abs(changes[at]) / largest, 4)
                if abs(changes[at]) >= UNCHANGED * whole
                else 0.0,
                "look": "slower" if changes[at] > 0 else "faster",
                "told": f"{node.name}: A {duration(node.a_total_s)}, B {duration(node.b_total_s)}; itself "
                f"A {duration(node.a_self_s)}, B {duration(node.b_self_s)} ({signed(changes[at])})",
            }
            for at, node in enumerate(nodes)
        ],
        "alt": f"Flame views of {title(flame.name)} of A and B over each other, in {len(nodes)} boxes",
        "note": "Times of one request. Red: longer itself in B; blue: shorter. Numbers: B less A.",
    }


def signed(seconds: float) -> str:
    """A difference with its sign: `+1.2 ms`, `−30 µs`, `±0`."""
    if abs(seconds) < 5e-8:
        return "±0"
    return f"{'+' if seconds > 0 else '−'}{duration(abs(seconds))}"
