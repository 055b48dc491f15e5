"""HTTP/1.1 on one connection: any split of the bytes, order, bounds, times, and clients that go away."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serving_agent import http_protocol as http
from serving_agent.http_message import Response, path_of
from serving_agent.http_protocol import Connection, Exchange, Site

MAX_BODY = 64


class Transport:
    """What a connection does to its transport; nothing may be written once it has been closed."""

    def __init__(self) -> None:
        self.sent = b""
        self.reading = asyncio.Event()
        self.reading.set()
        self.is_closed = self.is_aborted = self.has_ended = False
        self.unsent = 0

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: bytes) -> None:
        assert not self.is_closed, "written after the end"
        assert not self.has_ended, "written after the end"
        self.sent += data

    def writelines(self, parts) -> None:
        self.write(b"".join(parts))

    @property
    def is_reading(self) -> bool:
        return self.reading.is_set()

    def pause_reading(self) -> None:
        self.reading.clear()

    def resume_reading(self) -> None:
        self.reading.set()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.has_ended = True

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True


class Client:
    """One connection, its transport, and the exchanges the application was handed, oldest first."""

    def __init__(self, answers=None, max_body=MAX_BODY) -> None:
        self.exchanges: list[Exchange] = []
        self.answers = answers
        self.site = Site(self._take, max_body)
        self.connection = Connection(self.site)
        self.transport = Transport()
        self.connection.connection_made(self.transport)

    def _take(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        if self.answers is not None:
            self.answers(exchange)

    def send(self, data: bytes) -> None:
        self.connection.data_received(data)

    @property
    def sent(self) -> bytes:
        return self.transport.sent

    @property
    def statuses(self) -> list[int]:
        return [int(part[:3]) for part in self.sent.split(b"HTTP/1.1 ")[1:]]


def echo(exchange: Exchange) -> Response:
    """What the application was told of a request, as an answer."""
    if exchange.error is not None:
        return Response((str(exchange.error).encode(),), 400)
    told = {
        "method": exchange.method.decode(),
        "path": exchange.path,
        "x": exchange.headers.get(b"x-token", b"").decode("latin-1"),
        "body": bytes(exchange.body).decode("latin-1"),
        "keep": exchange.keep_alive,
    }
    return Response((json.dumps(told).encode(),))


def answer_at_once(exchange: Exchange) -> None:
    exchange.answer(echo(exchange))


def ok(exchange: Exchange) -> None:
    exchange.answer(Response((b"{}",)))


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# any split of the bytes


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    token: str
    chunks: tuple[bytes, ...]
    is_chunked: bool
    is_last: bool = False

    @property
    def content(self) -> bytes:
        head = f"{self.method} {self.path} HTTP/1.1\r\nhost: a\r\nX-Token: {self.token}\r\n"
        if self.is_last:
            head += "Connection: close\r\n"
        body = b"".join(self.chunks)
        if self.is_chunked:
            parts = (b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in self.chunks)
            return f"{head}transfer-encoding: chunked\r\n\r\n".encode() + b"".join(parts) + b"0\r\n\r\n"
        if body:
            head += f"content-length: {len(body)}\r\n"
        return f"{head}\r\n".encode() + body

    @property
    def told(self) -> dict[str, object]:
        return {
            "method": self.method,
            "path": self.path.rstrip("/") or "/",
            "x": self.token,
            "body": b"".join(self.chunks).decode("latin-1"),
            "keep": not self.is_last,
        }


REQUESTS = st.lists(
    st.builds(
        Request,
        st.sampled_from(["GET", "POST", "HEAD"]),
        st.sampled_from(["/", "/ready", "/v2/models/digits/infer", "/a/"]),
        st.text("abc19 ", max_size=6).map(str.strip),
        st.lists(st.binary(min_size=1, max_size=12), max_size=4).map(tuple),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)
CUTS = st.lists(st.floats(0, 1), max_size=12)


def pieces_of(content: bytes, cuts: list[float]) -> list[bytes]:
    places = sorted({0, len(content), *(int(cut * len(content)) for cut in cuts)})
    return [content[start:stop] for start, stop in pairwise(places)]


async def converse(content: list[bytes], delays: list[int]) -> bytes:
    """Send the pieces as a transport would, not while reading is paused; answer after *delays* turns."""
    loop = asyncio.get_running_loop()

    def answer(exchange: Exchange) -> None:
        delay = delays[len(client.exchanges) % len(delays)] if delays else 0
        later(exchange, delay)

    def later(exchange: Exchange, delay: int) -> None:
        if delay:
            loop.call_soon(later, exchange, delay - 1)
        else:
            answer_at_once(exchange)

    client = Client(answer)
    for piece in content:
        await client.transport.reading.wait()
        if not client.transport.is_closed:
            client.send(piece)
        await asyncio.sleep(0)
    await turns(40)
    assert client.transport.is_reading
    return client.sent


def answers_in(sent: bytes, methods: list[str]) -> list[tuple[dict[str, str], bytes]]:
    answers = []
    for method in methods:
        head, _, sent = sent.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        assert status == "HTTP/1.1 200 OK"
        headers = dict(line.split(": ", 1) for line in lines)
        size = 0 if method == "HEAD" else int(headers["content-length"])
        answers.append((headers, sent[:size]))
        sent = sent[size:]
    assert sent == b""
    return answers


@settings(max_examples=200, deadline=None)
@given(REQUESTS, CUTS, st.lists(st.integers(0, 2), max_size=4))
@example(
    [Request("POST", "/v2/models/digits/infer", "a", (b"12", b"3"), is_chunked=True)],
    [i / 150 for i in range(150)],
    [],
)
def test_any_split_of_the_bytes_gives_the_same_exchanges_in_order(requests, cuts, delays):
    *first, last = requests
    requests = [
        *first,
        Request(last.method, last.path, last.token, last.chunks, last.is_chunked, is_last=True),
    ]
    content = b"".join(request.content for request in requests)
    sent = asyncio.run(converse(pieces_of(content, cuts), delays))
    answers = answers_in(sent, [request.method for request in requests])
    for request, (headers, body) in zip(requests, answers, strict=True):
        wanted = json.dumps(request.told).encode()
        assert headers["content-length"] == str(len(wanted))
        assert body == (b"" if request.method == "HEAD" else wanted)
        assert ("connection" in headers) == request.is_last


@settings(deadline=None)
@given(st.binary(max_size=200), CUTS)
def test_any_bytes_are_answered_at_most_once_each_and_never_after_the_end(content, cuts):
    asyncio.run(converse(pieces_of(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" + content, cuts), []))


# one exchange after another


async def test_pipelined_requests_run_one_at_a_time_and_reading_pauses_meanwhile():
    client = Client()
    client.send(b"".join(f"GET /{number} HTTP/1.1\r\n\r\n".encode() for number in range(3)))
    assert [exchange.path for exchange in client.exchanges] == ["/0"]
    assert not client.transport.is_reading
    for number in range(3):
        assert len(client.exchanges) == number + 1
        ok(client.exchanges[number])
        await turns()
    assert client.statuses == [200, 200, 200]
    assert client.transport.is_reading


async def test_an_answer_is_sent_once():
    client = Client()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    ok(client.exchanges[0])
    ok(client.exchanges[0])
    assert client.statuses == [200]


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"GET / HTTP/1.1\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n", False),
        (b"GET / HTTP/1.0\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n", True),
    ],
)
async def test_a_connection_is_kept_where_the_client_keeps_it(head, keeps):
    client = Client(ok)
    client.send(head + b"\r\n")
    assert client.transport.is_closed != keeps
    assert (b"connection: close\r\n" in client.sent) != keeps


async def test_a_closing_site_says_so_and_ends_the_connection_after_its_answer():
    client = Client()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    client.site.is_closing = True
    client.connection.end_when_idle()
    assert not client.transport.is_closed
    ok(client.exchanges[0])
    assert client.transport.is_closed
    assert b"connection: close\r\n" in client.sent
    idle = Client()
    idle.connection.end_when_idle()
    assert idle.transport.is_closed


@pytest.mark.parametrize("sent", [b"P", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n12"])
async def test_a_request_that_has_begun_is_awaited_and_answered_before_the_end(sent):
    client = Client(answer_at_once)
    rest = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345".removeprefix(sent)
    client.send(sent)
    client.site.is_closing = True
    client.connection.end_when_idle()
    assert not client.transport.is_closed
    client.send(rest)
    assert client.statuses == [200]
    assert bytes(client.exchanges[0].body) == b"12345"
    assert client.transport.is_closed


async def test_a_refused_client_may_read_its_refusal_before_the_end():
    client = Client(answer_at_once)
    client.send(b"garbage\r\n\r\n")
    client.connection.end_when_idle()
    refused(client)


async def test_a_connection_can_be_cut():
    client = Client()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    client.connection.abort()
    assert client.transport.is_aborted


async def test_what_follows_a_last_request_is_not_answered():
    client = Client(ok)
    client.send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\nGET /again HTTP/1.1\r\n\r\n")
    await turns()
    assert client.statuses == [200]
    assert len(client.exchanges) == 1


async def test_a_body_in_several_parts_of_an_answer_is_one_body():
    client = Client(lambda exchange: exchange.answer(Response((b"{", memoryview(b"123"), b"}"), 503)))
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    head, _, body = client.sent.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\ndate: ")
    assert b"\r\ncontent-type: application/json\r\ncontent-length: 5" in head
    assert body == b"{123}"


async def test_the_headers_of_an_answer_follow_the_fixed_ones():
    response = Response((b"",), content_type=b"text/plain", headers=((b"x-a", b"1"), (b"retry-after", b"2")))
    client = Client(lambda exchange: exchange.answer(response))
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert client.sent.endswith(
        b"content-type: text/plain\r\ncontent-length: 0\r\nx-a: 1\r\nretry-after: 2\r\n\r\n"
    )


# refusals


def refused(client: Client) -> tuple[str, int]:
    """The refusal of the only exchange, and what it was answered with."""
    (exchange,) = client.exchanges
    assert exchange.error is not None
    assert client.transport.has_ended
    assert not client.transport.is_closed
    (status,) = client.statuses
    return str(exchange.error), status


async def test_a_body_declared_too_large_is_refused_before_it_comes():
    client = Client(answer_at_once)
    client.send(b"POST /predict HTTP/1.1\r\nContent-Length: 65\r\n\r\n")
    assert refused(client) == ("the body is larger than the limit of 64 bytes", 400)
    assert client.exchanges[0].path == "/predict"
    assert type(client.exchanges[0].error).__name__ == "TooLargeError"


@pytest.mark.parametrize("length", [b"0" * 5000 + b"5", b"0" * 18 + b"5", b"9" * 5000])
async def test_a_length_of_thousands_of_digits_is_the_clients_fault(length):
    client = Client(answer_at_once)
    client.send(b"POST / HTTP/1.1\r\nContent-Length: " + length + b"\r\n\r\n")
    sentence, status = refused(client)
    assert status == 400
    assert "Content-Length" in sentence or f"content-length has {len(length)} digits" in sentence


@pytest.mark.parametrize("follows", [b"GET /again HTTP/1.1\r\n\r\n", b"not HTTP at all\r\n\r\n", b""])
async def test_a_refused_body_and_what_follows_it_are_thrown_away(follows):
    client = Client(answer_at_once)
    client.send(b"POST / HTTP/1.1\r\nContent-Length: 65\r\n\r\n" + b"x" * 65 + follows)
    client.send(b"GET /more HTTP/1.1\r\n\r\n")
    await turns()
    refused(client)


async def test_a_body_of_the_limit_is_taken():
    client = Client(answer_at_once)
    client.send(b"POST / HTTP/1.1\r\nContent-Length: 64\r\n\r\n" + b"x" * 64)
    assert client.statuses == [200]
    assert client.exchanges[0].error is None


async def test_a_chunked_body_is_refused_once_it_is_too_large():
    client = Client(answer_at_once)
    client.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n" + b"x" * 64 + b"\r\n")
    assert client.exchanges == []
    client.send(b"1\r\nx\r\n0\r\n\r\nGET /again HTTP/1.1\r\n\r\n")
    await turns()
    assert refused(client)[0] == "the body is larger than the limit of 64 bytes"
    assert client.exchanges[0].body == b""


@pytest.mark.parametrize("size", [http.MAX_HEAD_BYTES + 1, 4 * http.MAX_HEAD_BYTES])
async def test_a_head_that_does_not_end_is_refused(size):
    client = Client(answer_at_once)
    head = b"GET / HTTP/1.1\r\nx: " + b"a" * size
    for start in range(0, len(head), 8192):
        client.send(head[start : start + 8192])
    assert refused(client)[0] == f"the request's head is larger than {http.MAX_HEAD_BYTES} bytes"


async def test_heads_are_bounded_one_by_one():
    client = Client(ok)
    head = b"GET / HTTP/1.1\r\nx: " + b"a" * 40_000 + b"\r\n\r\n"
    for _ in range(3):
        client.send(head[:20_000])
        client.send(head[20_000:])
    assert client.statuses == [200] * 3


async def test_trailers_are_bounded_and_do_not_become_headers():
    client = Client(answer_at_once)
    client.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
    client.send(b"0\r\nx-token: smuggled\r\n\r\n")
    assert client.exchanges[0].headers.get(b"x-token") is None
    assert client.statuses == [200]
    client = Client(answer_at_once)
    client.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx: ")
    for _ in range(3 * http.MAX_HEAD_BYTES // 4096):
        client.send(b"a" * 4096)
    assert "head is larger" in refused(client)[0]


async def test_a_chunk_may_be_larger_than_a_head():
    size = 3 * http.MAX_HEAD_BYTES
    client = Client(ok, max_body=size)
    client.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % size)
    for _ in range(3):
        client.send(b"x" * http.MAX_HEAD_BYTES)
    client.send(b"\r\n0\r\n\r\n")
    assert client.statuses == [200]
    assert len(client.exchanges[0].body) == size


@pytest.mark.parametrize(
    "content",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_not_http_is_refused_in_a_sentence(content):
    client = Client(answer_at_once)
    client.send(content)
    assert refused(client)[0].startswith(("the request is not valid HTTP: ", "the body is larger"))


async def test_garbage_behind_a_running_request_is_refused_after_its_answer():
    client = Client()
    client.send(b"GET /first HTTP/1.1\r\n\r\n")
    client.send(b"garbage\r\n\r\n")
    assert [exchange.path for exchange in client.exchanges] == ["/first"]
    ok(client.exchanges[0])
    await turns()
    answer_at_once(client.exchanges[1])
    assert client.statuses == [200, 400]
    assert client.transport.has_ended


async def test_an_application_error_is_not_taken_for_the_clients():
    def broken(exchange: Exchange) -> None:
        raise ZeroDivisionError

    client = Client(broken)
    with pytest.raises(Exception, match="on_message_complete") as caught:
        client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert isinstance(caught.value.__context__, ZeroDivisionError)


# expectations and upgrades


async def test_a_client_that_waits_is_told_to_continue():
    client = Client(answer_at_once)
    client.send(b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
    assert client.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"{}")
    assert client.statuses == [100, 200]


async def test_a_client_that_waits_to_send_too_much_is_refused_instead():
    client = Client(answer_at_once)
    client.send(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 65\r\n\r\n")
    assert refused(client)[1] == 400


async def test_a_client_that_waits_behind_others_is_told_to_continue_after_their_answers():
    client = Client()
    client.send(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
    client.send(b"POST /3 HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert client.sent == b""
    ok(client.exchanges[0])
    await turns()
    assert client.statuses == [200]
    ok(client.exchanges[1])
    await turns()
    assert client.statuses == [200, 200, 100]
    client.send(b"{}")
    ok(client.exchanges[2])
    assert client.statuses == [200, 200, 100, 200]


async def test_a_client_that_did_not_wait_is_not_told_to_continue():
    client = Client()
    client.send(b"GET /1 HTTP/1.1\r\n\r\n")
    client.send(b"POST /2 HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{")
    ok(client.exchanges[0])
    client.send(b"}")
    ok(client.exchanges[1])
    assert client.statuses == [200, 200]


UPGRADE = (
    b"POST /predict HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nX-Token: 1\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
)
"""As `curl --http2` and Java's client ask with every request."""


