"""The values that pass between rooms. Plain, frozen, no behaviour beyond what their own fields say."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from routellm.errors import ConfigError, RequestError

Reason: TypeAlias = Literal["threshold", "pinned", "no-text", "modality"]
"""Why a model was chosen: by the threshold, by the client itself, for want of any text to score, or since the weak model
can't take a part of the request (an image, say)."""


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
