"""Pages of longer lists."""

from __future__ import annotations

from control_plane.errors import InvalidInputError

MAX_PAGE_SIZE = 200
_MAX_PAGE = 1_000_000
_MAX_QUERY_CHARS = 200


def offset(page: int, page_size: int) -> int:
    """Rows before *page* (counted from 1). Raises InvalidInputError."""
    if not 1 <= page <= _MAX_PAGE:
        raise InvalidInputError(f"page must be from 1 to {_MAX_PAGE}, not {page}")
    if not 1 <= page_size <= MAX_PAGE_SIZE:
        raise InvalidInputError(f"page_size must be from 1 to {MAX_PAGE_SIZE}, not {page_size}")
    return (page - 1) * page_size


def query_text(q: str) -> str:
    """What is searched for, without what no stored text can hold.

    Raises InvalidInputError when it is too long.
    """
    if len(q) > _MAX_QUERY_CHARS:
        raise InvalidInputError(f"The search text is longer than {_MAX_QUERY_CHARS} characters")
    return q.replace("\0", "").strip()
