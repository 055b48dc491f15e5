"""Small pieces of HTML in the dashboard's look; every text from outside is escaped here, and only here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from urllib.parse import quote

from control_plane.ui.viewmodels import sparkline
from control_plane.ui.viewmodels.badges import Badge, badge
from control_plane.ui.viewmodels.endpoints import Step
from control_plane.ui.viewmodels.overview import FirstStep, KeyFigure
from control_plane.ui.viewmodels.playground import Bar
from control_plane.ui.viewmodels.provenance import TreeRow


def pill(state: str | Badge) -> str:
    """A state as icon and word."""
    look = badge(state) if isinstance(state, str) else state
    icon = f'<i aria-hidden="true">{look.icon}</i>'
    return f'<span class="sb-badge sb-{look.tone}">{icon}{escape(look.word)}</span>'


def lead(text: str) -> str:
    """The sentence under a page's title."""
    return f'<p class="sb-lead">{escape(text)}</p>'


def card_title(title: str, *states: str | Badge, note: str = "") -> str:
    """A card's heading with its states and, in small, a note."""
    pills = "".join(pill(state) for state in states)
    soft = (
        f'<span class="sb-soft" style="font-weight:450;font-size:.88rem">{escape(note)}</span>'
        if note
        else ""
    )
    return f'<p class="sb-card-title">{escape(title)}{pills}{soft}</p>'


def text(words: str) -> str:
    """A quiet paragraph."""
    return f'<p class="sb-card-text">{escape(words)}</p>'


def empty(title: str, words: str) -> str:
    """What a list shows when there is nothing in it."""
    return f'<div class="sb-empty"><b>{escape(title)}</b>{escape(words)}</div>'


def problem(title: str, next_step: str | None = None, log: Sequence[str] = (), *, warn: bool = False) -> str:
    """What went wrong, what to do, and the log lines that tell why."""
    step = f"<p>{escape(next_step)}</p>" if next_step else ""
    lines = f'<pre class="sb-log">{escape(chr(10).join(log))}</pre>' if log else ""
    kind = "sb-problem sb-warned" if warn else "sb-problem"
    return f'<div class="{kind}" role="alert"><b>{escape(title)}</b>{step}{lines}</div>'


def log(lines: Iterable[str]) -> str:
    """Log lines, wrapped."""
    return (
        f'<pre class="sb-log" tabindex="0">{escape(chr(10).join(lines)) or "The log is empty so far."}</pre>'
    )


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Labels and values."""
    cells = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in rows)
    return f'<dl class="sb-facts">{cells}</dl>'


def table(
    rows: Sequence[Mapping[str, object]], *, mono: Iterable[str] = (), tight: Iterable[str] = ()
) -> str:
    """Rows, headed by the first one's keys. mono: columns in fixed width; tight: columns never wrapped."""
    if not rows:
        return ""
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in rows[0])
    fixed, narrow = frozenset(mono), frozenset(tight)
    body = "".join(
        "<tr>" + "".join(_cell(name, value, fixed, narrow) for name, value in row.items()) + "</tr>"
        for row in rows
    )
    return f'<table class="sb-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(name: str, value: object, mono: frozenset[str], tight: frozenset[str]) -> str:
    look = " ".join([*(["sb-mono"] if name in mono else []), *(["sb-nowrap"] if name in tight else [])])
    inner = pill(value) if isinstance(value, Badge) else escape("" if value is None else str(value))
    return f'<td class="{look}">{inner}</td>'


def steps(items: Iterable[Step]) -> str:
    """A step strip; the state of each step is said in words too, for screen readers."""
    return (
        '<div class="sb-steps" role="list">'
        + "".join(
            f'<div class="sb-step {step.state}" role="listitem" title="{escape(step.hint)}" '
            f'aria-label="{escape(step.word)}: {step.state} {escape(step.time)}">'
            f"<b>{_mark(step)}{escape(step.word)}</b><span>{escape(step.time) or '&nbsp;'}</span></div>"
            for step in items
        )
        + "</div>"
    )


def _mark(step: Step) -> str:
    return {"done": "✓ ", "failed": "✕ "}.get(step.state, "")


def figures(items: Iterable[KeyFigure]) -> str:
    """Key figures with sparklines."""
    return '<div class="sb-figures">' + "".join(_figure(item) for item in items) + "</div>"


def _figure(item: KeyFigure) -> str:
    lines = "".join(
        f'<path d="{path}" vector-effect="non-scaling-stroke"/>' for path in sparkline.paths(item.values)
    )
    drawing = (
        f'<div class="sb-spark sb-{item.tone}" role="img" aria-label="{escape(item.label)}, last 5 minutes" '
        f"style=\"mask-image:url('{_mask(lines)}')\"></div>"
        if lines
        else ""
    )
    return (
        f'<div class="sb-figure"><span>{escape(item.label)}<small>{escape(item.note)}</small></span>'
        f"<b>{escape(item.value)}</b>{drawing}</div>"
    )


def _mask(lines: str) -> str:
    """Lines as an image that lets the tone's colour through: an inline drawing would be sanitised away."""
    drawing = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {sparkline.WIDTH:.0f} {sparkline.HEIGHT:.0f}" '
        'preserveAspectRatio="none"><g fill="none" stroke="#000" stroke-width="1.6" stroke-linejoin="round"'
        f">{lines}</g></svg>"
    )
    return "data:image/svg+xml," + quote(drawing)


