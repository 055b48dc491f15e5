"""A gzip or zlib file as a stream of bytes: constant memory, one meaning, nothing behind its end.

RFC 1952 (gzip) and RFC 1950 (zlib, as joblib compresses).
"""

from __future__ import annotations

import zlib
from typing import BinaryIO, Final

from control_plane.admission.member_names import broken, hostile

MAGIC: Final = b"\x1f\x8b\x08"
ZLIB_FIRST: Final = 0x78
EITHER: Final = 47
"""zlib's word for: gzip or zlib, whichever it is, with a window of 32 KiB."""
CHUNK_BYTES: Final = 256 * 1024


def is_compressed(head: bytes) -> bool:
    """Tell whether a file that begins with *head* means to be a gzip or zlib file."""
    is_zlib = len(head) > 2 and head[0] == ZLIB_FIRST and int.from_bytes(head[:2], "big") % 31 == 0
    return head.startswith(MAGIC) or is_zlib


class GzipStream:
    """Uncompresses *raw* as far as it is read; checksums are compared on the way. `read` raises Refusal."""

    def __init__(self, raw: BinaryIO, archive: str) -> None:
        self._raw = raw
        self._archive = archive
        self._machine = zlib.decompressobj(wbits=EITHER)
        self._waiting = b""
        self._made = bytearray()
        self._ended = False

    def read(self, count: int) -> bytes:
        """Return *count* bytes, fewer only at the end."""
        while len(self._made) < count and not self._ended:
            self._step(count - len(self._made))
        taken = bytes(self._made[:count])
        del self._made[:count]
        return taken

    def _step(self, wanted: int) -> None:
        if not self._waiting:
            self._waiting = self._raw.read(CHUNK_BYTES)
        if self._machine.eof:
            self._next_part()
            return
        if not self._waiting:
            raise broken(self._archive, "its compressed data is cut")
        try:
            self._made += self._machine.decompress(self._waiting, max(wanted, CHUNK_BYTES))
        except zlib.error:
            raise broken(self._archive, "its compressed data is damaged") from None
        self._waiting = self._machine.unused_data if self._machine.eof else self._machine.unconsumed_tail

    def _next_part(self) -> None:
        """Go on to a further part, as parallel compressors write them, or end."""
        if not self._waiting:
            self._ended = True
        elif self._waiting.startswith(MAGIC):
            self._machine = zlib.decompressobj(wbits=EITHER)
        else:
            raise hostile(self._archive, "other data follows its compressed data")
