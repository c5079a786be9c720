"""Requests that are too long for the chosen model go to the one with the larger window, before anything is sent.

Counting tokens exactly takes each model's own tokenizer, and milliseconds. Here they are estimated from the body's bytes by
one rule, upwards rather than downwards: letters and spaces at 4 a token, every other byte at 2, an image at 1,600 tokens. What
that was measured against is in `docs/stickiness.md`. A request that comes close to the end of a window may so be taken for
longer than it is; it then goes to a model that can take it in any case.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from routellm.types import Decision, ModelPair

LETTERS_A_TOKEN = 4
"""Letters of ASCII, and spaces."""
BYTES_A_TOKEN = 2
"""Digits, punctuation, JSON's own signs, and the bytes of any other script."""
BINARY_TOKENS = 1_600
"""An image or another file in base64: about the most that the large providers count for one image."""

_MIN_BINARY = 4_096
_SAMPLED_FROM = 16_384  # bytes from which on letters are counted in a sample: counting them all takes 5 ns a byte
_SAMPLE_STEP = 13  # prime, lest it falls in step with lines of equal length
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz "
_OUTPUT_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_SETTLED = ("threshold", "sticky")

_decode_count = msgspec.json.Decoder(int).decode


class ContextSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which windows are known.

    Attributes:
        check: False sends each request to the model that was decided for, however long it is.
        windows: a model's full name -> its window in tokens, input and output together, in place of the bundled list's.
    """

    check: bool = True
    windows: dict[str, int] = {}

    def __post_init__(self) -> None:
        for model, window in self.windows.items():
            if window < 1:
                raise ValueError(f"the window of {model!r} is {window!r}; it must be a number of tokens from 1")


def known_window(model: str) -> int | None:
    """The window of a model, in tokens, by the bundled list of `genai-prices`; None where it has none.

    The first call takes about 0.3 s, for the import.

    Args:
        model: the full name, `provider/model` or a bare model name.
    """
    try:
        from genai_prices.data_snapshot import get_snapshot
    except ImportError:
        return None
    provider, _, rest = model.partition("/")
    for name, provider_id in ((model, None), (rest, provider), (rest, None)):
        try:
            return get_snapshot().find_provider_model(name, None, provider_id, None)[1].context_window
        except LookupError:
            continue
    return None


def estimate_tokens(body: bytes) -> int:
    """About how many tokens a request's JSON comes to, by the rule that this module states."""
    binaries = 0
    if len(body) > _MIN_BINARY and (b"base64" in body or b"input_audio" in body):
        pieces = body.split(b'"')
        texts = [piece for piece in pieces if not _is_binary(piece)]
        binaries = len(pieces) - len(texts)
        body = b'"'.join(texts)
    sample = body if len(body) <= _SAMPLED_FROM else body[::_SAMPLE_STEP]
    others = len(sample.translate(None, _LETTERS)) * len(body) // max(1, len(sample))
    escapes = body.count(b"\\u")  # six bytes for one character
    return (len(body) - others) // LETTERS_A_TOKEN + others // BYTES_A_TOKEN - escapes + binaries * BINARY_TOKENS


def max_output_of(fields: Mapping[str, msgspec.Raw]) -> int:
    """How many tokens of answer a request allows, by whichever name its API has for that; 0 where it does not say."""
    most = 0
    for name in _OUTPUT_FIELDS:
        if name in fields:
            try:
                most = max(most, _decode_count(fields[name]))
            except msgspec.DecodeError:  # the model will say what is wrong with it
                continue
    return most


def fits(tokens: int, max_output: int, window: int | None) -> bool:
    """Whether so many tokens of request and of answer fit into a window; into an unknown one, None, everything does."""
    return window is None or tokens + max_output <= window


class ContextRule:
    """Settles decisions by the pair's windows.

    Args:
        pair: the strong and the weak model.
        windows: their names -> tokens; None, or no entry, where a window is not known.
    """

    def __init__(self, pair: ModelPair, windows: Mapping[str, int | None]) -> None:
        self._pair = pair
        self._windows = {model: windows.get(model) for model in (pair.strong, pair.weak)}

    def takes(self, model: str, body: bytes, fields: Mapping[str, msgspec.Raw]) -> bool:
        """Whether the request fits into the window of `model`.

        Args:
            body: the request's JSON.
            fields: the body's, each as JSON.
        """
        window = self._windows.get(model)
        if window is None:
            return True
        most = max_output_of(fields)
        return fits(len(body), most, window) or fits(estimate_tokens(body), most, window)  # a token is a byte at least

    def settle(self, decided: Decision, body: bytes, fields: Mapping[str, msgspec.Raw]) -> Decision:
        """The decision with the other model, and the reason "context", where only that one's window is larger.

        A request that is too long for both goes to the larger window, whose provider can say so best. A strong model of
        unknown window counts as larger, a weak one doesn't. What no threshold decided stays as it is.

        Args:
            body, fields: see `takes`.
        """
        if decided.reason not in _SETTLED or self.takes(decided.model, body, fields):
            return decided
        strong, weak = self._windows[self._pair.strong], self._windows[self._pair.weak]
        to_weak = decided.model == self._pair.strong
        if to_weak:
            larger = weak is not None and strong is not None and weak > strong
        else:
            larger = strong is None or (weak is not None and strong > weak)
        if not larger:
            return decided
        other = self._pair.weak if to_weak else self._pair.strong
        return Decision(other, "context", decided.router, decided.threshold, decided.win_rate, decided.decision_us)


def _is_binary(piece: bytes) -> bool:
    return len(piece) > _MIN_BINARY and b" " not in piece and b"\\" not in piece and piece.isascii()
