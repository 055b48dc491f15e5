"""NeMo RL page: facts, table of steps, figures of metrics, differences, preflight."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from control_plane.nemo_rl.config_diff import Change
from control_plane.nemo_rl.facts import Facts
from control_plane.nemo_rl.preflight import Preflight
from control_plane.nemo_rl.run import Run, Step
from control_plane.ui.viewmodels import quantities

ALGORITHMS: Final = {
    "grpo": "GRPO", "ppo": "PPO", "dpo": "DPO", "sft": "SFT", "rm": "Reward model",
    "distillation": "Distillation",
}  # fmt: skip
ACCENT: Final = "#2f6fed"
QUIET: Final = "#8a94a6"
STAR: Final = "#e0a100"
DTYPES: Final = {"As the run computed": None, "Keep as saved": "keep", "bfloat16": "bf16"}
"""Choices of the element type: words to the service's value."""


def facts(known: Facts) -> list[tuple[str, str]]:
    """What the run's settings say, as label and value; absent ones are left out."""
    algorithm = ALGORITHMS.get(known.algorithm or "", known.algorithm or "")
    rows = [
        ("Algorithm", f"{algorithm} ({known.variant})" if known.variant else algorithm),
        ("Base model", known.base_model),
        ("Tokenizer", known.tokenizer if known.tokenizer != known.base_model else None),
        ("Precision", known.precision),
        ("Longest sequence", f"{known.max_length:,} tokens" if known.max_length else None),
        ("Backend", known.backend),
        ("Parallelism", parallelism_words(known)),
        *((f"Dataset, {name}", value) for name, value in known.datasets.items()),
        *((name.replace("_", " ").capitalize(), value) for name, value in known.prompts.items()),
        ("Tracked metric", tracked_words(known)),
        ("Steps kept", f"the best {known.keep_top_k}" if known.keep_top_k else None),
    ]
    return [(label, value) for label, value in rows if value]


def parallelism_words(known: Facts) -> str | None:
    """ "tensor 2 · context 2 · 8 GPUs"; None where nothing is known."""
    parts = [f"{kind} {degree}" for kind, degree in known.parallelism.items()]
    if known.gpus:
        parts.append(quantities.count(known.gpus, "GPU"))
    return " · ".join(parts) or None


def tracked_words(known: Facts) -> str | None:
    """ "val:accuracy, higher is better"."""
    if not known.metric_name:
        return None
    return f"{known.metric_name}, {'higher' if known.higher_is_better else 'lower'} is better"


def run_words(run: Run) -> str:
    """One sentence on what is there: "4 steps · best 40 by val:accuracy · 1 unfinished save ignored"."""
    parts = [quantities.count(len(run.steps), "step")]
    if run.best is not None:
        parts.append(f"best {run.best} by {run.tracked}")
    if run.ignored:
        parts.append(quantities.count(len(run.ignored), "unfinished save") + " ignored")
    if run.vanished:
        parts.append(f"{run.vanished} went while it was read")
    return " · ".join(parts)


def step_rows(run: Run) -> list[dict[str, Any]]:
    """Rows of the table of steps, newest first."""
    return [_step_row(run, step) for step in reversed(run.steps)]


def _step_row(run: Run, step: Step) -> dict[str, Any]:
    name = "weights" if step.number is None else str(step.number)
    value = step.values.get(run.tracked) if run.tracked else None
    return {
        "Step": f"★ {name}" if run.best is not None and step.number == run.best else name,
        run.tracked or "Metric": quantities.NOTHING if value is None else f"{value:.4g}",
        "Samples": _count(step.values.get("consumed_samples")),
        "Tokens": _count(step.values.get("total_valid_tokens")),
        "Form": f"{step.form.letter} · {step.form.title}" if step.form.letter else step.form.title,
        "Weights": quantities.size(step.form.weight_bytes),
        "Not read": quantities.size(step.form.skipped_bytes),
        "Convertible": "yes" if step.form.convertible else "no",
        "Why": step.form.reason or step.problem or ("needs the base model" if step.form.needs_base else ""),
    }


def _count(value: float | None) -> str:
    return quantities.NOTHING if value is None else f"{value:,.0f}"


def metric_order(run: Run) -> tuple[str, ...]:
    """Names of the metrics: the tracked one first, then by name."""
    rest = [name for name in run.series if name != run.tracked]
    return (run.tracked, *rest) if run.tracked else tuple(rest)


def figure(run: Run, metric: str) -> dict[str, Any]:
    """One metric over the steps as a plotly figure; steps without a value are gaps, the best has a star."""
    steps = [step.number for step in run.steps]
    values = list(run.series[metric])
    tracked = metric == run.tracked
    line = {"color": ACCENT if tracked else QUIET, "width": 2.5 if tracked else 1.5}
    data: list[dict[str, Any]] = [
        {"type": "scatter", "mode": "lines+markers", "x": steps, "y": values, "name": metric, "line": line,
         "connectgaps": False, "hovertemplate": "step %{x}<br>%{y:.5g}<extra></extra>"},
    ]  # fmt: skip
    if tracked and run.best is not None:
        at = steps.index(run.best)
        data.append(
            {"type": "scatter", "mode": "markers", "x": [run.best], "y": [values[at]], "name": "best",
             "marker": {"symbol": "star", "size": 15, "color": STAR},
             "hovertemplate": f"best: step {run.best}<br>%{{y:.5g}}<extra></extra>"}
        )  # fmt: skip
    layout = {
        "title": {"text": metric, "font": {"size": 13}}, "height": 220, "showlegend": False,
        "margin": {"l": 48, "r": 12, "t": 36, "b": 32}, "xaxis": {"title": {"text": "step"}},
    }  # fmt: skip
    return {"data": data, "layout": layout}


def missing_words(run: Run, metric: str) -> str:
    """ "2 of 5 steps have no value"; empty where all have one."""
    missing = sum(value is None for value in run.series[metric])
    return f"{missing} of {quantities.count(len(run.steps), 'step')} have no value" if missing else ""


def change_rows(changes: Iterable[Change]) -> list[dict[str, str]]:
    """Rows of the table of differences; a side that lacks a setting says so."""
    absent = quantities.NOTHING
    return [
        {
            "Setting": change.key,
            "Before": absent if change.before is None else change.before,
            "After": absent if change.after is None else change.after,
        }
        for change in changes
    ]


def preflight_rows(seen: Preflight) -> list[tuple[str, str]]:
    """What a conversion would take, as label and value."""
    return [
        ("Form", f"{seen.form} · {seen.title}" if seen.form else seen.title),
        ("Output", f"at most {quantities.size(seen.output_bytes)}"),
        ("Not read", quantities.size(seen.skipped_bytes)),
        ("Memory", f"about {quantities.size(seen.memory_bytes)} while it copies"),
        ("Element type", "float32 is written as bfloat16" if seen.casts else "as saved"),
    ]


def default_step(run: Run) -> int | None:
    """Number of the step to offer: the best, else the newest that can be converted."""
    if run.best is not None:
        return run.best
    able = [step.number for step in run.steps if step.form.convertible]
    return able[-1] if able else run.steps[-1].number
