"""Weighs the evidence of rollouts: what was measured since the last time becomes ticks, the ticks a verdict.

Evidence, the time up to which it is counted, the step's observed time and requests, and the verdict are
written in one fenced transaction: a tick counts once, whenever the controller is killed. What could not be
read is a gap: it counts neither as time nor as requests.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from control_plane.analysis import evidence as evidences
from control_plane.analysis import hard_failures, memory_growth, verdict
from control_plane.analysis.base import ArmCounts, Evidence, Pairs, Tick, Verdict
from control_plane.controller.lease import Lease
from control_plane.controller.pairing import Gathered, Pairing
from control_plane.domain import captured_values, rollout_policy
from control_plane.domain.pairs import Compared
from control_plane.domain.rollout import IN_TRAFFIC, Rollout, RolloutState, VerdictKind
from control_plane.registry import endpoints, rollouts, session
from control_plane.registry.tables import Disagreement, RolloutEvidence
from control_plane.telemetry import ticks as measured
from control_plane.telemetry.local_store import LocalStore

logger = logging.getLogger(__name__)

MEASURED: Final = IN_TRAFFIC | {RolloutState.PREFLIGHT}
"""States whose ticks count: before traffic only stable is learned."""
LOOK_EVERY_S: Final = 1.0
"""The metrics store is not read more often than this."""
RECENT_TICKS: Final = 6
"""Ticks that a candidate is looked over for failing altogether."""
REFRESH_S: Final = 10.0
"""A verdict that stays the same is written again so often, so that it does not look stale."""
GALLERY: Final = 50
"""Disagreements that are kept of one rollout."""
LEAK_WINDOW_S: Final = 1800.0
LEAK_POINTS: Final = 60
LEAK_EVERY_S: Final = 5.0
OUT_OF_FORCE: Final = 20
"""So many requests of the candidate in a tick, and none of stable's: the split is not in force."""


@dataclass(frozen=True, slots=True)
class _Standing:
    """One rollout as it was read, and what is counted of it. by_unit: whether its sessions are counted."""

    rollout: Rollout
    cursor_ms: int
    evidence: Evidence
    by_unit: bool
    cache_bytes: int
    """What each agent may keep in its response cache."""


@dataclass(frozen=True, slots=True)
class _Leak:
    """What was found when memory was looked at last."""

    at: float
    found: str | None


@dataclass(frozen=True, slots=True)
class _Weighed:
    """One rollout as it was read, and what its new ticks come to."""

    before: Rollout
    cursor_ms: int
    evidence: Evidence
    end_ms: int
    baked_s: float
    requests: int
    verdict: Verdict
    gathered: Gathered | None


