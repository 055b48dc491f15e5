"""What differs between the configs of two steps. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from control_plane.nemo_rl.documents import MAX_LEAVES, leaves, shown


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that differs; None on the side that lacks it. Secrets and addresses are hidden."""

    key: str
    before: str | None
    after: str | None


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return the settings that differ, sorted by their dotted names."""
    old, new = (dict(islice(leaves(config), MAX_LEAVES)) for config in (before, after))
    different = sorted(
        key for key in old.keys() | new.keys() if key not in old or key not in new or old[key] != new[key]
    )
    return tuple(
        Change(key, _shown(key, old) if key in old else None, _shown(key, new) if key in new else None)
        for key in different
    )


def _shown(key: str, config: Mapping[str, Any]) -> str:
    return shown(key.rpartition(".")[2], config[key])
