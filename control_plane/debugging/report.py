"""A run as a file that stands alone: JSON that can be read back, or one HTML page of its own. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

import msgspec

from control_plane.debugging import drawings, edits
from control_plane.domain.debugging import DebugRunDetail, SideView
from control_plane.domain.divergence import Comparison, Pair, decibels
from control_plane.domain.token_scores import TokenScore, TokenScores
from control_plane.errors import InvalidInputError
from serving_agent.contract.inspection import InspectedRun, Point, Stage, TensorSummary

FORM: Final = "signalbox-debug-run/1"
SHOWN_TOKENS: Final = 2000
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""Nothing is loaded, and nothing is run."""
STYLE: Final = """
:root{color-scheme:light dark;--ink:#1a2129;--soft:#5a6672;--line:#d3dae1;--back:#fff;--warn:#a33a00;
--mark:#0b6bcb}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf0;--soft:#9aa7b3;--line:#2c3742;--back:#0f141a;
--warn:#ff9a5c;--mark:#6cb2ff}}
body{font:14px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--back);margin:2rem auto;
max-width:1400px;padding:0 1rem}
h1{font-size:1.45rem}h2{font-size:1.15rem;margin-top:2rem}h3{font-size:1rem}
.lead{font-size:1.05rem}.soft{color:var(--soft)}.warn{color:var(--warn);font-weight:600}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:12px;font-variant-numeric:tabular-nums}
th,td{border-bottom:1px solid var(--line);padding:.2rem .5rem;text-align:right;white-space:nowrap}
th:nth-child(-n+3),td:nth-child(-n+3){text-align:left}
tr.diverges td{background:color-mix(in srgb,var(--warn) 18%,transparent)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}dt{color:var(--soft)}dd{margin:0}
svg text{font-size:11px;fill:var(--soft)}svg .grid{stroke:var(--line)}
svg .line{fill:none;stroke:var(--mark);stroke-width:1.5}
svg .dot{fill:var(--mark)}svg .diverges{fill:var(--warn)}svg.bars rect{fill:var(--mark)}
"""
_TENSOR_HEAD: Final = ("dtype", "shape", "min", "max", "mean", "std", "zeros", "NaN", "Inf", "histogram")


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON document."""

    detail: DebugRunDetail
    exported_at: float
    form: str = FORM


def read(content: bytes) -> Exported:
    """An exported document. Raises InvalidInputError."""
    try:
        found = msgspec.json.decode(content, type=Exported)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(f"this is no exported debugger run: {error}") from error
    if found.form != FORM:
        raise InvalidInputError(f"this is no exported debugger run of form {FORM}: {found.form[:80]!r}")
    return found


def html(exported: Exported) -> str:
    """The whole page."""
    detail = exported.detail
    title = detail.view.name or f"Debugger run of {detail.view.a}"
    body = (
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(detail.view.summary)}</p>',
        f"<p>{escape(detail.served.sentence)}.</p>" if detail.served is not None else "",
        _facts(exported),
        _comparison(detail.comparison) if detail.comparison is not None else "",
        *(_side(side) for side in detail.sides),
        _tokens(detail.tokens) if detail.tokens is not None else "",
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def number(value: float | None) -> str:
    """Four significant digits; empty for none."""
    return "" if value is None else f"{value:.4g}"


def _facts(exported: Exported) -> str:
    view = exported.detail.view
    inputs = ", ".join(f"{each.name} {each.datatype} {list(each.shape)}" for each in view.inputs)
    facts = [
        ("A", view.a),
        ("B", view.b or ""),
        ("Input", f"{view.input}: {inputs}"),
        ("Edits", "; ".join(edits.written(each) for each in view.edits)),
        ("Run", f"{view.id}, by {view.created_by}, {_when(view.created_at)}"),
        ("Came from", view.parent_id or ""),
        ("Exported", _when(exported.exported_at)),
    ]
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts if text)
    return f"<dl>{listed}</dl>"


def _side(side: SideView) -> str:
    head = f"<h2>{side.side.upper()}: {escape(side.ref)}</h2>"
    if side.run is None:
        why = side.problem.message if side.problem is not None else "It was not inspected."
        return f'{head}<p class="warn">{escape(why)}</p>'
    return head + _cost(side.run) + _stages(side.run.stages) + _points(side.run)


def _cost(run: InspectedRun) -> str:
    told = [f"opened in {run.load_s:.2f} s on {run.device}"]
    if run.plain_s is not None and run.recorded_s is not None:
        told.append(f"{run.plain_s * 1000:.2f} ms plain, {run.recorded_s * 1000:.2f} ms recorded")
    if run.same_outputs is not None:
        told.append(
            "the same outputs bit for bit" if run.same_outputs else "other outputs than without recording"
        )
    told += [f"{name} {version}" for name, version in sorted(run.libraries.items())]
    note = f"<p>{escape(run.note)}</p>" if run.note else ""
    return f'<p class="soft">{escape(", ".join(told))}</p>{note}'


def _stages(stages: Sequence[Stage]) -> str:
    rows = []
    for stage in stages:
        head = (stage.name, stage.state.replace("_", " "), f"{stage.seconds * 1000:.2f} ms")
        for tensor in stage.tensors or (None,):
            cells = (*head, tensor.name, *_tensor(tensor)) if tensor is not None else head
            rows.append(_row(cells))
        if stage.failure is not None:
            failure = stage.failure
            where = ", ".join(filter(None, (failure.module, failure.place)))
            told = f"{failure.type}: {failure.message}" + (f" ({where})" if where else "")
            rows.append(f'<tr><td></td><td colspan="13" class="warn">{escape(told)}</td></tr>')
    return "<h3>Stages</h3>" + _table(("stage", "state", "time", "tensor", *_TENSOR_HEAD), rows)


def _points(run: InspectedRun) -> str:
    if not run.points:
        return ""
    rows = [
        _row((str(place), name, point.kind, point.source, _ms(point), *_tensor(tensor)))
        for place, point in enumerate(run.points)
        for name, tensor in _outputs(point)
    ]
    title = "Layers" if run.level == "module" else "Nodes"
    return f"<h3>{title}</h3>" + _table(("#", "name", "type", "source", "time", *_TENSOR_HEAD), rows)


def _outputs(point: Point) -> Iterable[tuple[str, TensorSummary | str]]:
    name = point.id + (" (edited)" if point.edited else "")
    if not point.outputs:
        return [(name, point.not_captured)]
    return [
        (f"{name}[{at}]" if len(point.outputs) > 1 else name, each) for at, each in enumerate(point.outputs)
    ]


def _comparison(found: Comparison) -> str:
    head = ("#", "layer", "in B", "matched by", "max |A−B|", "mean |A−B|", "cosine", "SQNR", "")
    marked = found.divergence.pair if found.divergence is not None else None
    layers = [_pair(place, pair, marked=place == marked) for place, pair in enumerate(found.pairs)]
    outputs = [_pair(place, pair, marked=False) for place, pair in enumerate(found.stages)]
    alone = "".join(
        f'<p class="soft">Only in {side}: {escape(", ".join(names[:200]))}</p>'
        for side, names in (("A", found.only_a), ("B", found.only_b))
        if names
    )
    return (
        f"<h2>A and B</h2><p>{escape(found.sentence)}</p>{drawings.sqnr_line(found)}"
        f"{_table(head, layers)}<h3>Stages</h3>{_table(head, outputs)}{alone}"
    )


def _pair(place: int, pair: Pair, *, marked: bool) -> str:
    figures = (
        number(pair.max_abs),
        number(pair.mean_abs),
        f"{pair.cosine:.6f}" if pair.cosine is not None else "",
    )
    sqnr = decibels(pair.sqnr_db) if pair.sqnr_db is not None else "equal" if pair.equal else ""
    cells = (str(place), pair.name, pair.b, pair.matched_by, *figures, sqnr, pair.problem)
    return _row(cells, kind="diverges" if marked else "")


def _tokens(scores: TokenScores) -> str:
    head = ("row", "position", "token", "log p in A", "log p in B", "KL(A‖B)", "likeliest next in A", "in B")
    rows = [_token(each) for each in scores.tokens[:SHOWN_TOKENS]]
    left = len(scores.tokens) - len(rows)
    more = f'<p class="soft">{left} more positions are in the JSON export.</p>' if left else ""
    note = f"<p>{escape(scores.note)}</p>" if scores.note else ""
    return f"<h2>Tokens</h2>{note}{_table(head, rows)}{more}"


def _token(score: TokenScore) -> str:
    tops = (
        ", ".join(f"{each.piece or each.token} {each.logprob:.2f}" for each in top)
        for top in (score.top_a, score.top_b)
    )
    return _row((
        str(score.row), str(score.position), score.piece or str(score.token), number(score.logprob_a),
        number(score.logprob_b), number(score.kl), *tops,
    ))  # fmt: skip


def _tensor(tensor: TensorSummary | str) -> tuple[str, ...]:
    """Cells of a tensor; the last one is markup."""
    if isinstance(tensor, str):
        return (tensor,)
    zeros = f"{tensor.zeros / tensor.elements:.1%}" if tensor.elements else ""
    return (
        tensor.datatype, str(list(tensor.shape)), number(tensor.low), number(tensor.high),
        number(tensor.mean), number(tensor.std), zeros, str(tensor.nan), str(tensor.inf),
        _Markup(drawings.bars(tensor.histogram)),
    )  # fmt: skip


class _Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    heads = "".join(f'<th scope="col">{escape(each)}</th>' for each in head)
    body = "".join(rows)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(cells: Iterable[str], *, kind: str = "") -> str:
    shown = "".join(f"<td>{each if isinstance(each, _Markup) else escape(each)}</td>" for each in cells)
    return f'<tr class="{kind}">{shown}</tr>' if kind else f"<tr>{shown}</tr>"


def _ms(point: Point) -> str:
    return f"{point.seconds * 1000:.3f} ms" if point.seconds is not None else ""


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
