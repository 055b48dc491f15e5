"""Sends the files of an upload with tus: from where the server has them, again when the connection breaks."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, Final

from control_plane.cli.client import SENDING_TIMEOUT_S, Client, Json, part
from control_plane.cli.failures import ApiError
from control_plane.errors import InvalidInputError, UnavailableError

CHUNK_BYTES: Final = 1024 * 1024
RETRY_WAITS_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0)
"""Waits between attempts that bring nothing; one that brings bytes starts them anew."""
_PASSING: Final = frozenset({423, 502, 503, 504})
"""Statuses after which the same request may work: somebody writes, the server restarts."""
_ENCODING: Final = "application/offset+octet-stream"


class Outgoing:
    """One file on its way: read from any offset on, hashed once from its start to wherever it was read."""

    def __init__(self, stream: FileIO) -> None:
        self._stream = stream
        self._hash, self._hashed_bytes = hashlib.sha256(), 0

    def blocks(self, offset: int) -> Iterator[bytes]:
        """The file from *offset* on; what lies before it is hashed first."""
        self._hash_up_to(offset)
        self._stream.seek(offset)
        while block := self._stream.read(CHUNK_BYTES):
            self._take(offset, block)
            offset += len(block)
            yield block

    def sha256(self, size_bytes: int) -> str:
        """Of the first *size_bytes*, hexadecimal."""
        self._hash_up_to(size_bytes)
        return self._hash.hexdigest()

    def _hash_up_to(self, offset: int) -> None:
        self._stream.seek(self._hashed_bytes)
        while self._hashed_bytes < offset:
            block = self._stream.read(min(CHUNK_BYTES, offset - self._hashed_bytes))
            if not block:
                raise InvalidInputError("the file became shorter while it was sent")
            self._take(self._hashed_bytes, block)

    def _take(self, offset: int, block: bytes) -> None:
        fresh = offset + len(block) - self._hashed_bytes
        if fresh > 0:
            self._hash.update(block[-fresh:])
            self._hashed_bytes += fresh


def send_all(
    api: Client, upload: Json, files: Mapping[str, Path], tell: Callable[[str, int], Any]
) -> dict[str, str]:
    """Send what the upload still lacks; returns the SHA-256 of every file, hexadecimal, by its path.

    tell: called with a path and how many bytes of it the server has, or will have when what is on its way
    arrives. Raises ApiError, UnavailableError after RETRY_WAITS_S, OSError.
    """
    return {
        file["path"]: _send(api, upload["id"], file, files[file["path"]], tell) for file in upload["files"]
    }


def complete(api: Client, upload_id: str, sha256: Mapping[str, str]) -> None:
    """Say that all has come, and what each file hashes to. Raises as `send_all` does."""
    where = f"/uploads/{part(upload_id)}"

    def attempt() -> None:
        if api.get(where)["state"] == "receiving":  # else the answer to an earlier attempt was lost
            api.post(f"{where}/complete", {"sha256": dict(sha256)}, timeout_s=SENDING_TIMEOUT_S)

    _patiently(_Attempts(), attempt)


def _send(api: Client, upload_id: str, file: Json, source: Path, tell: Callable[[str, int], Any]) -> str:
    path, size_bytes = file["path"], file["size_bytes"]
    with source.open("rb", buffering=0) as stream:
        outgoing = Outgoing(stream)
        if file["sha256"] is None:
            attempts = _Attempts()
            _patiently(attempts, lambda: _attempt(api, upload_id, file, outgoing, attempts, tell))
        tell(path, size_bytes)
        return outgoing.sha256(size_bytes)


def _attempt(
    api: Client,
    upload_id: str,
    file: Json,
    outgoing: Outgoing,
    attempts: _Attempts,
    tell: Callable[[str, int], Any],
) -> None:
    """Send the rest of one file in one request."""
    path, size_bytes = file["path"], file["size_bytes"]
    named = {"upload-length": str(size_bytes), "upload-metadata": _metadata(upload=upload_id, path=path)}
    where = "/tus/" + api.tus("POST", "/tus", named)["location"].rsplit("/", 1)[-1]
    offset = int(api.tus("HEAD", where, {})["upload-offset"])
    attempts.reached(offset)

    def told() -> Iterator[bytes]:
        sent = offset
        tell(path, sent)
        for block in outgoing.blocks(offset):
            yield block
            sent += len(block)
            tell(path, sent)

    if offset < size_bytes:
        headers = {
            "content-type": _ENCODING,
            "content-length": str(size_bytes - offset),
            "upload-offset": str(offset),
        }
        api.tus("PATCH", where, headers, told())


class _Attempts:
    """Decides whether to try once more, and after what wait."""

    def __init__(self) -> None:
        self._waits = iter(RETRY_WAITS_S)
        self._offset = -1

    def reached(self, offset: int) -> None:
        """The server has so many bytes: more than before is reason to be patient again."""
        if offset > self._offset:
            self._offset, self._waits = offset, iter(RETRY_WAITS_S)

    def run(self, attempt: Callable[[], None]) -> bool:
        """Run *attempt*; False when it failed in a way that may pass, after a wait."""
        try:
            attempt()
        except (ApiError, UnavailableError) as error:
            if not _may_pass(error):
                raise
            wait_s = next(self._waits, None)
            if wait_s is None:
                raise
            time.sleep(wait_s)  # the other side is not there: nothing will tell us when it is
            return False
        return True


def _patiently(attempts: _Attempts, attempt: Callable[[], None]) -> None:
    while not attempts.run(attempt):
        pass


def _may_pass(error: ApiError | UnavailableError) -> bool:
    if isinstance(error, UnavailableError):
        return True
    offset_moved = error.status == 409 and "offset" in error.details
    return offset_moved or error.status in _PASSING


def _metadata(**pairs: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items())
