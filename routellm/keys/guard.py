"""Who may send a request, and how much: the one door between a server and its keys.

::

    guard = Guard.open(url, settings)                        # once a worker process
    client = guard.admit(scope["headers"], peer)             # before the body is read; 401
    client.check(decision)                                   # 403
    lease = await guard.take(client, estimate)               # 429, 402; `guard.estimate` makes the estimate
    decision = lease.decide(decision, pair)                  # the weak model, where the budget leaves only that
    lease.settle(record, nanodollars)                        # once it is over, however it ended
    guard.close()
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import monotonic

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from routellm.costs import PriceList
from routellm.errors import BudgetError, InvalidKeyError, KeyNotAllowedError, KeysUnavailableError, LedgerError, RequestError
from routellm.keys.bookkeeper import Bookkeeper
from routellm.keys.client import ANONYMOUS, Client, Keyring
from routellm.keys.lease import FREE, Lease
from routellm.keys.limits import Estimate, Grant, Take
from routellm.keys.secret import PREFIX
from routellm.keys.settings import KeysSettings
from routellm.keys.spent import SpentTable
from routellm.keys.store import KeyStore
from routellm.ledger.database import open_engine, reason, where
from routellm.ledger.migrate import upgrade
from routellm.policies.context import estimate_tokens, max_output_of
from routellm.types import Usage

logger = logging.getLogger("routellm.keys")

_PREFIX = PREFIX.encode()
_WARN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class GuardStates:
    """How it stands, counted since this process opened it.

    Attributes:
        keys: known ones, revoked ones too; None before they were first read.
        waiting: requests and settlements in line for the database.
        unauthorized: requests without a valid key.
        over_limit, over_budget: refused for that.
        unchecked: requests whose limits could not be checked, and which went on or were refused as the settings say.
        lost: settlements of which nobody knows whether they were made.
        last_error: why the database can't be asked; None while it can.
    """

    keys: int | None
    waiting: int
    unauthorized: int
    over_limit: int
    over_budget: int
    unchecked: int
    lost: int
    last_error: str | None


class Guard:
    """See the module's docstring. One for a process; `admit`, `take` and `Lease.settle` are for its event loop.

    A storm of wrong keys needs no lock-out, which would shut out whoever shares an address with a guesser: a wrong key costs
    no more than a right one, a few microseconds, before anything else of the request is looked at; it reaches no database, and
    one line a minute tells the log of all of them.
    """

    def __init__(self, store: KeyStore, settings: KeysSettings, *, ready: bool = True) -> None:
        self.store = store
        self._settings = settings
        self._keyring = Keyring()
        self._bookkeeper = Bookkeeper(
            store, SpentTable(store.engine), self._keyring.replace, settings.refresh_seconds, ready=ready
        )
        self._counts = dict.fromkeys(("unauthorized", "over_limit", "over_budget", "unchecked"), 0)
        self._told = {"unauthorized": (0, 0.0), "unchecked": (0, 0.0)}  # how many, and when it may be told again

    @classmethod
    def open(cls, url: str, settings: KeysSettings) -> Guard:
        """The keys in the ledger's database at `url`; see `routellm.ledger.settings.ledger_url`.

        A PostgreSQL that can't be reached now does not keep a server from starting: requests get 503 until it is there.

        Raises:
            ConfigError: `url` is wrong, or an SQLite file can't be made there.
            MissingExtraError: PostgreSQL's driver is not installed.
            LedgerError: the tables are of a newer version of this package, or the file is no SQLite database.
        """
        engine = open_engine(url, writes=True)
        ready = True
        try:
            upgrade(engine)
        except SQLAlchemyError as error:
            if engine.dialect.name == "sqlite":
                engine.dispose()
                raise LedgerError(f"The keys' database {where(engine)} can't be opened: {reason(error)}.") from None
            ready = False
            logger.warning("the keys' database %s can't be reached: %s; requests get 503", where(engine), reason(error))
        except LedgerError:
            engine.dispose()
            raise
        guard = cls(KeyStore(engine), settings, ready=ready)
        if ready:
            guard._bookkeeper.load()
        guard._bookkeeper.start()
        return guard

    def change(self, settings: KeysSettings) -> None:
        """Other settings from the next request on; `refresh_seconds` stays as it was at the start."""
        self._settings = settings

    def admit(self, headers: Iterable[tuple[bytes, bytes]], peer: str = "") -> Client:
        """Whoever holds the key in `Authorization: Bearer` or `x-api-key`.

        Args:
            headers: the request's, names in lower case.
            peer: its address, for the log.

        Raises:
            InvalidKeyError: there is no key, or it is wrong, revoked or expired: the error is the same for these three.
            KeysUnavailableError: the keys could not be read yet.
        """
        given = b""
        for name, value in headers:
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                value = value[7:].strip()
            elif name != b"x-api-key":
                continue
            if not given or value.startswith(_PREFIX):
                given = value
        if not self._settings.required and not given.startswith(_PREFIX):
            return ANONYMOUS
        client = self._keyring.find(given, time.time())
        if client is not None:
            return client
        if self._keyring.size is None:
            raise KeysUnavailableError("The keys can't be read yet: their database does not answer.", retry_after=2)
        self._count_loudly(
            "unauthorized", "requests without a valid key: %d; the last came from %s", peer or "an unknown address"
        )
        if not given:
            raise InvalidKeyError(
                "This server needs a key, and the request has none. Send it as `Authorization: Bearer rlk-...` or as "
                "`x-api-key: rlk-...`, which is what official clients do with their api_key."
            )
        raise InvalidKeyError(
            "The key is not valid: it is wrong, revoked or expired. Ask whoever runs this server for another."
        )

    def estimate(
        self, body: bytes, fields: Mapping[str, msgspec.Raw], model: str, weak: str, prices: PriceList, *, answers: bool = True
    ) -> Estimate:
        """What a request may come to, rather too much than too little: its text by a rule of thumb, and all the output that it
        allows, or the settings' default where it sets no bound.

        Args:
            body, fields: the request's JSON, and each of its fields.
            model, weak: full names of the chosen model, and of the weak one.
            answers: whether the model writes anything at all, unlike one that embeds.
        """
        given = estimate_tokens(body)
        output = (max_output_of(fields) or self._settings.default_output_tokens) if answers else 0
        usage = Usage(input_tokens=given, output_tokens=output)
        return Estimate(given + output, prices.nanodollars(model, usage), prices.nanodollars(weak, usage), model, weak)

    async def take(self, client: Client, estimate: Estimate) -> Lease:
        """Count a request against its key's limits, right across all workers and machines that share the database.

        Raises:
            RateLimitError: over the requests or tokens of this minute.
            BudgetError: the dollars of this day or month are spent, or would be by this request.
            KeyNotAllowedError: the key has a budget, and the model's price is not known.
            KeysUnavailableError: nobody could check, and the settings say to refuse then.
        """
        limits, settings = client.limits, self._settings
        if not limits.of:
            return FREE
        if limits.has_budget and settings.unpriced == "refuse":
            _check_priced(estimate, weak_too=limits.weak_when_spent)
        now = time.time()
        windows = limits.windows(now)
        answer = await self._bookkeeper.take(Take(limits, estimate, now, windows), settings.wait_seconds)
        if isinstance(answer, Grant):
            return Lease(answer, self._bookkeeper.settle)
        if isinstance(answer, RequestError):
            self._counts["over_budget" if isinstance(answer, BudgetError) else "over_limit"] += 1
            raise answer
        done = "let through" if settings.when_unreachable == "allow" else "refused with 503"
        self._count_loudly("unchecked", "requests whose limits could not be checked: %d; they are %s", done)
        if settings.when_unreachable == "refuse":
            raise KeysUnavailableError("The key's limits can't be checked now: their database does not answer.", retry_after=1)
        return Lease(Grant(windows=windows), self._bookkeeper.settle)

    def refresh(self) -> None:
        """Take up changed keys now. Blocks; for any thread but the event loop's.

        Raises:
            LedgerError: they can't be read.
        """
        self._bookkeeper.load()

    def states(self) -> GuardStates:
        """See `GuardStates`. Cheap."""
        keeper = self._bookkeeper
        return GuardStates(
            keys=self._keyring.size,
            waiting=keeper.waiting(),
            unauthorized=self._counts["unauthorized"],
            over_limit=self._counts["over_limit"],
            over_budget=self._counts["over_budget"],
            unchecked=self._counts["unchecked"],
            lost=keeper.lost,
            last_error=keeper.last_error,
        )

    def close(self, timeout: float = 5.0) -> None:
        """Book what is settled, and end the thread. Blocks for `timeout` seconds at the most."""
        self._bookkeeper.close(timeout)

    def _count_loudly(self, what: str, text: str, more: str) -> None:
        self._counts[what] += 1
        told, again_at = self._told[what]
        if monotonic() >= again_at:
            logger.warning(text, self._counts[what] - told, more)
            self._told[what] = (self._counts[what], monotonic() + _WARN_SECONDS)


def _check_priced(estimate: Estimate, *, weak_too: bool) -> None:
    asked = [(estimate.model, estimate.nanodollars)]
    if weak_too and estimate.weak != estimate.model:
        asked.append((estimate.weak, estimate.weak_nanodollars))
    unpriced = [repr(model) for model, price in asked if price is None]
    if unpriced:
        raise KeyNotAllowedError(
            f"This key has a budget, and the price of {' and '.join(unpriced)} is not known. Ask whoever runs this server to "
            f"set it, under gateway: prices.",
            code="unpriced_model",
        )
