"""One rollout: what to do and why, its steps, its buttons, and what is to be known of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from control_plane.domain.rollout import Command, RolloutState, VerdictKind
from control_plane.domain.views import RolloutView, StepView
from control_plane.ui.viewmodels import quantities, rollouts
from control_plane.ui.viewmodels.badges import Badge, Tone
from serving_agent.contract.wire import VERSION_HEADER

StripState = Literal["done", "now", "next", "failed", "held", "ended"]
_RETURNED: Final = frozenset(
    {RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK, RolloutState.ABORTED, RolloutState.SUPERSEDED,
     RolloutState.FAILED}
)  # fmt: skip
_BAD_ENDS: Final = frozenset({RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK, RolloutState.FAILED})
_JUDGED: Final = frozenset({RolloutState.BAKING, RolloutState.AWAITING_APPROVAL, RolloutState.FINAL})


@dataclass(frozen=True, slots=True)
class Banner:
    """What to do, in capitals, and why, in one sentence; *place* says where the rollout stands."""

    badge: Badge
    sentence: str
    place: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something to know beside the verdict."""

    tone: Tone
    title: str
    words: str


@dataclass(frozen=True, slots=True)
class StripStep:
    """One step of the strip: title, two lines of words, and how full its bar is in [0, 1]."""

    title: str
    state: StripState
    place: str
    detail: str
    share: float


@dataclass(frozen=True, slots=True)
class Button:
    """One command: what its button says, and whether it is the thing to do now."""

    command: str
    label: str
    icon: str
    primary: bool = False
    shortcut: str | None = None
    help: str | None = None


# --- the banner ---


def banner(view: RolloutView) -> Banner:
    """PROMOTE, HOLD, ROLL BACK or NO DATA while requests flow; else the state; and one sentence why."""
    place = _place(view)
    if view.holds and not rollouts.ended(view):
        return Banner(Badge("❚❚", "HOLD", "warn"), _hold_words(view), place)
    if preview_only(view):
        return Banner(Badge("◐", "PREVIEW", "busy"), _preview_words(view), place)
    if view.phase in _JUDGED:
        return Banner(rollouts.verdict_badge(view.verdict), _verdict_words(view), place)
    state = rollouts.state_badge(view.phase)
    return Banner(Badge(state.icon, state.word.upper(), state.tone), _state_words(view), place)


def preview_only(view: RolloutView) -> bool:
    """Whether the candidate stands at a step that sends it neither requests nor copies."""
    return view.phase == RolloutState.BAKING and view.weight == 0 and view.mirror == 0


def _preview_words(view: RolloutView) -> str:
    return (
        f"{view.candidate_ref} has passed its gates and answers at its preview address alone; "
        "promoting it switches every request at once."
    )


def _place(view: RolloutView) -> str:
    """Step, share of traffic and who began; of one that is over only who began."""
    started = f"started by {view.created_by}"
    if rollouts.ended(view):
        return started
    return f"step {rollouts.step_words(view)} · {rollouts.share_words(view)} · {started}"


def _hold_words(view: RolloutView) -> str:
    if view.frozen:
        return rollouts.sentence(view, view.frozen) + " Rolling back is possible at any time."
    return "Held by a person: it stays as it is until it is resumed. Rolling back is possible at any time."


def _verdict_words(view: RolloutView) -> str:
    if view.phase == RolloutState.AWAITING_APPROVAL:
        follows = "the end follows"
        if view.next_weight:
            follows = f"{rollouts.percent(view.next_weight)} of requests follow"
        why = f" {rollouts.sentence(view, view.reason)}" if view.reason else ""
        return f"The step has proven itself and waits for a person: {follows}.{why}"
    if view.verdict is None:
        return "Requests have only just begun to reach the candidate."
    eta = f" About {quantities.duration(view.eta_s)} to a decision at this rate." if view.eta_s else ""
    return rollouts.sentence(view, view.reason or view.sentence) + eta


def _state_words(view: RolloutView) -> str:
    if view.phase in (RolloutState.STARTING, RolloutState.PREFLIGHT) and view.waiting_for:
        return f"Waits for {view.waiting_for}."
    if view.phase == RolloutState.SHIFTING:
        return f"The gateway is taking over {rollouts.percent(view.weight)} for {view.candidate_ref}."
    if view.phase in _RETURNED or view.phase == RolloutState.COMPLETED:
        return rollouts.sentence(view, view.reason or view.sentence)
    return rollouts.sentence(view, view.sentence)


# --- notes ---


def notes(view: RolloutView, now: float, *, stale_s: float, zone: str | None = None) -> tuple[Note, ...]:
    """What must be said beside the verdict. stale_s: age from which a verdict is called old, in seconds."""
    return tuple(_notes(view, now, stale_s, zone))


