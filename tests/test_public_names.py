"""The names that users import. Removing or renaming one of them breaks their code: say so in CHANGELOG.md."""

from __future__ import annotations

import routellm
from routellm import errors
from routellm.routers.routers import ROUTER_CLS
from routellm.upstream.base import UPSTREAMS


def test_the_package_has_these_names() -> None:
    assert sorted(routellm.__all__) == [
        "AsyncController",
        "Controller",
        "Decision",
        "ModelPair",
        "ROUTER_CLS",
        "RouteLLMError",
        "Router",
        "__version__",
    ]


def test_every_name_can_be_had_and_is_listed() -> None:
    assert all(getattr(routellm, name) is not None for name in routellm.__all__)
    assert dir(routellm) == sorted(routellm.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(routellm, "Contoller")


def test_the_errors_have_these_names_and_parents() -> None:
    public = {name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert {name: value.__bases__[0].__name__ for name, value in public.items()} == {
        "RouteLLMError": "Exception",
        "ConfigError": "RouteLLMError",
        "MissingKeyError": "ConfigError",
        "MissingExtraError": "ConfigError",
        "UnknownNameError": "RouteLLMError",
        "RequestError": "RouteLLMError",
        "ModelNotFoundError": "RequestError",
        "BodyTooLargeError": "RequestError",
        "InvalidKeyError": "RequestError",
        "BudgetError": "RequestError",
        "KeyNotAllowedError": "RequestError",
        "KeyNotFoundError": "RequestError",
        "RateLimitError": "RequestError",
        "OverloadedError": "RouteLLMError",
        "UpstreamUnavailableError": "UpstreamError",
        "CheckpointError": "RouteLLMError",
        "DataError": "RouteLLMError",
        "LedgerError": "RouteLLMError",
        "EmbeddingError": "RouteLLMError",
        "KeysUnavailableError": "OverloadedError",
        "UpstreamError": "RouteLLMError",
        "UpstreamBrokeOffError": "UpstreamError",
        "UpstreamReplyError": "UpstreamError",
        "UpstreamTimeoutError": "UpstreamError",
    }


def test_routers_and_upstreams_have_these_names() -> None:
    assert {"mf", "random"} <= set(ROUTER_CLS)
    assert {"demo", "http", "litellm"} <= set(UPSTREAMS)
