"""Answers as JSON: views and signatures are encoded as they are."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Response


class Json(Response):
    """A JSON answer whose content is any view, or a tuple or page of them."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """*content* as JSON bytes."""
        return msgspec.json.encode(content)
