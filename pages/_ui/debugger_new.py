"""A new debugger run: version A, another beside it, and what they are run on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import streamlit as st

from control_plane.domain.debugging import (
    DebugRunView,
    ExampleSource,
    ImageSource,
    InputChoices,
    InputSource,
    JsonSource,
    NpySource,
    RandomSource,
    TextSource,
)
from control_plane.errors import InvalidInputError, SignalboxError
from control_plane.services import debugger, versions
from control_plane.services.context import Context
from control_plane.ui import current
from control_plane.ui.viewmodels import debugger_input as views
from pages._ui import actions, debugger_runs, markup, offered_versions, shell

MAX_SEED: Final = 2**31 - 1
_WAY: Final = "input"
OF_NEW: Final = (
    "a", "b", _WAY, "example", "json", "endpoint", "agent", "seq", "rollout", "disagreement", "page", "layer",
    "side", "token", "row",
)  # fmt: skip
"""Query parameters that say nothing to the page of another run."""


def draw() -> None:
    """Draw the form of a new run, and the runs there are."""
    ctx = shell.title(
        "Debugger",
        "Looks inside a version on one input: every stage, every layer, and where two versions come apart.",
    )
    refs = offered_versions.refs(ctx, missing="There is no version to look into")
    if not refs:
        return
    with st.container(border=True, key="debugger-new"):
        _form(ctx, refs)
    debugger_runs.draw()


def _form(ctx: Context, refs: list[str]) -> None:
    st.html(markup.card_title("New run"))
    found = _found(ctx)
    a, b = _versions(ctx, refs, found)
    if a is None:
        st.html(
            markup.text("Choose the version to look into; a second one is run beside it on the same input.")
        )
        return
    ready = _checked(lambda: found if found is not None else _source(ctx, debugger.choices(ctx, a)))
    with st.container(horizontal=True, vertical_alignment="bottom", key="debugger-go"):
        name = st.text_input(
            "Name, optional",
            key="debugger-name",
            placeholder="kept longer under it",
            max_chars=100,
            width=280,
        )
        wanted = actions.pressed(
            "Run", "debugger-start", icon=":material/play_arrow:", disabled=ready is None
        )
    if wanted and ready is not None:
        source = ready
        begin(
            lambda: debugger.start(ctx, a, source, against=b, name=name or "", actor=actions.ACTOR),
            "The run has begun",
        )


def begin(call: Callable[[], DebugRunView], said: str, *, layer: str | None = None) -> None:
    """Queue a run and go to its page, at *layer*."""
    queued: list[str] = []
    actions.act(lambda: queued.append(call().id), said)
    if queued:
        for each in OF_NEW:  # not all of them: those that belong to a widget may not be taken away
            st.query_params.pop(each, None)
        st.query_params["run"] = queued[0]
        if layer:
            st.query_params["layer"] = layer
    st.rerun()


def _checked(form: Callable[[], InputSource]) -> InputSource | None:
    """What *form* describes; a card with the problem and None while it cannot be run."""
    try:
        return form()
    except SignalboxError as error:
        st.html(markup.problem(error.message, error.next_step, warn=True))
        return None


# --- versions ---


def _versions(ctx: Context, refs: list[str], found: InputSource | None) -> tuple[str | None, str | None]:
    a, b = shell.param("a"), shell.param("b")
    if found is not None and a is None:
        a, b = _of_rollout(ctx)
    chosen = versions.get(ctx, a).ref if a else None
    beside = versions.get(ctx, b).ref if b else None
    offered = list(dict.fromkeys([*filter(None, (chosen, beside)), *refs]))
    left, right = st.columns(2)
    with left:
        _choice("Version A", "a", offered, chosen, "Choose a version")
    with right:
        others = [ref for ref in views.beside(offered, chosen) if ref != chosen]
        _choice("Version B, optional", "b", others, beside if beside != chosen else None, "Nothing beside it")
    return chosen, beside if beside != chosen else None


def _choice(label: str, name: str, refs: list[str], now: str | None, placeholder: str) -> None:
    key = f"debugger-{name}-{now}"
    st.selectbox(
        label,
        refs,
        index=refs.index(now) if now else None,
        key=key,
        placeholder=placeholder,
        help="Newest first. Type to search.",
        on_change=_choose,
        args=(name, key),
    )


def _choose(name: str, key: str) -> None:
    chosen = st.session_state[key]
    if chosen is None:
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = str(chosen)


# --- inputs that a link names ---


def _found(ctx: Context) -> InputSource | None:
    """The disagreement of a rollout that the address names."""
    rollout, disagreement = shell.param("rollout"), shell.param("disagreement")
    if rollout is None or disagreement is None:
        return None
    view = debugger.disagreement(ctx, rollout, disagreement)
    words = f"Request {view.request_id} at {view.endpoint}, which {view.a} and {view.b} answered differently."
    if not view.complete:
        st.html(markup.problem(words, "Its input was too large to be kept: choose another input.", warn=True))
        return None
    with st.container(horizontal=True, vertical_alignment="center"):
        st.html(markup.text(words))
        st.button("Other input", key="debugger-other", on_click=_forget, args=(view.a, view.b))
    return view.source


def _of_rollout(ctx: Context) -> tuple[str, str]:
    view = debugger.disagreement(ctx, shell.param("rollout") or "", shell.param("disagreement") or "")
    return view.a, view.b


def _forget(a: str, b: str) -> None:
    for name in ("rollout", "disagreement"):
        st.query_params.pop(name, None)
    st.query_params["a"], st.query_params["b"] = a, b


# --- other inputs ---


def _source(ctx: Context, choices: InputChoices) -> InputSource:
    ways = views.ways(choices)
    wanted = shell.param(_WAY) or views.way_of(
        example=shell.param("example"), endpoint=shell.param("endpoint"), json=shell.param("json")
    )
    way = st.segmented_control(
        "Input",
        ways,
        default=wanted if wanted in ways else ways[0],
        key=f"debugger-input-{choices.ref}",
        required=True,
    )
    draw_way: dict[str, Callable[[], InputSource]] = {
        views.EXAMPLE: lambda: _example(choices),
        views.CAPTURED: lambda: _captured(ctx, choices),
        views.JSON: lambda: _json(choices),
        views.FILE: lambda: _file(choices),
        views.TEXT: lambda: _text(choices),
        views.RANDOM: _random,
    }
    return draw_way[str(way)]()


def _example(choices: InputChoices) -> InputSource:
    wanted = views.whole(shell.param("example"), 1, len(choices.examples))
    place = st.selectbox(
        "Example",
        range(len(choices.examples)),
        index=wanted - 1,
        key=f"debugger-example-{choices.ref}-{wanted}",
        format_func=lambda at: choices.examples[at],
        width=420,
    )
    return ExampleSource(number=place + 1)


def _captured(ctx: Context, choices: InputChoices) -> InputSource:
    if not choices.endpoints:
        raise InvalidInputError(
            f"No endpoint keeps requests that {choices.ref} can take",
            next_step="Deploy the version and switch on sampling of requests in the endpoint's options.",
        )
    wanted = shell.param("endpoint")
    left, right = st.columns([1, 2])
    names = list(choices.endpoints)
    endpoint = left.selectbox(
        "Endpoint", names, index=names.index(wanted) if wanted in names else 0, key="debugger-endpoint"
    )
    kept = debugger.captures(ctx, endpoint)
    usable = [each for each in kept if each.complete]
    if not usable:
        raise InvalidInputError(
            f"The agents of {endpoint} keep no whole request now",
            next_step="Switch on sampling of requests in the endpoint's options, with none of the inputs "
            "redacted, and send some small ones.",
        )
    named = (shell.param("agent") or "", views.whole(shell.param("seq"), 0, 2**63))
    sources = [each.source for each in usable]
    given = next((at for at, each in enumerate(sources) if (each.agent, each.seq) == named), 0)
    place = right.selectbox(
        "Request",
        range(len(usable)),
        index=given,
        key=f"debugger-capture-{endpoint}-{usable[0].seq}",
        format_func=lambda at: views.capture_words(usable[at], shell.zone()),
    )
    return sources[place]


def _json(choices: InputChoices) -> InputSource:
    text = st.text_area(
        "Input as JSON",
        shell.param("json") or views.json_start(choices.signature),
        key=f"debugger-json-{choices.ref}",
        height=160,
        help="Rows as nested lists, or an object of them by the names of the inputs; any shape is tried.",
    )
    try:
        value: Any = json.loads(text or "")
    except ValueError as error:
        raise InvalidInputError(
            f"This is not JSON: {error}", next_step="Write rows as nested lists, like [[0.0, 1.5]]."
        ) from error
    return JsonSource(input=views.bare_input(value))


def _file(choices: InputChoices) -> InputSource:
    st.html(markup.text(views.file_words(choices)))
    endings = ["npy", *(["png", "jpg", "jpeg"] if choices.image_inputs else [])]
    files = st.file_uploader(
        "File",
        type=endings,
        accept_multiple_files=len(choices.signature.inputs) > 1,
        key=f"debugger-file-{choices.ref}",
        label_visibility="collapsed",
    )
    sent = files if isinstance(files, list) else [files] if files is not None else []
    if not sent:
        raise InvalidInputError("No file was chosen", next_step="Choose one above, or drop it there.")
    if sent[0].name.lower().endswith(".npy"):
        return NpySource(files=views.npy_files(choices, [(each.name, each.getvalue()) for each in sent]))
    return ImageSource(content=sent[0].getvalue(), name=_name("Into input", choices.image_inputs))


def _text(choices: InputChoices) -> InputSource:
    text = st.text_area("Text", key=f"debugger-text-{choices.ref}", height=110, placeholder="Type something")
    return TextSource(text=text or "", name=_name("Into input", choices.text_inputs))


def _name(label: str, names: tuple[str, ...]) -> str:
    """Which input is meant; asked for only where there are several."""
    if len(names) <= 1:
        return ""
    return str(st.selectbox(label, names, key=f"debugger-name-{'-'.join(names)}", width=280))


def _random() -> InputSource:
    one, two, three = st.columns(3)
    seed = one.number_input(
        "Seed", 0, MAX_SEED, 0, key="debugger-seed", help="The same seed gives the same input."
    )
    rows = two.number_input("Rows", 1, 1024, 1, key="debugger-rows")
    size = three.number_input(
        "Open sizes",
        1,
        65_536,
        16,
        key="debugger-open",
        help="Size wherever else the signature leaves one open.",
    )
    st.html(markup.text("Standard normal floats and small integers in the shapes that the version takes."))
    return RandomSource(seed=int(seed), rows=int(rows), open_size=int(size))


def again(run_id: str) -> None:
    """Run the same input once more and go to that run."""
    begin(lambda: debugger.edit(current.context(), run_id, actor=actions.ACTOR), "The run has begun again")
