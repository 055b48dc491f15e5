"""The result card: what was measured of a variant beside its parent, as figures, bars and rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from control_plane.domain.optimization import REPORT, Answers, Decision, Recorded, Report, Timing
from control_plane.domain.optimization_views import TrialView
from control_plane.ui.viewmodels import optimization as words
from control_plane.ui.viewmodels import optimization_form as forms
from control_plane.ui.viewmodels import quantities
from control_plane.ui.viewmodels.overview import KeyFigure

_ROOM: Final = 1.06
"""How far the scale of speeds reaches beyond its largest value."""
_SAME: Final = 1.005
"""Ratios closer to one than this are called the same."""


@dataclass(frozen=True, slots=True)
class Bar:
    """The speed at one batch size on a scale that starts at 0; shares are of the scale's width."""

    label: str
    text: str
    """The ratio in words."""
    note: str
    """Spread and times."""
    share: float
    low: float
    high: float
    faster: bool


@dataclass(frozen=True, slots=True)
class Speeds:
    """Bars of all batch sizes, and where the parent's own speed is."""

    bars: tuple[Bar, ...]
    one: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A measured variant with what names it."""

    parent: str
    """`model@N`."""
    title: str
    """Of the method, with its parameters."""
    method: str
    report: Report
    decision: Decision | None
    """None while it was only screened."""
    version: str | None
    """`model@N` it is registered as."""
    calibration: Mapping[str, Any] | None = None
    job: str | None = None
    trial: int | None = None

    @property
    def variant(self) -> str:
        """What the variant is called beside its parent."""
        return self.version or "variant"


def of_trial(trial: TrialView, parent: str) -> Result | None:
    """What is known of a trial; None before anything was measured."""
    if trial.report is None:
        return None
    return Result(
        parent=parent,
        title=words.trial_title(trial),
        method=trial.method,
        report=trial.report,
        decision=trial.decision,
        version=trial.version_ref,
        job=trial.job_id,
        trial=trial.number,
    )


def recorded(lineage: Mapping[str, Any]) -> Recorded | None:
    """What a version's lineage says of how it was optimised; None where it says nothing that can be read."""
    try:
        return msgspec.convert(lineage[REPORT], Recorded) if REPORT in lineage else None
    except msgspec.ValidationError:
        return None


def of_version(ref: str, known: Recorded) -> Result:
    """The card of a registered variant."""
    told = words.params_words(known.params)
    return Result(
        parent=known.parent,
        title=f"{known.method} · {told}" if told else known.method,
        method=known.method,
        report=known.report,
        decision=known.decision,
        version=ref,
        calibration=known.calibration,
        job=known.job,
        trial=known.trial,
    )


def figures(report: Report) -> tuple[KeyFigure, ...]:
    """The four figures that decide: speed, size, memory, answers."""
    best = max(report.timings, key=lambda timing: timing.speedup)
    answers = report.answers
    return (
        KeyFigure("Speed", words.ratio(best.speedup), f"at batch {best.batch}", (), _tone(best.speedup)),
        KeyFigure("Size", change(report.shrink, "smaller", "larger"), "", (), _tone(report.shrink)),
        KeyFigure("Peak memory", change(_memory(report), "less", "more"), "", (), _tone(_memory(report))),
        KeyFigure(
            "Same answer",
            quantities.share(answers.agreement),
            f"of {quantities.count(answers.rows, 'row')}",
            (),
            "good" if answers.agreed == answers.rows else "warn",
        ),
    )


def _tone(ratio: float) -> Any:
    return "good" if ratio >= _SAME else "warn" if ratio <= 1 / _SAME else "idle"


def _memory(report: Report) -> float:
    return report.parent.memory_bytes / max(1, report.variant.memory_bytes)


def change(ratio: float, better: str, worse: str) -> str:
    """A ratio parent to variant in words: 3.9 → "3.90× smaller", 0.5 → "2.00× larger"."""
    if ratio >= _SAME:
        return f"{words.ratio(ratio)} {better}"
    return f"{words.ratio(1 / max(ratio, 1e-9))} {worse}" if ratio <= 1 / _SAME else "same"


def speeds(report: Report) -> Speeds:
    """Speed by batch size, as ratios of paired times."""
    top = max(1.0, *(timing.speedup_high for timing in report.timings)) * _ROOM
    return Speeds(tuple(_bar(timing, top) for timing in report.timings), 1 / top)


def _bar(timing: Timing, top: float) -> Bar:
    spread = f"{words.ratio(timing.speedup_low)} to {words.ratio(timing.speedup_high)}"
    times = f"{_time(timing.parent_ms)} → {_time(timing.variant_ms)}"
    return Bar(
        label=f"Batch {timing.batch}",
        text=words.ratio(timing.speedup),
        note=f"{spread} · {times}{_tokens(timing)}",
        share=timing.speedup / top,
        low=timing.speedup_low / top,
        high=timing.speedup_high / top,
        faster=timing.speedup_low > 1,
    )


