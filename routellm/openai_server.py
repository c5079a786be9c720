"""`python -m routellm.openai_server`, also mounted as `routellm serve`: an OpenAI-compatible server that routes.

Arguments become a `Settings`; everything is loaded and checked before a socket is opened.
"""

from __future__ import annotations

import argparse
import ipaddress
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import routellm
from routellm.commands import CommandParser, command_parser, run_command, share
from routellm.config import read_environment, stamp_of
from routellm.errors import MissingKeyError
from routellm.messages import PromptFrom
from routellm.serving.settings import MAX_BODY_BYTES, Settings, read_gateway_settings, reread
from routellm.upstream.base import ALL_MODALITIES, ModelSpec, Timeouts

if TYPE_CHECKING:
    from routellm.serving.gateway import Gateway

DEFAULT_STRONG = "gpt-4-1106-preview"
DEFAULT_WEAK = "anyscale/mistralai/Mixtral-8x7B-Instruct-v0.1"
DEMO_STRONG, DEMO_WEAK = "demo/strong", "demo/weak"

EXAMPLES = """
# try it without any key: the demo pair answers, offline and plainly marked as such
routellm serve

# a strong model at OpenAI (OPENAI_API_KEY in the environment) and a weak one that runs here
routellm serve --routers mf --strong-model gpt-4o --weak-model ollama_chat/llama3

# both models behind one OpenAI-compatible endpoint of your own
routellm serve --routers mf random --base-url http://localhost:8000/v1 --strong-model openai/big --weak-model openai/small

Keys are better given in the environment than on the command line, which other users of the machine can read.
A client asks for `router-mf-0.5` (a router and its threshold), `router-mf` (its default threshold), or one of the
two models by its own name.
"""

T = TypeVar("T")


def build_parser(prog: str = "python -m routellm.openai_server") -> CommandParser:
    """The command's parser."""
    parser = command_parser(
        prog, "Serve OpenAI's and Anthropic's APIs, and send each request to the strong or the weak model.", EXAMPLES, run
    )
    _add_routing_arguments(parser.add_argument_group("routing"))
    _add_model_arguments(parser.add_argument_group("models"))
    _add_server_arguments(parser.add_argument_group("server"))
    return parser


def _add_routing_arguments(routing: argparse._ArgumentGroup) -> None:
    routing.add_argument("--routers", nargs="+", default=["mf"], metavar="NAME", help="routers to serve (default: mf)")
    routing.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file: the routers' arguments, and under `gateway` what else the server can do (retries, several endpoints "
        "for a model, keys, prices, ...); see config.example.yaml",
    )
    routing.add_argument(
        "--default-strong-share",
        type=share,
        default=0.5,
        metavar="SHARE",
        help="the share of calls to the strong model that router-NAME without a threshold aims at (default: 0.5)",
    )
    routing.add_argument(
        "--prompt-from",
        type=_checked(_prompt_from, "'last', 'first', or a number of user turns from 1"),
        default="last",
        metavar="last|first|K",
        help="which user turns decide: the last one (default), the first, or the last K",
    )


def _add_model_arguments(models: argparse._ArgumentGroup) -> None:
    models.add_argument("--strong-model", metavar="MODEL", help=f"provider/name (default: {DEFAULT_STRONG})")
    models.add_argument("--weak-model", metavar="MODEL", help=f"provider/name (default: {DEFAULT_WEAK})")
    models.add_argument(
        "--base-url", metavar="URL", help="OpenAI-compatible endpoint of both models, such as http://localhost:8000/v1"
    )
    models.add_argument("--api-key", metavar="KEY", help="key of both models (default: the provider's environment variable)")
    for role in ("strong", "weak"):
        models.add_argument(f"--{role}-base-url", metavar="URL", help=f"endpoint of the {role} model alone")
        models.add_argument(f"--{role}-api-key", metavar="KEY", help=f"key of the {role} model alone")
    models.add_argument(
        "--fallback",
        choices=["off", "strong-to-weak", "weak-to-strong", "both"],
        help="whether the other model answers where the chosen one can't (default: off)",
    )
    models.add_argument(
        "--weak-modalities",
        nargs="*",
        choices=sorted(ALL_MODALITIES),
        default=[],
        help="what the weak model takes beside text (default: nothing); requests with anything else go to the strong model",
    )
    seconds = _checked(_seconds, "a number of seconds above 0")
    models.add_argument(
        "--timeout",
        type=seconds,
        default=Timeouts().read,
        metavar="S",
        help="seconds that a model may stay silent, before its answer and within it (default: %(default)g)",
    )
    models.add_argument(
        "--connect-timeout",
        type=seconds,
        default=Timeouts().connect,
        metavar="S",
        help="seconds to connect to a model's endpoint (default: %(default)g)",
    )


