"""HTTP/1.1 on one connection (RFC 9112): llhttp parses; order, bounds and time are kept here.

An exchange is handed to the application once its request is complete, or as soon as it breaks a rule; the
application answers it now or later. Exchanges of one connection are answered in order, one at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Final

import httptools

from serving_agent.errors import AgentError, InvalidRequestError, TooLargeError
from serving_agent.http_message import Response, body_too_large, length_fault, path_of

MAX_HEAD_BYTES: Final = 64 * 1024
"""Largest request line and headers that have not ended yet, in bytes."""
KEEP_ALIVE_S: Final = 120.0
"""Idle time after which a connection is closed: well above the gateway's, which never reuses a dying one."""
RECEIVE_S: Final = 60.0
"""Longest time from a request's first byte to its last."""
STALLED_S: Final = 60.0
"""Longest time in which a client that is being sent an answer takes nothing of it."""
LINGER_S: Final = 2.0
"""How long what a refused client still sends is thrown away, so that it gets to read the refusal."""
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Exchange:
    """One request and its answer."""

    __slots__ = (
        "_connection", "arrived_s", "body", "error", "headers", "is_over", "keep_alive", "method", "on_gone",
        "path", "target",
    )  # fmt: skip

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.method = b""
        self.path = ""
        """Without query and trailing slash, percent-decoded."""
        self.target = b""
        """As it was sent, with its query."""
        self.headers: dict[bytes, bytes] = {}
        """By lower-case name; of a repeated one the last."""
        self.body: bytes | bytearray = b""
        self.keep_alive = True
        self.error: AgentError | None = None
        """Set where the request broke a rule: it is to be answered with this, and the connection ends."""
        self.arrived_s = 0.0
        """When the request was complete, on `time.perf_counter`'s clock."""
        self.is_over = False
        """Whether it has been answered, or its client has gone."""
        self.on_gone: Callable[[], None] | None = None
        """Called where the client goes away before its answer."""

    def answer(self, response: Response, lines: bytes = b"") -> None:
        """Send *response* with the rendered header *lines*; without effect where the exchange is over."""
        if not self.is_over:
            self.is_over = True
            self._connection.send(self, response, lines)

    def abandon(self) -> None:
        """Take notice that the client has gone."""
        if not self.is_over:
            self.is_over = True
            if self.on_gone is not None:
                self.on_gone()


