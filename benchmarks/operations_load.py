"""What `operations.py` loads the server with: a mock upstream, and clients that keep books of their own.

    python -m benchmarks.operations_load upstream PORT
    python -m benchmarks.operations_load client PORT NAME REQUESTS CONNECTIONS RESULT [KEY]

Both draw from the request's id, so that a run can be repeated. Neither uses this package's code: the clients read replies,
estimate tokens and price them by what docs/ledger.md says. A client sends its next request on a connection as soon as the one
before is over, and ends by writing a JSON list of entries to RESULT.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httptools
import uvloop

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
PRICES = {  # pico-dollars for a token of input, of output, and of input from the cache
    "openai/big": (2_500_000, 10_000_000, 1_250_000),
    "openai/small": (150_500, 600_250, 75_250),
}
KINDS = {
    "whole": 460, "stream": 250, "stream, tokens not told": 130, "messages": 60, "responses, stream": 60, "refused": 10,
    "left before": 15, "left within": 15,
}  # fmt: skip
"""Kind of request -> how many of 1,000."""

PAUSE_SECONDS = 3.0
"""The upstream's, where the client means to leave."""
LEAVE_SECONDS = 0.3
_TEXT = re.compile(rb'"content":"([^"\\]*(?:\\.[^"\\]*)*)"')


class Entry(NamedTuple):
    """A request in a client's books. `status` is None where no whole reply came: it left, or the connection was cut."""

    id: str
    kind: str
    status: int | None = None
    model: str = ""
    input: int | None = None
    output: int | None = None
    cached: int | None = None
    estimated: bool | None = None
    nanodollars: int | None = None
    ended: float = 0.0


# --- the upstream --------------------------------------------------------------------------------------------------------


class Drawn(NamedTuple):
    """What the upstream answers a request with."""

    status: int
    input: int
    output: int
    cached: int
    words: int


def draw(request_id: bytes) -> Drawn:
    """By the id alone."""
    number = zlib.crc32(request_id)
    number ^= number >> 15
    fate = number % 1000
    status = 400 if fate < 8 else 500 if fate < 14 else 429 if fate < 16 else 503 if fate < 22 else 200
    given = 1 + number % 4093
    return Drawn(status, given, 1 + (number >> 7) % 997, given // 3 if number & 64 else 0, 1 + (number >> 11) % 9)


class Upstream(asyncio.Protocol):
    """Speaks chat completions. A 503 has `Retry-After: 0`, and comes once: the same request is answered then."""

    calls = 0
    refused: set[bytes] = set()  # noqa: RUF012 - of all connections, as is `calls`

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._parser = httptools.HttpRequestParser(self)
        self._begin()

    def _begin(self) -> None:
        self._id, self._pause, self._url, self._body = b"", b"", b"", b""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == b"x-request-id":
            self._id = value
        elif name == b"x-mock-pause":
            self._pause = value

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._url == b"/calls":
            self._write(_whole(200, b"%d" % Upstream.calls))
        else:
            Upstream.calls += 1
            self._answer(json.loads(self._body), draw(self._id))
        self._begin()

    def _answer(self, asked: dict[str, Any], drawn: Drawn) -> None:
        status = drawn.status
        if status == 503 and self._id in Upstream.refused:
            status = 200
        if status != 200 and not self._pause:
            if status == 503:
                Upstream.refused.add(self._id)
            self._write(_whole(status, b'{"error":{"message":"not now","type":"mock","param":null,"code":"mock"}}'))
            return
        pieces = _pieces(asked, drawn)
        if self._pause == b"before":
            asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._write, b"".join(pieces))
        elif len(pieces) == 1:
            self._write(pieces[0])
        else:
            self._write(pieces[0])
            pause = PAUSE_SECONDS if self._pause else 0.001
            asyncio.get_running_loop().call_later(pause, self._write, b"".join(pieces[1:]))

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


def _pieces(asked: dict[str, Any], drawn: Drawn) -> list[bytes]:
    """A reply in one piece, or a stream in two, cut in the middle of an event."""
    usage = b'"usage":{"prompt_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d}}'
    usage %= (drawn.input, drawn.output, drawn.cached)
    head = b'{"id":"chatcmpl-mock","created":1700000000,"model":"%b","object":"chat.completion' % asked["model"].encode()
    if not asked.get("stream"):
        text = rb"A \"word\" more. " * drawn.words
        choice = b'{"index":0,"message":{"role":"assistant","content":"%b"},"finish_reason":"stop"}' % text
        return [_whole(200, b'%b","choices":[%b],%b}' % (head, choice, usage))]
    events = [b'%b.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}' % head]
    delta = b'%b.chunk","choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}'
    events += [delta % (head, rb"\u00e9 word\n" * (place + 1)) for place in range(drawn.words)]
    events.append(b'%b.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}' % head)
    if (asked.get("stream_options") or {}).get("include_usage"):
        events.append(b'%b.chunk","choices":[],%b}' % (head, usage))
    body = b"".join(b"data: %b\n\n" % event for event in (*events, b"[DONE]"))
    cut = len(events[0]) + 8 + drawn.input % (len(body) - len(events[0]) - 8)
    first, second = (b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:cut], body[cut:]))
    start = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return [start + first, second + b"0\r\n\r\n"]