def _add_server_arguments(server: argparse._ArgumentGroup) -> None:
    count = _checked(_count, "a whole number from 1")
    server.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 opens it to all (default: %(default)s)"
    )
    server.add_argument(
        "--port",
        type=_checked(_port, "a whole number from 0 to 65535"),
        default=6060,
        help="port to listen on; 0 takes a free one (default: %(default)s)",
    )
    server.add_argument("--workers", type=count, default=1, metavar="N", help="processes that share the port (default: 1)")
    server.add_argument(
        "--max-body-bytes",
        type=count,
        default=MAX_BODY_BYTES,
        metavar="N",
        help="refuse larger requests (default: %(default)s)",
    )
    server.add_argument(
        "--ledger",
        nargs="?",
        const="",
        metavar="PATH|URL",
        help="keep a record of each request, never its text, for `routellm usage`: in an SQLite file (default: one in the "
        "user's data folder) or a PostgreSQL database",
    )
    server.add_argument(
        "--log-format", choices=["text", "json"], default="text", help="how log lines are written (default: %(default)s)"
    )
    server.add_argument("--verbose", action="store_true", help="log each request with its decision, never its text")


def run(args: argparse.Namespace) -> None:
    """Serve until stopped.

    Raises:
        RouteLLMError: a setting is wrong, or something can't be loaded; no socket is left open.
    """
    from routellm.serving.process import bind, check_installed, serve

    check_installed()
    from routellm.serving.gateway import Gateway
    from routellm.serving.services import Services, shared_by_workers

    environ = read_environment()
    settings, note = settings_from(args, environ)
    with shared_by_workers(settings) as shared:
        services = Services(Gateway.load(settings, environ, shared.table), settings, environ, shared)
        gateway = services.live.gateway
        with bind(settings.host, settings.port) as listener:
            sys.stdout.write(banner(gateway, settings, listener.getsockname()[1], note))
            sys.stdout.flush()
            for warning in _warnings(gateway, settings):
                sys.stderr.write(f"routellm: warning: {warning}\n")
            serve(services, shared, environ, listener)


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of `python -m routellm.openai_server`: returns the exit code, 0 when stopped by a signal."""
    return run_command(build_parser, argv)


def settings_from(args: argparse.Namespace, environ: Mapping[str, str]) -> tuple[Settings, str]:
    """The settings that the arguments and the environment make, and a note on the choice of models where there is one.

    With neither model named, the default pair is served if both have their keys, and the offline demo pair otherwise.
    """

    strong, weak = (_spec(args, role, default) for role, default in (("strong", DEFAULT_STRONG), ("weak", DEFAULT_WEAK)))
    note = ""
    if args.strong_model is None and args.weak_model is None:
        keyless = [spec.name for spec in (strong, weak) if not _has_key(spec, environ)]
        if keyless:
            strong, weak = ModelSpec(DEMO_STRONG), ModelSpec(DEMO_WEAK)
            note = (
                f"No models were named, and there is no key for {' and '.join(keyless)}, the default.\n"
                "So the DEMO PAIR answers: offline, with made-up text. For real answers give --strong-model and\n"
                "--weak-model, and their keys in the environment; see --help.\n\n"
            )
    flags: dict[str, Any] = {} if args.fallback is None else {"fallback": args.fallback}
    if args.ledger is not None:
        flags["ledger"] = {"url": args.ledger} if args.ledger else {}
    settings = Settings(
        routers=tuple(dict.fromkeys(args.routers)),
        strong=strong,
        weak=weak,
        gateway=read_gateway_settings({}, flags, "the command line"),
        flags=flags,
        config_path=args.config,
        config_stamp=stamp_of(args.config) if args.config else None,
        prompt_from=args.prompt_from,
        default_strong_share=args.default_strong_share,
        max_body_bytes=args.max_body_bytes,
        host=args.host,
        port=args.port,
        workers=args.workers,
        verbose=args.verbose,
        log_format=args.log_format,
    )
    return reread(settings), note


def banner(gateway: Gateway, settings: Settings, port: int, note: str) -> str:
    """What the server tells when it starts: names, default thresholds, its address, and a first request to try."""
    share = f"for {settings.default_strong_share:.0%} strong calls"
    decider = gateway.decider
    routers = [
        f"  router-{name}  threshold {value:g} by default, {share}" for name, value in decider.default_thresholds.items()
    ]
    first = next(iter(decider.routers))
    body = f'{{"model": "router-{first}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    lines = [
        f"routellm {routellm.__version__} listens on {_url(settings.host, port)}",
        "",
        *note.splitlines(),
        *routers,
        f"  strong model  {decider.pair.strong}",
        f"  weak model    {decider.pair.weak}",
        "",
        "Try it:",
        f"  curl -i {_url(_reachable(settings.host), port)}/v1/chat/completions \\",
        f"    -H 'Content-Type: application/json' -d '{body}'",
        "",
    ]
    return "\n".join(lines) + "\n"


def _warnings(gateway: Gateway, settings: Settings) -> list[str]:
    found = []
    for upstream in (each for endpoints in gateway.models.values() for each in endpoints):
        try:
            upstream.check()
        except MissingKeyError as error:
            found.append(f"{error} Until then its calls fail; decisions (/v1/route) work.")
    keys = settings.gateway.keys
    if not _is_loopback(settings.host) and (keys is None or not keys.required):
        found.append(
            f"{settings.host} is open to other machines, and this server asks its clients for no key: "
            "whoever reaches it spends on your models. docs/keys.md says how to give keys out."
        )
    return found


def _spec(args: argparse.Namespace, role: str, default: str) -> ModelSpec:
    def given(what: str) -> str | None:
        own: str | None = getattr(args, f"{role}_{what}")
        shared: str | None = getattr(args, what)
        return shared if own is None else own

    name: str | None = getattr(args, f"{role}_model")
    return ModelSpec(
        default if name is None else name,
        api_base=given("base_url"),
        api_key=given("api_key"),
        modalities=frozenset(args.weak_modalities) if role == "weak" else ALL_MODALITIES,
        timeouts=Timeouts(args.connect_timeout, args.timeout),
    )


def _has_key(spec: ModelSpec, environ: Mapping[str, str]) -> bool:
    from routellm.upstream.providers import open_upstream

    try:
        open_upstream(spec, environ).check()
    except MissingKeyError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - read, not bound


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _checked(convert: Callable[[str], T], allowed: str) -> Callable[[str], T]:
    """An argparse type whose error names what was given and what is allowed."""

    def parse(text: str) -> T:
        try:
            return convert(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}") from None

    return parse


def _seconds(text: str) -> float:
    return _within(float(text), 1e-3, 1e6)


def _count(text: str) -> int:
    return int(_within(int(text), 1, 2**40))


def _port(text: str) -> int:
    return int(_within(int(text), 0, 65535))


def _prompt_from(text: str) -> PromptFrom:
    if text == "last":
        return "last"
    return "first" if text == "first" else _count(text)


def _within(value: float, low: float, high: float) -> float:
    if not low <= value <= high:  # also refuses NaN
        raise ValueError
    return value


if __name__ == "__main__":
    raise SystemExit(main())
