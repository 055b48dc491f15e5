"""The verdict on a candidate: what all guardrails say together, for the step it is at. Pure.

    FAIL      a guardrail has proof that the candidate is worse
    PASS      every guardrail that applies has proof that it is safe, and the step has had its requests
    NO_DATA   nothing was measured, or not lately: neither promotes nor rolls back
    WAIT      anything else, with what it waits for

Guardrails that only observe are read and change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from control_plane.analysis import catalog, readings, sample_ratio, slo_guard
from control_plane.analysis.base import Evidence, Json, Reading, Verdict
from control_plane.analysis.evidence import FINAL, SPLIT
from control_plane.domain.rollout import Guardrail, Step, VerdictKind

ALPHA: Final = 0.01
"""Chance that a rollout is rolled back while its candidate is no worse; guardrails share it."""
STALE_AFTER_S: Final = 60.0
_LEAST_RATE: Final = 1e-6
"""Requests per second below which the rate tells nothing of the future."""
_LONGEST_ETA_S: Final = 30 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """A guardrail's reading, and how old its last data is in seconds; None: it never had any."""

    reading: Reading
    age_s: float | None
    required: bool


def judge(
    evidence: Evidence,
    guardrails: Sequence[Guardrail],
    step: Step,
    *,
    now: float,
    step_requests: int,
    stale_after_s: float = STALE_AFTER_S,
    alpha: float = ALPHA,
) -> Verdict:
    """The verdict at *now* (UTC seconds) on a rollout whose *evidence* was gathered with *guardrails*.

    step_requests: the candidate's requests, or compared copies, at this step; to pass it takes
    `step.min_requests`. The time that a step must bake is not looked at here.
    """
    if not step.measures:
        return Verdict(
            kind=VerdictKind.PASS, code="gates-only", sentence="no traffic to judge at this step", at=now
        )
    age_s = _age_s(evidence.last_data_ms, now)
    seen = _read(evidence, guardrails, step, now, alpha)
    given = _overall_no_data(age_s, stale_after_s, now) or _given(
        evidence, seen, step, now, stale_after_s, step_requests
    )
    return replace(given, readings=tuple(one.reading for one in seen))


def _overall_no_data(age_s: float | None, stale_after_s: float, now: float) -> Verdict | None:
    """NO_DATA where neither version has done anything, or not lately."""
    if age_s is None:
        return _no_data("no-data", "no request has been measured yet", now)
    if age_s < -stale_after_s:
        return _no_data("stale", f"the clock was set back: what is measured is {-age_s:.0f} s ahead", now)
    if not age_s <= stale_after_s:  # what is not a number is stale
        return _no_data("stale", f"nothing has been measured for {age_s:.0f} s", now)
    return None


def _given(
    evidence: Evidence, seen: list[_Seen], step: Step, now: float, stale_after_s: float, step_requests: int
) -> Verdict:
    judging = [one for one in seen if _judges(one)]
    fresh = [one for one in judging if one.age_s is not None and one.age_s <= stale_after_s]
    return (
        _failed(fresh, now)
        or _split(evidence, step, now)
        or _missing(judging, stale_after_s, now)
        or _too_few(evidence, step, step_requests, now)
        or _undecided(evidence, judging, step, now)
        or _passed(step, now)
    )


def _judges(one: _Seen) -> bool:
    """Whether it has a say: not where it only observes, or was never measured and need not be."""
    if one.reading.observe_only or one.reading.outcome == readings.NOT_APPLICABLE:
        return False
    measured = one.age_s is not None and one.reading.outcome != readings.NO_DATA
    return one.required or measured


def _failed(fresh: list[_Seen], now: float) -> Verdict | None:
    worse = [one.reading for one in fresh if one.reading.outcome == readings.WORSE]
    if not worse:
        return None
    strongest = max(worse, key=lambda reading: reading.log_evidence)
    return Verdict(kind=VerdictKind.FAIL, code=strongest.name, sentence=strongest.sentence, at=now)


