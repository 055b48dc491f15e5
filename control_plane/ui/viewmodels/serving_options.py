"""Serving options for people: what is in force, what the form holds, and what the agents measured of it."""

from __future__ import annotations

from typing import Any, Final

from control_plane.domain.endpoint import HealthCheck
from control_plane.domain.options import Patch
from control_plane.errors import InvalidInputError
from control_plane.ui.viewmodels import quantities
from serving_agent.contract.options import Batching, Cache, Execution, Sampling, ServingOptions
from serving_agent.contract.status import OptionsEffect

MIB: Final = 1024**2
AUTOCAST_WORDS: Final = {"off": "off", "bf16": "bfloat16"}
_LASTING: Final = {"unhealthy": "The self-test has failed", "error": "The self-test could not be run"}
SAME_SPEED: Final = 0.02
"""Durations that differ by less than this share are called the same."""


def rows(options: ServingOptions) -> list[tuple[str, str]]:
    """The options in force as label and value."""
    return [
        ("Batching", batching_words(options.batching)),
        ("Response cache", cache_words(options.cache)),
        ("Execution", execution_words(options.execution)),
        ("Concurrency", _concurrency_words(options.max_concurrency)),
        ("Self-test", _interval_words(options.check_interval_s)),
        ("Kept requests", sampling_words(options.sampling)),
    ]


def batching_words(batching: Batching) -> str:
    """How requests are put together: "up to 32 rows", "off"."""
    if batching.max_rows == 1:
        return "off: one row at a time"
    parts = [f"up to {quantities.count(batching.max_rows, 'row')}"]
    if batching.max_delay_ms:
        parts.append(f"waits {batching.max_delay_ms:g} ms for more")
    if batching.buckets:
        parts.append(f"padded to {', '.join(map(str, batching.buckets))}")
    if batching.adaptive:
        parts.append("refuses what would be late")
    return ", ".join(parts)


def cache_words(cache: Cache) -> str:
    """The cache's bounds, or "off"."""
    if not cache.max_bytes:
        return "off"
    return f"{quantities.size(cache.max_bytes)}, answers kept for {_seconds(cache.ttl_s)}"


def execution_words(execution: Execution) -> str:
    """What torch does otherwise than the model was stored."""
    parts = [
        *(["channels last"] if execution.channels_last else []),
        *([f"{AUTOCAST_WORDS[execution.autocast]} autocast"] if execution.autocast != "off" else []),
        *(["torch.compile"] if execution.compile else []),
    ]
    return ", ".join(parts) or "as stored"


def sampling_words(sampling: Sampling) -> str:
    """Which requests are kept for the debugger, or "none"."""
    hidden = f"never the data of {', '.join(sampling.redact)}" if sampling.redact else ""
    if not sampling.per_minute:
        return f"none; {hidden}" if hidden else "none"
    kept = f"{sampling.per_minute} a minute, for {quantities.duration(sampling.keep_hours * 3600)}"
    return f"{kept}, {hidden}" if hidden else kept


def effect_words(effect: OptionsEffect) -> str:
    """What the execution options gain and cost: "1.7x faster than without, …".

    The difference covers the elements that are finite with and without them.
    """
    plain, now = (quantities.duration_ms(seconds) for seconds in (effect.plain_s, effect.optimized_s))
    differ = f"finite answers differ by at most {effect.largest_difference:.2g}"
    return f"{speed_words(effect)} ({plain} → {now}), {differ}"


def speed_words(effect: OptionsEffect) -> str:
    """The two durations as a ratio: "1.7x faster than without options"."""
    if min(effect.plain_s, effect.optimized_s) <= 0:
        return "too fast to compare with running without options"
    ratio = effect.plain_s / effect.optimized_s
    if abs(ratio - 1) < SAME_SPEED:
        return "as fast as without options"
    if ratio > 1:
        return f"{ratio:.2g}x faster than without options"
    return f"{1 / ratio:.2g}x slower than without options"


def check_words(check: HealthCheck, now: float) -> str:
    """What the self-test found wrong, since when, or when it last did; empty when nothing ever was."""
    if check.last_error is None:
        return ""
    lasting = _LASTING.get(check.state)
    if lasting is not None and check.since is not None:
        return f"{lasting} for {quantities.duration(max(0.0, now - check.since))}: {check.last_error}"
    when = "" if check.last_error_at is None else f" {quantities.ago(check.last_error_at, now)}"
    return f"The self-test last failed{when}: {check.last_error}"


def buckets(text: str) -> list[int]:
    """Batch sizes from "1, 2, 4"; none from an empty text. Raises InvalidInputError."""
    try:
        return [int(size) for size in text.replace(",", " ").split()]
    except ValueError as error:
        raise InvalidInputError(
            f"Pad batches to: {text[:80]!r} is no list of numbers", next_step="Write for example 1, 2, 4, 8."
        ) from error


def names(text: str) -> list[str]:
    """Tensor names from "text, image"; none from an empty text."""
    return [name.strip() for name in text.split(",") if name.strip()]


def buckets_text(sizes: tuple[int, ...]) -> str:
    """Batch sizes as the form shows them."""
    return ", ".join(map(str, sizes))


def patch(values: dict[str, Any]) -> Patch:
    """The whole set of options from the form's values, by the names of the contract.

    values: max_rows, max_delay_ms, buckets (text), adaptive, cache_mib, ttl_s, channels_last, autocast,
    compile, max_concurrency (None: no bound), check_interval_s, per_minute, keep_hours, redact (text).
    Raises InvalidInputError for other buckets than numbers.
    """
    return {
        "batching": {
            "max_rows": int(values["max_rows"]),
            "max_delay_ms": float(values["max_delay_ms"]),
            "buckets": buckets(str(values["buckets"] or "")),
            "adaptive": bool(values["adaptive"]),
        },
        "cache": {"max_bytes": round(float(values["cache_mib"]) * MIB), "ttl_s": float(values["ttl_s"])},
        "execution": {name: values[name] for name in ("channels_last", "autocast", "compile")},
        "max_concurrency": values["max_concurrency"],
        "check_interval_s": float(values["check_interval_s"]),
        "sampling": {
            "per_minute": int(values["per_minute"]),
            "keep_hours": float(values["keep_hours"]),
            "redact": names(str(values["redact"] or "")),
        },
    }


def _concurrency_words(max_concurrency: int | None) -> str:
    return (
        "bounded by the queue alone"
        if max_concurrency is None
        else f"{quantities.count(max_concurrency, 'request')} per agent"
    )


def _interval_words(interval_s: float) -> str:
    return f"every {_seconds(interval_s)}" if interval_s else "off"


def _seconds(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 600 else quantities.duration(seconds)
