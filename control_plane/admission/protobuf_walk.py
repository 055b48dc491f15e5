"""Protocol-buffer messages walked field by field, without their schema's code and without copying.

Wire format: https://protobuf.dev/programming-guides/encoding/. Only what readers ask for is looked at; large
fields are stepped over, so a file of 2 GB costs as little as its small fields.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5
MAX_VARINT_BYTES: Final = 10
MAX_FIELDS: Final = 4_000_000

Span = tuple[int, int]
"""Start and end of a message or a field of bytes in the file."""


class MalformedError(ValueError):
    """The bytes are no protocol-buffer message."""


class Walker:
    """Reads messages in *data*; the number of fields it reads altogether is bounded."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self._data = data
        self._fields = 0

    def fields(self, span: Span) -> Iterator[tuple[int, int | Span]]:
        """Yield number and value of each field in *span*: an integer, or where its bytes lie.

        Raises MalformedError.
        """
        position, end = span
        while position < end:
            self._count()
            key, position = self._varint(position, end)
            value, position = self._value(key & 7, position, end)
            yield key >> 3, value

    def text(self, span: Span, limit: int = 4096) -> str:
        """Return the text at *span*. Raises MalformedError."""
        if span[1] - span[0] > limit:
            raise MalformedError("a name is too long")
        try:
            return bytes(self._data[span[0] : span[1]]).decode()
        except UnicodeDecodeError:
            raise MalformedError("a name is not UTF-8") from None

    def _count(self) -> None:
        self._fields += 1
        if self._fields > MAX_FIELDS:
            raise MalformedError(f"it has more than {MAX_FIELDS} fields")

    def _value(self, wire: int, position: int, end: int) -> tuple[int | Span, int]:
        if wire == VARINT:
            return self._varint(position, end)
        if wire == BYTES:
            size, position = self._varint(position, end)
            stop = position + size
            value: int | Span = (position, stop)
        elif wire in (FIXED64, FIXED32):
            stop = position + (8 if wire == FIXED64 else 4)
            value = 0
        else:
            raise MalformedError("it holds a field of an unknown kind")
        if stop > end:
            raise MalformedError("it is cut")
        return value, stop

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = 0
        for index in range(MAX_VARINT_BYTES):
            if position + index >= end:
                raise MalformedError("it is cut")
            byte = self._data[position + index]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value, position + index + 1
        raise MalformedError("a number in it is too long")
