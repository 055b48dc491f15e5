"""Versions: table rows, facts, signatures and metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from control_plane.domain.views import VersionDetail, VersionView
from control_plane.ui.viewmodels import optimization, provenance, quantities
from control_plane.ui.viewmodels.playground import shape_words
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.formats import catalog

COLUMNS: Final = (
    "Version", "Aliases", "Format", "Gate", "Optimised", "Size", "Served by", "Tags", "Created", "By",
    "Digest",
)  # fmt: skip
"""Columns of the table while archived versions are not shown."""


def format_words(name: str | None) -> str:
    """A format's name for people: its catalogue title, or the bare name when the catalogue lost it."""
    if name is None:
        return quantities.NOTHING
    return next((each.title for each in catalog.formats() if each.name == name), name)


def rows(versions: Iterable[VersionView], zone: str | None) -> list[dict[str, Any]]:
    """Rows of the versions' table, in the order given."""
    return [
        {
            "Version": view.ref,
            "Aliases": list(view.aliases),
            "Format": format_words(view.format),
            "Size": quantities.size(view.size_bytes),
            "Served by": ", ".join(view.served_by),
            "Tags": ", ".join(tag_words(view.tags)),
            "Created": quantities.clock(view.created_at, zone),
            "By": view.created_by,
            "Digest": quantities.digest(view.digest),
            "Gate": provenance.decision_words(view.decision),
            "Optimised": optimization.variant_words(view.method, accepted=view.accepted),
            "State": "archived" if view.archived_at is not None else "",
        }
        for view in versions
    ]


def tag_words(tags: Mapping[str, str]) -> list[str]:
    """Tags as "key" or "key=value", sorted."""
    return [f"{key}={value}" if value else key for key, value in sorted(tags.items())]


def tensor_rows(specs: Iterable[TensorSpec]) -> list[dict[str, str]]:
    """One row a tensor: name, element type, shape."""
    return [{"Name": spec.name, "Type": spec.datatype, "Shape": shape_words(spec)} for spec in specs]


def signature_words(signature: Signature | None) -> str:
    """A signature on one line: "image FP32 [batch, 1, 8, 8] → logits FP32 [batch, 10]"."""
    if signature is None:
        return "not known yet"
    outputs = side_words(signature.outputs) or "found when the program is tried"
    return f"{side_words(signature.inputs)} → {outputs}"


def side_words(specs: Iterable[TensorSpec]) -> str:
    """Inputs or outputs on one line: "image FP32 [batch, 1, 8, 8]"."""
    return ", ".join(f"{spec.name} {spec.datatype} {shape_words(spec)}" for spec in specs)


def facts(version: VersionDetail, zone: str | None, now: float) -> list[tuple[str, str]]:
    """What is known of a version, as label and value."""
    known = [
        ("Format", format_words(version.format)),
        ("Handler", version.handler),
        ("Size", f"{quantities.size(version.size_bytes)} in {quantities.count(len(version.files), 'file')}"),
        ("Digest", version.digest),
        ("Created", f"{quantities.clock(version.created_at, zone)} by {version.created_by}"),
        ("Examples", quantities.count(version.example_count, "example input")),
    ]
    if version.parent:
        known.append(("Made from", version.parent))
    if version.program_accepted_by and version.program_accepted_at is not None:
        when = quantities.clock(version.program_accepted_at, zone)
        known.append(("Program accepted", f"by {version.program_accepted_by}, {when}"))
    if version.archived_at is not None:
        known.append(("Archived", quantities.ago(version.archived_at, now)))
    return known


def detail_rows(details: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Metadata as label and value: {"test_accuracy": 0.9712} → ("Test accuracy", "97.12 %")."""
    return [(_label(key), _detail_value(key, value)) for key, value in details.items()]


def _label(key: str) -> str:
    words = key.replace("_", " ").strip()
    for suffix in (" s", " ms", " seconds", " bytes"):
        words = words.removesuffix(suffix)
    return words[:1].upper() + words[1:]


def _detail_value(key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if "accuracy" in key and 0 <= value <= 1:
        return f"{value * 100:.2f} %"
    if key.endswith("_bytes"):
        return quantities.size(value)
    if key.endswith("_ms"):
        return quantities.milliseconds(value)
    if key.endswith(("_s", "_seconds")):
        return quantities.duration(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def pages(total: int, page_size: int) -> int:
    """Number of pages; an empty list has one."""
    return max(1, -(-total // page_size))


def clamp_page(text: str | None, total: int, page_size: int) -> int:
    """A page number from an address, kept within what there is."""
    number = int(text) if text and text.isascii() and text.isdecimal() and len(text) < 9 else 1
    return min(max(1, number), pages(total, page_size))