def _notes(view: RolloutView, now: float, stale_s: float, zone: str | None) -> Iterator[Note]:
    if view.controller_age_s is not None and not _settled(view, now):
        yield Note(
            "bad", f"No controller for {quantities.duration(view.controller_age_s)}",
            "The gateway keeps the present weights. What is asked for now is done when a controller is back.",
        )  # fmt: skip
    if view.phase in _JUDGED and view.verdict_at is not None and now - view.verdict_at > stale_s:
        yield Note(
            "warn", f"Evidence is {quantities.duration(now - view.verdict_at)} old",
            "Nothing is promoted on old evidence. The figures below are the last there were.",
        )  # fmt: skip
    if view.phase == RolloutState.AWAITING_WAIVER:
        yield Note(
            "warn", "A second person must agree",
            f"{view.created_by} started it; nothing runs until somebody else approves.",
        )  # fmt: skip
    elif view.skip_gates:
        yield Note("warn", "Gates are left out", rollouts.sentence(view, view.skip_gates))
    if not view.auto_advance and view.phase in _JUDGED and view.phase != RolloutState.FINAL:
        yield Note("idle", "A person promotes each step", "Good evidence alone does not go on.")
    yield from _kept(view, now, zone)


def _settled(view: RolloutView, now: float) -> bool:
    return rollouts.ended(view) and (view.warm_until is None or view.warm_until <= now)


def _kept(view: RolloutView, now: float, zone: str | None) -> Iterator[Note]:
    """What is kept running, and for how long."""
    if view.phase == RolloutState.FINAL:
        yield Note(
            "busy", "Rollback is armed",
            f"{view.candidate_ref} answers every request; {view.stable_ref} is kept warm and takes them back "
            "at once.",
        )  # fmt: skip
    if view.warm_until is None or not rollouts.ended(view):
        return
    left = view.warm_until - now
    until = f"until {quantities.short_clock(view.warm_until, zone)}"
    if left <= 0:
        return
    if view.phase == RolloutState.COMPLETED:
        words = f"Rolling back needs no new agents {until}."
        yield Note("busy", f"{view.stable_ref} stays warm for {rollouts.span(left)}", words)
    else:
        words = f"It gets no requests, and can be looked at {until}."
        yield Note("idle", f"{view.candidate_ref} is kept for {rollouts.span(left)}", words)


# --- the step strip ---


def strip(view: RolloutView) -> tuple[StripStep, ...]:
    """Every step with its weight, its place, and how far its time and requests are."""
    return tuple(_strip_step(view, step) for step in view.steps)


def _strip_step(view: RolloutView, step: StepView) -> StripStep:
    title = step_title(step)
    needs = _needs(step)
    if step.number == view.step and (view.phase in _RETURNED or step.place == "current"):
        return _current(view, step, title)
    if step.place == "done":
        return StripStep(title, "done", "passed", needs, 1.0)
    return StripStep(title, "next", "waiting · approval" if step.approval else "waiting", needs, 0.0)


def step_title(step: StepView) -> str:
    """ "25 %", "20 % copied" or "Preview"."""
    if step.mirror > 0:
        return f"{rollouts.percent(step.mirror)} copied"
    return rollouts.percent(step.weight) if step.weight > 0 else "Preview"


def _needs(step: StepView) -> str:
    time = rollouts.span(step.bake_s)
    return f"{time} · {quantities.count(step.min_requests, 'request')}" if step.min_requests else time


def _current(view: RolloutView, step: StepView, title: str) -> StripStep:
    progress = f"{rollouts.span(view.baked_s)} / {rollouts.span(step.bake_s)}"
    seen = f"{view.step_requests:,}"
    if step.min_requests:
        seen += f" / {quantities.count(step.min_requests, 'request')}"
    else:
        seen = quantities.count(view.step_requests, "request")
    share = min(1.0, view.baked_s / step.bake_s) if step.bake_s > 0 else 1.0
    if view.phase in _RETURNED:
        state: StripState = "failed" if view.phase in _BAD_ENDS else "ended"
        reached = f"ended at {progress}" if view.baked_s or view.step > 1 else "ended before traffic"
        return StripStep(title, state, reached, seen, share if view.baked_s else 0.0)
    if view.holds:
        return StripStep(title, "held", f"held {progress}", seen, share)
    if preview_only(view):
        return StripStep(title, "now", "ready to switch", "no requests", 1.0)
    return StripStep(title, "now", f"{_CURRENT_WORDS[view.phase]} {progress}", seen, share)


_CURRENT_WORDS: Final[dict[str, str]] = {
    RolloutState.SHIFTING: "shifting",
    RolloutState.BAKING: "baking",
    RolloutState.AWAITING_APPROVAL: "to approve",
    RolloutState.FINAL: "baking",
}


# --- buttons ---


def buttons(view: RolloutView) -> tuple[Button, ...]:
    """What can be done, in a fixed order; forward first, back last. Nothing that means nothing now."""
    return tuple(_buttons(view))


