"""Pieces of a rollout's pages as HTML; every text from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from control_plane.ui.viewmodels.badges import Badge
from control_plane.ui.viewmodels.rollout_detail import Banner, Note, StripStep, Traffic
from control_plane.ui.viewmodels.rollout_evidence import Disagreement, Scale, Tile
from control_plane.ui.viewmodels.rollouts import Row, percent
from pages._ui import markup

_MARKS = {"done": "✓", "now": "◐", "next": "○", "failed": "✕", "held": "❚❚", "ended": "■"}


def row(shown: Row) -> str:
    """One rollout of the list."""
    return (
        markup.card_title(shown.title, shown.badge, note=shown.versions)
        + markup.inline(shown.facts)
        + markup.text(shown.sentence)
    )


def head(title: str, badges: Iterable[Badge]) -> str:
    """The page's title with strategy and state."""
    return f'<div class="sb-head"><h1>{escape(title)}</h1>{"".join(map(markup.pill, badges))}</div>'


def stacked(*parts: str) -> str:
    """Parts below each other with air between."""
    return f'<div class="sb-stack">{"".join(parts)}</div>'


def banner(shown: Banner) -> str:
    """The verdict, in words first; its colour only repeats them."""
    badge = shown.badge
    return (
        f'<div class="sb-verdict sb-{badge.tone}" role="status" aria-live="polite">'
        f'<b><i aria-hidden="true">{badge.icon}</i>{escape(badge.word)}</b>'
        f"<div><p>{escape(shown.sentence)}</p><span>{escape(shown.place)}</span></div></div>"
    )


def notes(items: Iterable[Note]) -> str:
    """What must be known beside the verdict."""
    lines = "".join(
        f'<div class="sb-note sb-{note.tone}"><b>{escape(note.title)}</b> '
        f"<span>{escape(note.words)}</span></div>"
        for note in items
    )
    return f'<div class="sb-notes">{lines}</div>' if lines else ""


def strip(items: Iterable[StripStep]) -> str:
    """The steps as cards; the state of each is said in words too."""
    return '<div class="sb-strip" role="list">' + "".join(map(_strip_step, items)) + "</div>"


def _strip_step(step: StripStep) -> str:
    current = ' aria-current="step"' if step.state in ("now", "held") else ""
    return (
        f'<div class="sb-strip-step {step.state}" role="listitem"{current}>'
        f'<b><i aria-hidden="true">{_MARKS[step.state]}</i>{escape(step.title)}</b>'
        f"<span>{escape(step.place)}</span><small>{escape(step.detail)}</small>"
        f'<div class="sb-strip-bar"><div style="width:{step.share * 100:.1f}%"></div></div></div>'
    )


def traffic(shown: Traffic) -> str:
    """Observed share as a bar, decided share as a mark on it."""
    seen = "" if shown.observed is None else f'<div style="width:{shown.observed * 100:.2f}%"></div>'
    return (
        f'<div class="sb-weight" role="img" aria-label="Candidate: {escape(shown.words)}">{seen}'
        f'<i style="left:{shown.desired * 100:.2f}%"></i></div>'
        f'<p class="sb-card-text sb-num">Candidate: {escape(shown.words)}</p>'
    )


def tiles(items: Iterable[Tile]) -> str:
    """The guardrails side by side."""
    return '<div class="sb-tiles">' + "".join(map(_tile, items)) + "</div>"


def _tile(tile: Tile) -> str:
    watched = '<span class="sb-soft">observed only</span>' if tile.observe_only else ""
    title = f'<p class="sb-card-title">{escape(tile.title)}{watched}{markup.pill(tile.badge)}</p>'
    if tile.dimmed:
        return f'<section class="sb-tile dim">{title}{markup.text(tile.sentence)}</section>'
    return (
        f'<section class="sb-tile">{title}'
        f"{markup.text(tile.sentence)}{_figures(tile)}{_scale(tile.scale)}"
        f'<div class="sb-evidence">{_evidence("worse", tile.worse)}{_evidence("safe", tile.safe)}</div>'
        f"<small>{escape(tile.counts)}<br>{escape(tile.allowed)}</small></section>"
    )


def _figures(tile: Tile) -> str:
    cells = (
        ("Stable", tile.stable, ""),
        ("Candidate", tile.candidate, ""),
        ("Difference", tile.difference, tile.interval),
    )
    shown = "".join(
        f"<div><dt>{label}</dt><dd>{escape(value)}<small>{escape(under)}</small></dd></div>"
        for label, value, under in cells
    )
    return f'<dl class="sb-tile-figures sb-num">{shown}</dl>'


def _scale(scale: Scale | None) -> str:
    """The difference's interval against zero and the limits; the figures above say the same in words."""
    if scale is None:
        return ""
    marks = "".join(
        f'<i class="{name}" style="left:{at * 100:.1f}%" title="{said}"></i>'
        for name, at, said in (
            ("zero", scale.zero, "no difference"),
            ("tolerance", scale.tolerance, "tolerance"),
            ("limit", scale.limit, "largest regression"),
        )
        if at is not None
    )
    width = max(0.6, (scale.high - scale.low) * 100)
    return (
        f'<div class="sb-scale" aria-hidden="true">{marks}'
        f'<div style="left:{scale.low * 100:.1f}%;width:{width:.1f}%"></div>'
        f'<b style="left:{scale.point * 100:.1f}%"></b></div>'
    )


def _evidence(kind: str, share: float) -> str:
    words = f"{percent(round(share, 2))}"
    return (
        f'<span>{kind}</span><div class="sb-track {kind}" role="meter" aria-valuenow="{share * 100:.0f}" '
        f'aria-valuemin="0" aria-valuemax="100" aria-label="evidence for {kind}">'
        f'<div style="width:{share * 100:.1f}%"></div></div><span class="sb-num">{words}</span>'
    )


def disagreement(shown: Disagreement) -> str:
    """One request and both answers to it."""
    seen = (
        f'<img class="sb-thumb" src="{escape(shown.picture)}" alt="the request\'s input as a picture">'
        if shown.picture
        else f'<p class="sb-mono sb-input">{escape(shown.inputs)}</p>'
    )
    return (
        f'<div class="sb-disagreement">{seen}<div><p class="sb-card-title">{escape(shown.title)}</p>'
        + markup.facts((("Stable", shown.stable), ("Candidate", shown.candidate)))
        + "</div></div>"
    )
