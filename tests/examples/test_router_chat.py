"""The chat demo as a person meets it: the real command, a live routellm server, and Chromium.

The strong model is the demo model; the weak one is at a live server that the test steers. A threshold of 0 is always met,
one of 1 is not, so no test depends on what the shipped checkpoint thinks of a prompt.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from examples import router_chat
from routellm.serving.settings import Settings
from routellm.upstream.base import ModelSpec
from tests.conftest import require
from tests.live import DIE, PATIENCE, STALL, Gate, LiveServer, Reply, closed_port_url, event
from tests.serving.running import RunningServer

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
MILLISECONDS = 3 * PATIENCE * 1000
ENVIRONMENT = {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"}


def piece(text: str) -> bytes:
    return event({"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]})


def settings(weak_url: str) -> Settings:
    return Settings(("mf", "random"), ModelSpec("demo/strong"), ModelSpec("openai/small", weak_url, "sk-weak"))


@contextmanager
def running_chat(home: Path, *arguments: str) -> Iterator[str]:
    """The command in a process of its own; gives the page's address, and checks that Ctrl-C ends it without a word."""
    command = [sys.executable, "-m", "examples.router_chat", "--port", "0", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env={**ENVIRONMENT, "HOME": str(home)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            found = re.match(r"routellm chat on (http://127\.0\.0\.1:\d+), through the server at http", line)
            if not found:
                process.kill()
            assert found, (line, process.stderr.read() if process.stderr else "")
            yield found[1]
        finally:
            process.send_signal(signal.SIGINT)
            try:
                rest, complaints = process.communicate(timeout=PATIENCE)
            finally:
                process.kill()
        assert rest == ""
        assert "Traceback" not in complaints
        assert process.returncode == 130


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def browser(home: Path) -> Iterator[Any]:
    api = require("playwright.sync_api")
    executable = shutil.which("chromium")
    if executable is None:
        (pytest.fail if os.environ.get("CI") in ("true", "1") else pytest.skip)("needs the program chromium")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS, env={**ENVIRONMENT, "HOME": str(home)})
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def weak() -> Iterator[LiveServer]:
    with LiveServer() as server:
        yield server


@pytest.fixture(scope="module")
def address(home: Path, weak: LiveServer) -> Iterator[str]:
    require("gradio")
    with RunningServer(settings(weak.base_url)) as server, running_chat(home, "--model-url", server.url) as url:
        yield url


class Chat:
    """A page, and what a person does on it."""

    def __init__(self, page: Any, url: str, expect: Any) -> None:
        self.page, self.expect = page, expect
        self.hosts: set[str] = set()
        self.trouble: list[str] = []
        page.set_default_timeout(MILLISECONDS)
        page.on("requestfinished", lambda request: self.hosts.add("/".join(request.url.split("/")[:3])))
        page.on("pageerror", lambda error: self.trouble.append(str(error)))
        page.goto(url)
        self.expect(page.locator("#in-force")).to_contain_text("In force")

    def ask(self, prompt: str) -> None:
        box = self.page.get_by_placeholder("Type a prompt")
        box.fill(prompt)
        box.press("Enter")

    def set(self, control: str, value: float) -> None:
        number = self.page.get_by_label(f"number input for {control}")
        number.fill(str(value))
        number.press("Enter")
        if control == "Threshold":
            self.sees(f"-{value:g}", "#in-force")

    def choose_router(self, name: str) -> None:
        self.page.get_by_role("combobox", name="Router").click()
        self.page.get_by_role("option", name=name).click()
        self.sees(f"router-{name}-", "#in-force")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).and_(self.page.locator("button.lg")).click()

    def sees(self, text: str | re.Pattern[str], where: str = ".bot-row") -> None:
        self.expect(self.page.locator(where).last).to_contain_text(text, timeout=MILLISECONDS)


@pytest.fixture
def chat(browser: Any, address: str, weak: LiveServer) -> Iterator[Chat]:
    weak.requests.clear()
    weak.replies = []
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    chat = Chat(context.new_page(), address, require("playwright.sync_api").expect)
    yield chat
    context.close()
    assert chat.hosts == {address}, "the page loaded something from elsewhere"
    assert chat.trouble == []


