from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
import uvicorn

from routellm.errors import OverloadedError
from routellm.serving.admission import Admission, AdmissionSettings
from routellm.serving.process import configure
from tests.live import PATIENCE
from tests.serving.running import settings_for


def run(test: Callable[[Admission], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(Admission(AdmissionSettings(**settings))), PATIENCE)

    asyncio.run(limited())


async def in_line(admission: Admission, count: int) -> list[asyncio.Task[None]]:
    """Tasks that wait in line, in order."""
    tasks = []
    for _ in range(count):
        tasks.append(asyncio.create_task(admission.enter()))
        await asyncio.sleep(0)
    return tasks


def test_requests_up_to_the_limit_begin_at_once() -> None:
    async def test(admission: Admission) -> None:
        for _ in range(3):
            await admission.enter()
        assert admission.depths() == (3, 0)
        admission.leave()
        assert admission.depths() == (2, 0)

    run(test, concurrent=3)


def test_the_line_is_first_come_first_served() -> None:
    async def test(admission: Admission) -> None:
        await admission.enter()
        tasks = await in_line(admission, 3)
        assert admission.depths() == (1, 3)
        for number in range(3):
            admission.leave()
            await tasks[number]
            assert [task.done() for task in tasks] == [place <= number for place in range(3)]
            assert admission.depths() == (1, 2 - number)

    run(test, concurrent=1)


def test_a_full_line_is_refused_at_once() -> None:
    async def test(admission: Admission) -> None:
        await admission.enter()
        await in_line(admission, 2)
        with pytest.raises(OverloadedError, match="1 requests under way already, and the line is full") as refused:
            await admission.enter()
        assert refused.value.retry_after == 1
        assert admission.depths() == (1, 2)
        admission.leave()
        admission.leave()
        await asyncio.sleep(0)

    run(test, concurrent=1, queued=2)


def test_without_a_line_the_rest_is_refused() -> None:
    async def test(admission: Admission) -> None:
        await admission.enter()
        with pytest.raises(OverloadedError):
            await admission.enter()

    run(test, concurrent=1, queued=0)


def test_a_wait_that_is_too_long_is_refused_and_leaves_the_line() -> None:
    async def test(admission: Admission) -> None:
        await admission.enter()
        with pytest.raises(OverloadedError, match=r"none of them ended within 0\.01 seconds"):
            await admission.enter()
        assert admission.depths() == (1, 0)
        admission.leave()
        await admission.enter()

    run(test, concurrent=1, wait_seconds=0.01)


def test_who_leaves_the_line_makes_room() -> None:
    async def test(admission: Admission) -> None:
        await admission.enter()
        first, second = await in_line(admission, 2)
        first.cancel()
        await asyncio.wait([first])
        assert admission.depths() == (1, 1)
        admission.leave()
        await second
        assert admission.depths() == (1, 0)

    run(test, concurrent=1)


def test_who_leaves_just_as_their_turn_comes_hands_it_on() -> None:
    async def test(admission: Admission) -> None:
        await admission.enter()
        first, second = await in_line(admission, 2)
        admission.leave()  # the first one's turn
        first.cancel()
        await asyncio.wait([first])
        await second
        assert admission.depths() == (1, 0)

    run(test, concurrent=1)


def test_a_turn_that_comes_just_after_someone_left_goes_to_the_next() -> None:
    async def test(admission: Admission) -> None:
        await admission.enter()
        first, second = await in_line(admission, 2)
        first.cancel()
        admission.leave()  # before the first one's task has noticed
        await second
        assert first.cancelled()
        assert admission.depths() == (1, 0)

    run(test, concurrent=1)


def test_other_limits_hold_from_now_on_and_drop_nothing() -> None:
    async def test(admission: Admission) -> None:
        await admission.enter()
        tasks = await in_line(admission, 3)
        admission.change(AdmissionSettings(concurrent=3))
        await asyncio.gather(*tasks[:2])
        assert admission.depths() == (3, 1)
        admission.change(AdmissionSettings(concurrent=1))
        admission.leave()
        assert admission.depths() == (2, 1)
        admission.leave()
        admission.leave()
        await tasks[2]
        assert admission.depths() == (1, 0)

    run(test, concurrent=1)


def test_never_more_than_the_limit_whatever_happens() -> None:
    async def test(admission: Admission) -> None:
        most = 0

        async def request(number: int) -> None:
            nonlocal most
            await admission.enter()
            try:
                most = max(most, admission.depths()[0])
                for _ in range(number % 4):
                    await asyncio.sleep(0)
            finally:
                admission.leave()

        tasks = [asyncio.create_task(request(number)) for number in range(300)]
        for number in range(0, 300, 7):
            await asyncio.sleep(0)
            tasks[number].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert most == 5
        assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}
        assert admission.depths() == (0, 0)

    run(test, concurrent=5)


def test_a_server_that_shuts_down_answers_what_is_in_line_and_takes_nothing_more() -> None:
    """uvicorn closes what is idle, and each connection after its answer: nothing of that is left to do here."""
    begun, go_on = threading.Event(), threading.Event()
    admission = Admission(AdmissionSettings(concurrent=1))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await lifespan(receive, send)
            return
        await admission.enter()
        try:
            begun.set()
            if scope["path"] == "/slow":
                await asyncio.to_thread(go_on.wait, PATIENCE)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
            await send({"type": "http.response.body", "body": b"done"})
        finally:
            admission.leave()

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(configure(app, settings_for(None, strong="demo/strong", weak="demo/weak")))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    idle, slow, waiting = (
        http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=PATIENCE) for _ in range(3)
    )
    idle.request("GET", "/")
    assert idle.getresponse().read() == b"done"
    begun.clear()
    slow.request("GET", "/slow")
    assert begun.wait(PATIENCE)
    waiting.request("GET", "/")
    while admission.depths() != (1, 1):
        time.sleep(0.001)
    server.should_exit = True
    assert idle.sock.recv(1) == b""
    go_on.set()
    for connection in (slow, waiting):
        response = connection.getresponse()
        assert response.read() == b"done"
        assert response.headers["connection"] == "close"
    thread.join(PATIENCE)
    assert not thread.is_alive()
    for connection in (idle, slow, waiting):
        connection.close()
    listener.close()


async def lifespan(receive: Any, send: Any) -> None:
    for _ in range(2):
        event = await receive()
        await send({"type": event["type"] + ".complete"})


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"concurrent": 0}, "concurrent is 0; it must be at least 1"),
        ({"queued": -1}, "queued is -1; it must be at least 0"),
        ({"wait_seconds": 0.0}, "wait_seconds is 0.0; it must lie above 0 and up to 600"),
        ({"limit": 5}, "unknown field `limit`"),
    ],
)
def test_a_wrong_setting_is_told(section: Any, words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(section, AdmissionSettings)
