"""The two documents of a step, `training_info.json` and `config.yaml`, read as data within bounds. Pure.

`json.dump` writes bare `NaN`; `yaml.safe_dump` writes plain YAML. No resolver and no `_target_` is followed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from control_plane.errors import InvalidInputError

MAX_INFO_BYTES: Final = 256 * 1024
MAX_CONFIG_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 32
MAX_LEAVES: Final = 20_000
MAX_ALIASES: Final = 1000
MAX_TEXT_CHARS: Final = 2000
HIDDEN: Final = "(hidden)"
_SECRET_KEY: Final = re.compile(
    r"(?i)(^|_|-|\.)(api_?key|token|secret|passwd|password|credentials?|auth|access_key)$"
)
_SECRET_VALUE: Final = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{12,}"
    r"|nvapi-[A-Za-z0-9_-]{16,}|[0-9a-f]{40})\b"
)
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"]+")


def training_info(data: bytes, name: str) -> dict[str, Any]:
    """Return the object in *data*; NaN and infinities are floats. Raises InvalidInputError naming *name*."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidInputError(f"{name} is not JSON; it may be half written") from None
    if not isinstance(value, dict):
        raise InvalidInputError(f"{name} does not hold an object")
    return value


def config(data: bytes, name: str) -> dict[str, Any]:
    """Return the mapping in *data*, a config.yaml. Raises InvalidInputError naming *name*."""
    try:
        value = yaml.load(data, Loader=_BoundedLoader)  # noqa: S506  a SafeLoader with bounds
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError):
        raise InvalidInputError(f"{name} is not plain YAML within the bounds of a training config") from None
    if not isinstance(value, dict):
        raise InvalidInputError(f"{name} does not hold a mapping")
    return {str(key): held for key, held in value.items()}


class _BoundedLoader(yaml.SafeLoader):
    """Builds plain values only; bounds depth and aliases, by which a small file can grow large."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0
        self._aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._aliases += bool(self.check_event(yaml.AliasEvent))
        if self._depth > MAX_DEPTH or self._aliases > MAX_ALIASES:
            raise yaml.YAMLError("too deep")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def at(value: Any, dotted: str) -> Any:
    """Return what lies at `a.b.c` in nested mappings, None where there is nothing."""
    for key in dotted.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def leaves(value: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, plain value) of every leaf in order; empty mappings and lists count as leaves."""
    if isinstance(value, Mapping) and value and depth < MAX_DEPTH:
        for key, held in value.items():
            yield from leaves(held, f"{prefix}.{key}" if prefix else str(key), depth + 1)
    elif isinstance(value, list) and value and depth < MAX_DEPTH:
        for index, held in enumerate(value):
            yield from leaves(held, f"{prefix}[{index}]", depth + 1)
    else:
        yield prefix, value


def shown(key: str, value: Any) -> str:
    """Return *value* as text for people: secrets and addresses are hidden, long text is cut."""
    if value is None:
        return "null"
    if _SECRET_KEY.search(key) and not isinstance(value, bool | int | float):
        return HIDDEN
    text = str(value)[:MAX_TEXT_CHARS]
    return _SECRET_VALUE.sub(HIDDEN, _URL.sub(HIDDEN, text))


def finite(value: Any) -> Any:
    """Return *value* with NaN and infinities as the words "NaN", "Infinity", "-Infinity"."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): finite(held) for key, held in value.items()}
    if isinstance(value, list):
        return [finite(held) for held in value]
    return value
