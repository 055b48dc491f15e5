"""Per-token figures of causal language models, from the ids they were given and the logits they gave."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from control_plane.debugging import kept
from control_plane.debugging.comparing import Inspected
from control_plane.debugging.kept import Array, NotKeptError
from control_plane.domain.token_scores import Candidate, TokenScore, TokenScores
from serving_agent.contract.inspection import InspectedRun, TensorSummary
from serving_agent.datatypes import FLOATS

TOP: Final = 5
"""Likeliest next tokens that are named."""
MAX_POSITIONS: Final = 4096
MAX_LOGITS: Final = 200_000_000
"""Logits of one side that are looked at."""
LOGITS: Final = "logits"
IDS: Final = "input_ids"
MASK: Final = "attention_mask"

Floats = npt.NDArray[np.float64]


def score(a: Inspected, b: Inspected | None, beat: Callable[[], None] = lambda: None) -> TokenScores | None:
    """What A, and B beside it, say of every token; None for what is no causal language model.

    Those have an output of shape (rows, tokens, vocabulary) called *logits*, or the only one of that shape,
    and ids of shape (rows, tokens) that are all below the vocabulary. Positions whose mask is zero are left
    out. *beat* is called before each token, and may raise.
    """
    logits = _logits(a.run)
    if logits is None:
        return None
    ids_of = _ids(a.run, logits)
    if ids_of is None:
        return None
    try:
        ours, ids = kept.elements(a.folder, logits), kept.elements(a.folder, ids_of)
        mask = _mask(a, ids_of)
    except NotKeptError:
        return None
    theirs, note = _counterpart(b, logits, ids, mask) if b is not None else (None, "")
    found = _scored(logits.name, ours, theirs, np.asarray(ids), mask, a.run.tokens, beat)
    return msgspec.structs.replace(found, note=note)


def log_softmax(logits: Array) -> Floats:
    """Log-probabilities of one position's logits, in float64; NaN where they have none."""
    exact = logits.astype(np.float64)
    largest = exact.max()
    if not np.isfinite(largest):
        return np.full(exact.shape, np.nan)
    shifted = exact - largest
    found: Floats = shifted - np.log(np.exp(shifted).sum())
    return found


def divergence(a: Floats, b: Floats) -> float | None:
    """KL(A‖B) of two log-distributions, in nats; None where it has no finite value."""
    if np.isnan(a).any() or np.isnan(b).any():
        return None
    some = np.exp(a) > 0
    with np.errstate(invalid="ignore"):
        found = float(np.sum(np.exp(a[some]) * (a[some] - b[some])))
    return max(0.0, found) if math.isfinite(found) else None


