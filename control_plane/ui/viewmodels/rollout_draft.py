"""The draft of a rollout: what is typed as a plan, what changes, and what is to be expected. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from control_plane.domain.rollout import DEFAULT_WEIGHTS, Guardrail, Step, Strategy
from control_plane.domain.views import VersionDetail, VersionView
from control_plane.errors import InvalidInputError
from control_plane.ui.viewmodels import optimization, quantities, rollouts
from control_plane.ui.viewmodels.rollout_detail import StripStep

DEFAULT_WEIGHTS_TEXT: Final = ", ".join(f"{weight * 100:g}" for weight in DEFAULT_WEIGHTS)
_STRATEGY_HELP: Final = {
    Strategy.CANARY: "A growing share of the requests; each step goes on only with proof.",
    Strategy.BLUE_GREEN: "Started fully beside stable and previewed, then all requests at once.",
    Strategy.SHADOW: "Copies only: its answers are compared, and no client ever sees one.",
}
_TOLERANCE, _LIMIT, _UNIT, _OBSERVE = "Tolerance", "Regression", "In", "Observe only"
_NAME, _TITLE = "Name", "Guardrail"
_UNITS: Final = {"latency": "% slower", "first_byte": "% slower", "outputs": "PSI × 100"}
_POINTS: Final = "pp"


def strategy_help(strategy: str) -> str:
    """What a strategy does, in one sentence."""
    return _STRATEGY_HELP[Strategy(strategy)]


def parse_weights(text: str) -> tuple[float, ...]:
    """Percentages as shares: "5, 10 %, 100" → (0.05, 0.1, 1.0). Raises InvalidInputError."""
    parts = [part.strip().removesuffix("%").strip() for part in text.replace(";", ",").split(",")]
    try:
        shares = tuple(round(float(part) / 100, 6) for part in parts if part)
    except ValueError as error:
        raise InvalidInputError(
            f"{text[:80]!r} is no list of percentages", next_step="Write them like 5, 10, 25, 50, 100."
        ) from error
    if not shares:
        raise InvalidInputError("a canary needs at least one step", next_step="Write e.g. 5, 25, 100.")
    return shares


def candidates(versions: Iterable[VersionView], stable: str) -> list[str]:
    """`model@N` of what can take the place of *stable*: versions of its model first, the newest on top."""
    usable = [each for each in versions if each.ref != stable and each.archived_at is None]
    model = stable.partition("@")[0]
    own = sorted((each for each in usable if each.model == model), key=lambda each: -each.number)
    return [each.ref for each in own] + [each.ref for each in usable if each.model != model]


# --- steps ---


def step_titles(steps: Sequence[Step]) -> list[str]:
    """Names of a plan's steps that a person can be asked at: all but the last."""
    return [f"{number} · {step_title(step)}" for number, step in enumerate(steps[:-1], 1)]


def step_title(step: Step) -> str:
    """ "25 %", "20 % copied" or "Preview"."""
    if step.mirror > 0:
        return f"{rollouts.percent(step.mirror)} copied"
    return rollouts.percent(step.weight) if step.weight > 0 else "Preview"


def approvals(steps: Sequence[Step], chosen: Iterable[str]) -> tuple[bool, ...] | bool:
    """One answer a step, from the titles of those that a person is asked at; False for none."""
    asked = {title.partition(" · ")[0] for title in chosen}
    answers = tuple(str(number) in asked for number in range(1, len(steps) + 1))
    return answers if any(answers) else False


def preview(steps: Sequence[Step]) -> tuple[StripStep, ...]:
    """A plan's steps as the strip of its page will show them, all of them ahead."""
    return tuple(
        StripStep(
            step_title(step),
            "next",
            f"bake {rollouts.span(step.bake_s)}" if step.bake_s else "until promoted",
            f"at least {quantities.count(step.min_requests, 'request')}" if step.min_requests else "",
            0.0,
        )
        for step in steps
    )


# --- guardrails ---


def guardrail_rows(defaults: Iterable[Guardrail], titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of the editable table, with the unit of each; numbers are a hundred times what the plan holds."""
    return [
        {
            _NAME: each.name,
            _TITLE: titles[each.name][:1].upper() + titles[each.name][1:],
            _TOLERANCE: round(each.tolerance * 100, 6),
            _LIMIT: round(each.max_regression * 100, 6),
            _UNIT: _UNITS.get(each.name, _POINTS),
            _OBSERVE: each.observe_only,
        }
        for each in defaults
    ]


GUARDRAIL_COLUMNS: Final = (_TITLE, _TOLERANCE, _LIMIT, _UNIT, _OBSERVE)
GUARDRAIL_FIXED: Final = (_TITLE, _UNIT)
GUARDRAIL_NUMBERS: Final = (_TOLERANCE, _LIMIT)


def guardrail_patches(
    before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What was changed in the table, by guardrail: {"errors": {"tolerance": 0.01}}.

    Raises InvalidInputError for an empty cell.
    """
    patches: dict[str, dict[str, Any]] = {}
    for old, new in zip(before, after, strict=True):
        patch = _patch(old, new)
        if patch:
            patches[str(old[_NAME])] = patch
    return patches


def _patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {}
    for column, field in ((_TOLERANCE, "tolerance"), (_LIMIT, "max_regression")):
        value = new[column]
        if value is None or value != value:  # an emptied cell comes back as not a number
            raise InvalidInputError(f"{old[_TITLE]}: {column} is empty", next_step="Write a number.")
        if float(value) != float(old[column]):
            patch[field] = round(float(value) / 100, 8)
    if bool(new[_OBSERVE]) != bool(old[_OBSERVE]):
        patch["observe_only"] = bool(new[_OBSERVE])
    return patch


# --- what changes ---


def difference_rows(stable: VersionDetail, candidate: VersionDetail) -> list[dict[str, str]]:
    """Both versions side by side, with a word on what differs."""
    pairs = (
        ("Format", stable.format, candidate.format),
        ("Handler", stable.handler, candidate.handler),
        ("Size", quantities.size(stable.size_bytes), quantities.size(candidate.size_bytes)),
        ("Parent", stable.parent or quantities.NOTHING, candidate.parent or quantities.NOTHING),
        ("Optimised", _optimised(stable), _optimised(candidate)),
        ("Gate", _decision(stable), _decision(candidate)),
        ("Made by", stable.created_by, candidate.created_by),
        ("Digest", _short(stable.digest), _short(candidate.digest)),
    )
    return [
        {
            "": name,
            f"{stable.ref} (stable)": old,
            f"{candidate.ref} (candidate)": new,
            "Change": _change(name, old, new, stable, candidate),
        }
        for name, old, new in pairs
    ]


def _short(digest: str) -> str:
    return quantities.digest(digest).rpartition(":")[2]


def _optimised(version: VersionDetail) -> str:
    said = optimization.variant_words(version.method, accepted=version.accepted)
    return said or quantities.NOTHING


def _decision(version: VersionDetail) -> str:
    return version.decision or "not judged"


def _change(name: str, old: str, new: str, stable: VersionDetail, candidate: VersionDetail) -> str:
    if name == "Size" and stable.size_bytes:
        ratio = candidate.size_bytes / stable.size_bytes
        return "same" if old == new else f"{ratio:.2g} × as large"
    if name == "Parent" and candidate.parent == stable.ref:
        return "made from stable"
    return "same" if old == new else "differs"
