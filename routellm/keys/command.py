"""`routellm keys`: the keys that clients of a server need, made, listed, rotated and revoked."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from routellm.commands import CommandParser, command_parser, run_command
from routellm.errors import ConfigError
from routellm.keys.policy import KeyPolicy
from routellm.keys.store import Key, KeyStore
from routellm.keys.views import as_dict, policy_text, time_text
from routellm.ledger.database import where
from routellm.ledger.options import add_database_arguments, given_url

_DESCRIPTION = """\
Create, list, rotate and revoke the keys that clients of a server need.

Keys are kept in the ledger's database; servers that use it take up a change within about 2 seconds. A key's text is shown
once, when it is made: only a hash of it is kept. A server asks for keys where its configuration has `gateway: {keys: {}}`.

  create NAME   a new key; the policy's options bound what it allows
  list          all keys, without their texts
  rotate ID     a new text for a key; the old one stays good for --overlap
  revoke ID     refuse a key from now on"""

_EXAMPLES = """
routellm keys create "team a" --requests-per-minute 60 --dollars-per-month 50 --over-budget weak
routellm keys create nightly --routers mf --threshold-min 0.3 --models --expires 90d
routellm keys list --json
routellm keys rotate 5k2m9x0qwe4r --overlap 12h
routellm keys revoke 5k2m9x0qwe4r --config config.yaml
"""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_POLICY = KeyPolicy.__struct_fields__
_DEFAULT_OVERLAP = "24h"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's own arguments) and return its exit code."""
    return run_command(build_parser, argv)


def build_parser(prog: str = "python -m routellm.keys.command") -> CommandParser:
    """The command's parser."""
    parser = command_parser(prog, _DESCRIPTION, _EXAMPLES, _run, "{create,list,rotate,revoke} [NAME|ID]")
    parser.add_argument("action", choices=list(_ACTIONS), help="what to do")
    parser.add_argument("target", nargs="?", metavar="NAME|ID", help="the name of a new key, else a key's id")
    add_database_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--overlap", metavar="AGE", help=f"rotate: how long the old text stays good (default: {_DEFAULT_OVERLAP})"
    )
    policy = parser.add_argument_group("create")
    policy.add_argument("--expires", metavar="TIME", help="an age (90d, 12h), or a date or time in UTC (2027-01-31)")
    policy.add_argument("--routers", nargs="*", metavar="NAME", help="the routers that may be asked (default: all)")
    policy.add_argument(
        "--models", nargs="*", metavar="NAME", help="the models that may be named past any router (default: all)"
    )
    policy.add_argument("--threshold-min", type=float, metavar="NUMBER", help="the lowest threshold that may be asked for")
    policy.add_argument("--threshold-max", type=float, metavar="NUMBER", help="the highest one")
    policy.add_argument("--requests-per-minute", type=int, metavar="NUMBER", help="in each minute of UTC")
    policy.add_argument("--tokens-per-minute", type=int, metavar="NUMBER", help="of input and output together")
    policy.add_argument("--dollars-per-day", type=float, metavar="NUMBER", help="in each day of UTC")
    policy.add_argument("--dollars-per-month", type=float, metavar="NUMBER", help="in each month of UTC")
    policy.add_argument(
        "--over-budget", choices=["stop", "weak"], help="then refuse, or send to the weak model (default: stop)"
    )
    return parser


def _run(arguments: argparse.Namespace) -> None:
    action = arguments.action
    for name in ("expires", *_POLICY, "overlap"):
        if getattr(arguments, name) is not None and action != ("rotate" if name == "overlap" else "create"):
            raise ConfigError(f"--{name.replace('_', '-')} does not go with {action}; see: routellm keys --help.")
    if (arguments.target is None) != (action == "list"):
        wanted = {"create": "a name: routellm keys create NAME", "list": "nothing more: routellm keys list"}
        raise ConfigError(f"{action} takes {wanted.get(action, f'an id: routellm keys {action} ID')}.")
    store = KeyStore.open(given_url(arguments))
    try:
        _ACTIONS[action](store, arguments)
    finally:
        store.close()


def _create(store: KeyStore, arguments: argparse.Namespace) -> None:
    given = {name: value for name in _POLICY if (value := getattr(arguments, name)) is not None}
    try:
        policy = msgspec.convert(given, KeyPolicy)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{error}.") from None
    expires = None if arguments.expires is None else _moment(arguments.expires)
    _show_text(store, store.create(arguments.target, policy, expires), arguments)


def _list(store: KeyStore, arguments: argparse.Namespace) -> None:
    keys, now = store.all(), time.time()
    if arguments.json:
        _print_json([as_dict(key, now) for key in keys])
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    if not keys:
        console.print(f"No keys in {where(store.engine)}.", markup=False)
        return
    table = Table("id", "name", "state", "created", "expires", "policy", box=None, pad_edge=False, header_style="bold")
    for key in keys:
        state: str = key.state(now)
        if state == "active" and key.previous_until is not None and now < key.previous_until:
            state += f", old text until {time_text(key.previous_until)}"
        times = (time_text(key.created), time_text(key.expires) or "never")
        table.add_row(key.id, escape(key.name), state, *times, escape(policy_text(key)))
    console.print(table)


def _rotate(store: KeyStore, arguments: argparse.Namespace) -> None:
    _show_text(store, store.rotate(arguments.target, _seconds(arguments.overlap or _DEFAULT_OVERLAP)), arguments)


def _revoke(store: KeyStore, arguments: argparse.Namespace) -> None:
    key = store.revoke(arguments.target)
    if arguments.json:
        _print_json(as_dict(key, time.time()))
    else:
        sys.stdout.write(f"Revoked {key.id} ({key.name}).\n")


def _show_text(store: KeyStore, made: tuple[Key, str], arguments: argparse.Namespace) -> None:
    key, text = made
    if arguments.json:
        _print_json({**as_dict(key, time.time()), "key": text})
        return
    sys.stdout.write(f"{text}\n")  # alone on standard output, so that a script can take it
    until = time_text(key.previous_until)
    old = f" The old one stays good until {until}." if arguments.action == "rotate" else ""
    sys.stderr.write(
        f"The key {key.id} ({key.name}), kept in {where(store.engine)}: {policy_text(key)}. "
        f"This is the only time its text is shown.{old}\n"
    )


def _print_json(content: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(content)).decode() + "\n")


def _seconds(age: str) -> int:
    found = re.fullmatch(r"(\d{1,9})([smhdw])", age)
    if found is None:
        raise ConfigError(f"{age!r} is no age; give a number and a unit, such as 90d, 12h, 30m or 0s.")
    return int(found[1]) * _UNITS[found[2]]


def _moment(text: str) -> int:
    """The Unix second that an age from now, a date or a time stands for."""
    if re.fullmatch(r"\d+[smhdw]", text):
        return int(time.time()) + _seconds(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no time; give an age such as 90d, or a date such as 2027-01-31.") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


_ACTIONS = {"create": _create, "list": _list, "rotate": _rotate, "revoke": _revoke}

if __name__ == "__main__":
    sys.exit(main())