def _scored(
    name: str,
    ours: Array,
    theirs: Array | None,
    ids: Array,
    mask: Array | None,
    pieces: Sequence[Sequence[str]],
    beat: Callable[[], None],
) -> TokenScores:
    rows, length, vocabulary = ours.shape
    places = [(row, at) for row in range(rows) for at in range(length) if mask is None or bool(mask[row, at])]
    most = min(MAX_POSITIONS, max(1, MAX_LOGITS // vocabulary))
    names = _names(ids, pieces)
    scores: list[TokenScore] = []
    before: tuple[int, Floats, Floats | None] | None = None
    for row, at in places[:most]:
        beat()
        token = int(ids[row, at])
        given = before if before is not None and before[0] == row else None
        one = log_softmax(ours[row, at])
        other = log_softmax(theirs[row, at]) if theirs is not None else None
        scores.append(
            TokenScore(
                row=row,
                position=at,
                token=token,
                piece=_piece(pieces, row, at),
                logprob_a=_at(given[1], token) if given else None,
                logprob_b=_at(given[2], token) if given else None,
                kl=divergence(one, other) if other is not None else None,
                top_a=_top(one, names),
                top_b=_top(other, names) if other is not None else (),
            )
        )
        before = (row, one, other)
    apart = [(each.kl, -place) for place, each in enumerate(scores) if each.kl is not None]
    return TokenScores(
        output=name,
        vocabulary=vocabulary,
        tokens=tuple(scores),
        truncated=len(places) > most,
        largest_kl=-max(apart)[1] if apart else None,
    )


def _logits(run: InspectedRun) -> TensorSummary | None:
    """The tensor that holds the logits, as the model itself gave it where that is known."""
    found = [
        tensor
        for stage in run.stages
        if stage.name in ("predict", "postprocess")
        for tensor in stage.tensors
        if len(tensor.shape) == 3 and tensor.datatype in FLOATS and tensor.shape[2] > 1
    ]
    named = [tensor for tensor in found if tensor.name == LOGITS]
    only = found[:1] if len({tensor.name for tensor in found}) == 1 else []
    return next(iter(named or only), None)


def _ids(run: InspectedRun, logits: TensorSummary) -> TensorSummary | None:
    fitting = [
        tensor
        for tensor in _given(run, logits.shape[:2])
        if tensor.low is not None and tensor.high is not None and 0 <= tensor.low <= tensor.high
        and tensor.high < logits.shape[2] and tensor.name != MASK
    ]  # fmt: skip
    named = [tensor for tensor in fitting if tensor.name == IDS]
    only = fitting[:1] if len({tensor.name for tensor in fitting}) == 1 else []
    return next(iter(named or only), None)


def _given(run: InspectedRun, shape: tuple[int, ...]) -> list[TensorSummary]:
    """Whole-number tensors of that shape that go into the model, as near to it as is known."""
    return [
        tensor
        for name in ("preprocess", "inputs")
        for stage in run.stages
        if stage.name == name
        for tensor in stage.tensors
        if tensor.shape == shape and "INT" in tensor.datatype
    ]


def _mask(a: Inspected, ids: TensorSummary) -> Array | None:
    found = next((each for each in _given(a.run, ids.shape) if each.name == MASK), None)
    return kept.elements(a.folder, found) if found is not None else None


def _counterpart(
    b: Inspected, logits: TensorSummary, ids: Array, mask: Array | None
) -> tuple[Array | None, str]:
    """B's logits, where they are of the same tokens; otherwise None, and why, as a sentence."""
    found = _logits(b.run)
    ids_of = _ids(b.run, found) if found is not None else None
    if found is None or ids_of is None:
        return None, "B has no figures: it read no tokens, or gave no logits."
    if found.shape != logits.shape:
        return None, f"B has no figures: its logits have shape {list(found.shape)}."
    try:
        theirs, its_ids, its_mask = (
            kept.elements(b.folder, found),
            kept.elements(b.folder, ids_of),
            _mask(b, ids_of),
        )
    except NotKeptError as error:
        return None, f"B has no figures: of its tokens and logits, {error}."
    if not _alike(ids, mask, its_ids, its_mask):
        return None, "B has no figures: it read other tokens than A, or masked others."
    return theirs, ""


def _alike(ids: Array, mask: Array | None, others: Array, other_mask: Array | None) -> bool:
    """Whether both read the same tokens: where A masks nothing, and by B's own mask where it has one."""
    read = np.ones(ids.shape, bool) if mask is None else np.asarray(mask) != 0
    same_mask = other_mask is None or np.array_equal(np.asarray(other_mask) != 0, read)
    return same_mask and bool(np.all((np.asarray(ids) == np.asarray(others)) | ~read))


def _names(ids: Array, pieces: Sequence[Sequence[str]]) -> dict[int, str]:
    """Texts of the tokens that are known: those that were given."""
    return {
        int(ids[row, at]): _piece(pieces, row, at)
        for row, texts in enumerate(pieces[: ids.shape[0]])
        for at in range(min(len(texts), ids.shape[1]))
    }


def _piece(pieces: Sequence[Sequence[str]], row: int, at: int) -> str:
    return pieces[row][at] if row < len(pieces) and at < len(pieces[row]) else ""


def _top(scores: Floats, names: dict[int, str]) -> tuple[Candidate, ...]:
    if np.isnan(scores).any():
        return ()
    count = min(TOP, scores.size)
    likeliest = np.argpartition(-scores, count - 1)[:count]
    ranked = sorted((int(token) for token in likeliest), key=lambda token: (-scores[token], token))
    return tuple(
        Candidate(token=token, piece=names.get(token, ""), logprob=float(scores[token]))
        for token in ranked
        if np.isfinite(scores[token])
    )


def _at(scores: Any, token: int) -> float | None:
    if scores is None:
        return None
    value = float(scores[token])
    return value if math.isfinite(value) else None
