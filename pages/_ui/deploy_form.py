"""The deploy form: a version, an endpoint name, and how to run it."""

from __future__ import annotations

import os
from typing import Final

import streamlit as st

from control_plane.domain.endpoint import EndpointGoal
from control_plane.domain.options import DEFAULT
from control_plane.domain.views import EndpointView, VersionDetail
from control_plane.services import catalogs, endpoints, versions
from control_plane.services.context import Context
from control_plane.ui import current
from control_plane.ui.viewmodels import deployment
from control_plane.ui.viewmodels.endpoints import devices, suggested_name
from pages._ui import actions, markup, offered_versions, options_form, shell, waiver

MIB: Final = 1024**2


def draw(ctx: Context, wanted: str) -> None:
    """Draw the form for a new endpoint; *wanted* is `model@N`, or "new" to choose here."""
    refs = offered_versions.refs(ctx, missing="There is no version to deploy")
    if not refs:
        return
    if wanted != "new" and wanted not in refs:
        refs.insert(0, versions.get(ctx, wanted).ref)
    with st.container(border=True, key="deploy-form"):
        st.subheader("Deploy a version", anchor=False)
        _fields(ctx, refs, wanted)


def _fields(ctx: Context, refs: list[str], wanted: str) -> None:
    left, right = st.columns(2)
    start = refs.index(wanted) if wanted in refs else 0
    ref = left.selectbox(
        "Version", refs, index=start, key="deploy-version", help="Newest first. Type to search."
    )
    version = versions.get(ctx, ref)
    taken = {view.name: view for view in endpoints.list_all(ctx)}
    name = right.text_input(
        "Endpoint name",
        value=suggested_name(ref, taken),
        key=f"deploy-name-{version.model}",
        max_chars=63,
        help="Part of the address: lower-case letters, digits and hyphens.",
    )
    known = taken.get((name or "").strip())
    present = known if known and known.goal != EndpointGoal.DELETED else None
    key = f"deploy-{present.revision}-{present.name}" if present else "deploy"
    settings(ctx, version, key=key, present=present)
    _preview(ctx, name or "", ref, present)
    with st.container(horizontal=True):
        begun = actions.pressed("Deploy", "deploy-go", icon=":material/rocket_launch:", disabled=not name)
        st.button("Cancel", key="deploy-cancel", on_click=_leave)
    if begun and name:
        deploy(name.strip(), ref, known.revision if known else 0, key)
        st.rerun()


def _preview(ctx: Context, name: str, ref: str, present: EndpointView | None) -> None:
    if present is not None:
        now = present.serving_ref or present.version_ref
        words = f"{name} serves {now} now: {ref} takes over once it is ready, no request fails."
    else:
        words = f"Clients will call {ctx.settings.gateway_url}/e/{name}/predict"
    st.html(markup.text(words))


def settings(ctx: Context, version: VersionDetail, *, key: str, present: EndpointView | None) -> None:
    """Widgets of the serving settings under *key*; start with what *present* has, or with the defaults."""
    fitting = catalogs.fitting(ctx, version.format, [file.path for file in version.files])
    handlers = [each.name for each in fitting]
    titles = {each.name: each.title for each in fitting}
    chosen = present.handler if present and present.handler in handlers else version.handler
    one, two, three, four, five = st.columns([1, 1, 1.2, 1.8, 1.4])
    one.number_input(
        "Replicas",
        1,
        64,
        present.replicas if present else 1,
        key=f"{key}-replicas",
        help="Processes that answer in parallel.",
    )
    two.number_input(
        "CPU threads",
        1,
        os.cpu_count() or 1,
        present.threads if present else 1,
        key=f"{key}-threads",
        help="Per replica.",
    )
    offered = list(devices(len(shell.status(ctx).gpus)))
    device = present.device if present and present.device in offered else "auto"
    three.selectbox(
        "Device",
        offered,
        index=offered.index(device),
        key=f"{key}-device",
        help="auto: a GPU where there is one, else the CPU.",
    )
    four.selectbox(
        "Handler",
        handlers,
        index=handlers.index(chosen) if chosen in handlers else 0,
        key=f"{key}-handler-{version.format}",
        format_func=lambda each: titles.get(each, each),
        help="Turns requests into tensors and answers into something readable.",
    )
    memory = present.memory_bytes // MIB if present and present.memory_bytes else None
    five.number_input(
        "Memory limit, MiB",
        64,
        None,
        memory,
        step=64,
        key=f"{key}-memory",
        placeholder="machine default",
        help="Per replica.",
    )
    options_form.draw(key, present.options if present else DEFAULT)
    if present is None or present.version_ref != version.ref:
        waiver.draw(version, key=key)


def chosen_settings(key: str, ref: str) -> deployment.Choice:
    """What the widgets under *key* hold now, for the version *ref*. Raises InvalidInputError."""
    state = st.session_state
    handler = next((state[name] for name in state if str(name).startswith(f"{key}-handler-")), None)
    memory = state.get(f"{key}-memory")
    return deployment.Choice(
        replicas=int(state[f"{key}-replicas"]),
        threads=int(state[f"{key}-threads"]),
        device=str(state[f"{key}-device"]),
        handler=handler,
        memory_bytes=int(memory or 0) * MIB,
        options=options_form.chosen(key),
        waiver=state.get(waiver.field(key, ref)) or None,
    )


def deploy(name: str, ref: str, revision: int | None, key: str) -> None:
    """Deploy with the settings under *key*, unless the endpoint changed since *revision*."""
    ctx = current.context()
    actions.act(
        lambda: _deploy(ctx, name, ref, revision, chosen_settings(key, ref)),
        f"Deploying {ref} to {name}",
        then={"name": name, "deploy": None},
    )


def _deploy(ctx: Context, name: str, ref: str, revision: int | None, choice: deployment.Choice) -> None:
    endpoints.deploy(
        ctx,
        name,
        ref,
        actor=actions.ACTOR,
        replicas=choice.replicas,
        threads=choice.threads,
        device=choice.device,
        handler=choice.handler,
        memory_bytes=choice.memory_bytes,
        options=choice.options,
        expected_revision=revision,
        waiver=choice.waiver,
    )


def _leave() -> None:
    st.query_params.pop("deploy", None)
