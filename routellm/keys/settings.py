"""What the configuration says of virtual keys."""

from __future__ import annotations

from typing import Literal

import msgspec

from routellm.config import check_range


class KeysSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`gateway: {keys: ...}`. Without that section no request needs a key, and keys cost nothing.

    Attributes:
        required: refuse requests without a key. False lets them through without limits; a wrong `rlk-` key is refused still.
        when_unreachable: what becomes of requests with limited keys while the database does not answer. "allow": they go on
            unchecked, which the log and the metrics tell, and what they spent is booked afterwards; "refuse": 503.
        unpriced: what becomes of requests with a budget to a model without a known price. "refuse": 403, since nothing could
            hold such a budget; "free": they count nothing.
        refresh_seconds: keys are read again so often; a revoked one is refused everywhere after that.
        wait_seconds: the database has so long to answer before `when_unreachable` holds.
        default_output_tokens: a request that does not bound its answer is estimated with so many tokens of it.
    """

    required: bool = True
    when_unreachable: Literal["allow", "refuse"] = "allow"
    unpriced: Literal["refuse", "free"] = "refuse"
    refresh_seconds: float = 2.0
    wait_seconds: float = 2.0
    default_output_tokens: int = 1_000

    def __post_init__(self) -> None:
        check_range("refresh_seconds", self.refresh_seconds, 0.05, 60.0)
        check_range("wait_seconds", self.wait_seconds, 0.01, 60.0)
        check_range("default_output_tokens", self.default_output_tokens, 0, 1_000_000)
