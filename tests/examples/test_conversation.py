"""The plain half of the chat demo: what is sent, how a decision is worded, and what an error says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import openai
import pytest

from examples.conversation import Served, Turn, answer, api_messages, chat_messages, in_force, mark_of, model_name, read_served
from tests.live import DIE, PATIENCE, Gate, LiveServer, Reply, closed_port_url, event
from tests.serving.running import RunningServer, settings_for

ROLES = {"gpt-4o": "strong", "ollama/llama3": "weak"}


def piece(text: str) -> bytes:
    return event({"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]})


def decided(**changes: str) -> dict[str, str]:
    headers = {"model": "gpt-4o", "reason": "threshold", "router": "mf", "threshold": "0.11593", "win-rate": "0.437120"}
    return {f"x-routellm-{name}": value for name, value in {**headers, **changes}.items() if value}


def last_turn(url: str, turns: Sequence[Turn] = (Turn("Hi"),), **options: Any) -> Turn:
    """The last turn as it ends up."""

    async def run() -> Turn:
        async with openai.AsyncOpenAI(base_url=url, api_key="sk-secret", max_retries=0, **options) as client:
            [*_, last] = [turn async for turn in answer(client, turns, "router-mf-0.5", 1.0, ROLES)]
            return last

    return asyncio.run(run())


def test_history_is_sent_without_marks_notes_and_unanswered_turns() -> None:
    turns = [
        Turn("One", "First.", "<mark>", "Stopped.", done=True),
        Turn("Two", "", "<mark>", "It failed.", done=True),
        Turn("Three", "half", "<mark>"),
    ]
    assert api_messages(turns) == [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "First."},
        {"role": "user", "content": "Three"},
    ]


def test_the_mark_names_model_role_win_rate_threshold_and_router() -> None:
    assert mark_of(decided(), ROLES) == (
        '<div class="mark strong"><b>gpt-4o</b> strong model · win rate 0.43712 ≥ threshold 0.11593 · router mf</div>'
    )
    weak = mark_of(decided(**{"model": "ollama/llama3", "win-rate": "0.1"}), ROLES)
    assert weak == (
        '<div class="mark weak"><b>ollama/llama3</b> weak model · win rate 0.10000 &lt; threshold 0.11593 · router mf</div>'
    )


def test_the_mark_gives_the_reason_where_it_was_not_the_threshold() -> None:
    assert "</b> strong model · reason: no-text · router mf</div>" in mark_of(
        decided(**{"reason": "no-text", "win-rate": ""}), ROLES
    )
    pinned = mark_of(decided(**{"reason": "pinned", "router": "", "threshold": "", "win-rate": ""}), {})
    assert pinned == '<div class="mark "><b>gpt-4o</b> reason: pinned</div>'


def test_a_model_s_name_is_decoded_and_can_not_be_markup() -> None:
    assert "<b>größe&lt;i&gt;</b>" in mark_of(decided(model="gr%C3%B6%C3%9Fe%3Ci%3E"), {})


def test_a_server_without_such_headers_gets_no_mark() -> None:
    assert mark_of({}, ROLES) == ""


def test_a_prompt_is_shown_as_typed_and_each_part_by_itself() -> None:
    [user, bot] = chat_messages([Turn("<b>a</b>\n\n*b*", "```\nhalf", "<m>", "Run `x`\n\nnow <i>.")])
    assert user == {"role": "user", "content": "<div>&lt;b&gt;a&lt;/b&gt;<br><br>*b*</div>"}
    note = '<div class="note">Run <code>x</code> now &lt;i&gt;.</div>'
    assert bot == {"role": "assistant", "content": ["<m>", "```\nhalf", note]}


def test_a_turn_that_waits_shows_its_prompt_alone() -> None:
    assert len(chat_messages([Turn("Hi")])) == 1


@pytest.mark.parametrize(
    ("threshold", "name"),
    [(0.0, "router-mf-0"), (1.0, "router-mf-1"), (0.11593, "router-mf-0.11593"), (1e-5, "router-mf-1e-05")],
)
def test_the_model_that_is_asked_for(threshold: float, name: str) -> None:
    assert model_name("mf", threshold) == name


def test_what_is_in_force_has_the_server_s_default_where_it_is_known() -> None:
    assert "router-mf-0.3" in in_force("mf", 0.3, Served({"mf": 0.25}, {}))
    assert "default for `mf` is 0.25000" in in_force("mf", 0.3, Served({"mf": 0.25}, {}))
    assert "default" not in in_force("gone", 0.3, Served({"mf": 0.25}, {}))


def test_routers_and_roles_are_read_from_a_live_server() -> None:
    with RunningServer(settings_for_demo()) as server, server.client() as client:
        served = read_served(client)
    assert served.routers == {"random": 0.5}
    assert served.roles == {"demo/strong": "strong", "demo/weak": "weak"}


@pytest.mark.parametrize("body", [b"<html>Hello</html>", b'{"object": "list"}', b"[]"])
def test_another_kind_of_server_is_an_error_of_the_client_s(live: LiveServer, body: bytes) -> None:
    live.replies = [
        Reply([body], headers={"content-type": "application/json" if body[:1] != b"<" else "text/html"}, whole=True)
    ]
    client = openai.OpenAI(base_url=live.base_url, api_key="k", max_retries=0)
    with client, pytest.raises(openai.OpenAIError):
        read_served(client)


def test_an_answer_grows_piece_by_piece(live: LiveServer) -> None:
    gate = Gate()
    live.replies = [Reply.sse(piece("one "), gate, piece("two"), event("[DONE]"), headers=decided())]

    async def run() -> list[tuple[str, bool]]:
        seen = []
        async with openai.AsyncOpenAI(base_url=live.base_url, api_key="k", max_retries=0) as client:
            async for turn in answer(client, [Turn("Hi")], "router-mf-0.5", 0.5, ROLES):
                seen.append((turn.answer, turn.done))
                if turn.answer == "one ":
                    gate.open()
                assert turn.mark == mark_of(decided(), ROLES)
        return seen

    assert asyncio.run(run()) == [("", False), ("one ", False), ("one two", False), ("one two", True)]
    assert live.requests[0].json == {
        "messages": [{"role": "user", "content": "Hi"}], "model": "router-mf-0.5", "temperature": 0.5, "stream": True
    }  # fmt: skip


def error(message: str, status: int, **headers: str) -> Reply:
    return Reply.json({"error": {"message": message, "type": "t", "code": None}}, status=status, headers=headers)


@pytest.mark.parametrize(
    ("reply", "kept", "note"),
    [
        (error("No such router.", 400), "", "No such router. (HTTP 400). Choose another router, threshold or temperature"),
        (error("No key.", 401), "", "No key. (HTTP 401). A provider's key belongs to the server's environment"),
        (error("No model.", 404), "", "No model. (HTTP 404). Choose another router (reload the page"),
        (error("Too long.", 413), "", "Too long. (HTTP 413). Send a shorter prompt, or clear the chat."),
        (error("Slow down.", 429), "", "Slow down. (HTTP 429). Wait a little, then press Retry."),
        (error("Unreachable.", 502), "", "Unreachable. (HTTP 502). Press Retry, or move the threshold"),
        (Reply([b"<h1>Oops</h1>"], 500, {"content-type": "text/html"}, whole=True), "", "Internal Server Error (HTTP 500)."),
        (Reply.sse(piece("half"), DIE), "half", "broke off its answer. What came of the answer is kept. See that"),
        (Reply.sse(piece("half"), event({"error": {"message": "It died."}})), "half", "It died. What came of the answer"),
        (Reply.sse(piece("half"), b"data: {oops\n\n"), "half", "sent something that is not OpenAI's API"),
        (Reply.sse(event("[DONE]")), "", "The answer is empty."),
        (Reply([b"<h1>Hello</h1>"], 200, {"content-type": "text/html"}, whole=True), "", "The answer is empty."),
    ],
)  # fmt: skip
def test_a_failure_is_told_with_the_next_step_and_nothing_is_lost(
    live: LiveServer, reply: Reply, kept: str, note: str
) -> None:
    live.replies = [reply]
    turn = last_turn(live.base_url)
    assert turn.done
    assert turn.answer == kept
    assert note in turn.note
    assert "Traceback" not in turn.note
    assert "sk-secret" not in turn.note


def test_no_server_is_told_with_the_command_that_starts_one() -> None:
    url = closed_port_url()
    assert last_turn(url).note == (
        f"No server answers at {url}. Start one: `python -m routellm.openai_server --routers mf`, then press Retry."
    )


def test_a_silent_server_is_told(live: LiveServer) -> None:
    gate = Gate()  # never opened
    live.replies = [Reply([gate, b"late"])]
    assert "fell silent" in last_turn(live.base_url, timeout=0.2).note
    assert live.wait_for_request().gone.wait(PATIENCE)


def test_a_failed_model_s_mark_is_shown(live: LiveServer) -> None:
    live.replies = [error("Unreachable.", 502, **decided())]
    assert last_turn(live.base_url).mark == mark_of(decided(), ROLES)


def settings_for_demo() -> Any:
    settings = settings_for(None, strong="demo/strong", weak="demo/weak")
    return settings.__class__(("random",), settings.strong, settings.weak)
