"""The optimisation lab in words: objectives, states, methods by family, parameters, ratios. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from control_plane.domain.optimization import Decision, Objective, TrialState
from control_plane.domain.optimization_views import MethodView, TrialView
from control_plane.ui.viewmodels import quantities
from control_plane.ui.viewmodels.badges import Badge, badge

ALL: Final = "All"
_FAMILIES: Final = (
    ("Quantisation", re.compile(r"int[48]")),
    ("Lower precision", re.compile(r"bf16|fp16|float16")),
    ("Pruning", re.compile(r"prun|spars")),
)
_OTHERS: Final = "Engines and compilers"
_OBJECTIVES: Final = {
    Objective.LATENCY: ("Latency", "The time of one row, at the smallest batch."),
    Objective.THROUGHPUT: ("Throughput", "Rows a second, at the largest batch."),
    Objective.MEMORY: ("Memory", "Peak memory of the serving process."),
    Objective.SIZE: ("Size", "Bytes of the artefact."),
}
_TRIALS: Final[dict[str, Badge]] = {
    TrialState.QUEUED: Badge("○", "Queued", "idle"),
    TrialState.BUILDING: Badge("◐", "Building", "busy"),
    TrialState.SCREENED: Badge("◐", "Screened", "busy"),
    TrialState.MEASURED: Badge("●", "Measured", "good"),
    TrialState.FAILED: Badge("✕", "Failed", "bad"),
    TrialState.DROPPED: Badge("○", "Dropped", "idle"),
}
ACCEPTED: Final = Badge("✓", "Accepted", "good")
REJECTED: Final = Badge("✕", "Rejected", "bad")


def family(method: str) -> str:
    """The family that a method's name puts it in."""
    return next((title for title, pattern in _FAMILIES if pattern.search(method)), _OTHERS)


def families(methods: Iterable[MethodView]) -> list[str]:
    """ "All" and the families that *methods* belong to, in a fixed order."""
    present = {family(method.name) for method in methods}
    return [ALL, *(title for title in (*(name for name, _ in _FAMILIES), _OTHERS) if title in present)]


def offered(methods: Iterable[MethodView], chosen: str) -> list[MethodView]:
    """Methods of the chosen family that apply."""
    return [method for method in _of(methods, chosen) if method.inapplicable is None]


def refused_rows(methods: Iterable[MethodView], chosen: str) -> list[dict[str, str]]:
    """Methods of the chosen family that do not apply, with the reason."""
    return [
        {"Method": method.title, "Why not here": sentence(method.inapplicable)}
        for method in _of(methods, chosen)
        if method.inapplicable is not None
    ]


def why_not(methods: Iterable[MethodView], wanted: str | None) -> str | None:
    """Why the method called *wanted* cannot be tried, as a sentence; None where it can, or none is wanted."""
    if wanted is None:
        return None
    method = next((each for each in methods if each.name == wanted), None)
    if method is None:
        return "There is no such method. Choose one below."
    return sentence(method.inapplicable) if method.inapplicable else None


def _of(methods: Iterable[MethodView], chosen: str) -> list[MethodView]:
    return [method for method in methods if chosen in (ALL, family(method.name))]


def sentence(words: str) -> str:
    """*words* as a sentence: a capital at the start, a full stop at the end. "" stays empty."""
    said = words.strip()
    return said and said[:1].upper() + said[1:] + ("" if said.endswith((".", "!", "?", "…")) else ".")


def objective_words(objective: str) -> str:
    """An objective's name for people."""
    return _OBJECTIVES[Objective(objective)][0]


def objective_help(objective: str) -> str:
    """What an objective makes best, in a sentence."""
    return _OBJECTIVES[Objective(objective)][1]


def decision_badge(*, accepted: bool) -> Badge:
    """Accepted or rejected."""
    return ACCEPTED if accepted else REJECTED


def variant_badge(method: str | None, *, accepted: bool | None) -> Badge | None:
    """How a version was made and whether it was accepted, as one badge; None for what is no variant."""
    if method is None:
        return None
    if accepted is None:
        return Badge("◆", method, "idle")
    mark = decision_badge(accepted=accepted)
    return Badge(mark.icon, f"{method} · {mark.word.lower()}", mark.tone)


def variant_words(method: str | None, *, accepted: bool | None) -> str:
    """`variant_badge` for tables that draw no badges."""
    mark = variant_badge(method, accepted=accepted)
    return f"{mark.icon} {mark.word}" if mark else ""


def trial_badge(trial: TrialView) -> Badge:
    """A trial's decision where there is one, else its state."""
    if trial.decision is not None:
        return decision_badge(accepted=trial.decision.accepted)
    return _TRIALS.get(trial.state, badge(trial.state))


def params_words(params: Mapping[str, Any]) -> str:
    """Parameters on one line: "engine onednn, keep 2 layers"; what is empty or 0 is left out."""
    return ", ".join(f"{_name(name)} {_value(value)}" for name, value in params.items() if _says(value))


def _says(value: Any) -> bool:
    return isinstance(value, bool) or value not in (None, [], (), "", 0)


def _name(name: str) -> str:
    return name.replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) if len(value) <= 3 else quantities.count(len(value), "layer")
    return f"{value:g}" if isinstance(value, float) else str(value)


def trial_title(trial: TrialView) -> str:
    """ "Dynamic int8 · engine onednn"."""
    said = params_words(trial.params)
    return f"{trial.title} · {said}" if said else trial.title


def ratio(value: float) -> str:
    """A ratio with three significant figures: "3.40×", "10.1×"."""
    return f"{value:.2f}×" if value < 10 else f"{value:.1f}×" if value < 100 else f"{value:.0f}×"


def reasons(decision: Decision) -> list[str]:
    """Why a variant was accepted or rejected, as sentences."""
    return [sentence(reason) for reason in decision.reasons]
