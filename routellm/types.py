"""The values that pass between rooms. Plain, frozen, no behaviour beyond what their own fields say."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from routellm.errors import ConfigError, RequestError

Reason: TypeAlias = Literal["threshold", "pinned", "no-text", "modality", "api", "context", "sticky", "fallback", "budget"]
"""Why a model was chosen: by the threshold, by the client itself, for want of any text to score, since the other model can't
take a part of the request (an image, say), what its API asks for, or so many tokens, since the conversation stays with its
model, since the chosen one could not answer, or since the budget is spent."""


@dataclass(frozen=True, slots=True)
class ModelPair:
    """The two models that a router chooses between, by their full names (`provider/name`)."""

    strong: str
    weak: str

    def __post_init__(self) -> None:
        for role in ("strong", "weak"):
            name = getattr(self, role)
            if not isinstance(name, str) or not name.strip():
                raise ConfigError(
                    f"The {role} model's name is {name!r}; it must be a name such as 'gpt-4o' or 'ollama/llama3'."
                )


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided for one request.

    `win_rate` is the router's estimate, in [0, 1], of the probability that the strong model's answer beats the weak one's;
    it is None where no router was asked (`reason` is not "threshold"). `decision_us` is the time it took, in microseconds.
    """

    model: str
    reason: Reason
    router: str | None = None
    threshold: float | None = None
    win_rate: float | None = None
    decision_us: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON-able values."""
        return asdict(self)


Outcome: TypeAlias = Literal["answered", "refused", "failed", "broken-off", "client-gone"]
"""What became of a request: a model's reply went out whole (whatever its status), this server refused it, no model could be
reached, the model broke off within its reply, or the client left first."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Tokens of one request. `cached_input_tokens` are those of `input_tokens` that the provider had in its cache.

    `estimated` says that the upstream gave none, and that these are counted from the text by a rule of thumb.
    """

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    estimated: bool = False


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a server knows of one request once it is over. No text of it, but for `prompt` where its keeping was switched on.

    Attributes:
        request_id: as in the reply's `x-request-id`.
        at: when it came in, in seconds of Unix time.
        api: the API it was asked in ("chat", "messages", ...).
        asked: the model's name as the client gave it; empty where it could not be read.
        key: the id of the client's virtual key, where keys are in use.
        model, reason, router, threshold, win_rate, decision_us: see `Decision`; `model` is the one that answered.
        status: the HTTP status that went out; 499 where the client left before one did.
        error: the code of the error that this server answered with or logged.
        streamed: whether the reply was an event stream.
        attempts: calls made to upstreams, retries and fallbacks included.
        own_ms, upstream_ms: milliseconds spent here, and waiting for the upstream; their sum is the whole time.
        first_byte_ms: from the request's arrival to the first byte of the reply's body.
    """

    request_id: str
    at: float
    api: str
    asked: str
    outcome: Outcome
    status: int
    key: str | None = None
    model: str | None = None
    reason: str | None = None
    router: str | None = None
    threshold: float | None = None
    win_rate: float | None = None
    decision_us: float = 0.0
    error: str | None = None
    streamed: bool = False
    attempts: int = 0
    own_ms: float = 0.0
    upstream_ms: float = 0.0
    first_byte_ms: float | None = None
    usage: Usage | None = None
    prompt: str | None = None


def check_threshold(value: object, *, param: str = "threshold") -> float:
    """Return `value` as a float in [0, 1].

    Raises:
        RequestError: it is not a number, NaN, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(
            f"The threshold is {value!r}; it must be a number from 0 to 1.", param=param, code="invalid_threshold"
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    if not 0.0 <= number <= 1.0:  # also refuses NaN
        raise RequestError(
            f"The threshold is {number!r}; it must lie from 0 (always strong) to 1 (almost always weak).",
            param=param,
            code="invalid_threshold",
        )
    return number