def _whole(status: int, body: bytes) -> bytes:
    extra = b"retry-after: 0\r\n" if status == 503 else b""
    head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
    return head % (status, extra, len(body)) + body


async def serve(port: int) -> None:
    """Be the upstream until killed."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


# --- clients -------------------------------------------------------------------------------------------------------------


class Reply(asyncio.Protocol):
    """A connection that takes one request after another."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self._done: asyncio.Future[bool] | None = None
        self.lost = False

    def ask(self, request: bytes) -> asyncio.Future[bool]:
        """Send; whether the reply comes whole."""
        self._parser = httptools.HttpResponseParser(self)
        self.model, self.body = "", b""
        self._done = asyncio.get_running_loop().create_future()
        if self.lost:
            self._done.set_result(False)
        else:
            self.transport.write(request)
        return self._done

    @property
    def status(self) -> int:
        code: int = self._parser.get_status_code()
        return code

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == b"x-routellm-model":
            self.model = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self._end(True)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._end(False)

    def _end(self, whole: bool) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(whole)


async def load(port: int, name: str, requests: int, connections: int, key: str) -> list[Entry]:
    """So many requests; an entry for each."""
    entries: list[Entry] = []
    dice = random.Random(name)
    drawn = dice.choices(list(KINDS), list(KINDS.values()), k=requests)
    waiting = iter(enumerate(drawn))
    await asyncio.gather(*(_on_one_connection(port, name, waiting, key, entries) for _ in range(connections)))
    return entries


async def _on_one_connection(port: int, name: str, waiting: Iterator[tuple[int, str]], key: str, entries: list[Entry]) -> None:
    reply = await _connect(port)
    for number, kind in waiting:
        if reply.lost:
            reply = await _connect(port)
        id = f"{name}-{number}"
        text = f"Request {number} of {name}: " + "what is a word, and what is more? " * (number % 7)
        done = reply.ask(_request(id, kind, text, key))
        if not kind.startswith("left"):
            entries.append(_read(id, kind, text, reply) if await done else Entry(id, "cut", ended=time.time()))
            continue
        await asyncio.sleep(LEAVE_SECONDS)
        entries.append(Entry(id, "cut" if reply.lost else kind, ended=time.time()))
        reply.transport.abort()
        reply.lost = True
    reply.transport.close()


async def _connect(port: int) -> Reply:
    for _ in range(300):
        try:
            _, reply = await asyncio.get_running_loop().create_connection(Reply, "127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            return reply
    raise SystemExit("the server does not take connections")


def _request(id: str, kind: str, text: str, key: str) -> bytes:
    path, turn = CHAT, [{"role": "user", "content": text}]
    body: dict[str, Any] = {"model": "router-random-0.5", "messages": turn}
    if kind == "messages":
        path, body = MESSAGES, {**body, "max_tokens": 5000}
    elif kind == "responses, stream":
        path, body = RESPONSES, {"model": body["model"], "input": text, "stream": True}
    elif kind == "refused":
        body["model"] = "no-such-model"
    elif kind != "whole":
        body["stream"] = True
        if kind == "stream":
            body["stream_options"] = {"include_usage": True}
    pause = f"x-mock-pause: {kind[5:]}\r\n" if kind.startswith("left") else ""
    authorization = f"authorization: Bearer {key}\r\n" if key else ""
    encoded = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-request-id: {id}\r\n{pause}{authorization}"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(encoded) + encoded


def _read(id: str, kind: str, text: str, reply: Reply) -> Entry:
    """What a whole reply says it took."""
    now = time.time()
    if reply.status != 200:
        return Entry(id, kind, reply.status, reply.model, ended=now)
    if kind == "stream, tokens not told":
        answered = sum(map(len, _TEXT.findall(reply.body)))
        tokens, estimated = (-(-len(text.encode()) // 4), -(-answered // 4), 0), True
    else:
        tokens, estimated = _told(kind, reply.body), False
    given, answered, cached = tokens
    per_input, per_output, per_cached = PRICES[reply.model]
    pico = (given - cached) * per_input + cached * per_cached + answered * per_output
    return Entry(id, kind, 200, reply.model, *tokens, estimated, (pico + 500) // 1000, now)


def _told(kind: str, body: bytes) -> tuple[int, int, int]:
    """Tokens of input and output, and those of the input that came from the cache."""
    if kind in ("whole", "messages"):
        usage = json.loads(body)["usage"]
    else:
        last = [line for line in body.split(b"\n") if line.startswith(b"data: {") and b'"usage"' in line][-1]
        event = json.loads(last[6:])
        usage = event["response"]["usage"] if kind == "responses, stream" else event["usage"]
    if kind == "messages":
        cached = usage.get("cache_read_input_tokens") or 0
        return usage["input_tokens"] + cached, usage["output_tokens"], cached
    if kind == "responses, stream":
        return usage["input_tokens"], usage["output_tokens"], usage["input_tokens_details"]["cached_tokens"]
    return usage["prompt_tokens"], usage["completion_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


def main(role: str, port: str, *more: str) -> None:
    """Play a role."""
    if role == "upstream":
        uvloop.run(serve(int(port)))
        return
    name, requests, connections, result, *key = more
    entries = uvloop.run(load(int(port), name, int(requests), int(connections), key[0] if key else ""))
    Path(result).write_text(json.dumps(entries))


if __name__ == "__main__":
    main(*sys.argv[1:])
