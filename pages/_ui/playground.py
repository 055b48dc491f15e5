"""The playground tab: an input from an example, a form or JSON; the answer drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import streamlit as st

from control_plane.domain.views import EndpointView, Example, Prediction, VersionDetail
from control_plane.errors import SignalboxError
from control_plane.services import endpoints, versions
from control_plane.services.context import Context
from control_plane.ui import current
from control_plane.ui.components.example_picker import example_picker
from control_plane.ui.viewmodels import debugger_input, quantities
from control_plane.ui.viewmodels import playground as views
from control_plane.ui.viewmodels.badges import Badge
from pages._ui import links, markup, shell
from serving_agent.contract.signature import Signature

SHOWN_EXAMPLES: Final = 40
_ANSWER: Final = "playground-answer"
_HINT: Final = 'Write an object like {"input": [[0.0, 1.5]]}.'


def draw(ctx: Context, name: str) -> None:
    """Draw the playground of endpoint *name*."""
    view = endpoints.get(ctx, name)
    if view.serving_ref is None:
        shell.empty("Nothing is served yet", "The playground opens when the first agent is ready.")
        return
    version = versions.get(ctx, view.serving_ref)
    left, right = shell.split([1.1, 1])
    with left.container(border=True, key="playground-input"):
        _input(ctx, view, version)
    with right.container(border=True, key="playground-output"):
        _output(version)


def _input(ctx: Context, view: EndpointView, version: VersionDetail) -> None:
    signature = endpoints.signature(ctx, view.name)
    examples = versions.examples(ctx, version.ref) if version.example_count else ()
    ways = [*(["Example"] if examples else []), "Form", "JSON"]
    way = st.segmented_control(
        "Input",
        ways,
        default=ways[0],
        key="input",
        bind="query-params",
        required=True,
        label_visibility="collapsed",
    )
    if way == "Example" and examples:
        _from_example(view, signature, examples)
    elif way == "JSON":
        _from_json(view, signature, examples)
    else:
        _from_form(view, signature)


def _from_example(view: EndpointView, signature: Signature, examples: Sequence[Example]) -> None:
    items = views.thumbnails(signature, examples, SHOWN_EXAMPLES)
    if items and items[0].picture:
        chosen = example_picker(items, 0, key="picker")
    else:
        titles = [item.title for item in items]
        chosen = titles.index(st.selectbox("Example", titles, key="picker-list"))
    chosen = min(chosen, len(items) - 1)
    with st.container(horizontal=True, vertical_alignment="center"):
        if url := items[chosen].picture:
            st.html(markup.picture(url, items[chosen].title), width="content")
        st.html(markup.text(items[chosen].title), width="content")
    body = views.request_body(signature, views.example_row(signature, examples, chosen))
    _run_button(view, body, examples[chosen].label, example=str(chosen + 1))


def _from_form(view: EndpointView, signature: Signature) -> None:
    row: dict[str, Any] = {}
    problem: SignalboxError | None = None
    for spec, field in zip(signature.inputs, views.fields(signature), strict=True):
        try:
            row[spec.name] = views.wrap(spec, _widget(field))
        except SignalboxError as error:
            problem = error
    if problem is not None:
        st.html(markup.problem(problem.message, problem.next_step))
        return
    _run_button(view, views.request_body(signature, row), None)


def _widget(field: views.Field) -> Any:
    key = f"field-{field.name}"
    if field.kind == "number":
        return st.number_input(field.label, value=0.0, key=key, format="%g")
    if field.kind == "integer":
        return st.number_input(field.label, value=0, key=key)
    if field.kind == "flag":
        return st.checkbox(field.label, key=key)
    if field.kind == "text":
        return st.text_area(field.label, key=key, placeholder="Type something", height=110)
    return views.parse_field(field, st.text_area(field.label, field.value, key=key, height=160) or "")


def _from_json(view: EndpointView, signature: Signature, examples: Sequence[Example]) -> None:
    start = json.dumps(views.request_body(signature, views.example_row(signature, examples)))
    text = st.text_area("Body of POST /predict", start, key="json-body", height=220)
    try:
        body = json.loads(text or "")
    except ValueError as error:
        st.html(markup.problem(f"This is not JSON: {error}", _HINT))
        return
    if not isinstance(body, dict):
        st.html(markup.problem("A request is a JSON object; this is another value", _HINT))
        return
    _run_button(view, body, None)


def _run_button(
    view: EndpointView, body: dict[str, Any], label: str | None, *, example: str | None = None
) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="playground-run"):
        st.button(
            "Run",
            key="run",
            type="primary",
            icon=":material/play_arrow:",
            on_click=_run,
            args=(view.name, body, label),
        )
        given = {"example": example} if example else debugger_input.link_of(body)
        if given is not None and view.serving_ref is not None:
            links.page(
                "debugger",
                "Open in debugger",
                key="playground-debug",
                icon=":material/bug_report:",
                disabled=False,
                a=view.serving_ref,
                **given,
            )


def _run(name: str, body: dict[str, Any], label: str | None) -> None:
    try:
        st.session_state[_ANSWER] = (name, endpoints.predict(current.context(), name, body), label)
    except SignalboxError as error:
        st.session_state[_ANSWER] = (name, error, label)


def _output(version: VersionDetail) -> None:
    name, answer, label = st.session_state.get(_ANSWER, (None, None, None))
    if answer is None or name != shell.param("name"):
        shell.empty("No answer yet", "Choose an input and press Run.")
    elif isinstance(answer, SignalboxError):
        st.html(markup.problem(answer.message, answer.next_step))
    else:
        _answer(answer, version, label)


def _answer(prediction: Prediction, version: VersionDetail, label: str | None) -> None:
    result = views.result(prediction, version.labels)
    if not result.ok:
        st.html(markup.problem(result.sentence))
    else:
        st.html(markup.answer(result.sentence, *_verdict(result, label)))
        _drawn(result)
    served = prediction.version_ref or quantities.NOTHING
    st.html(
        markup.inline(
            (
                ("latency", quantities.milliseconds(prediction.latency_ms)),
                ("served by", served),
                ("digest", quantities.digest(prediction.digest) if prediction.digest else quantities.NOTHING),
            )
        )
    )
    with st.expander("Answer as JSON", key="answer-json"):
        st.code(json.dumps(result.body, indent=1), language="json", height=260)


def _drawn(result: views.Result) -> None:
    if result.bars:
        st.html(markup.bars(result.bars))
    elif result.table is not None:
        rows = [
            dict(zip(result.table, values, strict=True))
            for values in zip(*result.table.values(), strict=True)
        ]
        st.html(markup.table(rows[:50]))
    else:
        st.json(result.body, expanded=2)


def _verdict(result: views.Result, label: str | None) -> tuple[Badge, ...]:
    if label is None or result.predicted is None:
        return ()
    right = result.predicted == label
    return (
        Badge("✓", f"true label {label}", "good") if right else Badge("✕", f"true label is {label}", "bad"),
    )
