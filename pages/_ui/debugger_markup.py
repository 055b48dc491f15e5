"""Pieces of the debugger's pages as HTML; every text from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final
from urllib.parse import quote

from control_plane.ui.viewmodels.badges import Badge
from control_plane.ui.viewmodels.debugger_tensors import TensorRow
from pages._ui import markup

_HEAD: Final = (
    "tensor", "shape", "type", "device", "min", "max", "mean", "std", "zeros", "NaN", "Inf", "histogram",
)  # fmt: skip
_BAR: Final = 2
_HIGH: Final = 16


def head(title: str, note: str, *badges: str | Badge) -> str:
    """The page's title with states, and a quiet line below."""
    pills = "".join(map(markup.pill, badges))
    return (
        f'<div class="sb-head"><h1>{escape(title)}</h1>{pills}</div>'
        f'<p class="sb-lead" style="margin-top:.15rem">{escape(note)}</p>'
    )


def tensors(rows: Sequence[TensorRow]) -> str:
    """Tensors of a stage with their figures."""
    names = "".join(f"<th scope='col'>{name}</th>" for name in _HEAD)
    body = "".join(_tensor(row) for row in rows)
    return (
        '<div class="sb-wide" tabindex="0" role="region" aria-label="Tensors of the stage">'
        f'<table class="sb-table sb-tensors"><thead><tr>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _tensor(row: TensorRow) -> str:
    figures = (row.low, row.high, row.mean, row.std, row.zeros)
    wrong = ((row.nan, row.nan not in ("0", "")), (row.inf, row.inf not in ("0", "")))
    return (
        f'<tr><td class="sb-mono">{escape(row.name)}</td><td class="sb-mono">{escape(row.shape)}</td>'
        f'<td class="sb-mono">{escape(row.datatype)}</td><td>{escape(row.device)}</td>'
        + "".join(f'<td class="sb-num">{escape(each)}</td>' for each in figures)
        + "".join(
            f'<td class="sb-num{" sb-wrong" if bad else ""}">{escape(each)}</td>' for each, bad in wrong
        )
        + f"<td>{histogram(row.bars, row.bars_label)}</td></tr>"
    )


def histogram(digits: str, label: str) -> str:
    """A small histogram; its bars' heights come as digits."""
    if not digits:
        return ""
    path = "".join(
        f"M{place * _BAR} {_HIGH}v{-int(digit) * _HIGH / 9:.1f}h{_BAR}V{_HIGH}z"
        for place, digit in enumerate(digits)
        if digit != "0"
    )
    drawing = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {len(digits) * _BAR} {_HIGH}" '
        f'preserveAspectRatio="none"><path d="{path}"/></svg>'
    )
    mask = "data:image/svg+xml," + quote(drawing)
    return (
        f'<div class="sb-hist" role="img" aria-label="{escape(label)}" title="{escape(label)}" '
        f"style=\"mask-image:url('{mask}')\"></div>"
    )


def pictures(items: Iterable[tuple[str, str]]) -> str:
    """Small pictures with what they show below each."""
    return (
        '<div class="sb-channels">'
        + "".join(
            f'<figure><img src="{escape(url)}" alt="{escape(title)}"><figcaption>{escape(title)}</figcaption>'
            "</figure>"
            for url, title in items
        )
        + "</div>"
    )


def numbers(rows: Sequence[Sequence[str]], first_row: int, first_column: int, label: str) -> str:
    """A grid of numbers with its places at the edges."""
    columns = "".join(
        f"<th scope='col'>{first_column + at}</th>" for at in range(len(rows[0]) if rows else 0)
    )
    body = "".join(
        f"<tr><th scope='row'>{first_row + at}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for at, row in enumerate(rows)
    )
    return (
        f'<div class="sb-wide sb-grid" tabindex="0" role="region" aria-label="{escape(label)}">'
        f"<table><thead><tr><th></th>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def token_pieces(pieces: Iterable[str]) -> str:
    """Tokens of a text, each in its own frame."""
    return (
        '<div class="sb-pieces" role="list" aria-label="Tokens">'
        + "".join(f'<span role="listitem">{escape(piece)}</span>' for piece in pieces)
        + "</div>"
    )


def texts(items: Iterable[str]) -> str:
    """Texts, one below the other."""
    return "".join(f'<pre class="sb-log">{escape(item)}</pre>' for item in items)


def side_title(word: str, ref: str) -> str:
    """Which of the two versions."""
    return f'<p class="sb-side"><b>{escape(word)}</b><span class="sb-mono">{escape(ref)}</span></p>'


def download(links: Iterable[tuple[str, str, str]]) -> str:
    """Files to download: (label, address, file name)."""
    return (
        '<div class="sb-downloads">'
        + "".join(
            f'<a href="{escape(address)}" download="{escape(name)}" target="_self">{escape(label)}</a>'
            for label, address, name in links
        )
        + "</div>"
    )
