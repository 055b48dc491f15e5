"""NeMo RL: a training run on disk (`?run=`), its metrics and steps, and any step as a version."""

import streamlit as st

from control_plane.nemo_rl.preflight import Preflight
from control_plane.nemo_rl.run import Run
from control_plane.services import jobs, nemo_rl, versions
from control_plane.services.context import Context
from control_plane.services.nemo_rl import FoundRun, Wanted
from control_plane.ui import current
from control_plane.ui.viewmodels import jobs as job_views
from control_plane.ui.viewmodels import nemo_rl as views
from pages._ui import actions, links, markup, shell
from pages._ui.guard import refreshing

SHOWN_METRICS = 6
FRESH_FOR_S = 5.0
OF_ONE_RUN = ("convert-step", "convert-model", "convert-base", "diff-before", "diff-after", "metrics-shown")


@st.cache_data(ttl=FRESH_FOR_S, show_spinner=False, max_entries=16)
def found_runs(_ctx: Context, home: str) -> tuple[FoundRun, ...]:  # noqa: ARG001  home is the key of the cache
    return nemo_rl.found(_ctx)


@st.cache_data(ttl=FRESH_FOR_S, show_spinner=False, max_entries=16)
def read_run(_ctx: Context, home: str, folder: str) -> Run:  # noqa: ARG001
    return nemo_rl.read(_ctx, folder)


def chooser() -> str | None:
    """Which run folder: one below the allowed roots, or a path."""
    ctx = current.context()
    known = {run.path: run.name for run in found_runs(ctx, ctx.settings.database)}
    st.session_state.setdefault("run-path", shell.param("run") or "")
    listed, typed = st.columns([1, 1.4], vertical_alignment="bottom")
    listed.selectbox(
        "Runs found",
        list(known),
        index=None,
        key="run-found",
        format_func=lambda path: known[path],
        placeholder="choose a run" if known else "none found",
        on_change=choose,
        args=("run-found",),
        disabled=not known,
    )
    typed.text_input(
        "Folder of a run, a step or its weights",
        key="run-path",
        placeholder="/checkpoints/results/grpo",
        on_change=choose,
        args=("run-path",),
    )
    return shell.param("run")


def choose(key: str) -> None:
    for kept in OF_ONE_RUN:
        st.session_state.pop(kept, None)
    if folder := st.session_state.get(key):
        st.query_params["run"] = folder.strip()
        st.session_state["run-path"] = folder.strip()
    else:
        st.query_params.pop("run", None)


def nothing_chosen() -> None:
    ctx = current.context()
    roots = ", ".join(str(root) for root in ctx.settings.import_roots)
    shell.empty(
        "No run chosen",
        f"Runs below {roots} can be read."
        if roots
        else "Set SIGNALBOX_IMPORT_ROOTS to the folder of your runs.",
    )


def metrics(run: Run) -> None:
    names = views.metric_order(run)
    if not names:
        st.html(
            markup.text("No step holds a metric; NeMo RL keeps one only where a save follows a validation.")
        )
        return
    shown = names
    if len(names) > SHOWN_METRICS:
        shown = tuple(
            st.multiselect("Metrics", names, default=names[:SHOWN_METRICS], key="metrics-shown") or names[:1]
        )
    columns = st.columns(2)
    for index, name in enumerate(shown):
        with columns[index % 2]:
            st.plotly_chart(views.figure(run, name), key=f"metric-{name}", config={"displayModeBar": False})
            if words := views.missing_words(run, name):
                st.caption(words)


def steps(run: Run) -> None:
    st.dataframe(views.step_rows(run), hide_index=True, key="steps", alt="Steps of the run, newest first")


def differences(run: Run, folder: str) -> None:
    numbers = [step.number for step in run.steps if step.number is not None]
    if len(numbers) < 2:
        return
    with st.expander("Compare the settings of two steps", icon=":material/difference:", key="diff"):
        left, right = st.columns(2)
        before = left.selectbox("Before", numbers, index=0, key="diff-before")
        after = right.selectbox("After", numbers, index=len(numbers) - 1, key="diff-after")
        found = nemo_rl.changes(current.context(), folder, before, after)
        if not found:
            st.html(markup.text("All settings are the same."))
        else:
            st.dataframe(
                views.change_rows(found), hide_index=True, key="diff-table", alt="Settings that differ"
            )