def _time(ms: float) -> str:
    """A time with three significant figures, below a tenth of a millisecond in microseconds."""
    return f"{ms * 1000:.3g} µs" if ms < 0.1 else quantities.milliseconds(ms)


def _tokens(timing: Timing) -> str:
    return "" if timing.tokens_per_s is None else f" · {timing.tokens_per_s:,.0f} tokens/s"


def measured_words(report: Report) -> str:
    """How it was measured, in a sentence."""
    how = report.conditions
    quiet = min((timing.quiet for timing in report.timings), default=1.0)
    busy = (
        "" if quiet > 0.9 else f" The machine was busy: {quantities.share(1 - quiet)} of calls did not count."
    )
    return (
        f"Times as fast as its parent: median and quartiles of {how.rounds} paired, interleaved rounds, "
        f"{quantities.count(how.threads, 'thread')}.{busy}"
    )


def footprint_rows(result: Result) -> list[dict[str, str]]:
    """Size, load time and peak memory of both."""
    parent, variant = result.report.parent, result.report.variant
    load = parent.load_s / max(1e-9, variant.load_s)
    return [
        _row(result, "Size", quantities.size, parent.size_bytes, variant.size_bytes)
        | {"Change": change(result.report.shrink, "smaller", "larger")},
        _row(result, "Load time", quantities.duration_ms, parent.load_s, variant.load_s)
        | {"Change": change(load, "faster", "slower")},
        _row(result, "Peak memory", quantities.size, parent.memory_bytes, variant.memory_bytes)
        | {"Change": change(_memory(result.report), "less", "more")},
    ]


def _row(result: Result, name: str, said: Any, parent: float, variant: float) -> dict[str, str]:
    return {"": name, f"{result.parent} (parent)": said(parent), result.variant: said(variant)}


def answer_rows(answers: Answers) -> list[tuple[str, str]]:
    """What both said to the same rows, as labels and values."""
    rows = [
        ("Same answer", f"{answers.agreed:,} of {quantities.count(answers.rows, 'row')}"),
        ("At least, with 95 % confidence", _percent(answers.agreement_bound)),
    ]
    if answers.labelled:
        rows.append(("Right answers", _metric(answers)))
    rows += [
        ("Largest error", _number(answers.max_error)),
        ("Mean error", _number(answers.mean_error)),
        ("Cosine, least and mean", f"{answers.min_cosine:.4f}, {answers.mean_cosine:.4f}"),
    ]
    if answers.kl is not None:
        rows.append(("KL divergence from the parent", f"{_number(answers.kl)} nats"))
    if answers.broken:
        rows.append(("NaN or infinity", quantities.count(answers.broken, "row")))
    return rows


def _metric(answers: Answers) -> str:
    before, after = answers.parent_right / answers.labelled, answers.variant_right / answers.labelled
    return f"{_percent(before)} → {_percent(after)} of {quantities.count(answers.labelled, 'labelled row')}"


def _percent(share: float) -> str:
    return f"{share * 100:.2f} %"


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.3g}"


def lineage_rows(result: Result) -> list[tuple[str, str]]:
    """Where the variant comes from."""
    rows = [("Parent", result.parent), ("Method", result.title)]
    if result.calibration:
        digest = quantities.digest(str(result.calibration.get("digest", "")))
        source = result.calibration.get("source", "rows")
        rows.append(("Calibrated on", f"{source}, {result.calibration.get('rows', 0):,} rows, {digest}"))
    rows.append(("Built in", quantities.duration(result.report.build_s)))
    if result.job:
        rows.append(("Job", f"{result.job}, trial {result.trial}" if result.trial else result.job))
    return rows


def machine_rows(report: Report) -> list[tuple[str, str]]:
    """Where it was measured and with what."""
    flags = report.machine.get("flags") or ()
    rows = [("Machine", forms.machine_words(report.machine))] if report.machine.get("cores") else []
    rows += [("CPU features", ", ".join(map(str, flags)))] if flags else []
    return rows + [(name, str(version)) for name, version in sorted(report.libraries.items())]


def note_words(report: Report) -> list[str]:
    """What the method says of its artefact, as sentences."""
    return [words.sentence(note) for note in report.notes]


def served_at(parent_served_by: Sequence[str], version_served_by: Iterable[str]) -> str | None:
    """The endpoint that a variant would be rolled out to: one that serves its parent and not the variant."""
    taken = set(version_served_by)
    return next((name for name in parent_served_by if name not in taken), None)
