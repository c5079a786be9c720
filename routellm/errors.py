"""Every error that this package raises on purpose.

::

    RouteLLMError
    ├── ConfigError              a setting is wrong: the file, the key and the value are named
    │   ├── MissingKeyError      no API key for an upstream model
    │   └── MissingExtraError    an optional dependency is not installed; has the `pip install` line
    ├── UnknownNameError         a name that nothing is registered under, with the nearest match
    ├── RequestError             the caller's request is wrong (HTTP 400)
    │   ├── ModelNotFoundError   no such model is served (HTTP 404)
    │   └── BodyTooLargeError    over the configured limit (HTTP 413)
    ├── CheckpointError          a router's or an embedder's file is missing, corrupt, or of another format
    ├── DataError                a data file lacks what is needed
    ├── EmbeddingError           an embedding endpoint failed, or answered with something else
    └── UpstreamError            a model could not be reached, or broke off (HTTP 502)
        └── UpstreamTimeoutError (HTTP 504)

Errors of libraries are translated where the library is called, and nowhere else. An upstream that answers with an error
status is no exception: its status and body are passed on as they came.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RouteLLMError(Exception):
    """Base of all errors here. `str(error)` says what was given, what is allowed, and what to do."""


class ConfigError(RouteLLMError, ValueError):
    """A setting is wrong."""


class MissingKeyError(ConfigError):
    """No API key is known for a model that needs one."""


class MissingExtraError(ConfigError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f'{what} needs an optional dependency. Run: pip install "routellm[{extra}]"')
        self.extra = extra


class UnknownNameError(RouteLLMError, KeyError):
    """Nothing is registered under this name."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        super().__init__(f"Unknown {kind} {name!r}{did_you_mean(name, self.known)}. Known: {', '.join(self.known) or 'none'}.")

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


class RequestError(RouteLLMError, ValueError):
    """The caller's request is wrong. `param` names the field and `code` is a stable identifier, as in OpenAI's errors."""

    status = 400
    type = "invalid_request_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param, self.code = param, code


class ModelNotFoundError(RequestError):
    """No model of this name is served."""

    status = 404

    def __init__(self, name: str, served: Iterable[str]) -> None:
        served = list(served)
        super().__init__(
            f"The model {name!r} is not served{did_you_mean(name, served)}. Served: {', '.join(served)}.",
            param="model",
            code="model_not_found",
        )


class BodyTooLargeError(RequestError):
    """The request's body is over the configured limit."""

    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The request's body is over the limit of {limit:,} bytes. Send less, or raise --max-body-bytes.",
            code="request_too_large",
        )


class CheckpointError(RouteLLMError):
    """A checkpoint can't be read."""


class DataError(RouteLLMError, ValueError):
    """A data file lacks what is needed."""


class EmbeddingError(RouteLLMError):
    """An embedding endpoint failed, or answered with something that is not what was asked for."""


class UpstreamError(RouteLLMError):
    """A model's endpoint could not be reached, or broke off its answer."""

    status = 502
    code = "upstream_unreachable"


class UpstreamTimeoutError(UpstreamError):
    """A model's endpoint did not answer in time."""

    status = 504
    code = "upstream_timeout"


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`" (did you mean 'mf'?)"` where a known name is near the given one, else an empty string."""
    near = difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