def _buttons(view: RolloutView) -> Iterator[Button]:
    able = frozenset(view.commands)
    forward = _forward(view, able)
    if forward is not None:
        yield forward
    if Command.HOLD in able:
        yield Button(Command.HOLD, "Hold", ":material/pause:", help="Stay at this step until resumed.")
    if Command.RESUME in able:
        yield Button(Command.RESUME, "Resume", ":material/play_arrow:", primary=True)


def _forward(view: RolloutView, able: Iterable[str]) -> Button | None:
    if Command.APPROVE in able:
        waiver = view.phase == RolloutState.AWAITING_WAIVER
        label = "Agree to leave the gates out" if waiver else f"Approve: {_ahead(view)}"
        return Button(Command.APPROVE, label, ":material/check:", primary=True)
    if Command.PROMOTE in able:
        label = _ahead(view)
        shown = label[0].upper() + label[1:]
        passed = view.verdict == VerdictKind.PASS
        against = None if passed else "The evidence does not say so yet: give a reason."
        return Button(Command.PROMOTE, shown, ":material/arrow_forward:", passed, "P", against)
    return None


def _ahead(view: RolloutView) -> str:
    if view.next_weight is None:
        return "finish now"
    if view.next_weight >= 1.0 and view.weight == 0:
        return "switch all traffic"
    return f"promote to {rollouts.percent(view.next_weight)}"


def may_extend(view: RolloutView) -> bool:
    """Whether the present step's bake can be made longer."""
    return view.phase in (RolloutState.SHIFTING, RolloutState.BAKING, RolloutState.FINAL)


def promote_fully_question(view: RolloutView) -> str:
    """What "Promote fully" would do, naming version and digest (Markdown)."""
    left = sum(step.place == "ahead" for step in view.steps)
    skipped = max(0, left - 1)
    steps = f" without the {quantities.count(skipped, 'step')} between" if skipped else ""
    return (
        f"Every request of **{view.endpoint}** goes to `{view.candidate_ref}` "
        f"(`{quantities.digest(view.candidate_digest)}`){steps}. "
        f"`{view.stable_ref}` is kept warm: rolling back stays possible."
    )


def abort_question(view: RolloutView) -> str:
    """What "Abort" would do (Markdown)."""
    return (
        f"The rollout ends. Every request goes to `{view.stable_ref}` "
        f"(`{quantities.digest(view.stable_digest)}`), and the agents of `{view.candidate_ref}` stop."
    )


def rollback_help(view: RolloutView) -> str:
    """What "Roll back" does."""
    return (
        f"At once: every request to {view.stable_ref} ({quantities.digest(view.stable_digest)}). "
        f"{view.candidate_ref} stays for the debugger."
    )


# --- traffic and facts ---


@dataclass(frozen=True, slots=True)
class Traffic:
    """Decided and observed share of the candidate; None where nothing was observed."""

    desired: float
    observed: float | None
    words: str


def traffic(view: RolloutView) -> Traffic:
    """The weight bar. With copies alone it says how many are copied."""
    if view.mirror > 0 and view.weight == 0:
        words = f"copies of {rollouts.percent(view.mirror)} of requests; clients never see its answers"
        return Traffic(view.weight, view.observed_weight, words)
    observed = "none seen in the last minute"
    if view.observed_weight is not None:
        observed = f"observed {rollouts.percent(view.observed_weight)} in the last minute"
    return Traffic(view.weight, view.observed_weight, f"decided {rollouts.percent(view.weight)}, {observed}")


def facts(view: RolloutView, now: float, zone: str | None) -> list[tuple[str, str]]:
    """Versions with digests, strategy, and when what began."""
    rows = [
        ("Stable", view.stable_ref),
        ("", quantities.digest(view.stable_digest)),
        ("Candidate", view.candidate_ref),
        ("", quantities.digest(view.candidate_digest)),
        ("Strategy", rollouts.strategy_words(view.strategy)),
        ("Goes on", "by itself, on proof" if view.auto_advance else "when a person promotes it"),
        ("Started", f"{quantities.clock(view.created_at, zone)} by {view.created_by}"),
        ("State since", quantities.ago(view.entered_at, now)),
    ]
    if view.ended_at is not None:
        rows[-1] = ("Ended", quantities.clock(view.ended_at, zone))
    return rows


def no_evidence(view: RolloutView) -> str:
    """Why no guardrail has anything to say."""
    if rollouts.ended(view):
        return "The candidate got no requests in this rollout."
    if preview_only(view):
        return "Nothing is measured while the candidate answers at its preview address alone."
    if view.phase in _JUDGED:
        return "The first measurements arrive within seconds of the first requests."
    return "Evidence gathers once requests, or copies of them, reach the candidate."


def preview_code(view: RolloutView, endpoint_url: str) -> str:
    """How a tester reaches the candidate, as shell lines. endpoint_url: the address that clients call."""
    body = "-H 'content-type: application/json' -d @request.json"
    lines = [f"curl {view.preview_url}/predict {body}"]
    if view.tester_header:
        lines.append(f"curl -H '{VERSION_HEADER}: {view.candidate_ref}' {endpoint_url}/predict {body}")
    return "\n".join(lines)
