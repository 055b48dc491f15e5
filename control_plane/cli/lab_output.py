"""Variants as the command line shows them to people."""

from __future__ import annotations

from collections.abc import Iterable

from control_plane.cli.client import Json
from control_plane.cli.output import Output


def variants(out: Output, found: Iterable[Json]) -> None:
    """One line a variant."""
    out.table(
        ("trial", "method", "parameters", "state", "faster", "smaller", "agreement", "version", "why"),
        (
            (
                each["number"],
                each["method"],
                _params(each["params"]),
                state(each),
                times(each["speedup"]),
                times(each["size_ratio"]),
                share(each["agreement"]),
                each["version"],
                each["reasons"][0] if each["reasons"] else "",
            )
            for each in found
        ),
        empty="Nothing was tried.",
    )


def result(out: Output, variant: Json) -> None:
    """What became of one variant."""
    word = "accepted" if variant["accepted"] else "rejected"
    out.line(f"{variant['version']}: {variant['method']}, {word}")
    out.line(
        f"{times(variant['speedup'])} as fast, {times(variant['size_ratio'])} smaller, "
        f"the same answer on {share(variant['agreement'])} of rows"
    )
    for reason in variant["reasons"]:
        out.line(f"  {reason}")


def methods(out: Output, lab: Json) -> None:
    """What applies to a version, and what does not and why."""
    out.table(
        ("method", "applies", "calibrated", "about", "what it does, or why not"),
        (
            (
                each["name"],
                "no" if each["inapplicable"] else "yes",
                "yes" if each["calibrated"] else "",
                f"{each['estimate_s']:.0f} s",
                each["inapplicable"] or each["description"],
            )
            for each in lab["methods"]
        ),
        empty="There is no method.",
    )
    for each in lab["calibrations"]:
        out.line(f"calibration from {each['source']}: {each['problem'] or _rows(each)}")
    out.line(f"answers are compared on {lab['holdout']['source']}")


def state(variant: Json) -> str:
    """Where a variant stands, in a word."""
    if variant["state"] != "measured":
        return str(variant["state"])
    return "accepted" if variant["accepted"] else "rejected"


def times(ratio: float | None) -> str:
    """A ratio: `3.4×`."""
    return "" if ratio is None else f"{ratio:.2f}×"


def share(value: float | None) -> str:
    """A share in per cent."""
    return "" if value is None else f"{value:.1%}"


def _rows(choice: Json) -> str:
    return f"{choice['rows']} rows" if choice["rows"] else "as you send it"


def _params(params: Json) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items() if value not in ([], None))
