"""What the tests of collecting share: a model that answers as told, and a clock that a test turns."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from routellm.evals.collecting.chat import ChatModel
from routellm.evals.collecting.conversations import Conversation
from routellm.evals.collecting.engine import Engine, Job, Tally
from routellm.evals.collecting.journal import Journal, Row, read_rows
from routellm.evals.collecting.pacing import Clock, Retries
from routellm.upstream.base import ModelSpec, Timeouts
from routellm.upstream.providers import open_upstream
from tests.live import LiveServer, Recorded, Reply

PARAMETERS = {"temperature": 0, "max_tokens": 10}
SECRET = "sk-very-secret-key"


class FakeClock:
    """A clock whose sleepers only let its time pass; it is told of each sleep."""

    def __init__(self) -> None:
        self.time = 0.0
        self.sleeps: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.sleeps.append(seconds)
        await asyncio.sleep(0)

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.time, self.sleep)


def completion(text: object, *, prompt_tokens: int = 5, completion_tokens: int = 2, **more: Any) -> Reply:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": more.pop("finish", "stop")}
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return Reply.json({"model": "m-1", "choices": [choice], "usage": usage, **more})


def error(status: int, message: str = "no", headers: dict[str, str] | None = None, **more: Any) -> Reply:
    """An error as OpenAI words one."""
    return Reply.json({"error": {"message": message, **more}}, status=status, headers=headers)


def question_of(request: Recorded) -> str:
    """The last user message of a request."""
    return str([message["content"] for message in request.json["messages"] if message["role"] == "user"][-1])


def echo(request: Recorded) -> Reply:
    """Answers each question with "re: " and the question."""
    return completion("re: " + question_of(request))


def asked(live: LiveServer) -> Counter[str]:
    """How often each question has reached the server."""
    return Counter(question_of(request) for request in live.requests)


def conversations(*prompts: str | tuple[str, ...]) -> list[Conversation]:
    turns = [(prompt,) if isinstance(prompt, str) else prompt for prompt in prompts]
    return [Conversation(each[0], each) for each in turns]


def collect(
    live: LiveServer,
    path: Path,
    what: Sequence[Conversation],
    *,
    parameters: dict[str, Any] | None = None,
    timeout: float = 20.0,
    base_url: str = "",
    while_running: Callable[[Engine], Any] | None = None,
    **settings: Any,
) -> tuple[Engine, Tally]:
    """Run an engine against the live server; `while_running` may return an awaitable that runs beside it."""
    settings.setdefault("retries", Retries(tries=4, first=0.001))
    job = Job("test", "openai/m", parameters or PARAMETERS)
    spec = ModelSpec("openai/m", base_url or live.base_url, SECRET, timeouts=Timeouts(read=timeout))

    async def main() -> tuple[Engine, Tally]:
        upstream = open_upstream(spec, {})
        with Journal(path, job.source, job.model, job.parameters) as journal:
            engine = Engine(job, ChatModel(upstream, job.parameters, [SECRET]), journal, **settings)
            beside = asyncio.ensure_future(while_running(engine)) if while_running else None
            try:
                return engine, await engine.run(what)
            finally:
                if beside is not None:
                    await beside
                await upstream.aclose()

    return asyncio.run(main())


def by_prompt(path: Path) -> dict[str, Row]:
    """The finished calls of a file by their question; asserts that no line comes twice."""
    lines = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    assert len(lines) == len(set(lines))
    return {row.question: row for row in read_rows(path)}


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