@settings(deadline=None)
@given(
    st.sampled_from(
        [
            (b"Content-Length: 2\r\n\r\n{}", "{}"),
            (b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "{}"),
            (b"\r\n", ""),
        ]
    ),
    CUTS,
)
def test_a_wish_for_another_protocol_is_ignored(request, cuts):
    rest, body = request
    content = UPGRADE + rest + b"GET /next HTTP/1.1\r\n\r\n"
    sent = asyncio.run(converse(pieces_of(content, cuts), []))
    (_, first), (_, second) = answers_in(sent, ["POST", "GET"])
    told = json.loads(first)
    assert told == {"method": "POST", "path": "/predict", "x": "1", "body": body, "keep": True}
    assert json.loads(second)["path"] == "/next"


async def test_a_tunnel_is_refused_and_what_it_carries_thrown_away():
    client = Client(answer_at_once)
    client.send(b"CONNECT example.org:443 HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n")
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert [exchange.method for exchange in client.exchanges] == [b"CONNECT"]
    pass_time(client, http.LINGER_S + 1)
    assert client.transport.is_aborted


# clients that go away


@dataclass
class Gone:
    client: Client
    told: list[str] = field(default_factory=list)

    def watch(self, exchange: Exchange) -> None:
        exchange.on_gone = lambda: self.told.append(exchange.path)