def test_an_answer_comes_in_pieces_under_the_mark_of_its_model(chat: Chat, weak: LiveServer) -> None:
    gate = Gate()
    weak.replies = [Reply.sse(piece("Paris, "), gate, piece("of course."), event("[DONE]"))]
    chat.set("Threshold", 1)
    chat.ask("The capital of <b>France</b>?")
    chat.sees(re.compile(r"^\s*openai/small weak model · win rate 0\.\d{5} < threshold 1\.00000 · router mf\s*Paris,\s*$"))
    gate.open()
    chat.sees("Paris, of course.")
    chat.sees("The capital of <b>France</b>?", ".user-row")
    assert weak.requests[0].json["messages"] == [{"role": "user", "content": "The capital of <b>France</b>?"}]


def test_router_threshold_and_temperature_decide_the_next_answer(chat: Chat, weak: LiveServer) -> None:
    chat.set("Threshold", 0)
    chat.ask("One")
    chat.sees(re.compile(r"demo/strong strong model · win rate 0\.\d{5} ≥ threshold 0\.00000 · router mf"))
    chat.sees("[demo/strong: offline demo model, not a real LLM] You said: One")
    chat.choose_router("random")
    chat.set("Threshold", 1)
    chat.set("Temperature", 0.25)
    chat.ask("Two")
    chat.sees(re.compile(r"openai/small weak model · win rate 0\.\d{5} < threshold 1\.00000 · router random\s*Hello\."))
    sent = weak.wait_for_request().json
    assert sent["temperature"] == 0.25
    assert [(message["role"], message["content"][:12]) for message in sent["messages"]] == [
        ("user", "One"),
        ("assistant", "[demo/strong"),
        ("user", "Two"),
    ]
    assert "mark" not in str(sent["messages"])


def test_stop_keeps_what_came_and_ends_the_model_s_work_and_retry_asks_again(chat: Chat, weak: LiveServer) -> None:
    weak.replies = [Reply.sse(piece("Once upon"), STALL), Reply.sse(piece("A new one."), event("[DONE]"))]
    chat.set("Threshold", 1)
    chat.ask("A tale")
    chat.sees("Once upon")
    chat.page.locator("button.stop-button").click()
    chat.sees(re.compile(r"Once upon\s*Stopped\. Press Retry"))
    assert weak.requests[0].gone.wait(PATIENCE)
    chat.press("Retry")
    chat.sees("A new one.")
    chat.expect(chat.page.locator(".user-row")).to_have_count(1)
    assert weak.requests[1].json["messages"] == [{"role": "user", "content": "A tale"}]


def test_a_prompt_sent_too_early_is_not_lost(chat: Chat, weak: LiveServer) -> None:
    gate = Gate()
    weak.replies = [
        Reply.sse(piece("One, "), gate, piece("two."), event("[DONE]")),
        Reply.sse(piece("Three."), event("[DONE]")),
    ]
    chat.set("Threshold", 1)
    chat.ask("First")
    chat.sees("One, ")
    chat.ask("Second")
    chat.expect(chat.page.get_by_text("An answer is coming in")).to_be_visible()
    gate.open()
    chat.sees("One, two.")
    box = chat.page.get_by_placeholder("Type a prompt")
    chat.expect(box).to_have_value("Second")
    chat.expect(chat.page.get_by_role("button", name="Retry")).to_be_enabled()
    box.press("Enter")
    chat.sees("Three.")
    assert [message["content"] for message in weak.requests[-1].json["messages"]] == ["First", "One, two.", "Second"]


def test_clear_forgets_the_conversation(chat: Chat, weak: LiveServer) -> None:
    chat.set("Threshold", 1)
    chat.ask("Remember me")
    chat.sees("Hello.")
    chat.press("Clear")
    chat.expect(chat.page.locator(".user-row")).to_have_count(0)
    chat.ask("Who am I?")
    chat.sees("Hello.")
    assert [message["content"] for message in weak.requests[-1].json["messages"]] == ["Who am I?"]


def test_an_empty_prompt_asks_nothing(chat: Chat, weak: LiveServer) -> None:
    chat.ask("   ")
    chat.set("Threshold", 1)
    chat.ask("Now")
    chat.sees("Hello.")
    chat.expect(chat.page.locator(".user-row")).to_have_count(1)
    chat.expect(chat.page.get_by_role("button", name="Retry")).to_be_enabled()
    assert len(weak.requests) == 1


