"""Every error that this package raises on purpose.

::

    RouteLLMError
    ├── ConfigError              a setting is wrong: the file, the key and the value are named
    │   ├── MissingKeyError      no API key for an upstream model
    │   └── MissingExtraError    an optional dependency is not installed; has the `pip install` line
    ├── UnknownNameError         a name that nothing is registered under, with the nearest match
    ├── RequestError             the caller's request is wrong (HTTP 400)
    │   ├── ModelNotFoundError   no such model is served (HTTP 404)
    │   ├── BodyTooLargeError    over the configured limit (HTTP 413)
    │   ├── InvalidKeyError      no valid key came with the request (HTTP 401)
    │   ├── BudgetError          the key's dollars are spent (HTTP 402)
    │   ├── KeyNotAllowedError   the key does not allow what was asked for (HTTP 403)
    │   ├── KeyNotFoundError     no such key, where keys are administered (HTTP 404)
    │   └── RateLimitError       over the key's requests or tokens a minute (HTTP 429)
    ├── CheckpointError          a router's or an embedder's file is missing, corrupt, or of another format
    ├── DataError                a data file lacks what is needed
    ├── LedgerError              the ledger's database can't be read or written
    ├── EmbeddingError           an embedding endpoint failed, or answered with something else
    ├── OverloadedError          more requests at once than this server takes (HTTP 503)
    │   └── KeysUnavailableError keys or their limits can't be checked (HTTP 503)
    └── UpstreamError            a model could not be reached (HTTP 502)
        ├── UpstreamBrokeOffError       it broke off its answer (HTTP 502)
        ├── UpstreamReplyError   its reply is not what its API promises (HTTP 502)
        ├── UpstreamTimeoutError (HTTP 504)
        └── UpstreamUnavailableError    none was asked, since all had failed too often just before (HTTP 503)

Errors of libraries are translated where the library is called, and nowhere else. An upstream that answers with an error
status is no exception: its status and body are passed on as they came.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from math import ceil


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


class InvalidKeyError(RequestError):
    """No valid key came with the request."""

    status = 401

    def __init__(self, message: str) -> None:
        super().__init__(message, code="invalid_api_key")


class BudgetError(RequestError):
    """The key's dollars of a day or a month are spent.

    Not 429, with which OpenAI's API tells of a spent quota: clients try that again, and here no second try can help.
    """

    status = 402
    type = "insufficient_quota"

    def __init__(self, message: str) -> None:
        super().__init__(message, code="budget_exceeded")


class KeyNotAllowedError(RequestError):
    """The key does not allow what the request asked for."""

    status = 403

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message, param="model", code=code)


class KeyNotFoundError(RequestError):
    """There is no key of this id."""

    status = 404

    def __init__(self, id: str) -> None:
        super().__init__(f"There is no key with the id {id!r}. `routellm keys list` has them.", code="key_not_found")


class RateLimitError(RequestError):
    """Over a limit of the key's for each minute. `limit` is "requests" or "tokens", and the error's `type`, as OpenAI has it.

    `retry_after` is the number of seconds until the next minute; None where the request would be over the limit then too.
    """

    status = 429

    def __init__(self, message: str, limit: str, retry_after: int | None) -> None:
        super().__init__(message, code="rate_limit_exceeded")
        self.type, self.retry_after = limit, retry_after


class CheckpointError(RouteLLMError):
    """A checkpoint can't be read."""


class DataError(RouteLLMError, ValueError):
    """A data file lacks what is needed."""


class LedgerError(RouteLLMError):
    """The ledger's database can't be read or written, or is of a newer version of this package."""


class EmbeddingError(RouteLLMError):
    """An embedding endpoint failed, or answered with something that is not what was asked for."""


class OverloadedError(RouteLLMError):
    """More requests came at once than this server takes. `retry_after` is the number of seconds to wait before another try."""

    status = 503
    code = "overloaded"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class KeysUnavailableError(OverloadedError):
    """The database that has the keys or what they spent does not answer."""

    code = "keys_unavailable"


class UpstreamError(RouteLLMError):
    """A model's endpoint could not be reached, or broke off its answer.

    Attributes:
        repeatable: the request has not begun to be worked on, as far as can be known: no connection came about, or the
            endpoint had already closed the one that it had kept open.
        attempts: calls that were made before this error was given out.
    """

    status = 502
    code = "upstream_unreachable"
    attempts = 1

    def __init__(self, message: str, *, repeatable: bool = False) -> None:
        super().__init__(message)
        self.repeatable = repeatable


class UpstreamBrokeOffError(UpstreamError):
    """A model's endpoint broke off its answer."""

    code = "upstream_broke_off"


class UpstreamReplyError(UpstreamError):
    """A model's endpoint answered, but not with what its API promises."""

    code = "upstream_bad_reply"


class UpstreamTimeoutError(UpstreamError):
    """A model's endpoint did not answer in time."""

    status = 504
    code = "upstream_timeout"


class UpstreamUnavailableError(UpstreamError):
    """No endpoint of a model was asked: all have failed so often that they are left alone for `retry_after` seconds more."""

    status = 503
    code = "upstream_unavailable"
    attempts = 0

    def __init__(self, model: str, retry_after: float) -> None:
        super().__init__(
            f"The model {model!r} is not available: every endpoint of it has failed several times in a row. The next try is "
            f"let through in {max(1, ceil(retry_after))} s; the server's log says what failed."
        )
        self.retry_after = retry_after


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`" (did you mean 'mf'?)"` where a known name is near the given one, else an empty string."""
    near = difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
