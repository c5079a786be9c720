"""Arguments that `routellm responses` and `routellm judge` share: which model, with what parameters, how fast, how dear."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from routellm.config import read_environment
from routellm.errors import ConfigError
from routellm.evals.collecting.engine import REPLY_LIMITS
from routellm.evals.collecting.pacing import Retries
from routellm.evals.collecting.prices import Price, find_price, fixed_price
from routellm.upstream.base import ModelSpec, Timeouts, Upstream
from routellm.upstream.providers import open_upstream

_SECRET_ENDINGS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
_OUR_FIELDS = ("model", "messages", "stream", "n", "system")


@dataclass(frozen=True, slots=True)
class Asked:
    """A model that can be asked, and how."""

    name: str
    upstream: Upstream
    parameters: Mapping[str, Any]
    price: Price | None
    secrets: tuple[str, ...] = field(repr=False)

    def with_system(self, text: str) -> Asked:
        """The same, with a system message before each conversation."""
        return replace(self, parameters={**self.parameters, "system": text})


def add_model_arguments(group: argparse._ArgumentGroup, flag: str, what: str, system: bool = True) -> None:
    """Arguments that say which model is asked, and with which parameters. `flag` names the model: "--model"."""
    add = group.add_argument
    add(
        flag,
        dest="model",
        required=True,
        metavar="NAME",
        help=f"{what}, as PROVIDER/NAME ('gpt-4o', 'groq/...', 'ollama/...')",
    )
    add("--base-url", metavar="URL", help="its OpenAI-compatible endpoint, such as http://localhost:8000/v1")
    add("--api-key", metavar="KEY", help="its key (default: the provider's environment variable)")
    add("--temperature", type=_amount, default=0.0, metavar="T", help="randomness of the answers (default: 0)")
    add("--max-tokens", type=_count, default=1024, metavar="N", help="longest answer, in tokens (default: %(default)s)")
    if system:
        add("--system", metavar="TEXT", help="a system message before each prompt (default: none)")
    add(
        "--body",
        type=_object,
        default={},
        metavar="JSON",
        help="further fields of each request; null takes one away. For a model that thinks first: "
        '\'{"max_tokens": null, "max_completion_tokens": 8192, "temperature": null}\'',
    )
    add("--timeout", type=_positive, default=300.0, metavar="S", help="seconds that it may stay silent (default: 300)")


def add_run_arguments(group: argparse._ArgumentGroup) -> None:
    """Arguments that say how fast, how dear, and how stubborn."""
    add = group.add_argument
    add("--concurrency", type=_count, default=8, metavar="N", help="calls under way at once (default: %(default)s)")
    add("--requests-per-minute", type=_positive, metavar="N", help="send no more (default: no limit); repeated tries count")
    add(
        "--tokens-per-minute",
        type=_positive,
        metavar="N",
        help="send no more (default: no limit); a call counts as a token for every 4 bytes and --max-tokens until its usage "
        "is known",
    )
    add("--max-tries", type=_count, default=Retries().tries, metavar="N", help="tries of one call (default: %(default)s)")
    add(
        "--give-up-after",
        type=_whole,
        default=25,
        metavar="N",
        help="stop when so many calls in a row have failed; 0 for never (default: %(default)s)",
    )
    add("--retry-failed", action="store_true", help="ask again what failed in an earlier run")
    add("--price-in", type=_amount, metavar="USD", help="dollars for a million tokens of prompt (default: list price)")
    add("--price-out", type=_amount, metavar="USD", help="dollars for a million tokens of answer (default: list price)")
    add(
        "--max-cost",
        type=_positive,
        metavar="USD",
        help="make no call that could bring what the output file has cost over so much; a call under way counts as a token a "
        "byte and the longest answer; what fails counts as free",
    )


def open_model(arguments: argparse.Namespace) -> Asked:
    """The model that the arguments name, checked as far as that goes without a call.

    Raises:
        ConfigError: an argument is wrong, goes not with another, or a key or a price is missing.
    """
    environ = read_environment()
    timeouts = Timeouts(read=arguments.timeout)
    spec = ModelSpec(arguments.model, arguments.base_url, arguments.api_key, timeouts=timeouts)
    upstream = open_upstream(spec, environ)
    upstream.check()
    parameters = _parameters(arguments)
    price = _price(arguments, spec)
    if arguments.max_cost is not None:
        _check_limit(spec.name, parameters, price)
    secrets = [value for name, value in environ.items() if name.upper().endswith(_SECRET_ENDINGS)]
    return Asked(spec.name, upstream, parameters, price, (*secrets, arguments.api_key or ""))


def _parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    for name in _OUR_FIELDS:
        if name in arguments.body:
            raise ConfigError(f"--body can't hold {name!r}: each call sets that itself (a system message comes by --system).")
    given = {"temperature": arguments.temperature, "max_tokens": arguments.max_tokens, **arguments.body}
    if getattr(arguments, "system", None) is not None:
        given["system"] = arguments.system
    return {name: value for name, value in given.items() if value is not None}


def _price(arguments: argparse.Namespace, spec: ModelSpec) -> Price | None:
    given = (arguments.price_in, arguments.price_out)
    if None not in given:
        return fixed_price(*given)
    if given != (None, None):
        raise ConfigError("--price-in and --price-out go together: give both, 0 for what is free.")
    return find_price(spec)


def _check_limit(name: str, parameters: Mapping[str, Any], price: Price | None) -> None:
    if price is None:
        raise ConfigError(
            f"--max-cost needs a price, and that of {name!r} is not known here. Give --price-in and --price-out, in dollars "
            f'for a million tokens (list prices come with: pip install "routellm[eval]").'
        )
    if not any(isinstance(parameters.get(limit), int) for limit in REPLY_LIMITS):
        raise ConfigError("--max-cost needs a longest answer: leave max_tokens or max_completion_tokens in the request.")


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object, such as '{{\"top_p\": 0.9}}'") from None


def _number(text: str, allowed: str, least: float, inclusive: bool = True) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value) and (value > least or (inclusive and value == least)):
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}")


def _amount(text: str) -> float:
    return _number(text, "a number from 0", 0.0)


def _positive(text: str) -> float:
    return _number(text, "a number above 0", 0.0, inclusive=False)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)
