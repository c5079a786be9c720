"""The compiled kernel's types (`native/module.c`); what they are for is said where they are made."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

class WordPiece:
    def __init__(
        self,
        vocabulary: dict[bytes, int],
        prefix: bytes,
        unknown: int,
        most: int,
        lower: bytes,
        dropped: bytes,
        marks: bytes,
        /,
    ) -> None: ...
    def ids(self, text: str, /) -> bytes: ...

class Rows:
    def __init__(self, rows: NDArray[Any], shifts: NDArray[Any], scales: NDArray[Any], /) -> None: ...
    def embed(self, ids: bytes, /) -> bytearray: ...

class Surface:
    def __init__(
        self,
        words: dict[bytes, int],
        full: tuple[int, ...],
        code: bytes,
        math: bytes,
        most_items: int,
        log_items: float,
        most_questions: int,
        log_questions: float,
        /,
    ) -> None: ...
    def features(self, text: bytes, chars: float, scale: float, /) -> bytearray: ...

class Reader:
    def __init__(self, wordpiece: WordPiece, rows: Rows, surface: Surface, /) -> None: ...
    def vector(self, text: str, plain: bytes | None, scale: float, /) -> bytearray: ...

class Linear:
    def __init__(self, reader: Reader, weights: NDArray[Any], /) -> None: ...
    def dot(self, text: str, plain: bytes | None, scale: float, /) -> float: ...

class Form:
    def __init__(
        self, words: dict[bytes, int], negations: dict[bytes, int], phrases: tuple[tuple[bytes, ...], ...], long_word: int, /
    ) -> None: ...
    def features(self, text: bytes, /) -> bytearray: ...

class Trees:
    def __init__(self, feature: NDArray[Any], threshold: NDArray[Any], value: NDArray[Any], /) -> None: ...
    def sum(self, form: NDArray[Any], /) -> float: ...

class Parts:
    def __init__(
        self,
        reader: Reader,
        form: Form,
        trees: tuple[Trees, ...],
        mean: NDArray[Any],
        scale: NDArray[Any],
        on_embedding: NDArray[Any],
        on_form: NDArray[Any],
        bias: NDArray[Any],
        options: int,
        few: float,
        many: float,
        clip: float,
        /,
    ) -> None: ...
    def sum(self, text: str, plain: bytes | None, scale: float, /) -> float: ...

def says_again(prompt: str, least: int, /) -> bool: ...
def word_counts(text: bytes, most: int, buckets: int, /) -> bytearray: ...
def plain_text(prompt: str, most: int, /) -> str: ...
def single_spaces(text: str, /) -> str: ...
def respell(text: str, spellings: Mapping[str, str], /) -> str | None: ...
