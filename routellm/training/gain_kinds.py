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
        open_only: kinds that are fitted on all other prompts, and counted for those only.
        open_trees: whether trees count for prompts that list no options only.
        weights: kind -> what its scores are multiplied by; 1 where it isn't named.
    """

    across: list[str] = field(default_factory=list)
    options_only: list[str] = field(default_factory=list)
    open_only: list[str] = field(default_factory=list)
    open_trees: bool = False
    weights: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, arguments: argparse.Namespace, sources: Collection[str]) -> KindSettings:
        """What the flags of `add_kind_arguments` say, checked against the data's sources.

        Raises:
            ConfigError: a flag names a kind that none of the sources is of, `--options-only` and `--open-only` leave no kind
                for all prompts or name the same one, or a weight can't be read or is not above 0.
        """
        weights = dict(map(_kind_and_weight, arguments.kind_weight))
        options_only, open_only = arguments.options_only, arguments.open_only
        check_kinds("--across", arguments.across, sources)
        check_kinds("--options-only", options_only, sources)
        check_kinds("--open-only", open_only, sources)
        check_kinds("--kind-weight", weights, sources)
        for kind in options_only:
            if kind in open_only:
                raise ConfigError(f"--options-only and --open-only both name the kind {kind!r}; name it in one, or in none.")
        if not set(map(kind_of, sources)) - {*options_only, *open_only}:
            flags = [flag for flag, named in (("--options-only", options_only), ("--open-only", open_only)) if named]
            names = f"{flags[0]} names" if len(flags) == 1 else f"{' and '.join(flags)} name"
            raise ConfigError(f"{names} all kinds that the data have; leave one that counts for all prompts.")
        return cls(
            across=arguments.across,
            options_only=options_only,
            open_only=open_only,
            open_trees=arguments.open_trees,
            weights=weights,
        )

    def listing(self, kind: str) -> bool | None:
        """Whether the kind counts for prompts that list options or for all others; None for all prompts."""
        return True if kind in self.options_only else False if kind in self.open_only else None

    def listing_of_trees(self, kind: str) -> bool | None:
        """The same of the kind's trees."""
        return False if self.open_trees else self.listing(kind)

    def about(self) -> dict[str, Any]:
        """What a model card tells of them."""
        return {
            "across": self.across,
            "options_only": self.options_only,
            "open_only": self.open_only,
            "open_trees": self.open_trees,
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
        help="kinds that are fitted on the prompts that list two to five options (multiple choice), and counted for such "
        "prompts only; these get a ridge regression and no trees")  # fmt: skip
    add("--open-only", nargs="+", default=[], metavar="KIND",
        help="kinds that are fitted on all other prompts, and counted for those only")  # fmt: skip
    add("--open-trees", action="store_true",
        help="fit trees to all prompts, as ever, but count them only for those that list no options")  # fmt: skip
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
