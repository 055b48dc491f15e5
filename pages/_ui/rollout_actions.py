"""The buttons of a rollout: each carries the step and the revision it was drawn with.

What was refused stays on the page, in a card that says who moved the rollout, until the next action: the part
that holds it draws itself again every two seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import streamlit as st

from control_plane.domain.rollout import Command
from control_plane.domain.views import RolloutView
from control_plane.services import rollouts
from control_plane.services.rollout_plans import MAX_REASON_CHARS
from control_plane.ui import current
from control_plane.ui.viewmodels import rollout_detail as views
from pages._ui import actions, markup

EXTEND_S: Final = 300
"""How much longer one press lets a step bake, in seconds."""
_DONE: Final[dict[str, str]] = {
    Command.APPROVE: "Approved",
    Command.PROMOTE: "Promoting",
    Command.PROMOTE_FULL: "Promoting fully",
    Command.HOLD: "Held",
    Command.RESUME: "Resumed",
    Command.ABORT: "Aborting",
    Command.ROLLBACK: "Rolling back",
}


def draw(view: RolloutView) -> None:
    """The row of buttons with the reason that goes with whichever is pressed."""
    refusals(view.id)
    if not view.commands:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="rollout-controls"):
        for button in views.buttons(view):
            _button(view, button)
        if views.may_extend(view):
            st.button(
                f"Bake {EXTEND_S // 60} min longer",
                key="rollout-extend",
                icon=":material/more_time:",
                help="Of this step; may be pressed again.",
                on_click=_extend,
                args=(view,),
            )
        if Command.PROMOTE_FULL in view.commands:
            actions.confirm(
                "Promote fully",
                views.promote_fully_question(view),
                partial(_act, view, Command.PROMOTE_FULL),
                "rollout-promote-full",
                icon=":material/fast_forward:",
            )
        if Command.ABORT in view.commands:
            actions.confirm(
                "Abort",
                views.abort_question(view),
                partial(_act, view, Command.ABORT),
                "rollout-abort",
                icon=":material/cancel:",
            )
        if Command.ROLLBACK in view.commands:
            _roll_back(view)
        st.text_input(
            "Reason",
            key=_reason_key(view.id),
            placeholder="Reason, kept with the action",
            label_visibility="collapsed",
            max_chars=MAX_REASON_CHARS,
        )


def _button(view: RolloutView, button: views.Button) -> None:
    st.button(
        button.label,
        key=f"rollout-{button.command}",
        type="primary" if button.primary else "secondary",
        icon=button.icon,
        shortcut=button.shortcut,
        help=button.help,
        on_click=_act,
        args=(view, button.command),
    )


def _roll_back(view: RolloutView) -> None:
    """One click, always: going back is the safe direction. No single key, so that none is hit by mistake."""
    st.button(
        "Roll back",
        key="rollout-rollback",
        icon=":material/undo:",
        shortcut="Shift+B",
        help=views.rollback_help(view),
        on_click=_act,
        args=(view, Command.ROLLBACK),
    )


def _act(view: RolloutView, command: str) -> None:
    """Callback: do it, unless the rollout moved since it was drawn."""
    reason = str(st.session_state.get(_reason_key(view.id)) or "").strip() or None
    ctx = current.context()
    _attempt(
        view,
        lambda: rollouts.act(
            ctx,
            view.id,
            command,
            actor=actions.ACTOR,
            reason=reason,
            expected_step=view.step,
            expected_revision=view.revision,
        ),
        f"{_DONE[command]}: {view.candidate_ref} on {view.endpoint}",
    )


def _extend(view: RolloutView) -> None:
    ctx = current.context()
    _attempt(
        view,
        lambda: rollouts.extend_bake(
            ctx,
            view.id,
            EXTEND_S,
            actor=actions.ACTOR,
            expected_step=view.step,
            expected_revision=view.revision,
        ),
        f"This step bakes {EXTEND_S // 60} min longer",
    )


def _attempt(view: RolloutView, call: Callable[[], object], done: str) -> None:
    """Run *call*; keep why it was refused, or else forget the reason that was typed for it."""
    actions.act(call, done)
    refused = list(actions.notices())
    actions.notices().clear()
    st.session_state[_refused_key(view.id)] = refused
    if not refused:
        st.session_state[_reason_key(view.id)] = ""


def refusals(rollout_id: str) -> None:
    """Why the last action was not taken, until the next one is or it is put away."""
    kept: list[tuple[str, str | None]] = st.session_state.get(_refused_key(rollout_id), [])
    if not kept:
        return
    for message, next_step in kept:
        st.html(markup.problem(message, next_step))
    st.button("Put away", key="rollout-refused", type="tertiary", on_click=_forget, args=(rollout_id,))


def _forget(rollout_id: str) -> None:
    st.session_state[_refused_key(rollout_id)] = []


def _reason_key(rollout_id: str) -> str:
    return f"rollout-reason-{rollout_id}"


def _refused_key(rollout_id: str) -> str:
    return f"rollout-refusals-{rollout_id}"