def test_a_model_that_fails_is_named_with_the_next_step(chat: Chat, weak: LiveServer) -> None:
    weak.replies = [
        Reply.sse(piece("```\nhalf a"), DIE),
        Reply.json({"error": {"message": "Slow <i>down</i>, please."}}, status=429),
    ]
    chat.set("Threshold", 1)
    chat.ask("One")
    chat.sees(
        re.compile(r"openai/small weak model.*half a.*openai/small.* What came of the answer is kept\. Press Retry", re.S)
    )
    chat.press("Retry")
    chat.sees(
        re.compile(
            r"openai/small weak model.*Slow <i>down</i>, please\. \(HTTP 429\)\. Wait a little, then press Retry\.", re.S
        )
    )


def test_an_answer_can_not_make_the_page_ask_another_host(chat: Chat, weak: LiveServer) -> None:
    with LiveServer() as elsewhere:
        link = f"![x]({elsewhere.url}/seen.png) <img src='{elsewhere.url}/too.png'> Look."
        weak.replies = [Reply.sse(piece(link), event("[DONE]"))]
        chat.set("Threshold", 1)
        with chat.page.expect_event("requestfailed"):  # the browser refused it
            chat.ask("Show me")
            chat.sees("Look.")
        assert elsewhere.requests == []


def test_all_controls_are_in_sight_on_a_small_screen(chat: Chat) -> None:
    for control in ("Router", "number input for Threshold", "number input for Temperature"):
        chat.expect(chat.page.get_by_label(control)).to_be_in_viewport(ratio=1)
    for name in ("Retry", "Clear"):
        chat.expect(chat.page.get_by_role("button", name=name)).to_be_in_viewport(ratio=1)
    chat.expect(chat.page.get_by_placeholder("Type a prompt")).to_be_in_viewport(ratio=1)
    assert chat.page.evaluate("document.documentElement.scrollHeight <= innerHeight")


def test_without_a_server_the_page_says_what_to_start(browser: Any, home: Path) -> None:
    require("gradio")
    url = closed_port_url()
    with running_chat(home, "--model-url", url, "--threshold", "0.11593") as address:
        page = browser.new_page()
        chat = Chat(page, address, require("playwright.sync_api").expect)
        chat.sees("router-mf-0.11593", "#in-force")
        chat.sees(f"No server answers at {url}. Start one: python -m routellm.openai_server", "#status")
        chat.ask("Hello?")
        chat.sees(f"No server answers at {url}. Start one: python -m routellm.openai_server --routers mf, then press Retry.")
        page.close()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--threshold", "1.5"], "argument --threshold: '1.5' is not a number from 0 to 1"),
        (["--threshold", "nan"], "argument --threshold: 'nan' is not a number from 0 to 1"),
        (["--temperature", "hot"], "argument --temperature: 'hot' is not a number from 0 to 2"),
        (["--port", "70000"], "argument --port: '70000' is not a whole number from 0 to 65535"),
        (
            ["--model-url", "localhost:6060"],
            "argument --model-url: 'localhost:6060' is not a URL such as http://127.0.0.1:6060/v1",
        ),
        (["--model-url", "http://[::1"], "argument --model-url: 'http://[::1' is not a URL"),
        (["--api-key", "clé"], "argument --api-key: a key is made of visible ASCII characters"),
        (["--share"], "unrecognized arguments: --share"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        router_chat.main(arguments)
    said = capsys.readouterr().err
    assert exit.value.code == 2
    assert said.startswith(f"routellm: error: {complaint}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("given", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_the_server_s_address_is_taken_with_and_without_v1(given: str) -> None:
    assert router_chat.build_parser().parse_args(["--model-url", given]).model_url == "http://h:1/v1"


def test_without_gradio_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert router_chat.main([]) == 2
    assert 'pip install "routellm[demo]"' in capsys.readouterr().err


def test_an_unknown_router_is_refused_where_the_server_can_be_asked(home: Path, weak: LiveServer) -> None:
    require("gradio")
    with RunningServer(settings(weak.base_url)) as server:
        done = subprocess.run(
            [sys.executable, "-m", "examples.router_chat", "--router", "mff", "--model-url", server.url, "--port", "0"],
            cwd=ROOT, env={**ENVIRONMENT, "HOME": str(home)}, capture_output=True, text=True, timeout=3 * PATIENCE,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "routellm: error: Unknown router 'mff' (did you mean 'mf'?). Known: mf, random.\n"