class Analyst:
    """Not thread-safe: owned by the controller's loop.

    tick_s: length of a tick in seconds; stale_s: from when on what was measured last is too old.
    """

    def __init__(
        self, lease: Lease, store: LocalStore, pairing: Pairing, *, tick_s: float, stale_s: float
    ) -> None:
        self._lease = lease
        self._store = store
        self._pairing = pairing
        self._tick_ms = round(tick_s * 1000)
        self._stale_s = stale_s
        self._looked_at = 0.0
        self._recent: dict[str, deque[Tick]] = {}
        self._in_traffic_since: dict[str, float] = {}
        self._leaks: dict[str, _Leak] = {}

    def weigh(self, now: float) -> None:
        """Count what was measured up to *now*. Raises what the registry and the lease raise."""
        if 0 <= now - self._looked_at < min(LOOK_EVERY_S, self._tick_ms / 2000):
            return
        self._looked_at = now
        for standing in self._standing():
            try:
                weighed = self._weigh(standing, now)
            except (sqlite3.Error, OSError) as error:
                weighed = self._unweighed(standing, now, f"the metrics store cannot be read: {error}")
            except Exception as error:  # an edge: one rollout's figures must not stop the controller
                logger.exception("rollout %s: its evidence cannot be weighed", standing.rollout.id)
                weighed = self._unweighed(standing, now, f"the evidence cannot be weighed: {error}")
            self._write(weighed)

    def begin_anew(self) -> None:
        """Forget what only this process remembers: another one has led meanwhile, and has counted."""
        self._recent.clear()
        self._in_traffic_since.clear()
        self._pairing.begin_anew()

    def _unweighed(self, standing: _Standing, now: float, why: str) -> _Weighed:
        """Nothing new was counted: no data, which neither promotes nor rolls back."""
        rollout = standing.rollout
        logger.warning("rollout %s: %s", rollout.id, why)
        self._pairing.forget(rollout.id)
        given = Verdict(kind=VerdictKind.NO_DATA, code="broken", sentence=why, at=now)
        cursor_ms, seen = standing.cursor_ms, rollout.step_requests
        return _Weighed(rollout, cursor_ms, standing.evidence, cursor_ms, rollout.baked_s, seen, given, None)

    def _standing(self) -> list[_Standing]:
        with session.read(self._lease.engine) as db:
            rows = [row for row in rollouts.standing(db) if row.state in MEASURED]
            values = [rollouts.value_of(row) for row in rows]
            found = [self._read(db, each) for each in values]
        self._forget({each.id for each in values})
        return [each for each in found if each is not None]

    def _read(self, db: Session, rollout: Rollout) -> _Standing | None:
        row = db.get(RolloutEvidence, rollout.id)
        endpoint = endpoints.find(db, rollout.endpoint)
        if row is None or endpoint is None:
            return None
        by_unit = rollout_policy.parse(endpoint.rollout_policy).sticky is not None
        cache = endpoints.options(endpoint).cache
        held = _held(rollout, row.state)
        return _Standing(rollout, row.cursor_ms, held, by_unit, cache.max_bytes)

    def _forget(self, known: set[str]) -> None:
        self._recent = {key: value for key, value in self._recent.items() if key in known}
        self._in_traffic_since = {key: value for key, value in self._in_traffic_since.items() if key in known}
        self._leaks = {key: value for key, value in self._leaks.items() if key in known}

    def _weigh(self, standing: _Standing, now: float) -> _Weighed:
        rollout, cursor_ms = standing.rollout, standing.cursor_ms
        raw = measured.read_ticks(
            self._store,
            rollout.endpoint,
            rollout.stable,
            rollout.candidate,
            after_ms=cursor_ms,
            tick_ms=self._tick_ms,
            now_ms=round(now * 1000),
            by_unit=standing.by_unit,
        )
        gathered = self._pairing.take(rollout.id) if _takes_pairs(rollout, raw) else None
        ticks = _ticks(rollout, raw, gathered)
        new = standing.evidence
        for tick in ticks:
            new = evidences.advance(new, tick, rollout.plan.guardrails)
        counted = [tick for tick in ticks if _at_step(rollout, tick)]
        # after a gap, measurements speak for more than the tick they were taken in: that is no bake time
        baked_s = rollout.baked_s + sum(min(tick.span_s, self._tick_ms / 1000) for tick in counted)
        requests = rollout.step_requests + sum(_seen(rollout, tick) for tick in counted)
        given = self._judge(standing, new, requests, ticks, now)
        _check_finite(evidences.to_json(new), given)
        end_ms = ticks[-1].end_ms if ticks else cursor_ms
        return _Weighed(rollout, cursor_ms, new, end_ms, baked_s, requests, given, gathered)

    def _judge(
        self, standing: _Standing, evidence: Evidence, requests: int, ticks: Iterable[Tick], now: float
    ) -> Verdict:
        rollout = standing.rollout
        given = verdict.judge(
            evidence,
            rollout.plan.guardrails,
            rollout.step,
            now=now,
            step_requests=requests,
            stale_after_s=self._stale_s,
        )
        if rollout.state not in IN_TRAFFIC:
            return given
        recent = self._recent.setdefault(rollout.id, deque(maxlen=RECENT_TICKS))
        newest_ms = recent[-1].end_ms if recent else 0
        recent.extend(tick for tick in ticks if tick.end_ms > newest_ms)
        failing = hard_failures.all_failing(recent)
        if failing is not None:
            return replace(given, kind=VerdictKind.FAIL, code="all-errors", sentence=failing)
        leak = self._leak(standing, now)
        if leak is not None:
            return replace(given, kind=VerdictKind.FAIL, code="memory", sentence=leak)
        return given

    def _leak(self, standing: _Standing, now: float) -> str | None:
        """What the agents' memory says, looked at every LEAK_EVERY_S; what it said last in between."""
        rollout = standing.rollout
        known = self._leaks.get(rollout.id)
        if known is not None and 0 <= now - known.at < LEAK_EVERY_S:
            return known.found
        since = max(self._in_traffic_since.setdefault(rollout.id, now), now - LEAK_WINDOW_S)
        found = None
        if now - since >= memory_growth.LEAST_S:
            step_s = max(1.0, float(round((now - since) / LEAK_POINTS)))
            found = memory_growth.leak(
                self._memory(rollout, rollout.candidate, since, now, step_s),
                self._memory(rollout, rollout.stable, since, now, step_s),
                allowance=standing.cache_bytes,
            )
        self._leaks[rollout.id] = _Leak(now, found)
        return found

    def _memory(
        self, rollout: Rollout, version: str, since: float, now: float, step_s: float
    ) -> list[memory_growth.Points]:
        """Resident memory of each agent of *version* over time."""
        found = self._store.query(
            "agent_memory", since, now, step_s, endpoint=rollout.endpoint, version=version
        )
        return [[(t, value) for t, value in line.points if value is not None] for line in found]

    def _write(self, weighed: _Weighed) -> None:
        with self._lease.write() as db:
            written = _stored(db, weighed)
        if not written and weighed.gathered is not None:
            self._pairing.forget(weighed.before.id)


