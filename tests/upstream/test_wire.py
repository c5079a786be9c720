"""The proxy's own HTTP client against raw sockets: what the wire may hold, on asyncio's event loop and on uvloop's."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

from routellm.upstream.answer import Answer
from routellm.upstream.wire import MAX_HEAD_BYTES, ConnectTimeoutError, NoAnswerError, Pool, WireError
from tests.conftest import require

T = TypeVar("T")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEADERS = {"host": "model.test", "x-one": "1"}
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


@pytest.fixture(params=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    factory = asyncio.new_event_loop if request.param == "asyncio" else require("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner


def against(runner: asyncio.Runner, handler: Handler, use: Callable[[Pool], Awaitable[T]]) -> T:
    """Use a pool whose host answers each connection by `handler`."""

    handling = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling.append(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def main() -> T:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        pool = Pool("127.0.0.1", server.sockets[0].getsockname()[1], secure=False, connect_timeout=5.0, keep_alive=30.0)
        try:
            return await use(pool)
        finally:
            await pool.close()
            server.close()
            await asyncio.gather(*filter(None, handling))

    return runner.run(main())


async def request_of(reader: asyncio.StreamReader) -> bytes:
    """One request's head; its body is read and dropped."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return head


def answering(*pieces: bytes) -> Handler:
    """Answers the first request of each connection with `pieces`, and closes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.002)

    return handler


async def post(pool: Pool, body: bytes = b"{}", within: float = 5.0) -> Answer:
    return await pool.post("/v1/x?y=1", HEADERS, body, asyncio.get_running_loop().time() + within)


async def whole(answer: Answer) -> bytes:
    pieces = []
    while piece := await answer.read():
        pieces.append(piece)
    return b"".join(pieces)


async def exchange(pool: Pool) -> tuple[int, bytes]:
    answer = await post(pool)
    return answer.status, await whole(answer)


def test_a_request_is_written_as_it_must_be(runner: asyncio.Runner) -> None:
    seen = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request_of(reader))
        writer.write(OK)

    assert against(runner, handler, exchange) == (200, b"hi")
    assert seen == [b"POST /v1/x?y=1 HTTP/1.1\r\nhost: model.test\r\nx-one: 1\r\ncontent-length: 2\r\n\r\n"]


@pytest.mark.parametrize(
    ("pieces", "status", "body"),
    [
        ([bytes([byte]) for byte in OK], 200, b"hi"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n", OK], 200, b"hi"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + OK], 200, b"hi"),
        ([b"HTTP/1.1 200 OK\r\n\r\nto the", b" end"], 200, b"to the end"),
        ([b"HTTP/1.0 200 OK\r\n\r\n"], 200, b""),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], 204, b""),
        ([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n", b"0\r\nx-trailer: 1\r\n\r\n"], 200, b"hi"),
        ([b"HTTP/1.1 413 Too Large\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx"], 413, b"x"),
    ],
)
def test_replies_of_every_form_are_read(runner: asyncio.Runner, pieces: list[bytes], status: int, body: bytes) -> None:
    assert against(runner, answering(*pieces), exchange) == (status, body)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"SSH-2.0-OpenSSH\r\n"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi!"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"],
        [b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nx: " + b"y" * (2 * MAX_HEAD_BYTES)],
        [b"HTTP/1.1 200 OK\r\n"],
        [],
    ],
)
def test_what_is_no_whole_reply_is_an_error_and_can_have_been_worked_on(runner: asyncio.Runner, pieces: list[bytes]) -> None:
    with pytest.raises(WireError) as caught:
        against(runner, answering(*pieces), exchange)
    assert not caught.value.repeatable


def test_a_body_that_breaks_off_is_read_as_far_as_it_came(runner: asyncio.Runner) -> None:
    async def use(pool: Pool) -> bytes:
        answer = await post(pool)
        came = await answer.read()
        with pytest.raises(WireError):
            await whole(answer)
        return came

    assert against(runner, answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi"), use) == b"hi"


def test_a_connection_is_used_again_and_a_closed_one_is_not(runner: asyncio.Runner) -> None:
    connections = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        for _ in range(2):
            await request_of(reader)
            writer.write(OK)

    async def use(pool: Pool) -> None:
        for _ in range(4):
            assert await exchange(pool) == (200, b"hi")
            await asyncio.sleep(0.01)

    against(runner, handler, use)
    assert len(connections) == 2


def test_a_kept_connection_that_closes_under_a_request_may_be_tried_again(runner: asyncio.Runner) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK)
        await request_of(reader)

    async def use(pool: Pool) -> None:
        await exchange(pool)
        with pytest.raises(WireError) as caught:
            await exchange(pool)
        assert caught.value.repeatable

    against(runner, handler, use)


def test_bytes_that_nobody_asked_for_are_no_ones_reply(runner: asyncio.Runner) -> None:
    connections = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        await request_of(reader)
        writer.write(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
        await reader.read()

    async def use(pool: Pool) -> None:
        for _ in range(3):
            assert await exchange(pool) == (200, b"hi")

    against(runner, handler, use)
    assert len(connections) == 3


def test_a_large_request_is_sent_whole_and_an_early_reply_ends_it(runner: asyncio.Runner) -> None:
    body = bytes(8 << 20)
    taken = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if not taken:
            taken.append(len(await reader.readexactly(len(body))))
            writer.write(OK)
            head = await reader.readuntil(b"\r\n\r\n")
        assert head
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await writer.drain()
        await asyncio.sleep(0.2)

    async def use(pool: Pool) -> list[tuple[int, bytes]]:
        answers = [await post(pool, body) for _ in range(2)]
        return [(answer.status, await whole(answer)) for answer in answers]

    assert against(runner, handler, use) == [(200, b"hi"), (413, b"no")]
    assert taken == [len(body)]


def test_a_reader_that_is_slow_holds_the_sender_up(runner: asyncio.Runner) -> None:
    size = 64 << 20
    sent = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size >> 16):
            writer.write(bytes(1 << 16))
            await writer.drain()
            sent += 1 << 16

    async def use(pool: Pool) -> tuple[int, int]:
        answer = await post(pool)
        await asyncio.sleep(0.3)
        return sent, len(await whole(answer))

    before, total = against(runner, handler, use)
    assert before < size // 2, "what is not read must stay with the sender"
    assert total == size


def test_no_reply_by_the_deadline(runner: asyncio.Runner) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def use(pool: Pool) -> None:
        for body in (b"{}", bytes(16 << 20)):
            with pytest.raises(NoAnswerError):
                await post(pool, body, within=0.05)

    against(runner, handler, use)


def test_each_request_on_a_connection_has_its_own_deadline(runner: asyncio.Runner) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await request_of(reader)
            writer.write(OK)
        await reader.read()

    async def use(pool: Pool) -> None:
        for within in (0.2, 60.0):
            assert await whole(await post(pool, within=within)) == b"hi"
        await asyncio.sleep(0.3)  # the timer of the first request fires while none is under way
        with pytest.raises(NoAnswerError):
            await post(pool, within=0.1)

    against(runner, handler, use)


def test_a_shorter_deadline_than_that_of_the_request_before(runner: asyncio.Runner) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK)
        await reader.read()

    async def use(pool: Pool) -> None:
        assert await whole(await post(pool, within=60.0)) == b"hi"
        with pytest.raises(NoAnswerError):
            await asyncio.wait_for(post(pool, within=0.05), 10.0)

    against(runner, handler, use)


def test_a_connection_that_does_not_open_in_time(runner: asyncio.Runner) -> None:
    async def main() -> None:
        pool = Pool("203.0.113.1", 9, secure=False, connect_timeout=0.0, keep_alive=1.0)  # an address for documentation
        with pytest.raises(ConnectTimeoutError):
            await post(pool)

    runner.run(main())


def test_letting_go_closes_the_connection_and_a_cancelled_request_does_too(runner: asyncio.Runner) -> None:
    gone = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        if not gone:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi")
        gone.append(await reader.read())

    async def use(pool: Pool) -> None:
        (await post(pool)).close()
        while not gone:
            await asyncio.sleep(0.005)
        task = asyncio.create_task(post(pool))
        await asyncio.sleep(0.05)
        task.cancel()
        while len(gone) < 2:
            await asyncio.sleep(0.005)

    against(runner, handler, use)
    assert gone == [b"", b""]


@pytest.mark.parametrize("value", ["1\r\nx-two: 2", "1\nx-two: 2", "a\0b"])
def test_a_header_that_would_be_two_is_refused(runner: asyncio.Runner, value: str) -> None:
    async def use(pool: Pool) -> None:
        with pytest.raises(ValueError, match="header"):
            await pool.post("/", {"host": "x", "x-one": value}, b"", asyncio.get_running_loop().time() + 1)

    against(runner, answering(OK), use)


def test_tls_is_spoken_with_hosts_whose_certificate_is_trusted_and_no_others(
    runner: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl, which makes a certificate")
    subprocess.run(
        [*make, "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificate, key)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(OK)(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def main() -> tuple[int, bytes]:
        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_side)
        port = server.sockets[0].getsockname()[1]
        pool = Pool("localhost", port, secure=True, connect_timeout=5.0, keep_alive=30.0)
        try:
            return await exchange(pool)
        finally:
            await pool.close()
            server.close()
            await asyncio.sleep(0.05)

    with pytest.raises(WireError, match="certificate"):
        runner.run(main())
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    assert runner.run(main()) == (200, b"hi")
