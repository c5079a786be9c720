"""A chat in the browser through a running routellm server; each answer says which model gave it, and why.

Here are the page and the command; `conversation` has the talk with the server.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import openai

from examples.conversation import Served, Turn, answer, chat_messages, explain, in_force, model_name, read_served
from routellm.commands import CommandParser, command_parser, run_command
from routellm.errors import MissingExtraError, UnknownNameError
from routellm.serving.process import bind

if TYPE_CHECKING:
    import gradio as gr
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PLACEHOLDER = "Ask something easy, then something hard: each answer says which model gave it."
_CSS = """
.mark, .note { font-size: 0.85rem; line-height: 1.35; padding: 4px 10px; border-left: 4px solid #64748b; border-radius: 4px;
  background: rgba(100, 116, 139, 0.14); }
.mark.strong { border-color: #c2410c; background: rgba(234, 88, 12, 0.14); }
.mark.weak { border-color: #0f766e; background: rgba(13, 148, 136, 0.16); }
.note { border-color: #b91c1c; background: rgba(220, 38, 38, 0.12); }
"""
_POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; base-uri 'self'"

_EXAMPLES = """
# in one terminal: a server with the offline demo pair, which needs no key
python -m routellm.openai_server --routers mf random --strong-model demo/strong --weak-model demo/weak
# in another one: the chat, at the address that it prints
python -m examples.router_chat --router mf --threshold 0.11593

python -m examples.router_chat --model-url http://gpu-box:6060 --port 8080
python -m examples.router_chat --threshold 0        # the strong model answers everything
"""


class Page:
    """The page: the conversation on the left, the controls on the right. `args` are the command's."""

    def __init__(self, args: argparse.Namespace, served: Served) -> None:
        self._args, self._served = args, served
        self._client = openai.AsyncOpenAI(base_url=args.model_url, api_key=args.api_key, max_retries=0)

    def build(self) -> gr.Blocks:
        """The layout. An event of a page is a function of the values of some components; it returns others' new values."""
        import gradio as gr

        args, served = self._args, self._served
        start = served.routers.get(args.router, 0.5) if args.threshold is None else args.threshold
        with gr.Blocks(title="routellm chat", fill_width=True) as page, gr.Row():
            turns, known = gr.State([]), gr.State(served)
            with gr.Column(scale=3, min_width=420):
                chat = gr.Chatbot(height="calc(100vh - 100px)", show_label=False, buttons=[], placeholder=_PLACEHOLDER)
                box = gr.Textbox(placeholder="Type a prompt", show_label=False, autofocus=True, submit_btn=True, max_lines=4)
            with gr.Column(scale=1, min_width=300):
                gr.Markdown(f"### routellm chat\nthrough the server at `{args.model_url}`")
                router = gr.Dropdown(sorted({*served.routers, args.router}), value=args.router, label="Router")
                threshold = gr.Slider(0, 1, start, step=0.00001, label="Threshold")
                force = gr.Markdown(in_force(args.router, start, served), elem_id="in-force")
                temperature = gr.Slider(0, 2, args.temperature, step=0.05, label="Temperature")
                with gr.Row():
                    retry, clear = (gr.Button(name, interactive=False, min_width=100) for name in ("Retry", "Clear"))
                status = gr.Markdown(elem_id="status")

            shown = [turns, chat, box, retry, clear]
            asked = [turns, router, threshold, temperature, known]
            quick: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
            many: dict[str, Any] = {"concurrency_limit": None}  # Gradio's default answers one page at a time
            typed = box.submit(submit, [box, turns], [box, turns], show_progress="hidden", **many)
            sent = typed.success(self.ask, asked, shown, **many)
            resent = retry.click(again, turns, turns, **quick).success(self.ask, asked, shown, **many)
            box.stop(None, cancels=[sent, resent])
            for run in (sent, resent):
                run.then(finish, turns, shown, **quick)  # runs after a cancelled event too
            gr.on([clear.click, chat.clear], clear_all, turns, shown, **quick)
            # One event for all three: of two, the answer to the earlier could come last and show a threshold of before.
            gr.on([router.change, threshold.change, known.change], in_force, [router, threshold, known], force, **quick)
            page.load(self.refresh, router, [known, router, status], **quick)
        return page

    async def ask(
        self, turns: list[Turn], router: str, threshold: float, temperature: float, known: Served
    ) -> AsyncIterator[Any]:
        """Answer the last turn, piece by piece."""
        yield state_of(turns)
        async for turn in answer(self._client, turns, model_name(router, threshold), temperature, known.roles):
            turns[-1] = turn  # in the page's own list, so that Stop finds it, whenever it comes between two yields
            yield state_of(turns)

    def refresh(self, router: str) -> Any:
        """When the page is opened: what does the server offer now?"""
        import gradio as gr

        try:
            served, status = ask_served(self._args), ""
        except openai.OpenAIError as error:
            served, status = self._served, explain(error, self._args.model_url, then="reload this page")
        return served, gr.Dropdown(choices=sorted({*served.routers, router})), status


def state_of(turns: list[Turn]) -> Any:
    """New values of: the turns, the chat, the prompt's box with its send or stop button, and the buttons Retry and Clear."""
    import gradio as gr

    waiting = busy(turns)
    buttons = [gr.Button(interactive=bool(turns) and not waiting)] * 2
    return turns, chat_messages(turns), gr.Textbox(submit_btn=not waiting, stop_btn=waiting), *buttons


def busy(turns: list[Turn]) -> bool:
    """Whether the last turn is still to be answered."""
    return bool(turns) and not turns[-1].done


def submit(prompt: str, turns: list[Turn]) -> tuple[str, list[Turn]]:
    """An emptied box, and the turns with a new one; while an answer comes in, or without text, a notice, and all stays.

    The notice is an error, so that no run follows whose end could be taken for that of the next prompt's.
    """
    import gradio as gr

    if busy(turns):  # Enter was pressed; there is no button for it
        raise gr.Error("An answer is coming in: wait for its end, or stop it.", duration=4, print_exception=False)
    if not prompt.strip():
        raise gr.Error("Type a prompt first.", duration=2, print_exception=False)
    return "", [*turns, Turn(prompt)]


def again(turns: list[Turn]) -> list[Turn]:
    """The turns with the last one unanswered."""
    return [*turns[:-1], Turn(turns[-1].prompt)]


def finish(turns: list[Turn]) -> Any:
    """After each answer, also a stopped one, of which is kept what has come."""
    if busy(turns):
        turns = [*turns[:-1], replace(turns[-1], note="Stopped. Press Retry to ask again.", done=True)]
    return state_of(turns)


def clear_all(turns: list[Turn]) -> Any:
    """No turns; but while an answer comes in, its turns stay."""
    return state_of(turns if busy(turns) else [])


def serve(args: argparse.Namespace) -> None:
    """Serve the page until stopped.

    Raises:
        MissingExtraError: Gradio is not installed.
        UnknownNameError: the server answers and has no such router.
        RouteLLMError: the address can't be listened on.
    """
    # Read by Gradio when it is imported: no usage statistics sent to its makers, no prompts kept in the browser's storage.
    os.environ.update({"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"})
    try:
        import gradio as gr
        import uvicorn
        from fastapi import FastAPI
    except ImportError as error:
        raise MissingExtraError("The chat demo", "demo") from error
    served = Served({}, {})
    try:
        served = ask_served(args)
    except openai.OpenAIError as error:
        _warn(explain(error, args.model_url, then="reload the page"))
    if served.routers and args.router not in served.routers:
        raise UnknownNameError("router", args.router, served.routers)

    app = FastAPI(openapi_url=None)  # and with it no documentation pages, which load scripts from elsewhere
    # Mounted and served here rather than by `launch`, which could open a public tunnel and asks the network about itself.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    page = Page(args, served).build()
    gr.mount_gradio_app(
        app, page, "/", footer_links=[], theme=theme, css=_CSS, show_error=False, ssr_mode=False, mcp_server=False
    )
    with bind(args.host, args.port) as listener:
        host = f"[{args.host}]" if ":" in args.host else args.host
        print(
            f"routellm chat on http://{host}:{listener.getsockname()[1]}, through the server at {args.model_url}", flush=True
        )
        if args.host not in ("127.0.0.1", "::1", "localhost"):
            _warn(f"{args.host} is open to other machines: whoever reaches this page spends on the server's models.")
        # "critical", since at its end uvicorn logs a stack trace for each page that is still open.
        uvicorn.Server(uvicorn.Config(confined(app), log_level="critical", timeout_graceful_shutdown=1)).run([listener])


def confined(app: ASGIApp) -> ASGIApp:
    """`app` with a policy by which the browser itself refuses to load anything from another host.

    That holds for whatever Gradio's page may ask for, and for images that a model's answer links to.
    """

    async def confined_app(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY)]
            await send(message)

        await app(scope, receive, send_with_policy)

    return confined_app


def build_parser(prog: str = "python -m examples.router_chat") -> CommandParser:
    """The command's parser."""
    parser = command_parser(prog, "Chat in the browser through a running routellm server.", _EXAMPLES, serve)
    add = parser.add_argument
    add("--router", default="mf", metavar="NAME", help="router to start with (default: %(default)s)")
    add("--threshold", type=_up_to(1), metavar="T", help="threshold to start with, from 0 to 1 (default: the router's own)")
    add("--temperature", type=_up_to(2), default=1.0, metavar="T", help="from 0 to 2 (default: %(default)s)")
    add(
        "--model-url",
        type=_server_url,
        default="http://127.0.0.1:6060/v1",
        metavar="URL",
        help="the server (default: %(default)s)",
    )
    add("--api-key", type=_key, default="none", metavar="KEY", help="the server's key, where it wants one")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 opens it to all (default: %(default)s)")
    add("--port", type=_port, default=7860, help="port to listen on; 0 takes a free one (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with `argv` (default: the process's own arguments) and return its exit code."""
    return run_command(build_parser, argv)


def ask_served(args: argparse.Namespace) -> Served:
    """See `read_served`."""
    with openai.OpenAI(base_url=args.model_url, api_key=args.api_key, max_retries=0) as client:
        return read_served(client)


def _warn(message: str) -> None:
    sys.stderr.write(f"routellm: warning: {message}\n")


def _server_url(text: str) -> str:
    url = text.rstrip("/")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL such as http://127.0.0.1:6060/v1")
    return url if url.endswith("/v1") else url + "/v1"


def _up_to(most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= most:  # also refuses NaN
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {most}")
        return value

    return read


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 65535")
    return int(text)


def _key(text: str) -> str:
    if not text.isascii() or not text.isprintable() or not text.strip():
        raise argparse.ArgumentTypeError("a key is made of visible ASCII characters")
    return text


if __name__ == "__main__":
    raise SystemExit(main())
