"""A bidirectional stream whose requests are answered in order while several of them run at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc


class AnswerStream:
    """Reads one call's requests, starts up to *max_running* answers at once and writes them in order.

    A client that reads its answers slowly, or sends faster than it is answered, is slowed down by gRPC's flow
    control: nothing more is read while *max_running* answers are running or unsent.
    """

    def __init__(self, context: Any, answer: Callable[[bytes], Awaitable[bytes]], max_running: int) -> None:
        self._context = context
        self._answer = answer
        self._room = asyncio.Semaphore(max_running)
        self._answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        self._running: set[asyncio.Task[bytes]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._is_ended = False

    async def serve(self) -> None:
        """Return when the client has sent its last request and has every answer.

        Cancelled when the client goes away, and then its running requests are too. Aborts the call with
        UNAVAILABLE, after the last answer, where `end` was called.
        """
        self._reader = asyncio.create_task(self._read())
        self._reader.add_done_callback(self._no_more)
        if self._is_ended:
            self._reader.cancel()
        try:
            while (answer := await self._answers.get()) is not None:
                await self._context.write(await answer)
                self._room.release()
        finally:
            self._reader.cancel()
            for task in self._running:
                task.cancel()
        if self._is_ended:
            await self._context.abort(
                grpc.StatusCode.UNAVAILABLE, "the agent is ending; open the stream again to reach another one"
            )

    def end(self) -> None:
        """Read no more requests; those read already are answered."""
        self._is_ended = True
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self) -> None:
        await self._room.acquire()
        while (data := await self._context.read()) is not grpc.aio.EOF:
            self._start(data)
            await self._room.acquire()

    def _no_more(self, _: asyncio.Task[None]) -> None:
        # not at the end of `_read`, which never begins where it is cancelled at once
        self._answers.put_nowait(None)

    def _start(self, data: bytes) -> None:
        task = asyncio.ensure_future(self._answer(data))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        self._answers.put_nowait(task)
