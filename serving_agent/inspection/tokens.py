"""The pieces that a tokenizer has made of a request's texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from serving_agent.model_server import ModelServer

IDS: Final = "input_ids"


def pieces(server: ModelServer, prepared: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Return the pieces of each row that preprocess made, padding too; none without a tokenizer.

    Ids that the tokenizer does not know are shown as numbers.
    """
    tokenizer = getattr(getattr(server, "model", None), "tokenizer", None)
    ids: Any = prepared.get(IDS)
    if tokenizer is None or getattr(ids, "ndim", 0) != 2:
        return ()
    return tuple(tuple(_piece(tokenizer, int(each)) for each in row) for row in ids.tolist())


def _piece(tokenizer: Any, token: int) -> str:
    try:
        piece = tokenizer.convert_ids_to_tokens(token)
    except (OverflowError, IndexError, TypeError):  # negative, or larger than any vocabulary
        piece = None
    return str(token) if piece is None else str(piece)
