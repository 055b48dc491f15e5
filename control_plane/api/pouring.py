"""Bodies of requests on their way into files: bounded buffers, written from threads, with one watch a file.

While some chunks are written and hashed in a thread, as they came and without copying them together, the
next ones gather, so at most twice BUFFER_BYTES are held a request. A second thread makes safe what was
written, every CHECKPOINT_BYTES or CHECKPOINT_S.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

import anyio
import anyio.to_thread
from fastapi import Request

from control_plane.errors import LockedError
from control_plane.services.receiving import Incoming

BUFFER_BYTES: Final = 4 * 1024 * 1024
CHECKPOINT_BYTES: Final = 64 * 1024 * 1024
CHECKPOINT_S: Final = 2.0
DISK_THREADS: Final = 8
"""Threads that uploads may take: pages and other routes keep theirs."""
STALL_S: Final = 60.0
"""A body that brings no byte for so long is over."""
SILENT_S: Final = 5.0
"""A sender that was silent for so long gives way to the next one that asks for the same file."""
GRACE_S: Final = 1.0
"""A sender whose connection broke is noticed within this time; until then the next one waits."""
HANDOVER_S: Final = 10.0
"""How long the next one waits for the former to have let go."""
DRAIN_S: Final = 30.0
"""After a refusal the rest of the body is read and dropped this long, so that the client sees the answer."""
Result = TypeVar("Result")


class Stopped(Exception):  # noqa: N818  how a body ended, not an error
    """The body ended before its time: the client is gone or silent, or somebody else took over."""


class Body:
    """The body of one request, chunk by chunk; others can end it."""

    def __init__(self, request: Request) -> None:
        self.ended = asyncio.Event()
        """Set when the file has been let go of."""
        self._receive = request.receive
        self._heard_at = time.monotonic()
        self._cut, self._more = False, True
        self._deadline: asyncio.Timeout | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body's bytes as they come. Raises Stopped unless it came whole."""
        while self._more:
            chunk = await self._next()
            if chunk:
                yield chunk

    def leaving(self) -> bool:
        """Whether nothing more can be expected of its sender."""
        return self._cut or time.monotonic() - self._heard_at > SILENT_S

    def cut(self) -> None:
        """End it: its sender hears no more of it."""
        self._cut = True
        if self._deadline is not None:
            with suppress(RuntimeError):  # it is ending already
                self._deadline.reschedule(asyncio.get_running_loop().time())

    async def drain(self) -> None:
        """Read and drop what still comes, so that the sender gets to reading our refusal of it."""
        with suppress(TimeoutError, Stopped):
            async with asyncio.timeout(DRAIN_S):
                async for _ in self.chunks():
                    pass

    async def _next(self) -> bytes:
        if self._cut:
            raise Stopped
        try:
            async with asyncio.timeout(STALL_S) as self._deadline:
                message = await self._receive()
        except TimeoutError:
            self._cut = True
            raise Stopped from None
        finally:
            self._deadline = None
        self._heard_at = time.monotonic()
        if message["type"] != "http.request":
            self._cut = True
            raise Stopped
        self._more = bool(message.get("more_body", False))
        chunk: bytes = message.get("body", b"")
        return chunk


