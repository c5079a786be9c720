"""A process that writes to a ledger until it is stopped, and says on standard output how far it is.

python -m tests.ledger.writing URL TOTAL     TOTAL records (0: without end); each line: how many have been recorded

SIGTERM ends it as it ends a server: the ledger is closed.
"""

from __future__ import annotations

import signal
import sys
import time

from routellm.ledger.ledger import Ledger
from routellm.ledger.settings import LedgerSettings
from tests.ledger.making import TERMS, made

_AT_ONCE = 20


def main(url: str, total: int) -> None:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    ledger = Ledger.open(url, LedgerSettings(), TERMS)
    number = 0
    while not stopped and (total == 0 or number < total):
        for _ in range(_AT_ONCE):
            ledger.record(made(number))
            number += 1
        print(number, ledger.status().written, flush=True)
        time.sleep(0.005)
    ledger.close()
    print(number, ledger.status().written, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
