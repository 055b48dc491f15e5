"""A rollout's prediction as rows and sentences. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from control_plane.ui.viewmodels import quantities, rollouts

_ORIGINS: Final = {"given": "as typed", "measured": "measured lately", "assumed": "assumed"}
_NEVER: Final = "not within days"
Json = Mapping[str, Any]


def traffic_words(predicted: Json) -> str:
    """What the prediction rests on, with the origin of each figure."""
    used, origin = predicted["traffic"], predicted["origin"]
    shown = {
        "rate": quantities.rate(used["rate"]),
        "error_rate": f"{quantities.share(used['error_rate'])} errors",
        "p50_s": f"p50 {quantities.duration_ms(used['p50_s'])}",
        "p95_s": f"p95 {quantities.duration_ms(used['p95_s'])}",
    }
    return "At " + ", ".join(f"{words} ({_ORIGINS[origin[name]]})" for name, words in shown.items()) + "."


def warnings(predicted: Json) -> tuple[str, ...]:
    """What to know before starting it, a sentence each."""
    return tuple(f"{each[:1].upper()}{each[1:]}." for each in predicted["warnings"])


def step_rows(predicted: Json) -> list[dict[str, str]]:
    """Time and requests of each step, were the candidate as good as stable: median and 90 %."""
    return [
        {
            "Step": _step(each),
            "Takes": _time(each["median_s"]),
            "90 % within": _time(each["p90_s"]),
            "Candidate requests": _count(each["median_requests"]),
        }
        for each in predicted["prediction"]["steps"]
    ]


def total_words(predicted: Json) -> str:
    """How long all steps take together."""
    found = predicted["prediction"]
    return f"All steps: {_time(found['total_median_s'])}, 90 % within {_time(found['total_p90_s'])}."


def regression_rows(predicted: Json) -> list[dict[str, str]]:
    """How soon each size of regression would be caught."""
    return [
        {
            "If it is worse by": _regression(each),
            "Caught after": _time(each["median_s"]),
            "90 % within": _time(each["p90_s"]),
            "Its requests": _count(each["median_requests"]),
            "Caught at all": f"{each['caught'] * 100:.0f} %",
        }
        for each in predicted["prediction"]["regressions"]
    ]


def _step(each: Json) -> str:
    if each["mirror"]:
        return f"{rollouts.percent(each['mirror'])} copied"
    return rollouts.percent(each["weight"]) if each["weight"] else "Preview"


def _regression(each: Json) -> str:
    size = f"{each['size'] * 100:.3g}"
    return f"+{size} pp errors" if each["kind"] == "errors" else f"{size} % slower"


def _time(seconds: float | None) -> str:
    return _NEVER if seconds is None else quantities.duration(seconds)


def _count(number: int | None) -> str:
    return quantities.NOTHING if number is None else f"{number:,}"
