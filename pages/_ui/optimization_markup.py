"""Pieces of the optimisation lab's pages as HTML; every text from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from control_plane.ui.viewmodels.badges import Badge
from control_plane.ui.viewmodels.optimization_result import Bar, Speeds
from pages._ui import markup


def head(title: str, note: str, *badges: str | Badge) -> str:
    """The page's title with states, and a quiet line below."""
    pills = "".join(map(markup.pill, badges))
    return (
        f'<div class="sb-head"><h1>{escape(title)}</h1>{pills}</div>'
        f'<p class="sb-lead" style="margin-top:.15rem">{escape(note)}</p>'
    )


def verdict(badge: Badge, reasons: Iterable[str], note: str) -> str:
    """Accepted or rejected, in words first; its colour only repeats them."""
    told = "".join(f"<p>{escape(reason)}</p>" for reason in reasons)
    return (
        f'<div class="sb-verdict sb-{badge.tone}" role="status">'
        f'<b><i aria-hidden="true">{badge.icon}</i>{escape(badge.word.upper())}</b>'
        f"<div>{told}<span>{escape(note)}</span></div></div>"
    )


def speeds(shown: Speeds) -> str:
    """Bars with whiskers, and a line where the parent's own speed is."""
    lines = "".join(_speed(bar, shown.one) for bar in shown.bars)
    return (
        '<div class="sb-speeds sb-num"><span></span><div class="sb-speed-axis" aria-hidden="true">'
        f'<span style="left:{_percent(shown.one)}">parent, 1.00×</span></div><span></span>{lines}</div>'
    )


def _speed(bar: Bar, one: float) -> str:
    kind = "faster" if bar.faster else ""
    return (
        f"<span>{escape(bar.label)}</span>"
        f'<div class="sb-speed {kind}" role="img" aria-label="{escape(bar.label)}: {escape(bar.text)}">'
        f'<div style="width:{_percent(bar.share)}"></div>'
        f'<u style="left:{_percent(bar.low)};width:{_percent(max(0.0, bar.high - bar.low))}"></u>'
        f'<i style="left:{_percent(one)}"></i></div>'
        f"<b>{escape(bar.text)}</b><small>{escape(bar.note)}</small>"
    )


def _percent(share: float) -> str:
    return f"{share * 100:.2f}%"
