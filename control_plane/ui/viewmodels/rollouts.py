"""Rollouts: groups of the list, states and verdicts in words, rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from control_plane.domain.rollout import ENDED, OPERATOR, RolloutState, Strategy, VerdictKind
from control_plane.domain.views import Attention, RolloutView
from control_plane.ui.viewmodels import quantities
from control_plane.ui.viewmodels.badges import Badge, Tone

HELD: Final = "held"
"""What the view calls a rollout that something holds, whatever its phase."""
_ACTIVE: Final = (
    RolloutState.STARTING, RolloutState.PREFLIGHT, RolloutState.SHIFTING, RolloutState.BAKING,
    RolloutState.FINAL, RolloutState.ROLLING_BACK,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group:
    """One choice of the list's filter; *states* empty: every one."""

    slug: str
    """What the address says."""
    label: str
    states: tuple[RolloutState, ...]


ALL: Final = Group("all", "All", ())
GROUPS: Final = (
    ALL,
    Group("active", "In progress", _ACTIVE),
    Group("waiting", "Waiting for a person", (RolloutState.AWAITING_APPROVAL, RolloutState.AWAITING_WAIVER)),
    Group("completed", "Completed", (RolloutState.COMPLETED,)),
    Group("rolled-back", "Rolled back", (RolloutState.ROLLED_BACK,)),
    Group("aborted", "Aborted", (RolloutState.ABORTED, RolloutState.SUPERSEDED)),
    Group("failed", "Failed", (RolloutState.FAILED,)),
)
_STATES: Final[dict[str, tuple[str, str, Tone]]] = {
    HELD: ("❚❚", "Held", "warn"),
    RolloutState.AWAITING_WAIVER: ("?", "Awaiting a second person", "warn"),
    RolloutState.STARTING: ("◐", "Starting", "busy"),
    RolloutState.PREFLIGHT: ("◐", "Preflight", "busy"),
    RolloutState.SHIFTING: ("◐", "Shifting", "busy"),
    RolloutState.BAKING: ("◐", "Baking", "busy"),
    RolloutState.AWAITING_APPROVAL: ("?", "Awaiting approval", "warn"),
    RolloutState.FINAL: ("◐", "All traffic", "busy"),
    RolloutState.ROLLING_BACK: ("↩", "Rolling back", "bad"),
    RolloutState.COMPLETED: ("✓", "Completed", "good"),
    RolloutState.ROLLED_BACK: ("↩", "Rolled back", "bad"),
    RolloutState.ABORTED: ("○", "Aborted", "idle"),
    RolloutState.SUPERSEDED: ("○", "Superseded", "idle"),
    RolloutState.FAILED: ("✕", "Failed", "bad"),
}
_VERDICTS: Final[dict[str | None, Badge]] = {
    VerdictKind.PASS: Badge("✓", "PROMOTE", "good"),
    VerdictKind.WAIT: Badge("◐", "HOLD", "busy"),
    VerdictKind.FAIL: Badge("✕", "ROLL BACK", "bad"),
    VerdictKind.NO_DATA: Badge("?", "NO DATA", "warn"),
    None: Badge("○", "NO VERDICT YET", "idle"),
}
_STRATEGIES: Final = {
    Strategy.CANARY: "Canary",
    Strategy.BLUE_GREEN: "Blue/green",
    Strategy.SHADOW: "Shadow",
}


def group(slug: str | None) -> Group:
    """The group that an address names; all of them for anything unknown."""
    return next((each for each in GROUPS if each.slug == slug), ALL)


def group_label(each: Group, counts: Mapping[str, int]) -> str:
    """A group with the number of its rollouts: "Completed 3"."""
    states = each.states or tuple(RolloutState)
    return f"{each.label} {sum(counts.get(state, 0) for state in states):,}"


def state_badge(state: str) -> Badge:
    """The badge of a rollout's state, `held` included."""
    icon, word, tone = _STATES.get(state, ("○", state.replace("_", " ").capitalize(), "idle"))
    return Badge(icon, word, tone)


def verdict_badge(kind: str | None) -> Badge:
    """What the evidence advises: PROMOTE, HOLD, ROLL BACK or NO DATA."""
    return _VERDICTS.get(kind, _VERDICTS[None])


