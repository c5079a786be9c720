"""Whether a server is well enough to be sent requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Readiness:
    """What `GET /health/ready` says: 200 where `ready`, else 503.

    Attributes:
        ready: whether requests should be sent here.
        problems: why not, or what is amiss although it serves: a model that others stand in for.
    """

    ready: bool
    problems: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """One word: "ready", "degraded" (serves, with problems) or "not-ready"."""
        if not self.ready:
            return "not-ready"
        return "degraded" if self.problems else "ready"


def readiness(
    breakers: Mapping[str, Collection[str]],
    spares: Mapping[str, Collection[str]] | None = None,
    *,
    draining: bool = False,
    loaded: bool = True,
) -> Readiness:
    """Judge a server by what it knows already; nothing is called.

    Args:
        breakers: model -> the state of the circuit breaker of each of its endpoints ("closed", "half-open", "open"). A model
            can be reached where one of them is not open; one without endpoints can't.
        spares: model -> the models that are tried where it can't be reached.
        draining: the server was told to stop, and only finishes what it has.
        loaded: routers and upstreams are loaded.
    """
    if draining:
        return Readiness(False, ("it is shutting down",))
    if not loaded:
        return Readiness(False, ("it is still loading",))
    reached = {model for model, states in breakers.items() if any(state != "open" for state in states)}
    cut_off = [model for model in breakers if model not in reached]
    stands_in = {model: [spare for spare in (spares or {}).get(model, ()) if spare in reached] for model in cut_off}
    problems = tuple(
        f"no endpoint of {model!r} can be reached" + (f"; {stands_in[model][0]!r} stands in" if stands_in[model] else "")
        for model in cut_off
    )
    return Readiness(all(stands_in.values()), problems)
