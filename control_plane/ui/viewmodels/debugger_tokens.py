"""Tokens of language models in words: positions, candidates, and layers that hand out attention. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from control_plane.domain.token_scores import Candidate, TokenScore, TokenScores
from control_plane.ui.viewmodels import quantities
from control_plane.ui.viewmodels.debugger_figures import piece
from control_plane.ui.viewmodels.debugger_tensors import number
from serving_agent.contract.inspection import InspectedRun

_START_PIECES: Final = 6
_ONE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Attention:
    """A tensor [batch, heads, from, to] of shares."""

    point: str
    tensor: int
    shape: tuple[int, ...]

    @property
    def heads(self) -> int:
        """How many heads it has."""
        return self.shape[1]


def rows(scores: TokenScores) -> list[int]:
    """Rows that were scored."""
    return sorted({score.row for score in scores.tokens})


def of_row(scores: TokenScores, row: int) -> list[TokenScore]:
    """Positions of one row, in order."""
    return [score for score in scores.tokens if score.row == row]


def start_of(scores: TokenScores, row: int) -> str:
    """The first tokens of a row."""
    return " ".join(piece(score.piece, score.token) for score in of_row(scores, row)[:_START_PIECES])


def position(scores: TokenScores, row: int, wanted: str | None) -> int:
    """The position that the address names, else that of the largest KL, else the last one."""
    known = [score.position for score in of_row(scores, row)]
    if wanted and wanted.isdecimal() and int(wanted) in known:
        return int(wanted)
    if scores.largest_kl is not None and scores.tokens[scores.largest_kl].row == row:
        return scores.tokens[scores.largest_kl].position
    return known[-1]


def labels(scores: TokenScores, row: int) -> dict[int, str]:
    """Positions as entries of a list."""
    return {
        score.position: f"{score.position} · {piece(score.piece, score.token)}"
        for score in of_row(scores, row)
    }


def summary(scores: TokenScores, row: int) -> str:
    """How many tokens, their mean log-probability on each side, and where they are farthest apart."""
    tokens = of_row(scores, row)
    parts = [quantities.count(len(tokens), "token")]
    for name, known in (
        ("A", [score.logprob_a for score in tokens]),
        ("B", [score.logprob_b for score in tokens]),
    ):
        there = [value for value in known if value is not None]
        if there:
            mean = sum(there) / len(there)
            parts.append(
                f"{name}: mean {number(mean)} nats, perplexity {number(math.exp(min(700.0, -mean)))}"
            )
    far = max(
        (score for score in tokens if score.kl is not None), key=lambda score: score.kl or 0.0, default=None
    )
    if far is not None:
        parts.append(f"farthest apart after position {far.position}, KL {number(far.kl)} nats")
    said = " · ".join(parts) + "."
    left_out = "Later positions were left out." if scores.truncated else ""
    return " ".join(filter(None, (said, left_out, scores.note)))


def candidate_rows(scores: TokenScores, row: int, here: int, *, compared: bool) -> list[dict[str, object]]:
    """The likeliest next tokens after *here*, on both sides."""
    score = next((each for each in of_row(scores, row) if each.position == here), None)
    if score is None:
        return []
    other_a = {each.token: each.logprob for each in score.top_a}
    other_b = {each.token: each.logprob for each in score.top_b}
    found: list[dict[str, object]] = []
    for place in range(max(len(score.top_a), len(score.top_b))):
        line: dict[str, object] = {"Rank": place + 1, "A": "", "A, log-probability": ""}
        line |= _candidate("A", score.top_a, place, other_b if compared else {})
        if compared:
            line |= _candidate("B", score.top_b, place, other_a)
        found.append(line)
    return found


def _candidate(
    side: str, top: tuple[Candidate, ...], place: int, other: dict[int, float]
) -> dict[str, object]:
    if place >= len(top):
        return {side: "", f"{side}, log-probability": ""}
    each = top[place]
    share = quantities.share(math.exp(min(0.0, each.logprob)))
    alone = " · only here" if other and each.token not in other else ""
    return {
        side: f"{piece(each.piece, each.token)}{alone}",
        f"{side}, log-probability": f"{number(each.logprob)} nats ({share})",
    }


def attention_points(run: InspectedRun | None) -> dict[str, Attention]:
    """Layers whose outputs hold attention, by a name for people: from their figures alone.

    Shares over n positions lie between 0 and 1 and their mean is 1/n.
    """
    found: dict[str, Attention] = {}
    for point in run.points if run is not None else ():
        for at, tensor in enumerate(point.outputs):
            sizes = tensor.shape
            if len(sizes) != 4 or sizes[-1] < sizes[-2] or sizes[-2] < 2 or tensor.offset is None:
                continue
            if tensor.low is None or tensor.high is None or tensor.mean is None or tensor.nan or tensor.inf:
                continue
            inside = tensor.low >= 0.0 and tensor.high <= 1.0 + _ONE
            if inside and abs(tensor.mean * sizes[-1] - 1.0) <= _ONE:
                found[point.id] = Attention(point.id, at, sizes)
                break
    return found
