"""A new profile: of a version in a process of its own, or of a serving agent while it serves."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from control_plane.domain.profile import LIVE, LONGEST_LIVE_S, MAX_NAME_CHARS, MAX_SECONDS, ProfileView, Wish
from control_plane.errors import InvalidInputError
from control_plane.services import endpoints, profiling, versions
from control_plane.services.context import Context
from control_plane.ui.viewmodels import profiling as views
from pages._ui import actions, markup, offered_versions, profiling_list, shell
from serving_agent.contract.profile import SWEEP, TAKES

VERSION, ENDPOINT = "A version", "A live endpoint"
EXAMPLES, RANDOM = "Examples of the version", "Made up by the signature"
INPUTS: Final = {EXAMPLES: "examples", RANDOM: "random"}
_USUAL: Final = Wish()


def draw() -> None:
    """Draw the form of a new profile, and the profiles there are."""
    ctx = shell.title(
        "Profiling",
        "Measures where the time and the memory of a request go, and says what usually helps.",
    )
    refs = offered_versions.refs(ctx, missing="There is no version to profile")
    if not refs:
        return
    with st.container(border=True, key="profiling-new"):
        _form(ctx, refs)
    profiling_list.draw()


def _form(ctx: Context, refs: list[str]) -> None:
    st.html(markup.card_title("New profile"))
    what = st.segmented_control(
        "What is profiled",
        [VERSION, ENDPOINT],
        default=ENDPOINT if shell.param("endpoint") else VERSION,
        key="profiling-what",
        required=True,
        label_visibility="collapsed",
    )
    if what == ENDPOINT:
        _of_endpoint(ctx)
    else:
        _of_version(ctx, refs)


def _of_version(ctx: Context, refs: list[str]) -> None:
    wanted = shell.param("version")
    chosen = versions.get(ctx, wanted).ref if wanted else None
    offered = refs if chosen is None or chosen in refs else [chosen, *refs]
    left, middle, right = st.columns([1.4, 1, 1])
    ref = left.selectbox(
        "Version",
        offered,
        index=offered.index(chosen) if chosen else None,
        key=f"profiling-version-{chosen}",
        placeholder="Choose a version",
        help="Newest first. Type to search.",
    )
    source = middle.selectbox(
        "Input", list(INPUTS), key="profiling-input", help="Without examples, inputs are made up."
    )
    batch = right.number_input("Rows of a request", 1, 4096, _USUAL.batch, key="profiling-batch")
    take = st.pills(
        "What is taken",
        list(TAKES),
        selection_mode="multi",
        default=list(TAKES),
        format_func=lambda each: views.TAKEN[each],
        key="profiling-take",
    )
    left, middle, right = st.columns([1.4, 1, 1])
    threads, sizes = _details(left)
    requests = middle.number_input(
        "Requests",
        1,
        10_000,
        _USUAL.requests,
        key="profiling-requests",
        help="Each profiler watches so many.",
    )
    seconds = right.number_input(
        "Seconds at most",
        0.5,
        MAX_SECONDS,
        _USUAL.seconds,
        step=1.0,
        key="profiling-seconds",
        help="For each profiler, and for each batch size of the sweep.",
    )
    changes = {
        "batch": int(batch),
        "take": list(take or ()),
        "requests": int(requests),
        "seconds": float(seconds),
        "input": INPUTS[str(source)],
        "threads": threads,
        "sweep": sizes,
    }
    name, pressed = _go(disabled=ref is None or not take)
    if pressed and ref is not None:
        _begin(lambda: profiling.start(ctx, ref, wish(_USUAL, changes), name=name, actor=actions.ACTOR))


def _details(place: DeltaGenerator) -> tuple[int, list[int]]:
    """Threads and batch sizes."""
    left, right = place.columns([1, 2.6])
    threads = left.number_input("CPU threads", 1, 256, _USUAL.threads, key="profiling-threads")
    sizes = right.multiselect(
        "Batch sizes of the sweep", list(SWEEP), default=list(SWEEP), key="profiling-sizes"
    )
    return int(threads), sorted(sizes)


def _of_endpoint(ctx: Context) -> None:
    names = [view.name for view in endpoints.list_all(ctx)]
    if not names:
        shell.empty("There is no endpoint", "Deploy a version first, or profile one without serving it.")
        return
    wanted = shell.param("endpoint")
    left, middle, right = st.columns([1.4, 1, 1])
    name = left.selectbox(
        "Endpoint",
        names,
        index=names.index(wanted) if wanted in names else 0,
        key="profiling-endpoint",
    )
    requests = middle.number_input(
        "Requests", 1, 10_000, LIVE.requests, key="profiling-live-requests", help="It ends after so many."
    )
    seconds = right.number_input(
        "Seconds at most", 1.0, LONGEST_LIVE_S, LIVE.seconds, step=5.0, key="profiling-live-seconds"
    )
    st.html(
        markup.text(
            "One serving agent is watched while it answers its clients: stages of every request, and samples "
            "of all its threads. It is not restarted, and no request fails for it."
        )
    )
    title, pressed = _go(disabled=False)
    if pressed:
        changes = {"requests": int(requests), "seconds": float(seconds)}
        _begin(
            lambda: profiling.start_live(ctx, str(name), wish(LIVE, changes), name=title, actor=actions.ACTOR)
        )


def wish(usual: Wish, changes: dict[str, Any]) -> Wish:
    """*usual* with *changes*. Raises InvalidInputError."""
    try:
        return msgspec.convert({**msgspec.to_builtins(usual), **changes}, Wish)
    except msgspec.ValidationError as error:
        raise InvalidInputError(str(error), next_step="Change the form.") from None


def _go(*, disabled: bool) -> tuple[str, bool]:
    with st.container(horizontal=True, vertical_alignment="bottom", key="profiling-go"):
        name = st.text_input(
            "Name, optional",
            key="profiling-name",
            placeholder="before the change",
            max_chars=MAX_NAME_CHARS,
            width=280,
        )
        pressed = actions.pressed(
            "Take profile", "profiling-start", icon=":material/play_arrow:", disabled=disabled
        )
    return name or "", pressed


def _begin(call: Any) -> None:
    """Queue a profile and go to its page."""
    queued: list[ProfileView] = []
    actions.act(lambda: queued.append(call()), "The profile is queued")
    if queued:
        st.query_params.clear()
        st.query_params["run"] = queued[0].id
    st.rerun()
