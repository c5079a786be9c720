"""What a request was granted, until it is known what it took."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from routellm.errors import BudgetError
from routellm.keys.limits import Grant, Kind, Window
from routellm.types import Decision, ModelPair, RequestRecord

Settle: TypeAlias = Callable[[Mapping[Window, int]], None]

_ABOUT_THE_STRONG = ("pinned", "modality", "context")
_UNKNOWN_END = ("answered", "broken-off", "client-gone")


class Lease:
    """Each is owed one `settle`; a second one does nothing. What is never settled stays counted as it was estimated.

    Attributes:
        only_weak: the budget is spent, and the key goes on with the weak model.
    """

    __slots__ = ("_grant", "_settle", "only_weak")

    def __init__(self, grant: Grant, settle: Settle | None) -> None:
        self._grant, self._settle = grant, settle
        self.only_weak = grant.only_weak

    def decide(self, decision: Decision, pair: ModelPair) -> Decision:
        """The decision that the budget leaves: as it is, or for the weak model, with the reason "budget".

        Raises:
            BudgetError: the strong model was asked for by name, or is the only one that can take the request.
        """
        if not self.only_weak or decision.model == pair.weak:
            return decision
        if decision.reason in _ABOUT_THE_STRONG:
            raise BudgetError(
                f"The key's budget is spent, which leaves it {pair.weak!r}; this request is for {decision.model!r} "
                f"(reason: {decision.reason})."
            )
        return Decision(pair.weak, "budget", decision.router, decision.threshold, decision.win_rate, decision.decision_us)

    def settle(self, record: RequestRecord | None, nanodollars: int | None) -> None:
        """Count what the request took in place of what was estimated. Returns at once.

        Args:
            record: what became of it; None where it was never sent.
            nanodollars: what it cost; None where that is not known, so that the estimate stands.
        """
        settle, self._settle = self._settle, None
        if settle is None:
            return
        tokens: int | None = 0
        if record is None:
            nanodollars = 0
        elif record.usage is not None:
            tokens = record.usage.input_tokens + record.usage.output_tokens
        elif _was_at_work(record):
            tokens = nanodollars = None
        else:
            nanodollars = 0
        took: dict[Kind, int | None] = {"tokens": tokens, "day": nanodollars, "month": nanodollars}
        additions: dict[Window, int] = {}
        for kind, window in self._grant.windows.items():
            amount = took.get(kind)
            if amount is not None and (more := amount - self._grant.reserved.get(window, 0)):
                additions[window] = more
        if additions:
            settle(additions)


def _was_at_work(record: RequestRecord) -> bool:
    """Whether a model may have answered, though nobody knows how much."""
    asked = record.attempts > 0 or record.upstream_ms > 0.0
    return asked and record.outcome in _UNKNOWN_END and (record.status < 300 or record.status == 499)


FREE = Lease(Grant(), None)
"""For a client without limits."""
