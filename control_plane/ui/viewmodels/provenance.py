"""Where a version comes from, in words: the gate's verdict, evidence, lineage, signature. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from control_plane.domain.optimization import REPORT
from control_plane.domain.views import FileView, Lineage, LineageNode, VersionDetail
from control_plane.ui.viewmodels import optimization, quantities
from control_plane.ui.viewmodels.badges import Badge

MOST_SOURCE_ROWS: Final = 40
MOST_LEFT_OUT: Final = 100
MOST_CHARS: Final = 200
_DECISIONS: Final = {
    "accept": Badge("●", "Accepted", "good"),
    "convert": Badge("●", "Converted", "good"),
    "sandbox": Badge("▲", "Program", "warn"),
    "refuse": Badge("✕", "Refused", "bad"),
}
_MEANINGS: Final = {
    "accept": "Plain weights: nothing in the upload could run.",
    "convert": "The weights were taken out of a container that could have run code, and written anew.",
    "sandbox": "A program: serving it runs what the uploader wrote. There is no sandbox for it yet.",
    "refuse": "The present gate does not let this in: it cannot be deployed any more.",
}


@dataclass(frozen=True, slots=True)
class TreeRow:
    """One version in the drawn tree; *depth* 0 stands at the left edge."""

    ref: str
    depth: int
    focus: bool
    note: str
    badge: Badge | None


def decision_badge(decision: str | None) -> Badge:
    """The gate's word as a badge."""
    return _DECISIONS.get(decision or "", Badge("○", "Not judged", "idle"))


def decision_words(decision: str | None) -> str:
    """The gate's word with its icon, for tables that draw no badges."""
    badge = decision_badge(decision)
    return f"{badge.icon} {badge.word}"


def refused(decision: str | None) -> bool:
    """Whether the gate refuses the version by its latest word."""
    return decision == "refuse"


def verdict_sentence(version: VersionDetail) -> str:
    """What the gate's word means, and for a refusal why."""
    verdict = version.verdict or {}
    if refused(version.decision) and verdict.get("message"):
        where = ": ".join(str(verdict[key]) for key in ("file", "member") if verdict.get(key))
        return f"{where + ': ' if where else ''}{verdict['message']}"
    return meaning(version.decision)


def meaning(decision: str | None) -> str:
    """What the gate's word says of an upload, in a sentence."""
    return _MEANINGS.get(decision or "", "No gate has judged it yet.")


def verdict_rows(version: VersionDetail) -> list[tuple[str, str]]:
    """The gate's word as labels and values; empty where none was spoken."""
    if version.verdict is None:
        return []
    left_out = version.verdict.get("left_out") or []
    return [
        ("Reason code", str(version.verdict.get("code", quantities.NOTHING))),
        ("Gate version", version.gate_version or quantities.NOTHING),
        ("Left out", quantities.count(len(left_out), "part") if left_out else "nothing"),
    ]


def left_out_rows(verdict: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """What the upload holds and the version does not."""
    left_out = (verdict or {}).get("left_out") or []
    return [
        {
            "Left out": str(each["path"]),
            "Size": quantities.size(each["size_bytes"]),
            "Why": str(each["why"]),
        }
        for each in left_out[:MOST_LEFT_OUT]
    ]


def file_rows(files: Iterable[FileView]) -> list[dict[str, str]]:
    """Files with sizes and hashes."""
    return [
        {"File": file.path, "Size": quantities.size(file.size_bytes), "sha256": file.sha256} for file in files
    ]


def checksum_lines(files: Iterable[FileView]) -> str:
    """What `sha256sum --check` takes: one line a file."""
    return "\n".join(f"{file.sha256}  {file.path}" for file in files)


def tree_rows(lineage: Lineage, zone: str | None) -> list[TreeRow]:
    """The tree of descent, from the oldest ancestor on."""
    return [
        TreeRow(node.ref, node.depth, node.focus, _node_note(node, zone), _node_badge(node))
        for node in lineage.nodes
    ]


def _node_note(node: LineageNode, zone: str | None) -> str:
    return f"{node.format}, {quantities.clock(node.created_at, zone)} by {node.created_by}"


def _node_badge(node: LineageNode) -> Badge | None:
    if refused(node.decision):
        return decision_badge(node.decision)
    if node.archived:
        return Badge("○", "Archived", "idle")
    return optimization.variant_badge(node.method, accepted=node.accepted)


def relatives(lineage: Lineage, most: int) -> list[str]:
    """The nearest relatives to go to: parents from the nearest, then children."""
    place = next(i for i, node in enumerate(lineage.nodes) if node.focus)
    above = [node.ref for node in reversed(lineage.nodes[:place])]
    below = [node.ref for node in sorted(lineage.nodes[place + 1 :], key=lambda node: node.depth)]
    return (above + below)[:most]


def source_rows(source: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lineage as labels and values, by dotted path; long lists are counted, long values cut.

    What was measured of a variant is left out: the page has a card for it.
    """
    told = {name: value for name, value in source.items() if name != REPORT}
    return [(path, _told(value)) for path, value in _flat(told, "")][:MOST_SOURCE_ROWS]


def _flat(value: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        full = f"{path}.{name}" if path else str(name)
        if isinstance(inner, Mapping) and inner:
            yield from _flat(inner, full)
        else:
            yield full, inner


def _told(value: Any) -> str:
    if isinstance(value, list | tuple) and any(isinstance(each, Mapping | list) for each in value):
        return quantities.count(len(value), "entry", "entries")
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= MOST_CHARS else f"{text[:MOST_CHARS]}…"


def signer(manifest: Mapping[str, Any] | None) -> str | None:
    """Id of the key that signed a version."""
    signatures = (manifest or {}).get("signatures") or []
    return str(signatures[0]["keyid"]) if signatures else None
