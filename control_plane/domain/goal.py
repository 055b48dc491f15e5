"""What an operator may ask of an endpoint: settings, their bounds and defaults. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from control_plane.domain import options as serving_options
from control_plane.domain.options import Patch
from control_plane.errors import InvalidInputError
from serving_agent.contract.options import ServingOptions

MAX_REPLICAS: Final = 64
MIN_MEMORY_BYTES: Final = 64 * 1024**2
_MAX_MEMORY_BYTES: Final = 2**50
_DEVICE: Final = re.compile(r"auto|cpu|cuda:[0-9]{1,2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Settings asked for; None leaves a setting as it is. memory_bytes 0 means the default limit again."""

    replicas: int | None = None
    threads: int | None = None
    device: str | None = None
    handler: str | None = None
    memory_bytes: int | None = None
    options: Patch | None = None
    """Change of the serving options."""

    def over(self, other: Wish) -> Wish:
        """This wish, filled up from *other* where it says nothing."""
        return Wish(
            replicas=other.replicas if self.replicas is None else self.replicas,
            threads=other.threads if self.threads is None else self.threads,
            device=other.device if self.device is None else self.device,
            handler=other.handler if self.handler is None else self.handler,
            memory_bytes=other.memory_bytes if self.memory_bytes is None else self.memory_bytes,
            options=_both(self.options, other.options),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """All that an operator decides about an endpoint. memory_bytes None: the default limit."""

    state: str
    """A value of EndpointGoal."""
    version_id: str
    replicas: int
    threads: int
    device: str
    handler: str
    memory_bytes: int | None
    restart: int
    options: ServingOptions = serving_options.DEFAULT

    def with_wish(self, wish: Wish) -> Goal:
        """This goal with the settings that *wish* names. Raises InvalidInputError for unusable options."""
        memory_bytes = self.memory_bytes if wish.memory_bytes is None else (wish.memory_bytes or None)
        return replace(
            self,
            replicas=self.replicas if wish.replicas is None else wish.replicas,
            threads=self.threads if wish.threads is None else wish.threads,
            device=self.device if wish.device is None else wish.device,
            handler=self.handler if wish.handler is None else wish.handler,
            memory_bytes=memory_bytes,
            options=serving_options.merged(self.options, wish.options or {}),
        )


def _both(patch: Patch | None, under: Patch | None) -> Patch | None:
    return serving_options.over(patch, under) if patch and under else patch or under


def check_wish(wish: Wish, *, cpu_count: int) -> Wish:
    """Return *wish* if every setting it names is within bounds. Raises InvalidInputError."""
    _check_range("replicas", wish.replicas, 1, MAX_REPLICAS, "To have none, stop the endpoint.")
    _check_range("threads", wish.threads, 1, cpu_count, f"This machine has {cpu_count} CPUs.")
    if wish.memory_bytes != 0:
        _check_range("memory_bytes", wish.memory_bytes, MIN_MEMORY_BYTES, _MAX_MEMORY_BYTES, None)
    if wish.device is not None and not _DEVICE.fullmatch(wish.device):
        raise InvalidInputError(
            f"Device {wish.device[:40]!r} is not known",
            next_step="Use auto, cpu, or cuda:N, for example cuda:0.",
        )
    serving_options.check_patch(wish.options or {})
    return wish


def _check_range(name: str, value: int | None, low: int, high: int, next_step: str | None) -> None:
    if value is not None and not low <= value <= high:
        raise InvalidInputError(f"{name} must be from {low} to {high}, not {value}", next_step=next_step)