def bars(items: Iterable[Bar]) -> str:
    """Values as bars, in the order given."""
    return '<div class="sb-bars">' + "".join(_bar(item) for item in items) + "</div>"


def _bar(item: Bar) -> str:
    best = " best" if item.best else ""
    sign = " neg" if item.negative else ""
    return (
        f'<span class="{best}">{escape(item.label)}</span>'
        f'<div class="sb-track{best}{sign}"><div style="width:{min(1.0, item.share) * 100:.2f}%"></div></div>'
        f'<span class="sb-num{best}">{escape(item.text)}</span>'
    )


def answer(words: str, *states: Badge) -> str:
    """The headline of a prediction."""
    return f'<p class="sb-answer">{escape(words)}{"".join(pill(state) for state in states)}</p>'


def picture(url: str, alt: str) -> str:
    """A small picture, drawn with sharp pixels. *url* is a data URL that we made."""
    return f'<img class="sb-thumb" src="{escape(url)}" alt="{escape(alt)}">'


def foot(rows: Iterable[tuple[str, str | Badge]]) -> str:
    """The sidebar's footer."""
    cells = "".join(f"<div><span>{escape(label)}</span>{_worth(value)}</div>" for label, value in rows)
    return f'<div class="sb-foot">{cells}</div>'


def _worth(value: str | Badge) -> str:
    return pill(value) if isinstance(value, Badge) else f"<span>{escape(value)}</span>"


def tick(number: int, *, done: bool) -> str:
    """A numbered circle, ticked when done."""
    look = "sb-good" if done else "sb-busy"
    said, shown = ("done", "✓") if done else (f"step {number}", str(number))
    return f'<span class="sb-tick {look}" aria-label="{said}">{shown}</span>'


def first_step(step: FirstStep) -> str:
    """One card of the first steps."""
    return f'<p class="sb-card-title">{tick(step.number, done=step.done)}{escape(step.title)}</p>' + text(
        step.text
    )


def attention(kind: str, subject: str, message: str, since: str) -> str:
    """One thing to look at; *subject* empty when the message names it."""
    when = f' <span class="sb-soft">· {escape(since)}</span>' if since else ""
    return f"<div>{pill(Badge('▲', kind, 'warn'))} <b>{escape(subject)}</b> {escape(message)}{when}</div>"


def activity(rows: Iterable[tuple[str, str]]) -> str:
    """Recent events: time and what happened."""
    lines = "".join(
        f'<tr><td class="sb-nowrap sb-soft sb-num">{escape(at)}</td><td>{escape(words)}</td></tr>'
        for at, words in rows
    )
    return (
        f'<table class="sb-table"><tbody>{lines}</tbody></table>'
        if lines
        else empty("Nothing happened yet", "")
    )


def inline(rows: Iterable[tuple[str, str]]) -> str:
    """Labels and values on one line."""
    cells = "".join(
        f'<span><span class="sb-soft">{escape(label)}</span> {escape(value)}</span>' for label, value in rows
    )
    return f'<div class="sb-inline sb-num">{cells}</div>'


def headline(name: str, health: str, version: str, sentence: str) -> str:
    """The head of an endpoint's page."""
    return (
        f'<div class="sb-head"><h1>{escape(name)}</h1>{pill(health)}{_quiet(version)}</div>'
        f'<p class="sb-lead" style="margin-top:.15rem">{escape(sentence)}</p>'
    )


def agent_line(agent_id: str, phase: str, version: str, note: str, check: Badge | None = None) -> str:
    """One agent: id, phase, what its self-test says, version."""
    tested = pill(check) if check else ""
    soft = f'<span class="sb-soft">{escape(note)}</span>' if note else ""
    name = f'<span class="sb-mono">{escape(agent_id)}</span>'
    return f'<div class="sb-agent">{name}{pill(phase)}{tested}{_quiet(version)}{soft}</div>'


def _quiet(words: str) -> str:
    return f'<span class="sb-mono sb-soft">{escape(words)}</span>'


def agent_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Agents with their phase as a badge."""
    shown = [{**row, "Phase": badge(str(row["Phase"]))} for row in rows]
    return table(
        shown,
        mono=("Agent", "Version", "PID"),
        tight=("Agent", "PID", "Ready in", "Started", "Phase", "Version", "Self-test"),
    )


def tree(rows: Iterable[TreeRow]) -> str:
    """A tree of versions: each stands below and right of what it was made from."""
    return '<ul class="sb-tree">' + "".join(_branch(row) for row in rows) + "</ul>"


def _branch(row: TreeRow) -> str:
    here = ' class="sb-here" aria-current="true"' if row.focus else ""
    mark = pill(row.badge) if row.badge else ""
    return (
        f'<li{here} style="--depth:{row.depth}">'
        f'<span class="sb-mono">{escape(row.ref)}</span>{mark}'
        f'<span class="sb-soft">{escape(row.note)}</span></li>'
    )


def version_head(ref: str, marks: Iterable[Badge], signature: str) -> str:
    """The head of a version's page."""
    pills = "".join(pill(mark) for mark in marks)
    return (
        f'<div class="sb-head"><h1>{escape(ref)}</h1>{pills}</div>'
        f'<p class="sb-soft sb-mono" style="margin:.3rem 0 0">{escape(signature)}</p>'
    )
