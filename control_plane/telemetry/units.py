"""Counts requests by unit: of each client's session only the first request in a step of its rollout. Pure.

Lines of the gateway's log come in, in order; what is counted of them comes out. The same lines give the same
counts however they are divided among calls. Lines that cannot be read, or say nothing, count nothing.
"""

from __future__ import annotations

import logging
import secrets
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

import msgspec

from control_plane.telemetry import series
from control_plane.telemetry.gateway_figures import final_code
from control_plane.telemetry.samples import Key, SampleKind, Total, labels_of
from serving_agent.contract.metric_names import COMPARED_BUCKETS_S

logger = logging.getLogger(__name__)

MAX_UNITS: Final = 200_000
"""Units known of one step; more are not counted, for it could not be known that they count once."""
MAX_UNITS_IN_ALL: Final = 1_000_000
"""Units known of all endpoints together: about 80 MB."""
_PAST: Final = 8
"""Ended rollouts of an endpoint that are known, so that their last requests are not taken for a new one's."""
_DIGEST_BYTES: Final = 8
_NOT_ANSWERED: Final = 0


class _Line(msgspec.Struct, frozen=True):
    """One request, as `gateway.envoy_statistics.session_logger` has it written."""

    rollout: str
    step: int
    session: str
    endpoint: str
    version: str
    code: int
    flags: str | None = None
    grpc: int | None = None
    total_us: int | None = None
    first_byte_us: int | None = None


@dataclass(slots=True)
class _Step:
    """The step that an endpoint's rollout is at, and the units that were counted in it."""

    rollout: str
    number: int
    past: tuple[str, ...]
    """Rollouts before."""
    units: set[int] = field(default_factory=set)
    is_full: bool = False


class Units:
    """Who was counted already. Units are kept as keyed hashes; the key is new in every process.

    Not thread-safe. max_units, max_in_all: as MAX_UNITS and MAX_UNITS_IN_ALL.
    """

    def __init__(self, *, max_units: int = MAX_UNITS, max_in_all: int = MAX_UNITS_IN_ALL) -> None:
        self._max_units = max_units
        self._max_in_all = max_in_all
        self._key = secrets.token_bytes(16)
        self._decoder = msgspec.json.Decoder(_Line)
        self._steps: dict[str, _Step] = {}
        """By endpoint, the one that was heard of last at the end."""
        self._known = 0

    def count(self, lines: Iterable[bytes]) -> list[Total]:
        """Return what *lines* count: UNIT_REQUESTS, UNIT_REPEATS, UNIT_LATENCY and UNIT_FIRST_BYTE."""
        sums = _Sums()
        for raw in lines:
            line = self._read(raw)
            step = self._step(line) if line is not None else None
            if line is None or step is None:
                continue
            if self._is_first(line, step):
                sums.add(line)
            else:
                sums.add_repeat(line)
        return sums.totals()

    def _read(self, raw: bytes) -> _Line | None:
        if not raw:
            return None
        try:
            return self._decoder.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):  # torn, not ours, or no version was chosen
            return None

    def _is_first(self, line: _Line, step: _Step) -> bool:
        if step.is_full:
            return False
        text = line.session.encode(errors="surrogatepass")
        unit = int.from_bytes(blake2b(text, digest_size=_DIGEST_BYTES, key=self._key).digest())
        if unit in step.units:
            return False
        if len(step.units) >= self._max_units:
            self._close(line.endpoint, step)
            return False
        step.units.add(unit)
        self._known += 1
        self._make_room()
        return True

    def _step(self, line: _Line) -> _Step | None:
        """The step that *line* belongs to; None where that one is over."""
        step = self._steps.pop(line.endpoint, None)
        if step is None or self._begins(line, step):
            step = self._next(line, step)
        self._steps[line.endpoint] = step
        return step if (step.rollout, step.number) == (line.rollout, line.step) else None

    def _begins(self, line: _Line, step: _Step) -> bool:
        if line.rollout == step.rollout:
            return line.step > step.number
        return line.rollout not in step.past

    def _next(self, line: _Line, before: _Step | None) -> _Step:
        if before is None:
            return _Step(line.rollout, line.step, ())
        self._known -= len(before.units)
        ended = () if before.rollout == line.rollout else (before.rollout,)
        return _Step(line.rollout, line.step, (*before.past, *ended)[-_PAST:])

    def _make_room(self) -> None:
        """Forget the units of whom nothing was heard for longest, and count no more of that step."""
        if self._known <= self._max_in_all:
            return
        for endpoint, step in self._steps.items():
            if step.units:
                self._known -= len(step.units)
                step.units = set()
                self._close(endpoint, step)
                return

    def _close(self, endpoint: str, step: _Step) -> None:
        step.is_full = True
        logger.warning(
            "endpoint %s: too many sessions in step %d of rollout %s; new ones are not counted",
            endpoint,
            step.number + 1,
            step.rollout,
        )


class _Sums:
    """Counters and histograms of some requests."""

    def __init__(self) -> None:
        self._counters: dict[Key, int] = {}
        self._histograms: dict[Key, list[int]] = {}

    def add(self, line: _Line) -> None:
        where = _where(line)
        self._increase(series.UNIT_REQUESTS, {**where, "code": _code(line)})
        if line.code != _NOT_ANSWERED:
            self._observe(series.UNIT_LATENCY, where, line.total_us)
            self._observe(series.UNIT_FIRST_BYTE, where, line.first_byte_us)

    def add_repeat(self, line: _Line) -> None:
        self._increase(series.UNIT_REPEATS, _where(line))

    def _increase(self, name: str, labels: dict[str, str]) -> None:
        key = Key(name, labels_of(labels), SampleKind.COUNTER)
        self._counters[key] = self._counters.get(key, 0) + 1

    def _observe(self, name: str, where: dict[str, str], duration_us: int | None) -> None:
        if duration_us is None:
            return
        key = Key(name, labels_of(where), SampleKind.HISTOGRAM, COMPARED_BUCKETS_S)
        counts = self._histograms.setdefault(key, [0] * (len(COMPARED_BUCKETS_S) + 1))
        counts[bisect_left(COMPARED_BUCKETS_S, duration_us / 1e6)] += 1

    def totals(self) -> list[Total]:
        return [
            *(Total(key, count) for key, count in self._counters.items()),
            *(Total(key, sum(counts), tuple(counts)) for key, counts in self._histograms.items()),
        ]


def _where(line: _Line) -> dict[str, str]:
    return {"endpoint": line.endpoint, "version": line.version}


def _code(line: _Line) -> str:
    grpc = "" if line.grpc is None else str(line.grpc)
    return final_code({"code": str(line.code), "grpc": grpc, "flags": line.flags or ""})