def convert(run: Run, folder: str) -> None:
    with st.container(border=True, key="convert"):
        st.html(markup.card_title("Make a version of a step"))
        wanted, model = order_form(run, folder)
        seen = nemo_rl.look(current.context(), wanted)
        preflight(seen)
        st.button(
            "Convert",
            key="convert-start",
            type="primary",
            icon=":material/swap_horiz:",
            disabled=not seen.ready,
            on_click=start,
            args=(wanted, model),
        )
        if job_id := shell.param("job"):
            progress(job_id)


def order_form(run: Run, folder: str) -> tuple[Wanted, str]:
    numbers = [step.number for step in run.steps]
    one, two, three = st.columns(3)
    step = one.selectbox(
        "Step",
        numbers,
        index=numbers.index(views.default_step(run)),
        key="convert-step",
        format_func=lambda number: "the weights" if number is None else str(number),
    )
    model = two.text_input("Model", value=nemo_rl.model_name(run.name), key="convert-model")
    dtype = three.selectbox("Element type", list(views.DTYPES), key="convert-dtype")
    base = st.text_input("Folder of the base model, where the step brings no config.json", key="convert-base")
    borrowed = st.checkbox("Use the base model's tokenizer if the step holds none", key="convert-tokenizer")
    wanted = Wanted(
        folder=folder,
        step=step,
        base=base.strip() or None,
        base_tokenizer=borrowed,
        dtype=views.DTYPES[dtype],
    )
    return wanted, model


def preflight(seen: Preflight) -> None:
    st.html(markup.facts(views.preflight_rows(seen)))
    for problem in seen.problems:
        st.html(markup.problem(problem, warn=True))
    for note in seen.notes:
        st.caption(note)
    if seen.command:
        st.caption("NeMo RL's own converter, for architectures that are not converted here:")
        st.code(seen.command, language="bash")


def start(wanted: Wanted, model: str) -> None:
    ctx = current.context()

    def queue() -> None:
        job = nemo_rl.start(ctx, wanted, model=model.strip() or None, actor=actions.ACTOR)
        st.query_params["job"] = job.id

    actions.act(queue, "The conversion is queued")


@refreshing(1.0)
def progress(job_id: str) -> None:
    job = jobs.get(current.context(), job_id)
    with st.container(border=True, key="import-job"):
        words, action = links.row()
        words.html(markup.card_title(f"Import {job.subject}", job.state))
        with action:
            links.page("jobs", "Log", key="import-log", id=job.id)
        if job.reason:
            st.html(markup.problem(job.reason.message, job.reason.next_step))
        if not job_views.is_final(job):
            st.progress(min(1.0, max(0.0, job.progress)), text=job_views.progress_words(job))
            st.button("Cancel", key="import-cancel", on_click=cancel, args=(job.id,))
        for ref in job_views.registered_versions(job):
            links.page("versions", ref, key=f"import-{ref}", icon=":material/inventory_2:", id=ref)


def cancel(job_id: str) -> None:
    ctx = current.context()
    actions.act(lambda: jobs.cancel(ctx, job_id, actor=actions.ACTOR), "Cancelling the conversion")


def made(run: Run) -> None:
    """Versions that came out of this run already."""
    ctx = current.context()
    page = versions.search(ctx, model=nemo_rl.model_name(run.name), page_size=50)
    refs = [each.ref for each in page.items if each.details.get("source") == "NeMo RL"]
    if refs:
        with st.container(horizontal=True):
            for ref in refs[:8]:
                links.page("versions", ref, key=f"made-{ref}", icon=":material/inventory_2:", id=ref)


def main() -> None:
    ctx = shell.title(
        "NeMo RL",
        "A training run on disk: its metrics and steps, read without unpickling; any step as a version.",
    )
    folder = chooser()
    if not folder:
        if job_id := shell.param("job"):
            progress(job_id)
        nothing_chosen()
        return
    run = read_run(ctx, ctx.settings.database, folder)
    st.html(markup.card_title(run.name, note=views.run_words(run)) + markup.facts(views.facts(run.facts)))
    made(run)
    metrics(run)
    steps(run)
    differences(run, folder)
    convert(run, folder)


main()
