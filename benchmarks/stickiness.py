"""What stickiness does to conversations: how often they change their model, and what share of calls the strong one gets.

    python benchmarks/stickiness.py conversations.jsonl
    python benchmarks/stickiness.py conversations.jsonl --router mf --shares 0.3 --margins 0 0.02 0.1

Each line of the file is one conversation, `{"turns": ["the user's first message", "the second", ...]}`; those of a single turn
are left out. Every turn is scored by the router as a request of its own, as the server does it, and settled by the code that
the server runs. Thresholds are the ones at which, without stickiness, the given share of these very turns goes to the strong
model.

Caveats: the turns are what users wrote in answer to other models; nothing is sent to any model, so this shows switches and
shares, not quality; and the margins are in units of the win rate, whose spread is each router's own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from routellm.errors import DataError
from routellm.policies.sticky import Sticky, StickySettings
from routellm.policies.table import ConversationTable
from routellm.routers.routers import build_router
from routellm.types import Decision, ModelPair

PAIR = ModelPair("strong", "weak")
SHARES = (0.25, 0.5, 0.75)
HEADINGS = ("switches a conversation", "later turns with the same model", "conversations without a switch", "strong calls")
MARGINS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        switches: changes of the model within a conversation, per conversation.
        kept: share of later turns that meet the model of the turn before, and so may find its cache.
        never: share of conversations without any change.
        strong: share of calls that the strong model gets.
    """

    switches: float
    kept: float
    never: float
    strong: float


def read_conversations(path: Path) -> list[list[str]]:
    """The user's turns of each conversation that has at least two.

    Raises:
        DataError: a line is not of that form, or no conversation is left.
    """
    conversations = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            turns = json.loads(line)["turns"]
        except (ValueError, TypeError, KeyError):
            turns = None
        if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
            raise DataError(f'{path}, line {number}: must be an object such as {{"turns": ["Hello!", "Go on."]}}.')
        if len(turns) > 1:
            conversations.append(turns)
    if not conversations:
        raise DataError(f"{path}: no conversation has two turns.")
    return conversations


def route(scores: Sequence[Sequence[float]], threshold: float, margin: float | None) -> Result:
    """Decide every turn of every conversation; `margin` None is without stickiness."""
    sticky = None
    if margin is not None:
        settings = StickySettings(by="header", margin=margin)
        sticky = Sticky(settings, ConversationTable.open(4 * len(scores), shared=False))
    chosen = []
    for number, conversation in enumerate(scores):
        models = []
        for win_rate in conversation:
            model = PAIR.strong if win_rate >= threshold else PAIR.weak
            decision = Decision(model, "threshold", "router", threshold, win_rate)
            if sticky is not None:
                decision = sticky.settle(b"%d" % number, decision, PAIR)
            models.append(decision.model == PAIR.strong)
        chosen.append(np.array(models))
    switches = np.array([np.count_nonzero(models[1:] != models[:-1]) for models in chosen])
    later = sum(len(models) - 1 for models in chosen)
    return Result(
        switches=float(switches.mean()),
        kept=1.0 - float(switches.sum()) / later,
        never=float((switches == 0).mean()),
        strong=float(np.concatenate(chosen).mean()),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Score, route, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("conversations", type=Path, metavar="FILE.jsonl")
    parser.add_argument("--router", default="gain_fast")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--margins", type=float, nargs="+", default=MARGINS)
    given = parser.parse_args(arguments)
    try:
        conversations = read_conversations(given.conversations)
    except (DataError, OSError) as error:
        parser.error(str(error))
    router = build_router(given.router)
    scores = [router.calculate_strong_win_rates(turns).tolist() for turns in conversations]
    every = np.concatenate([np.array(conversation) for conversation in scores])
    steps = np.concatenate([np.abs(np.diff(conversation)) for conversation in scores])
    low, middle, high = np.quantile(every, [0.25, 0.5, 0.75])
    print(f"{len(scores):,} conversations, {len(every):,} turns, {len(every) / len(scores):.2f} each; router {given.router}")
    print(f"win rates: median {middle:.3f}, half of them from {low:.3f} to {high:.3f}; median step {np.median(steps):.3f}\n")
    print("| strong share asked for | threshold | margin | " + " | ".join(HEADINGS) + " |")
    print("|---" * (3 + len(HEADINGS)) + "|")
    for share in given.shares:
        threshold = float(np.quantile(every, 1.0 - share))
        for margin in (None, *given.margins):
            result = route(scores, threshold, margin)
            name = "off" if margin is None else f"{margin:g}"
            print(
                f"| {share:.0%} | {threshold:.3f} | {name} "
                f"| {result.switches:.2f} | {result.kept:.1%} | {result.never:.1%} | {result.strong:.1%} |"
            )


if __name__ == "__main__":
    main()
