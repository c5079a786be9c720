"""A process that takes from the limits of several keys, and says how often it could.

python -m tests.keys.taking URL SEED KEY...     after a line on standard input; prints a count for each key
"""

from __future__ import annotations

import asyncio
import random
import sys

from routellm.errors import RateLimitError
from routellm.keys import guard as guard_module
from routellm.keys.limits import Estimate
from tests.keys.making import PATIENCE, Clock, bearer, guarding

EACH = 3  # tokens of one request
TIMES = 5  # requests of one process with each key
_AT_ONCE = 4  # keys


async def main(url: str, seed: int, texts: list[str]) -> None:
    vars(guard_module)["time"] = Clock()  # one minute for all processes, however long they take
    with guarding(url, when_unreachable="refuse", wait_seconds=2 * PATIENCE) as guard:
        clients = [guard.admit(bearer(text)) for text in texts]
        granted = {client.id: 0 for client in clients}
        print("ready", flush=True)
        sys.stdin.readline()
        for start in range(0, len(clients), _AT_ONCE):
            wanted = clients[start : start + _AT_ONCE] * TIMES
            random.Random(seed + start).shuffle(wanted)  # each process in an order of its own
            taking = (guard.take(client, Estimate(tokens=EACH)) for client in wanted)
            for client, answer in zip(wanted, await asyncio.gather(*taking, return_exceptions=True), strict=True):
                if isinstance(answer, BaseException) and not isinstance(answer, RateLimitError):
                    raise answer
                granted[client.id] += not isinstance(answer, BaseException)
        print(*granted.values(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