def _split(evidence: Evidence, step: Step, now: float) -> Verdict | None:
    state = evidence.states.get(SPLIT)
    if state is None or step.is_final or not sample_ratio.alarmed(state):
        return None
    return Verdict(kind=VerdictKind.WAIT, code="split", sentence=sample_ratio.sentence(state), at=now)


def _missing(judging: list[_Seen], stale_after_s: float, now: float) -> Verdict | None:
    """NO_DATA where a guardrail lacks data of its own, though others have theirs."""
    for one in judging:
        if one.age_s is None or one.reading.outcome == readings.NO_DATA:
            return _no_data("no-data", f"{one.reading.title}: nothing measured yet", now)
        if not one.age_s <= stale_after_s:
            return _no_data("stale", f"{one.reading.title}: nothing measured for {one.age_s:.0f} s", now)
    return None


def _too_few(evidence: Evidence, step: Step, step_requests: int, now: float) -> Verdict | None:
    if step_requests >= step.min_requests:
        return None
    return Verdict(
        kind=VerdictKind.WAIT,
        code="too-few",
        sentence=f"{step_requests} of at least {step.min_requests} requests at this step",
        at=now,
        eta_s=_eta_s(step.min_requests - step_requests, evidence.rate),
    )


def _undecided(evidence: Evidence, judging: list[_Seen], step: Step, now: float) -> Verdict | None:
    """WAIT, naming the guardrail that needs longest; at full weight only "worse" is asked for."""
    open_ = [one.reading for one in judging if one.reading.outcome != readings.SAFE]
    if step.is_final or not open_:
        return None
    longest = max(open_, key=lambda reading: (reading.more_requests is None, reading.more_requests or 0))
    eta_s = _eta_s(longest.more_requests, evidence.rate)
    more = "" if longest.more_requests is None else f", about {longest.more_requests} more requests"
    return Verdict(
        kind=VerdictKind.WAIT, code="undecided", sentence=f"{longest.sentence}{more}", at=now, eta_s=eta_s
    )


def _passed(step: Step, now: float) -> Verdict:
    if step.is_final:
        sentence = "the candidate stays within what stable did before"
        return Verdict(kind=VerdictKind.PASS, code="final-within", sentence=sentence, at=now)
    return Verdict(kind=VerdictKind.PASS, code="all-safe", sentence="every guardrail is safe", at=now)


def _read(
    evidence: Evidence, guardrails: Sequence[Guardrail], step: Step, now: float, alpha: float
) -> list[_Seen]:
    if step.is_final:
        age_s = _age_s(evidence.last_data_ms, now)
        found = slo_guard.read(evidence.states.get(FINAL, slo_guard.start()), guardrails, alpha=alpha)
        return [_Seen(reading, age_s, required=False) for reading in found]
    return [_read_one(evidence, guardrail, step, now, alpha) for guardrail in guardrails]


def _read_one(evidence: Evidence, guardrail: Guardrail, step: Step, now: float, alpha: float) -> _Seen:
    metric = catalog.get(guardrail.name)
    state: Json = evidence.states.get(guardrail.name) or metric.start(guardrail)
    reading = metric.read(guardrail, state, alpha=alpha * guardrail.alpha_share)
    if not metric.applies(step):
        reading = replace(reading, outcome=readings.NOT_APPLICABLE)
    return _Seen(reading, _age_s(state["at"], now), metric.required)


def _no_data(code: str, sentence: str, now: float) -> Verdict:
    return Verdict(kind=VerdictKind.NO_DATA, code=code, sentence=sentence, at=now)


def _age_s(at_ms: int | None, now: float) -> float | None:
    return None if at_ms is None else now - at_ms / 1000.0


def _eta_s(more_requests: int | None, rate: float) -> float | None:
    """Seconds until so many more requests; None where that is so far away that nobody can say."""
    if more_requests is None or not rate >= _LEAST_RATE:
        return None
    eta_s = more_requests / rate
    return eta_s if eta_s <= _LONGEST_ETA_S else None
