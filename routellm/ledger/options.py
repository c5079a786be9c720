"""Arguments that say which ledger is read, and which requests of it."""

from __future__ import annotations

import argparse

import msgspec
from sqlalchemy import Engine

from routellm.config import GATEWAY, load_gateway_section, read_environment
from routellm.errors import ConfigError
from routellm.ledger.migrate import open_reader
from routellm.ledger.queries import Selection, since
from routellm.ledger.settings import LEDGER_URL, LedgerSettings, ledger_url


def add_ledger_arguments(parser: argparse._ActionsContainer) -> None:
    """`--ledger`, `--config`, `--since`, `--key`, `--router`."""
    add_database_arguments(parser)
    parser.add_argument(
        "--since",
        default="30d",
        metavar="TIME",
        help="an age (7d, 24h, 2w), a date or time in UTC (2026-01-31), or all (default: %(default)s)",
    )
    parser.add_argument("--key", metavar="ID", help="only requests of this virtual key")
    parser.add_argument("--router", metavar="NAME", help="only requests that this router was asked about")


def add_database_arguments(parser: argparse._ActionsContainer) -> None:
    """`--ledger`, `--config`."""
    parser.add_argument(
        "--ledger",
        metavar="PATH|URL",
        help=f"an SQLite file or postgresql://... (default: {LEDGER_URL} in the environment, else the user's own ledger)",
    )
    parser.add_argument("--config", metavar="FILE", help="take the ledger from a server's configuration")


def open_given(arguments: argparse.Namespace) -> Engine:
    """The ledger that the arguments name, to be read.

    Raises:
        ConfigError: there is no such ledger, or the configuration is wrong.
        LedgerError: it can't be read.
    """
    return open_reader(given_url(arguments))


def given_url(arguments: argparse.Namespace) -> str:
    """The database that the arguments name.

    Raises:
        ConfigError: the configuration is wrong.
    """
    url: str | None = arguments.ledger
    if url is None and arguments.config is not None:
        url = _url_in(arguments.config)
    return ledger_url(url, read_environment())


def selection(arguments: argparse.Namespace) -> Selection:
    """The requests that the arguments select."""
    return Selection(since(arguments.since), arguments.key, arguments.router)


def _url_in(path: str) -> str:
    section = load_gateway_section(path).get("ledger")
    try:
        return msgspec.convert({} if section is None else section, LedgerSettings).url
    except msgspec.ValidationError as error:
        place = f"{GATEWAY}.ledger"
        text = str(error).replace("`$", f"`{place}")
        raise ConfigError(f"{path}: {text}{'' if place in text else f' - at `{place}`'}.") from None