class Site:
    """What the connections of one server share."""

    def __init__(self, answer: Callable[[Exchange], None], max_body_bytes: int) -> None:
        """*answer* must answer each exchange once, then or later."""
        self.answer = answer
        self.max_body_bytes = max_body_bytes
        self.connections: set[Connection] = set()
        self.is_closing = False
        """Whether connections end with their present answer."""
        self.empty = asyncio.Event()
        """Whether no connection is open."""
        self.empty.set()
        self.date = b""
        """The `date` header's line of the present second."""
        self.tick()

    def enter(self, connection: Connection) -> None:
        """Take note of a new connection."""
        self.connections.add(connection)
        self.empty.clear()

    def leave(self, connection: Connection) -> None:
        """Take note of a connection's end."""
        self.connections.discard(connection)
        if not self.connections:
            self.empty.set()

    def tick(self) -> None:
        """About a second has passed: renew the date, end what has been quiet for too long."""
        self.date = b"date: " + formatdate(usegmt=True).encode() + b"\r\n"
        now_s = time.monotonic()
        for connection in tuple(self.connections):
            connection.check_time(now_s)


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._transport: Any = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self._incoming: Exchange | None = None
        self._running: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._target = b""
        """Of the incoming request, as far as it has come."""
        self._unfinished_head_bytes = 0
        """Bytes of a head or of trailers that have not ended; negative inside a body."""
        self._owes_continue = False
        """Whether the incoming request's client waits to be told to go on, behind other answers."""
        self._is_slow = False
        """Whether the client does not read what it has been sent."""
        self._is_deaf = False
        """Whether what comes in is thrown away: after a broken request nothing can be understood."""
        self._unsent_bytes = 0
        """Of answers, when last looked at."""
        self._since_s = time.monotonic()
        """When the present state began: idle, receiving, or lingering; while an answer is being sent, when
        the client was last seen to take some of it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport
        self._site.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop whatever was asked on it."""
        del exc
        self._site.leave(self)
        self._is_deaf = True
        exchanges = (self._running, *self._waiting)
        self._running, self._incoming = None, None
        self._waiting.clear()
        for exchange in exchanges:
            if exchange is not None:
                exchange.abandon()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._is_deaf:
            return
        if self._unfinished_head_bytes >= 0:
            self._unfinished_head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError:
            raise  # an error of ours, not of the client
        except httptools.HttpParserError as error:
            self._refuse(InvalidRequestError(f"the request is not valid HTTP: {error}"))
        if self._unfinished_head_bytes > MAX_HEAD_BYTES:
            self._refuse(TooLargeError(f"the request's head is larger than {MAX_HEAD_BYTES} bytes"))

    def pause_writing(self) -> None:
        """The client reads too slowly: take nothing more from it, and run nothing more for it."""
        self._is_slow = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._is_slow = False
        self._since_s = time.monotonic()
        if self._waiting:
            self._start_next()
        else:
            self._transport.resume_reading()

    def check_time(self, now_s: float) -> None:
        """End the connection, or refuse its request, where it has been in its state for too long."""
        if self._running is not None:
            return
        unsent_bytes = self._transport.get_write_buffer_size()
        if unsent_bytes != self._unsent_bytes:
            self._unsent_bytes, self._since_s = unsent_bytes, now_s
        quiet_s = now_s - self._since_s
        if unsent_bytes:
            if quiet_s > STALLED_S:
                self._transport.abort()
        elif self._incoming is not None and quiet_s > RECEIVE_S:
            self._refuse(InvalidRequestError(f"the request was not complete after {RECEIVE_S:g} s"))
        elif quiet_s > (LINGER_S if self._is_deaf else KEEP_ALIVE_S):
            self._transport.abort()

    def end_when_idle(self) -> None:
        """Close once nothing is under way: now, or after the present answer where the site is closing.

        A request is under way from its first byte until its answer has left the write buffer, and a refused
        one until its client has had time to read why.
        """
        if not (self._running or self._incoming or self._waiting or self._is_deaf):
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection; what is under way is lost."""
        self._transport.abort()

    # called by the parser

    def on_message_begin(self) -> None:
        """The first byte of a request has come; nobody takes it where the connection is ending."""
        if self._is_deaf or self._transport.is_closing():
            return
        self._incoming, self._target = Exchange(self), b""
        self._since_s = time.monotonic()

    def on_url(self, url: bytes) -> None:
        """Note the target, or a further part of it."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header; trailers, which come after the method is known, are none (RFC 9110 6.5.1)."""
        if self._incoming is not None and not self._incoming.method:
            self._incoming.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Refuse what is declared too large before it is sent."""
        exchange = self._incoming
        if exchange is None or self._wants_upgrade:
            return
        self._unfinished_head_bytes = -1
        exchange.path, exchange.target = path_of(self._target), self._target
        exchange.method = self._parser.get_method()
        exchange.keep_alive = self._parser.should_keep_alive()
        declared = exchange.headers.get(b"content-length", b"")
        if fault := length_fault(declared, self._site.max_body_bytes):
            self._refuse(fault)
        elif exchange.headers.get(b"expect", b"").lower() == b"100-continue":
            self._owes_continue = True
            self._pay_continue()

    def on_chunk_header(self) -> None:
        """A chunk begins, which may be the last, with trailers."""
        self._unfinished_head_bytes = 0

    def on_body(self, chunk: bytes) -> None:
        """Take a part of the body: the first as it is, more of them in one growing buffer."""
        self._unfinished_head_bytes = -1
        self._owes_continue = False
        exchange = self._incoming
        if exchange is None:
            return
        if not exchange.body:
            exchange.body = chunk
        else:
            if isinstance(exchange.body, bytes):
                exchange.body = bytearray(exchange.body)
            exchange.body += chunk
        if len(exchange.body) > self._site.max_body_bytes:
            self._refuse(body_too_large(self._site.max_body_bytes))

    def on_message_complete(self) -> None:
        """Hand the exchange on."""
        if self._wants_upgrade:
            return
        self._unfinished_head_bytes = 0
        self._owes_continue = False
        if self._incoming is not None:
            exchange, self._incoming = self._incoming, None
            self._hand_on(exchange)

    @property
    def _wants_upgrade(self) -> bool:
        exchange = self._incoming
        return exchange is not None and b"upgrade" in exchange.headers and self._parser.should_upgrade()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read the request once more, without its wish for another protocol (RFC 9110 7.8), and go on.

        Java's client and `curl --http2` wish for HTTP/2 with any request; the parser leaves its body unread.
        """
        exchange, self._incoming = self._incoming, None
        if exchange is None:  # CONNECT, which has been handed on: what follows is another protocol
            self._is_deaf = True
            return
        method, version = self._parser.get_method(), self._parser.get_http_version().encode()
        head = [b"%b %b HTTP/%b" % (method, self._target, version)]
        head += [b"%b: %b" % item for item in exchange.headers.items() if item[0] != b"upgrade"]
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join((*head, b"", rest)))

    # exchanges, one at a time

    def send(self, exchange: Exchange, response: Response, lines: bytes) -> None:
        """Write the answer to *exchange*, then go on with the next one."""
        ends = self._site.is_closing or not exchange.keep_alive
        head = response.head(self._site.date + lines, ends=ends)
        self._transport.writelines((head,) if exchange.method == b"HEAD" else (head, *response.body))
        self._running = None
        self._since_s = time.monotonic()
        if exchange.error is not None:
            self._linger()
        elif ends:
            self._transport.close()
        elif self._waiting:
            asyncio.get_running_loop().call_soon(self._start_next)
        else:
            self._pay_continue()

    def _pay_continue(self) -> None:
        """Tell a client that waits for it to go on, once all before has been answered (RFC 9110 10.1.1)."""
        if self._owes_continue and self._running is None and not self._waiting:
            self._owes_continue = False
            self._transport.write(CONTINUE)

    def _hand_on(self, exchange: Exchange) -> None:
        exchange.arrived_s = time.perf_counter()
        if self._running is None and not self._waiting:
            self._running = exchange
            self._site.answer(exchange)
        else:
            self._waiting.append(exchange)
            self._transport.pause_reading()

    def _start_next(self) -> None:
        if self._running is None and self._waiting and not self._is_slow:
            self._running = self._waiting.popleft()
            if not self._waiting:
                self._transport.resume_reading()
            self._site.answer(self._running)

    def _refuse(self, error: AgentError) -> None:
        if self._is_deaf or self._transport.is_closing():
            return
        self._is_deaf = True
        exchange = self._incoming or Exchange(self)
        self._incoming = None
        self._owes_continue = False
        self._unfinished_head_bytes = -1
        exchange.body = b""
        exchange.error, exchange.keep_alive = error, False
        self._hand_on(exchange)

    def _linger(self) -> None:
        """Let the client read the refusal: closing with its bytes unread may lose it (RFC 9112 9.6)."""
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
