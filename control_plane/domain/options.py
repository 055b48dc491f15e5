"""Serving options of an endpoint: how a change is merged in, what differs, and how it is told. Pure.

A change is a JSON merge patch (RFC 7396) on `serving_agent.contract.options.ServingOptions`: what it does not
name stays, null goes back to the default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from control_plane.errors import InvalidInputError
from serving_agent.contract.options import MAX_ROWS, MOST_KEPT_HOURS, Batching, ServingOptions

Patch = Mapping[str, Any]

DEFAULT: Final = ServingOptions()
MAX_CACHE_BYTES: Final = 2**40
MIN_TTL_S: Final = 0.1
MAX_TTL_S: Final = 30 * 24 * 3600.0
MIN_KEEP_HOURS: Final = 1 / 60
MAX_CONCURRENCY: Final = 1_000_000
MIN_CHECK_INTERVAL_S: Final = 1.0
MAX_CHECK_INTERVAL_S: Final = 24 * 3600.0
_LONGEST_SHOWN: Final = 24
_NEXT_STEP: Final = "See the serving options in docs/serving.md."


def merged(options: ServingOptions, patch: Patch) -> ServingOptions:
    """Return *options* with *patch* merged in.

    Raises InvalidInputError that names the option and what it may be.
    """
    try:
        result = msgspec.convert(over(patch, msgspec.to_builtins(options), keep_nulls=False), ServingOptions)
    except msgspec.ValidationError as error:
        raise _refusal(error) from error
    _check_bounds(result)
    return result


def check_patch(patch: Patch) -> Patch:
    """Return *patch* if no options there could be make it wrong: unknown names, types, bounds.

    Raises InvalidInputError. Bucket sizes are held against `max_rows` only where the patch names both.
    """
    merged(ServingOptions(batching=Batching(max_rows=MAX_ROWS)), patch)
    return patch


def over(patch: Patch, other: Patch, *, keep_nulls: bool = True) -> dict[str, Any]:
    """Return *other* with *patch* merged in; with *keep_nulls* the result is a patch that does both."""
    result = dict(other)
    for name, value in patch.items():
        if isinstance(value, Mapping):
            under = result.get(name)
            result[name] = over(value, under if isinstance(under, Mapping) else {}, keep_nulls=keep_nulls)
        elif value is None and not keep_nulls:
            result.pop(name, None)
        else:
            result[name] = value
    return result


def flat(options: ServingOptions) -> dict[str, Any]:
    """Every option by its dotted name: `{"batching.max_rows": 32, …}`."""
    return dict(_leaves(msgspec.to_builtins(options), ""))


def nested(options: ServingOptions) -> dict[str, Any]:
    """The patch that turns the defaults into *options*: only what differs from them."""
    usual = flat(DEFAULT)
    found: dict[str, Any] = {}
    for name, value in flat(options).items():
        if value != usual[name]:
            section, dot, leaf = name.rpartition(".")
            (found.setdefault(section, {}) if dot else found)[leaf] = value
    return found


def told(value: object) -> str:
    """One option's value in words: `on`, `1, 2, 4`, `none`, `2`."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ", ".join(str(each) for each in value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)


def _leaves(tree: Patch, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, list(value) if isinstance(value, tuple) else value


def _refusal(error: msgspec.ValidationError) -> InvalidInputError:
    message, _, place = str(error).partition(" - at `$")
    where = "options" + place.rstrip("`")
    return InvalidInputError(f"{where}: {message[:300]}", next_step=_NEXT_STEP)


def _check_bounds(options: ServingOptions) -> None:
    """What the contract leaves open: numbers must be finite, and of a size that means something."""
    _check_range("cache.max_bytes", options.cache.max_bytes, 0, MAX_CACHE_BYTES)
    _check_range("cache.ttl_s", options.cache.ttl_s, MIN_TTL_S, MAX_TTL_S)
    _check_range("sampling.keep_hours", options.sampling.keep_hours, MIN_KEEP_HOURS, MOST_KEPT_HOURS)
    if options.max_concurrency is not None:
        _check_range("max_concurrency", options.max_concurrency, 1, MAX_CONCURRENCY)
    if options.check_interval_s != 0:
        _check_range(
            "check_interval_s", options.check_interval_s, MIN_CHECK_INTERVAL_S, MAX_CHECK_INTERVAL_S, "0, or "
        )


def _check_range(name: str, value: float, low: float, high: float, besides: str = "") -> None:
    if not low <= value <= high:  # not a number is in no range
        raise InvalidInputError(
            f"options.{name} must be {besides}from {low:.15g} to {high:.15g}, not {_shown(value)}",
            next_step=_NEXT_STEP,
        )


def _shown(value: float) -> str:
    """A refused number; an integer may be too large for a float, or for a message."""
    text = str(value) if isinstance(value, int) else f"{value:.15g}"
    return text if len(text) <= _LONGEST_SHOWN else f"a number of {len(text.lstrip('-'))} digits"
