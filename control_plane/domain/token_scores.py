"""What two language models say of every token: frozen values."""

from __future__ import annotations

import msgspec


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A token that could come next."""

    token: int
    """Its id."""
    piece: str
    """Its text, where the run knows it; empty otherwise."""
    logprob: float


class TokenScore(msgspec.Struct, frozen=True, kw_only=True):
    """One position of one row: the token there, and what was said to come there by what stands before it."""

    row: int
    position: int
    token: int
    piece: str
    logprob_a: float | None
    """Log-probability of the token given all before it; None for a row's first, and where not finite."""
    logprob_b: float | None
    """None too without a second side."""
    kl: float | None
    """KL(A‖B) of the distributions after this position, in nats; None without a second side."""
    top_a: tuple[Candidate, ...]
    """Likeliest next tokens after this position, best first."""
    top_b: tuple[Candidate, ...]


class TokenScores(msgspec.Struct, frozen=True, kw_only=True):
    """All positions of all rows that were scored."""

    output: str
    """Name of the output that holds the logits."""
    vocabulary: int
    tokens: tuple[TokenScore, ...]
    truncated: bool
    """Whether later positions were left out."""
    largest_kl: int | None
    """Place in `tokens` of the largest KL; None without a second side."""
    note: str = ""
    """Why B has no figures though it is there, as a sentence; empty where it has."""