def _held(rollout: Rollout, state: dict[str, Any]) -> Evidence:
    return evidences.from_json(state) if state else evidences.start(rollout.plan.guardrails)


def _check_finite(state: dict[str, Any], given: Verdict) -> None:
    """Raise ValueError where a figure is no number: not every database takes such JSON."""
    json.dumps([state, msgspec.to_builtins(given)], allow_nan=False)


def _takes_pairs(rollout: Rollout, raw: Sequence[measured.RawTick]) -> bool:
    """Whether pairs would count now: in the last tick, while copies were sent all through it."""
    return bool(raw) and rollout.mirror > 0 and _weight(rollout, raw[-1]) is not None


def _ticks(rollout: Rollout, raw: Sequence[measured.RawTick], gathered: Gathered | None) -> list[Tick]:
    """What was measured, with the weight that was in force; pairs count in the last tick."""
    found = [
        Tick(
            end_ms=each.end_ms,
            span_s=each.span_s,
            weight=_weight(rollout, each),
            stable=_arm(each.stable),
            candidate=_arm(each.candidate),
            latency_bounds_s=each.latency_bounds_s,
            by_unit=each.by_unit,
            repeated=each.repeated,
        )
        for each in raw
    ]
    if gathered is not None and found:
        found[-1] = replace(found[-1], pairs=Pairs(compared=gathered.compared, disagreed=gathered.disagreed))
    return found


def _arm(arm: measured.RawArm) -> ArmCounts:
    return ArmCounts(**{name: getattr(arm, name) for name in ArmCounts.__dataclass_fields__})


def _weight(rollout: Rollout, raw: measured.RawTick) -> float | None:
    """The candidate's share all the tick long; None where it changed in it, or was not in force."""
    if rollout.state is RolloutState.PREFLIGHT:
        return 0.0
    settled = rollout.state is not RolloutState.SHIFTING
    began_s = raw.end_ms / 1000 - raw.span_s
    within = began_s >= rollout.entered_at or rollout.state is RolloutState.AWAITING_APPROVAL
    stood_in = rollout.weight < 1 and raw.stable.requests == 0 and raw.candidate.requests >= OUT_OF_FORCE
    return rollout.weight if settled and within and not stood_in else None


def _at_step(rollout: Rollout, tick: Tick) -> bool:
    """Whether the tick counts as time and requests of the step."""
    return tick.weight is not None and rollout.state in IN_TRAFFIC


def _seen(rollout: Rollout, tick: Tick) -> int:
    if rollout.mirror > 0:
        return tick.pairs.compared if tick.pairs else 0
    return tick.candidate.requests


def _stored(db: Session, weighed: _Weighed) -> bool:
    """Write it, unless somebody has moved the rollout since it was read: then the next look counts anew."""
    row = rollouts.locked(db, weighed.before.id)
    kept = db.get(RolloutEvidence, weighed.before.id, with_for_update=True)
    if row is None or kept is None or row.revision != weighed.before.revision:
        return False
    if kept.cursor_ms != weighed.cursor_ms:
        return False
    if weighed.end_ms != weighed.cursor_ms:
        kept.state = evidences.to_json(weighed.evidence)
        kept.cursor_ms = weighed.end_ms
        row.baked_s, row.step_requests = weighed.baked_s, weighed.requests
    if weighed.gathered is not None:
        kept.captures = dict(weighed.gathered.cursors)
        _hang(db, row.id, weighed.gathered.worst)
    if _is_news(row.verdict, weighed):
        row.verdict = msgspec.to_builtins(weighed.verdict)
    return True


def _is_news(known: dict[str, Any] | None, weighed: _Weighed) -> bool:
    new = weighed.verdict
    if known is None or weighed.end_ms != weighed.cursor_ms:
        return True
    return (known["kind"], known["code"]) != (new.kind.value, new.code) or new.at - known["at"] >= REFRESH_S


def _hang(db: Session, rollout_id: str, worst: Sequence[Compared]) -> None:
    """Put disagreements into the gallery, which keeps those farthest apart."""
    for each in worst:
        stable, candidate = each.pair.stable, each.pair.candidate
        db.add(
            Disagreement(
                rollout_id=rollout_id,
                at=max(stable.at, candidate.at),
                request_id=stable.request_id,
                distance=each.comparison.distance,
                inputs=captured_values.inputs_of(stable),
                answers={
                    "measure": each.comparison.measure,
                    "stable": captured_values.answer_of(stable),
                    "candidate": captured_values.answer_of(candidate),
                },
            )
        )
    db.flush()
    ranked = select(Disagreement.id).where(Disagreement.rollout_id == rollout_id)
    ranked = ranked.order_by(Disagreement.distance.desc(), Disagreement.at, Disagreement.id).offset(GALLERY)
    surplus = db.scalars(ranked.limit(10_000)).all()
    if surplus:
        db.execute(delete(Disagreement).where(Disagreement.id.in_(surplus)))
