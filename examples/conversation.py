"""A conversation through a routellm server, as values: what is sent, what comes back, and how it is worded.

No user interface here; `router_chat` has that. The headers `x-routellm-*` of a reply say what was decided.
"""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import openai

_OTHER_MODEL = "Press Retry, or move the threshold so that the other model answers."
_STEPS = {
    400: "Choose another router, threshold or temperature, or clear the chat.",
    401: "A provider's key belongs to the server's environment; --api-key here is the key of the server itself.",
    404: "Choose another router (reload the page to see which ones are served), or check --model-url.",
    413: "Send a shorter prompt, or clear the chat.",
    429: "Wait a little, then press Retry.",
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One prompt and what became of it. `mark` is HTML that names the model; `note` says what went wrong, in plain text."""

    prompt: str
    answer: str = ""
    mark: str = ""
    note: str = ""
    done: bool = False


@dataclass(frozen=True, slots=True, eq=False)  # Gradio hashes it to see whether it changed; its mappings have no hash
class Served:
    """What a server offers: its routers with their default thresholds, and its models with their roles."""

    routers: Mapping[str, float]
    roles: Mapping[str, str]


def read_served(client: openai.OpenAI) -> Served:
    """Ask the server what it serves.

    Raises:
        openai.OpenAIError: it could not be asked.
    """
    reply = client.models.with_raw_response.list(timeout=5)
    try:
        entries = {entry["id"]: entry for entry in reply.http_response.json()["data"]}
    except (ValueError, TypeError, KeyError) as error:
        raise openai.OpenAIError("The reply is not a list of models.") from error
    routers = {name.removeprefix("router-"): entry["threshold"] for name, entry in entries.items() if "threshold" in entry}
    return Served(routers, {name: entry["role"] for name, entry in entries.items() if "role" in entry})


def api_messages(turns: Sequence[Turn]) -> list[Any]:
    """The conversation as a request's `messages`; an earlier turn that got no answer is left out."""
    messages: list[dict[str, Any]] = []
    for turn in turns[:-1]:
        if turn.answer:
            messages += [{"role": "user", "content": turn.prompt}, {"role": "assistant", "content": turn.answer}]
    return [*messages, {"role": "user", "content": turns[-1].prompt}]


def mark_of(headers: Mapping[str, str], roles: Mapping[str, str]) -> str:
    """The line, as HTML, that says which model answers and why, from a reply's headers; empty where they don't say."""
    if "x-routellm-model" not in headers:
        return ""
    model, reason = unquote(headers["x-routellm-model"]), headers.get("x-routellm-reason", "threshold")
    role, router = roles.get(model, ""), unquote(headers.get("x-routellm-router", ""))
    parts = [f"{role} model"] if role else []
    if "x-routellm-win-rate" in headers:
        win_rate, threshold = float(headers["x-routellm-win-rate"]), float(headers["x-routellm-threshold"])
        parts.append(f"win rate {win_rate:.5f} {'≥' if win_rate >= threshold else '<'} threshold {threshold:.5f}")
    if reason != "threshold":
        parts.append(f"reason: {reason}")
    parts += [f"router {router}"] if router else []
    return f'<div class="mark {html.escape(role)}"><b>{html.escape(model)}</b> {html.escape(" · ".join(parts))}</div>'


def chat_messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The conversation as Gradio's Chatbot shows it."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        messages.append({"role": "user", "content": f"<div>{_verbatim(turn.prompt)}</div>"})
        note = re.sub(r"`(.+?)`", r"<code>\1</code>", _verbatim(" ".join(turn.note.split())))
        shown = [turn.mark, turn.answer, f'<div class="note">{note}</div>' if note else ""]
        parts = [
            part for part in shown if part
        ]  # each is rendered by itself, so that half a code block can't swallow the note
        if parts:
            messages.append({"role": "assistant", "content": parts})
    return messages


def explain(error: Exception, url: str, *, begun: bool = False, then: str = "press Retry") -> str:
    """What went wrong and what to do next. `begun` says that part of the answer has come."""
    kept = " What came of the answer is kept." if begun else ""
    if isinstance(error, openai.APITimeoutError):
        return f"The server at {url} fell silent.{kept} Look into its log, then {then}."
    if isinstance(error, openai.APIConnectionError):
        if begun:
            return f"The server at {url} broke off its answer.{kept} See that it still runs, then {then}."
        return f"No server answers at {url}. Start one: `python -m routellm.openai_server --routers mf`, then {then}."
    if isinstance(error, openai.APIStatusError):
        said = error.body.get("message") if isinstance(error.body, dict) else None
        step = _STEPS.get(error.status_code, _OTHER_MODEL)
        return f"{said or error.response.reason_phrase} (HTTP {error.status_code}). {step}"
    if isinstance(error, openai.APIError):
        return f"{error.message}{kept} {_OTHER_MODEL}"
    return f"The server at {url} sent something that is not OpenAI's API ({type(error).__name__}). Check --model-url.{kept}"


async def answer(
    client: openai.AsyncOpenAI, turns: Sequence[Turn], model: str, temperature: float, roles: Mapping[str, str]
) -> AsyncIterator[Turn]:
    """Ask for an answer to the last turn and yield that turn as it grows, at last as done; errors end up in its note."""
    turn, url = turns[-1], str(client.base_url).rstrip("/")
    try:
        reply = await client.chat.completions.with_raw_response.create(
            model=model, messages=api_messages(turns), temperature=temperature, stream=True
        )
        turn = replace(turn, mark=mark_of(reply.headers, roles))
        yield turn
        async with reply.parse() as stream:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    turn = replace(turn, answer=turn.answer + chunk.choices[0].delta.content)
                    yield turn
        empty = f"The answer is empty. Press Retry, or check that {url} is a chat model's server."
        yield replace(turn, note="" if turn.answer else empty, done=True)
    except openai.APIStatusError as error:
        yield replace(turn, mark=mark_of(error.response.headers, roles), note=explain(error, url), done=True)
    except (openai.OpenAIError, ValueError) as error:  # ValueError: a stream of something that is not JSON
        yield replace(turn, note=explain(error, url, begun=bool(turn.answer)), done=True)


def in_force(router: str, threshold: float, served: Served) -> str:
    """Markdown that says what the next prompt will be sent with."""
    lines = [
        f"In force: `{model_name(router, threshold)}`",
        f"The strong model answers where its win rate is at least **{threshold:.5f}**: at 0 always, at 1 almost never.",
    ]
    if router in served.routers:
        lines.append(f"The server's default for `{router}` is {served.routers[router]:.5f}.")
    return "  \n".join(lines)


def model_name(router: str, threshold: float) -> str:
    """The `model` that a request asks for."""
    return f"router-{router}-{threshold:g}"


def _verbatim(text: str) -> str:
    """HTML that shows `text` as it was typed: an HTML block without a blank line is not read as Markdown."""
    return "<br>".join(html.escape(text, quote=False).splitlines())
