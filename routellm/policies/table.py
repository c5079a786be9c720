"""Which model each conversation is with: a fixed piece of memory that all worker processes of one server share.

One conversation takes one 64-bit word, in one of the 8 places that a keyed hash of its name allows:

    39 bits of the hash | 1 bit: is it with the strong model | 24 bits: when it was last seen, in seconds

The key is random and the server's own, so that nobody outside can choose conversations that fall on each other. Where all 8
places are taken, the conversation that was quiet for longest makes room.

There is no lock. A word is read and written in one piece, so that no half of an entry is ever seen; and should a machine
write it in two, then the mixture bears no conversation's hash. At worst, then: where two workers answer one conversation
within the same few microseconds, the later one's model is kept; where they put two new conversations into one place, one of
the two begins anew at its next request. Neither can be given a model that its own request did not allow.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from hashlib import blake2b
from multiprocessing import get_context
from time import monotonic
from typing import Any, Self

logger = logging.getLogger("routellm.policies")

WAYS = 8
"""Places that a conversation may have: one line of a processor's cache."""

_TIME_BITS = 24
_TIMES = (1 << _TIME_BITS) - 1
_STRONG = 1 << _TIME_BITS
_TAG_SHIFT = _TIME_BITS + 1


class ConversationTable:
    """See the module's docstring. Goes to worker processes as an argument of theirs, and to nowhere else.

    Args:
        memory: the words: an array that multiprocessing shares, or None for memory of this process alone.
        entries: how many words; a power of two.
        secret: the key of the hash.
        clock: seconds, alike in all processes of the machine.
    """

    def __init__(self, memory: Any, entries: int, secret: bytes, clock: Callable[[], float] = monotonic) -> None:
        self._memory, self._secret, self._clock = memory, secret, clock
        self._words = memoryview(bytearray(8 * entries) if memory is None else memory).cast("B").cast("Q")
        self.entries = entries
        self._buckets = entries // WAYS - 1

    @classmethod
    def open(cls, entries: int, *, shared: bool = True) -> Self:
        """An empty table of at least `entries`, 8 bytes each. Without shared memory, each process has its own: a warning.

        Args:
            shared: whether other processes will take it; one that serves alone needs no shared memory.
        """
        entries = max(WAYS, 1 << (entries - 1).bit_length())
        memory = None
        if shared:
            try:
                memory = get_context("spawn").RawArray("Q", entries)
            except (OSError, ImportError) as error:
                logger.warning(
                    "no shared memory (%s): each worker remembers only the conversations that it served itself, so that a "
                    "conversation stays with its model only while it reaches the same worker",
                    error,
                )
        return cls(memory, entries, secrets.token_bytes(32))

    @property
    def is_shared(self) -> bool:
        """Whether processes that are given this table see each other's entries."""
        return self._memory is not None

    def digest(self, name: bytes) -> int:
        """The keyed 64-bit hash of a conversation's name."""
        return int.from_bytes(blake2b(name, digest_size=8, key=self._secret).digest(), "little")

    def find(self, digest: int, ttl_seconds: int) -> tuple[int, bool | None]:
        """Where the conversation is, and whether it is with the strong model: None where it is new, or was quiet for too long.

        The place is where `put` should write it: a new conversation's is free, or the one that was quiet for longest.
        """
        start = (digest & self._buckets) * WAYS
        tag, now = digest >> _TAG_SHIFT, int(self._clock())
        oldest, place = -1, start
        for offset, word in enumerate(self._words[start : start + WAYS].tolist()):
            age = now - word & _TIMES if word else _TIMES + 1
            if word >> _TAG_SHIFT == tag and word:
                return start + offset, (word & _STRONG != 0) if age < ttl_seconds else None
            if age > oldest:
                oldest, place = age, start + offset
        return place, None

    def put(self, digest: int, place: int, *, strong: bool) -> None:
        """Write at `place` that the conversation is with the strong model, or the weak one, as of now."""
        now = int(self._clock()) & _TIMES
        self._words[place] = digest >> _TAG_SHIFT << _TAG_SHIFT | (_STRONG if strong else 0) | now

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._memory, self.entries, self._secret)
