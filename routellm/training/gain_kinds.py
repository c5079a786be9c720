"""Kinds of comparisons, as the sources' names tell them, and what a user can say of each."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import dataclass, field
from math import inf
from typing import Any

from routellm.errors import ConfigError, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class KindSettings:
    """How kinds of comparisons are fitted, and how much each counts.

    Attributes:
        across: kinds whose sources are compared as they are; sources of other kinds are each taken for themselves.
        options_only: kinds that are fitted on the prompts that list options, and counted for such prompts only.
        weights: kind -> what its scores are multiplied by; 1 where it isn't named.
    """

    across: list[str] = field(default_factory=list)
    options_only: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, arguments: argparse.Namespace, sources: Collection[str]) -> KindSettings:
        """What the flags of `add_kind_arguments` say, checked against the data's sources.

        Raises:
            ConfigError: a flag names a kind that none of the sources is of, `--options-only` leaves no kind for other prompts,
                or a weight can't be read or is not above 0.
        """
        weights = dict(map(_kind_and_weight, arguments.kind_weight))
        check_kinds("--across", arguments.across, sources)
        check_kinds("--options-only", arguments.options_only, sources)
        check_kinds("--kind-weight", weights, sources)
        if not set(map(kind_of, sources)) - set(arguments.options_only):
            raise ConfigError("--options-only names all kinds that the data have; leave one for prompts that list no options.")
        return cls(across=arguments.across, options_only=arguments.options_only, weights=weights)

    def about(self) -> dict[str, Any]:
        """What a model card tells of them."""
        return {
            "across": self.across,
            "options_only": self.options_only,
            "kind_weights": [f"{kind}={weight:g}" for kind, weight in self.weights.items()],
        }


def add_kind_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `KindSettings.of` takes."""
    add = parser.add_argument
    add("--across", nargs="+", default=[], metavar="KIND",
        help="kinds of comparisons (what stands before the slash in a source's name) whose sources differ in how often "
        "the strong model wins because of their prompts; sources of other kinds are each taken for themselves",
    )  # fmt: skip
    add("--options-only", nargs="+", default=[], metavar="KIND",
        help="kinds that are fitted on the prompts that list options (multiple choice), and counted for such prompts only; "
        "these get a ridge regression and no trees")  # fmt: skip
    add("--kind-weight", nargs="+", action="extend", default=[], metavar="KIND=X",
        help="what a kind's scores, divided by their spread, are multiplied by (default: 1 each)")  # fmt: skip


def kind_of(source: str) -> str:
    """The kind of a source's comparisons: what stands before the slash in its name."""
    return source.partition("/")[0] if "/" in source else ""


def check_kinds(flag: str, named: Collection[str], sources: Collection[str]) -> None:
    """Check kinds that a flag names against the data's sources.

    Raises:
        ConfigError: it names a kind that none of them is of.
    """
    kinds = sorted(set(map(kind_of, sources)))
    for kind in named:
        if kind not in kinds:
            known = ", ".join(map(repr, kinds))
            raise ConfigError(f"{flag} names the kind {kind!r}{did_you_mean(kind, kinds)}; the data have: {known}.")


def check_above_0(what: str, value: float) -> None:
    """Check a number that a flag gives.

    Raises:
        ConfigError: it is not finite, or not above 0.
    """
    if not 0 < value < inf:
        raise ConfigError(f"{what} is {value:g}; it must be a number above 0.")


def _kind_and_weight(given: str) -> tuple[str, float]:
    kind, equals, number = given.rpartition("=")
    try:
        weight = float(number)
    except ValueError:
        equals = ""
    if not equals:
        raise ConfigError(f"--kind-weight takes KIND=X with a number X, such as exam=2, not {given!r}.")
    check_above_0(f"--kind-weight of {kind!r}", weight)
    return kind, weight
