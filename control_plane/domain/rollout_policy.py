"""What an endpoint asks of every rollout. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from control_plane.errors import InvalidInputError


class StickyPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What keeps a client at one version, and is the unit that evidence is counted by."""

    kind: Literal["header", "cookie"]
    name: str


class RolloutPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules of one endpoint; changing them needs no new agents."""

    tester_header: bool = False
    """Clients may choose a version by the header `x-signalbox-version`."""
    sticky: StickyPolicy | None = None
    staging_endpoint: str | None = None
    """A version must have completed a rollout there first."""
    golden_set: str | None = None
    """Digest of the golden set that candidates must not lose against stable; None: the stable version's own
    labelled examples, where it has any."""
    golden_margin: float = 0.05
    """Largest loss of accuracy on the golden set that is let through, in [0, 1)."""
    warm_s: float = 900.0
    """How long the old stable version is kept warm after a rollout, in seconds."""


DEFAULT: Final = RolloutPolicy()


def parse(stored: Mapping[str, Any]) -> RolloutPolicy:
    """*stored* as a policy. Raises InvalidInputError naming the field that is wrong."""
    try:
        return msgspec.convert(dict(stored), RolloutPolicy)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"rollout policy: {error}") from error
