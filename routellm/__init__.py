"""Pay for a strong LLM only where it matters.

A *router* predicts, for each prompt, the win rate of a strong, dear model over a weak, cheap one. Where that is at least
the request's *threshold*, the strong model answers (Ong et al., "RouteLLM: Learning to Route LLMs with Preference Data",
ICLR 2025).

>>> from routellm import Controller
>>> client = Controller(routers=["mf"], strong_model="gpt-4o", weak_model="groq/llama-3.1-8b-instant")
>>> client.route("Prove that there are infinitely many primes.", router="mf", threshold=0.5)  # doctest: +SKIP
'gpt-4o'

Importing this package opens no socket, reads no environment and loads no heavy library: the names below are imported
when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from routellm.controller import AsyncController, Controller
    from routellm.errors import RouteLLMError
    from routellm.routers.routers import ROUTER_CLS, Router
    from routellm.types import Decision, ModelPair

__all__ = ["ROUTER_CLS", "AsyncController", "Controller", "Decision", "ModelPair", "RouteLLMError", "Router", "__version__"]

_HOMES = {
    "AsyncController": "routellm.controller",
    "Controller": "routellm.controller",
    "Decision": "routellm.types",
    "ModelPair": "routellm.types",
    "ROUTER_CLS": "routellm.routers.routers",
    "RouteLLMError": "routellm.errors",
    "Router": "routellm.routers.routers",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'routellm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