def strategy_words(strategy: str) -> str:
    """A strategy for people."""
    return _STRATEGIES.get(Strategy(strategy), strategy)


def percent(share: float | None) -> str:
    """A share of traffic: 0.25 → "25 %", 0.248 → "24.8 %"."""
    return quantities.NOTHING if share is None else f"{share * 100:.3g} %"


def span(seconds: float) -> str:
    """A time that runs, as a clock shows it: 142 → "2:22", 3725 → "1:02:05"."""
    whole = max(0, int(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def ended(view: RolloutView) -> bool:
    """Whether it is over."""
    return view.phase in ENDED


def sentence(view: RolloutView, words: str) -> str:
    """*words* with a full stop and a capital, as a person writes; names and `p95` stay as they are."""
    if not words:
        return ""
    start = words.split(maxsplit=1)[0]
    named = start in (view.endpoint, view.created_by) or not start.strip(":,").isalpha()
    first = words[0] if named else words[0].upper()
    return first + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")


def pair(view: RolloutView) -> str:
    """ "digits@1 → digits@2"."""
    return f"{view.stable_ref} → {view.candidate_ref}"


def share_words(view: RolloutView) -> str:
    """What the candidate gets now: "25 % of requests", "copies of 20 % of requests", "no requests"."""
    if view.mirror > 0:
        return f"copies of {percent(view.mirror)} of requests"
    return f"{percent(view.weight)} of requests" if view.weight > 0 else "no requests"


@dataclass(frozen=True, slots=True)
class Row:
    """One rollout of the list."""

    title: str
    versions: str
    badge: Badge
    facts: tuple[tuple[str, str], ...]
    sentence: str


def row(view: RolloutView, now: float) -> Row:
    """*view* as the list shows it."""
    since = view.ended_at if view.ended_at is not None else view.created_at
    facts = (
        ("strategy", strategy_words(view.strategy)),
        *(() if ended(view) else (("candidate gets", share_words(view)), ("step", step_words(view)))),
        ("ended" if view.ended_at is not None else "started", quantities.ago(since, now)),
        ("by", view.created_by),
    )
    return Row(view.endpoint, pair(view), state_badge(view.state), facts, sentence(view, why(view)))


def step_words(view: RolloutView) -> str:
    """ "3 of 6"."""
    return f"{view.step} of {len(view.steps)}"


def why(view: RolloutView) -> str:
    """Why it is where it is: the reason of its verdict or end, else where it stands."""
    if view.frozen:
        return view.frozen
    if view.waiting_for and view.phase in (RolloutState.STARTING, RolloutState.PREFLIGHT):
        return f"Waits for {view.waiting_for}"
    return view.reason or view.sentence


ACTIVE_STATES: Final = (*_ACTIVE, *GROUPS[2].states)
"""States of a rollout that has not ended."""
BAD_ENDS: Final = (RolloutState.ROLLED_BACK, RolloutState.FAILED)
_RECENT_S: Final = 24 * 3600.0


def attention(
    active: Iterable[RolloutView], gone_wrong: Iterable[RolloutView], now: float
) -> tuple[Attention, ...]:
    """What a person should look at: rollouts that wait for one, and those of the last day that went wrong.

    One that went wrong is no longer news once its endpoint has another.
    """
    standing = list(active)
    taken = {view.endpoint for view in standing}
    waiting = [view for view in standing if _waits(view)]
    recent = [
        view
        for view in gone_wrong
        if view.endpoint not in taken and view.ended_at is not None and now - view.ended_at < _RECENT_S
    ]
    return tuple(_attention(view) for view in (*waiting, *recent))


def _waits(view: RolloutView) -> bool:
    return view.phase in GROUPS[2].states or OPERATOR in view.holds


def _attention(view: RolloutView) -> Attention:
    word = state_badge(view.state).word
    at = view.ended_at if view.ended_at is not None else view.entered_at
    told = sentence(view, f"{word} ({view.candidate_ref}): {view.reason}" if view.reason else view.sentence)
    return Attention("rollout", view.endpoint, told, f"/rollouts?id={view.id}", at)