async def test_the_exchange_of_a_gone_client_is_told_once_and_its_answer_dropped():
    client = Client()
    gone = Gone(client)
    client.send(
        b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nPOST /3 HTTP/1.1\r\nContent-Length: 5\r\n\r\n1"
    )
    gone.watch(client.exchanges[0])
    client.connection.connection_lost(None)
    client.connection.connection_lost(None)
    assert gone.told == ["/1"]
    ok(client.exchanges[0])
    await turns()
    assert client.sent == b""
    assert len(client.exchanges) == 1
    assert client.site.connections == set()
    assert client.site.empty.is_set()


async def test_a_client_that_goes_after_its_answer_disturbs_nobody():
    client = Client()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    gone = Gone(client)
    gone.watch(client.exchanges[0])
    ok(client.exchanges[0])
    client.connection.connection_lost(None)
    assert gone.told == []


async def test_a_site_is_empty_while_nobody_is_connected():
    client = Client()
    assert not client.site.empty.is_set()
    other = Connection(client.site)
    other.connection_made(Transport())
    client.connection.connection_lost(None)
    assert not client.site.empty.is_set()
    other.connection_lost(ConnectionResetError())
    assert client.site.empty.is_set()


# time


def pass_time(client: Client, seconds: float) -> None:
    client.connection.check_time(time.monotonic() + seconds)


