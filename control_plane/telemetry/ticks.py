"""Stored samples as ticks: what two versions of an endpoint did in short times of equal length.

A tick is the time (k·n, (k+1)·n] milliseconds since 1970; what was measured in it is what its samples say,
which were taken in it. Only whole ticks are returned, so the same store gives the same ticks whenever it is
read. A time in which the gateway was not read has no tick: nothing is known of it, and what happened then is
in the first tick after it, or (when the collector itself was restarted) in none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from control_plane.telemetry import series
from control_plane.telemetry.evaluate import Stored
from control_plane.telemetry.local_store import LocalStore
from serving_agent.contract.metric_names import COMPARED_BUCKETS_S

Ints: TypeAlias = npt.NDArray[np.int64]

SERVER_ERROR: Final = "5"
_AHEAD_MS: Final = 24 * 3600 * 1000
"""Samples may be newer than the reader's clock by at most this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawArm:
    """What one version did in one tick; None where the version's agents said nothing of it."""

    requests: int
    """Requests whose last try went to this version, by the gateway's count; those of testers left out.

    By unit, only the first of each session in a step; errors, latency and first byte are of the same ones.
    """
    errors: int
    """Of those, answered with a server error."""
    tries: int
    failed_tries: int
    latency: tuple[int, ...]
    """Requests by bucket of total time: COMPARED_BUCKETS_S, and one more for what is above."""
    first_byte: tuple[int, ...]
    answers: int | None
    """Answers by the agents' own count, those to copies included."""
    nonfinite: int | None
    outputs: Mapping[str, int] | None
    """Rows of answers by class or bin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTick:
    """One tick. end_ms: its end in milliseconds since 1970; span_s: seconds its measurements speak for."""

    end_ms: int
    span_s: float
    stable: RawArm
    candidate: RawArm
    latency_bounds_s: tuple[float, ...] = COMPARED_BUCKETS_S
    by_unit: bool = False
    """Whether requests, errors, latency and first byte are counted by session, each once a step."""
    repeated: int = 0
    """By unit: requests of both versions from sessions that were counted before in the step."""


@dataclass(frozen=True, slots=True)
class _Ticks:
    """Ticks of *length_ms* from *start_ms* on (a multiple of it)."""

    start_ms: int
    length_ms: int
    count: int

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.count * self.length_ms

    def sums(self, stored: Sequence[Stored]) -> Ints:
        """Return the sum of *stored* values by tick, shape (count,)."""
        total = np.zeros(self.count, np.int64)
        for one in stored:
            np.add.at(total, self._index(one), np.rint(one.value).astype(np.int64))
        return total

    def counts(self, stored: Sequence[Stored]) -> Ints:
        """Return the sum of *stored* bucket counts by tick, shape (count, buckets)."""
        total = np.zeros((self.count, len(COMPARED_BUCKETS_S) + 1), np.int64)
        for one in stored:
            if one.counts is not None and one.bounds == COMPARED_BUCKETS_S:
                np.add.at(total, self._index(one), one.counts)
        return total

    def spans_s(self, stored: Sequence[Stored]) -> npt.NDArray[np.float64]:
        """Return the seconds that *stored* samples speak for by tick, shape (count,)."""
        total = np.zeros(self.count)
        for one in stored:
            np.add.at(total, self._index(one), one.span_s)
        return total

    def sampled(self, stored: Sequence[Stored]) -> npt.NDArray[np.bool_]:
        """Return which ticks have any of the samples, shape (count,)."""
        found = np.zeros(self.count, np.bool_)
        for one in stored:
            found[self._index(one)] = True
        return found

    def _index(self, one: Stored) -> npt.NDArray[np.int64]:
        return (_times_ms(one) - self.start_ms - 1) // self.length_ms


def read_ticks(
    store: LocalStore,
    endpoint: str,
    stable: str,
    candidate: str,
    after_ms: int,
    tick_ms: int,
    now_ms: int,
    *,
    by_unit: bool = False,
) -> list[RawTick]:
    """Return the whole ticks of *tick_ms* that begin at or after *after_ms*, in order of time.

    A tick is whole once the gateway was read after its end. Ticks that begin before what the store keeps as
    taken (an hour) are left out. stable, candidate: `model@N`; now_ms: milliseconds since 1970.
    by_unit: count requests, errors and times by session.
    """
    readings = store.samples(series.GATEWAY_READINGS, after_ms, now_ms + _AHEAD_MS)
    if not readings:
        return []
    newest_ms = max(int(_times_ms(one)[-1]) for one in readings)
    kept_ms = max(newest_ms, now_ms) - round(store.raw_s * 1000)
    start_ms = -(-max(after_ms, kept_ms) // tick_ms) * tick_ms
    ticks = _Ticks(start_ms, tick_ms, max(0, (newest_ms - 1 - start_ms) // tick_ms))
    if ticks.count == 0:
        return []
    readings = store.samples(series.GATEWAY_READINGS, ticks.start_ms, ticks.end_ms)
    spans_s, read = ticks.spans_s(readings), ticks.sampled(readings)
    repeats = store.samples(series.UNIT_REPEATS, ticks.start_ms, ticks.end_ms, endpoint=endpoint)
    repeated = ticks.sums(repeats if by_unit else ())
    names = _BY_UNIT if by_unit else _BY_REQUEST
    arms = [_Arm(store, ticks, endpoint, version, names) for version in (stable, candidate)]
    return [
        RawTick(
            end_ms=ticks.start_ms + (k + 1) * tick_ms,
            span_s=round(float(spans_s[k]), 3),
            stable=arms[0].at(k),
            candidate=arms[1].at(k),
            by_unit=by_unit,
            repeated=int(repeated[k]),
        )
        for k in np.flatnonzero(read).tolist()
    ]


@dataclass(frozen=True, slots=True)
class _Names:
    """Under which names requests and their times are stored."""

    requests: str
    latency: str
    first_byte: str


_BY_REQUEST: Final = _Names(series.COMPARED_REQUESTS, series.COMPARED_LATENCY, series.COMPARED_FIRST_BYTE)
_BY_UNIT: Final = _Names(series.UNIT_REQUESTS, series.UNIT_LATENCY, series.UNIT_FIRST_BYTE)


class _Arm:
    """All that is stored of one version over some ticks."""

    def __init__(self, store: LocalStore, ticks: _Ticks, endpoint: str, version: str, names: _Names) -> None:
        def stored(name: str) -> list[Stored]:
            return store.samples(name, ticks.start_ms, ticks.end_ms, endpoint=endpoint, version=version)

        requests = _by_code(stored(names.requests))
        tries = _by_code(stored(series.GATEWAY_TRIES))
        answers = _by_code(stored(series.AGENT_ANSWERS))
        outputs = _by_code(stored(series.AGENT_OUTPUTS))
        errors = [
            one for code, of_code in requests.items() if code.startswith(SERVER_ERROR) for one in of_code
        ]
        self._requests = ticks.sums(_all(requests))
        self._errors = ticks.sums(errors)
        self._tries = ticks.sums(_all(tries))
        self._failed_tries = ticks.sums(tries.get(series.FAILED_TRY, ()))
        self._latency = ticks.counts(stored(names.latency))
        self._first_byte = ticks.counts(stored(names.first_byte))
        self._answered = ticks.sampled(_all(answers))
        self._answers = ticks.sums(answers.get(series.ALL_ANSWERS, ()))
        self._nonfinite = ticks.sums(answers.get(series.NONFINITE_ANSWERS, ()))
        self._has_outputs = ticks.sampled(_all(outputs))
        self._outputs = {code: ticks.sums(of_code) for code, of_code in sorted(outputs.items())}

    def at(self, k: int) -> RawArm:
        """Return what it did in tick *k*."""
        outputs = {code: int(sums[k]) for code, sums in self._outputs.items() if sums[k]}
        return RawArm(
            requests=int(self._requests[k]),
            errors=int(self._errors[k]),
            tries=int(self._tries[k]),
            failed_tries=int(self._failed_tries[k]),
            latency=tuple(self._latency[k].tolist()),
            first_byte=tuple(self._first_byte[k].tolist()),
            answers=int(self._answers[k]) if self._answered[k] else None,
            nonfinite=int(self._nonfinite[k]) if self._answered[k] else None,
            outputs=outputs if self._has_outputs[k] else None,
        )


def _by_code(stored: Sequence[Stored]) -> dict[str, list[Stored]]:
    found: dict[str, list[Stored]] = {}
    for one in stored:
        found.setdefault(one.labels.get("code", ""), []).append(one)
    return found


def _all(by_code: Mapping[str, Sequence[Stored]]) -> list[Stored]:
    return [one for of_code in by_code.values() for one in of_code]


def _times_ms(one: Stored) -> Ints:
    return np.rint(one.t_s * 1000).astype(np.int64)