class Pouring:
    """The bodies that are being written, by transfer; one per event loop."""

    def __init__(self) -> None:
        self._bodies: dict[str, Body] = {}
        self._threads: anyio.CapacityLimiter | None = None

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run *work*, which blocks on the disk, in a thread of uploads; it ends even if nobody waits."""
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(DISK_THREADS)
        return await anyio.to_thread.run_sync(work, limiter=self._threads)

    async def settled(self, transfer_id: str, *, force: bool = False) -> None:
        """Wait until a former sender that is gone, or *force*d to go, has let go of the file.

        Raises LockedError when it is still sending, or does not let go in time.
        """
        while (body := self._bodies.get(transfer_id)) is not None:
            await self.noticed(transfer_id)
            if body.ended.is_set():
                continue
            if not (force or body.leaving()):
                raise LockedError(
                    "Somebody else is sending this file at this moment",
                    next_step="Try again in a few seconds.",
                )
            body.cut()
            if not await _within(body.ended, HANDOVER_S):
                raise LockedError(
                    "The former sender has not let go of this file yet",
                    next_step="Try again in a few seconds.",
                )

    async def noticed(self, transfer_id: str) -> None:
        """Wait a moment for a sender that is just going, so that all it sent counts."""
        body = self._bodies.get(transfer_id)
        if body is not None:
            await _within(body.ended, GRACE_S)

    async def pour(self, body: Body, transfer_id: str, opened: Callable[[], Incoming]) -> Incoming:
        """Write *body* to what *opened* gives, and end it: what came of a cut body is kept.

        Raises Stopped after a cut body, and whatever the file refuses.
        """
        await self.settled(transfer_id)
        with self._watched(body, transfer_id):
            incoming = await self.run(opened)
            whole = False
            try:
                await self._fill(body, incoming)
                whole = True
            finally:
                await asyncio.shield(self.run(lambda: incoming.end(whole=whole)))
        return incoming

    @contextmanager
    def _watched(self, body: Body, transfer_id: str) -> Iterator[None]:
        self._bodies[transfer_id] = body
        try:
            yield
        finally:
            del self._bodies[transfer_id]
            body.ended.set()

    async def _fill(self, body: Body, incoming: Incoming) -> None:
        writer = _Writer(self, incoming)
        waiting: list[bytes] = []
        size = 0
        try:
            async for chunk in body.chunks():
                waiting.append(chunk)
                size += len(chunk)
                if size >= BUFFER_BYTES or writer.waited():
                    full, waiting, size = waiting, [], 0
                    await writer.write(full)
        except Stopped:
            await writer.write(waiting)
            raise
        else:
            await writer.write(waiting)
        finally:
            await writer.done()


def of(request: Request) -> Pouring:
    """The bodies that the application of *request* is writing."""
    pouring: Pouring = request.app.state.pouring
    return pouring


class _Writer:
    """Writes buffers to one file in threads, one after the other, and checkpoints beside them."""

    def __init__(self, pouring: Pouring, incoming: Incoming) -> None:
        self._pouring, self._incoming = pouring, incoming
        self._writing: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[None] | None = None
        self._saved, self._saved_at = incoming.offset, time.monotonic()
        self._wrote_at = self._saved_at

    def waited(self) -> bool:
        """Whether a slow sender's bytes have waited long enough to be written."""
        return time.monotonic() - self._wrote_at >= CHECKPOINT_S

    async def write(self, chunks: list[bytes]) -> None:
        """Begin to write *chunks* once what came before is written. Raises what went wrong with that."""
        if self._writing is not None:
            await asyncio.shield(self._writing)
        self._wrote_at = time.monotonic()
        self._writing = asyncio.create_task(self._pouring.run(lambda: self._incoming.write(*chunks)))
        await self._checkpoint()

    async def done(self) -> None:
        """Return when nothing is under way. Raises what went wrong."""
        waiting = [task for task in (self._writing, self._saving) if task is not None]
        self._writing = self._saving = None
        results = await asyncio.shield(asyncio.gather(*waiting, return_exceptions=True))
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _checkpoint(self) -> None:
        if self._saving is not None:
            if not self._saving.done():
                return
            self._saving.result()
        offset, now = self._incoming.offset, time.monotonic()
        if offset - self._saved >= CHECKPOINT_BYTES or now - self._saved_at >= CHECKPOINT_S:
            self._saved, self._saved_at = offset, now
            self._saving = asyncio.create_task(self._pouring.run(self._incoming.checkpoint))


async def _within(event: asyncio.Event, limit_s: float) -> bool:
    """Whether *event* is set within *limit_s* seconds."""
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