async def test_an_idle_connection_is_closed_in_time():
    client = Client(ok)
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    pass_time(client, http.KEEP_ALIVE_S - 1)
    assert not client.transport.is_aborted
    pass_time(client, http.KEEP_ALIVE_S + 1)
    assert client.transport.is_aborted


@pytest.mark.parametrize("sent", [b"G", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n1"])
async def test_a_request_that_does_not_end_is_refused_in_time(sent):
    client = Client(answer_at_once)
    client.send(sent)
    pass_time(client, http.RECEIVE_S - 1)
    assert client.exchanges == []
    pass_time(client, http.RECEIVE_S + 1)
    assert refused(client)[0] == f"the request was not complete after {http.RECEIVE_S:g} s"


async def test_a_refused_client_may_read_its_refusal_before_it_is_cut_off():
    client = Client(answer_at_once)
    client.send(b"garbage\r\n\r\n")
    client.send(b"more of it")
    pass_time(client, http.LINGER_S - 1)
    assert not client.transport.is_aborted
    pass_time(client, http.LINGER_S + 1)
    assert client.transport.is_aborted


async def test_no_time_is_too_long_while_a_request_runs():
    client = Client()
    client.send(b"GET / HTTP/1.1\r\n\r\nPOST /2 HTTP/1.1\r\nContent-Length: 5\r\n\r\n1")
    pass_time(client, 10 * http.KEEP_ALIVE_S)
    assert not client.transport.is_aborted
    ok(client.exchanges[0])
    client.send(b"2345")
    assert client.exchanges[1].error is None
    assert bytes(client.exchanges[1].body) == b"12345"


async def test_a_tick_renews_the_date_and_looks_after_every_connection(monkeypatch):
    client = Client()
    monkeypatch.setattr(http, "formatdate", lambda usegmt: "now")
    monkeypatch.setattr(time, "monotonic", lambda: float("inf"))
    client.site.tick()
    assert client.site.date == b"date: now\r\n"
    assert client.transport.is_aborted


# slow readers


async def test_an_answer_that_is_read_slowly_may_take_any_time_while_it_goes_on():
    client = Client(ok)
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    elapsed_s = 0.0
    for unsent in range(40, 0, -1):
        client.transport.unsent = unsent
        elapsed_s += http.STALLED_S - 1
        pass_time(client, elapsed_s)
    assert elapsed_s > 10 * http.KEEP_ALIVE_S
    assert not client.transport.is_aborted
    client.transport.unsent = 0
    elapsed_s += http.KEEP_ALIVE_S - 1
    pass_time(client, elapsed_s)
    assert not client.transport.is_aborted, "idle from now on"
    pass_time(client, elapsed_s + http.KEEP_ALIVE_S + 1)
    assert client.transport.is_aborted


@pytest.mark.parametrize("request_head", [b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nConnection: close\r\n"])
async def test_a_client_that_stops_reading_its_answer_is_cut_off(request_head):
    client = Client(ok)
    client.send(request_head + b"\r\n")
    client.transport.unsent = 7
    pass_time(client, 10)
    pass_time(client, 10 + http.STALLED_S - 1)
    assert not client.transport.is_aborted
    pass_time(client, 10 + http.STALLED_S + 1)
    assert client.transport.is_aborted


async def test_nothing_more_is_taken_or_run_for_a_client_that_does_not_read():
    client = Client()
    client.send(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
    client.connection.pause_writing()
    assert not client.transport.is_reading
    ok(client.exchanges[0])
    await turns()
    assert len(client.exchanges) == 1
    assert not client.transport.is_reading
    client.connection.resume_writing()
    await turns()
    assert [exchange.path for exchange in client.exchanges] == ["/1", "/2"]
    ok(client.exchanges[1])
    assert client.transport.is_reading


async def test_reading_goes_on_once_a_slow_client_has_caught_up():
    client = Client(ok)
    client.connection.pause_writing()
    assert not client.transport.is_reading
    client.connection.resume_writing()
    assert client.transport.is_reading
    running = Client()
    running.send(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
    running.connection.pause_writing()
    running.connection.resume_writing()
    assert not running.transport.is_reading, "a request waits still"
    assert len(running.exchanges) == 1


# targets


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/v2?x=1", "/v2"),
        (b"/v2/", "/v2"),
        (b"/", "/"),
        (b"//", "/"),
        (b"/a%20b%2Fc", "/a b/c"),
        (b"http://host:1/v2/models?x", "/v2/models"),
        (b"http://host", "/"),
        (b"*", "/"),
        (b"/%zz%ff", "/%zz�"),
    ],
)
def test_paths_of_targets(target, path):
    assert path_of(target) == path


@given(st.binary(max_size=40))
def test_any_target_has_a_path(target):
    path = path_of(target)
    assert path == "/" or (path.startswith("/") and not path.endswith("/"))
