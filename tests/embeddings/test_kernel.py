"""The compiled kernel against the same in Python: equal to the bit on any text, and no byte read that is not there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from routellm.embeddings import form, surface
from routellm.embeddings.base import Vector
from routellm.embeddings.features import PromptFeatures
from routellm.embeddings.kernel import scan
from routellm.embeddings.linear import LinearScore
from routellm.embeddings.normal import plain_text, plain_text_in_python, without_repeats, without_repeats_in_python
from routellm.embeddings.static import BUNDLED, StaticEmbedder, compiled_embedding, embedding_in_python
from routellm.embeddings.table import read_table
from routellm.embeddings.wordpiece import MAX_WORD, WordPiece
from routellm.embeddings.words import compiled_counts, counts_in_python
from routellm.routers.parts import Parts, Trees, sum_in_python
from routellm.routers.views import Viewer
from tests.conftest import require
from tests.embeddings.encoders import write_tokenizer
from tests.prompts import ODD_PROMPTS

TABLE = read_table(BUNDLED)
IN_PYTHON = WordPiece(TABLE.tokenizer, compiled=False)


@pytest.fixture(autouse=True)
def kernel() -> None:
    require("routellm.embeddings._scan")


# What the features look for, and what almost is that.
TRICKY = (
    *("A.", "(b)", "(b) ", "f(a)", "J:", "K.", "e.g.", "U.S.A.", "a.m.", "A.b.", "A) red", "\nC: ", "\nB.\n"),
    *("\n(D) 24 carat", "[UNK]", "x,y"),
    *("\\", "\\alpha", "$", "$x$", "$$", "$x\n$", "```", "``", "`", "- ", "\n- one", "\n* two", "\n12. ", "\n3)", "\n-", '"'),
    *("1,234.50", "1,,2,.5", "0.5.", ".5", "1.", "1/2/3", "9" * 23 + ".55", "9" * 30, "1e5", "0", "00", "007", "7", "3, 4"),
    *("statement 1", "Statement II", "statement ii. ", "claim 2", "Assertion (", "ii. ii. ", "all of the", "ALL of the"),
    *("NOT", "NOTE", "not", "EXCEPT:", "LEAST", "Which", "HOW", "solve", "if", "then", "the", "The", "half", "each", "hours"),
    *("don't", "naïve", "café", "中文", "Ünïcode", "🙂", "\ud800", "\x00", "\x1c", "\x85", "\u2028", "\u0301", "##ing"),
    *(". ", "? ", "! ", ".\n", "\n\n", " ", "\t", "\r\n", "\x0b", "Title Case", "McTitle", "It'S", "A1b", "bad-ly", "??"),
    *("Say it again. ", "A", "passage", "import", "5.", "x" * 101),
    *("This was said before.", "This was said before.", "unbelievably", "electroencephalographically", "zzzzqqq", "İstanbul"),
)  # fmt: skip
ANY_TEXT = st.one_of(
    st.text(),
    st.text(alphabet=st.characters(max_codepoint=127)),
    st.lists(st.one_of(st.sampled_from(TRICKY), st.text(max_size=3)), max_size=40).map("".join),
    st.lists(st.sampled_from(TRICKY), max_size=40).map(" ".join),
)
ANY_BYTES = st.one_of(st.binary(), ANY_TEXT.map(lambda text: text.encode("utf-8", "replace")))
HUGE = ["", "a", "x" * 100_000, "ab " * 40_000, "\n" * 100_000, "$" * 100_000, "A." * 50_000, "9" * 100_000, "é" * 50_000]


@pytest.fixture(scope="module")
def compiled() -> WordPiece:
    return WordPiece(TABLE.tokenizer, compiled=True)


@pytest.mark.parametrize("text", [*ODD_PROMPTS, *TRICKY, *HUGE])
def test_listed_texts_have_the_same_tokens(text: str, compiled: WordPiece) -> None:
    assert compiled.packed_ids(text) == IN_PYTHON.packed_ids(text)


def test_any_text_has_the_same_tokens(compiled: WordPiece) -> None:
    @given(ANY_TEXT)
    def check(text: str) -> None:
        assert compiled.packed_ids(text) == IN_PYTHON.packed_ids(text)

    check()


def test_words_that_must_be_cut_have_the_same_tokens(compiled: WordPiece) -> None:
    letters = st.sampled_from([*"abeinorstuxyz019", "é", "ß", "中", "д", "ท", "न"])

    @given(st.lists(st.lists(letters, min_size=1, max_size=MAX_WORD + 5).map("".join), max_size=4).map(" ".join))
    def check(text: str) -> None:
        assert compiled.packed_ids(text) == IN_PYTHON.packed_ids(text)

    check()


def test_characters_of_every_kind_have_the_same_tokens_alone_and_within_a_word(compiled: WordPiece) -> None:
    for code in (*range(0x3000), *range(0x3000, 0x110000, 257)):
        text = f"a{chr(code)} {chr(code)} {chr(code)}b"
        assert compiled.packed_ids(text) == IN_PYTHON.packed_ids(text), hex(code)


def test_a_tokenizer_that_knows_little_has_the_same_tokens(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer.json")
    tokenizer = (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    for text in ("ab 9 a9b ! é日 c", "", "zz" * 60, *TRICKY):
        assert WordPiece(tokenizer, compiled=True).packed_ids(text) == WordPiece(tokenizer, compiled=False).packed_ids(text)


@given(st.lists(st.integers(0, len(TABLE.rows) - 1), max_size=100))
@example([0] * 5_000)
def test_embeddings_are_the_same(ids: list[int]) -> None:
    packed = np.array(ids, dtype=np.intp).tobytes()
    one, other = compiled_embedding(whole_table())(packed), embedding_in_python(TABLE)(packed)
    assert one.tobytes() == other.tobytes()
    assert one.dtype == other.dtype
    assert one.flags.writeable


def test_rows_of_the_greatest_numbers_add_up() -> None:
    """A thousand of them, in two columns that nearly make up for each other: lost bits would show."""
    for value in (-128, 127):
        rows, shifts = np.array([[value, value], [-value - 1, value]], dtype=np.int8), np.array([4, 0], dtype=np.uint8)
        ids = np.array([0] * 1_000 + [1] * 15_999, dtype=np.intp).tobytes()
        vector = np.frombuffer(scan.Rows(rows, shifts, np.ones(2, dtype=np.float32)).embed(ids), dtype=np.float32)
        sums = np.array([16_000 * value + 15_999 * (-value - 1), 31_999 * value], dtype=np.float64)
        np.testing.assert_allclose(vector, sums / np.linalg.norm(sums), rtol=1e-6)


@given(ANY_TEXT, st.integers(0, 200))
@example("NO SMALL LETTER", 5)
@example("  \x1c a\r\n\x0b b \t\x1f\n", 100)
def test_plain_text_is_the_same(text: str, most: int) -> None:
    assert plain_text(text, most) == plain_text_in_python(text, most)


def test_characters_of_every_kind_have_the_same_plain_text_alone_and_after_a_letter() -> None:
    for code in (*range(0x3400), *range(0xA000, 0xAE00), *range(0xD000, 0x12000), *range(0x12000, 0x110000, 61)):
        text = f"e{chr(code)}e {chr(code)} \u00e9{chr(code)}\u0301 {chr(code)}"
        assert plain_text(text, 100) == plain_text_in_python(text, 100), hex(code)


def same_features(text: bytes, chars: int, scale: float) -> bool:
    one = surface.compiled_features(surface.compiled_rules())(text, chars, scale)
    other = surface.features_in_python(text, chars, scale)
    return one.tobytes() == other.tobytes() and one.dtype == other.dtype and one.flags.writeable


@given(ANY_BYTES, st.integers(0, 20_000), st.floats(1.0, 1e6))
def test_surface_features_are_the_same(text: bytes, chars: int, scale: float) -> None:
    assert same_features(text, chars, scale)


@given(ANY_BYTES)
def test_form_features_are_the_same(text: bytes) -> None:
    one, other = form.compiled_features(form.compiled_rules())(text), form.features_in_python(text)
    assert one.tobytes() == other.tobytes()
    assert one.flags.writeable


@pytest.mark.parametrize("prompt", [*ODD_PROMPTS, *HUGE])
def test_listed_prompts_have_the_same_features(prompt: str) -> None:
    text = plain_text(prompt, surface.MAX_CHARS).encode("utf-8", "replace")
    assert same_features(text, len(text), 1.0)
    assert form.compiled_features(form.compiled_rules())(text).tobytes() == form.features_in_python(text).tobytes()
    assert without_repeats(prompt) == without_repeats_in_python(prompt)
    assert plain_text(prompt, surface.MAX_CHARS) == plain_text_in_python(prompt, surface.MAX_CHARS)


@given(ANY_TEXT)
def test_what_is_said_again_is_found(text: str) -> None:
    assert without_repeats(text) == without_repeats_in_python(text)


@given(
    st.lists(
        st.sampled_from(["Tell me more.", "Tell me more!", " ", "\n", "\x1d", "  \n ", "Tell me", "?", "so that it ends"])
    )
)
def test_the_kernel_says_again_only_where_something_is(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert not scan.says_again(text, 10) or without_repeats_in_python(text) != text


@cache
def both_features() -> tuple[PromptFeatures, PromptFeatures]:
    compiled, in_python = PromptFeatures(StaticEmbedder()), PromptFeatures(StaticEmbedder())
    assert compiled.reader is not None
    in_python.reader = None
    return compiled, in_python


@given(ANY_TEXT)
def test_vectors_are_the_same(text: str) -> None:
    one, other = (features.encode(text) for features in both_features())
    assert one.tobytes() == other.tobytes()
    assert one.flags.writeable


@pytest.mark.parametrize("texts", [ODD_PROMPTS, HUGE, []])
def test_vectors_of_a_batch_are_the_same(texts: list[str]) -> None:
    one, other = (features.encode_batch(texts) for features in both_features())
    assert one.shape == other.shape
    assert one.tobytes() == other.tobytes()


@cache
def scores() -> tuple[LinearScore, LinearScore]:
    weights = np.random.default_rng(0).standard_normal(both_features()[0].dim).astype(np.float32)
    compiled, in_python = (LinearScore(features, weights) for features in both_features())
    return compiled, in_python


@given(ANY_TEXT)
@example("e\u0301 \ud800 é")
@example("")
def test_linear_scores_are_the_same(text: str) -> None:
    compiled, in_python = scores()
    assert compiled.of(text) == in_python.of(text)


@pytest.mark.parametrize("texts", [ODD_PROMPTS, HUGE, []])
def test_linear_scores_of_a_batch_are_the_same(texts: list[str]) -> None:
    compiled, in_python = scores()
    assert compiled.of_batch(texts).tolist() == in_python.of_batch(texts).tolist() == [compiled.of(text) for text in texts]


@given(ANY_BYTES)
@example(b"a b " * 600)
@example(b"a\x0bb\x1c\x85,,c1 \x00")
def test_counts_of_words_are_the_same(text: bytes) -> None:
    one, other = compiled_counts(text.lower()), counts_in_python(text.lower())
    assert one.tobytes() == other.tobytes()
    assert one.flags.writeable


@given(st.integers(0, 4), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_trees_answer_the_same(depth: int, count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    feature = draw.integers(0, 7, (depth, count), dtype=np.int16)
    threshold = draw.integers(-2, 3, (depth, count)).astype(np.float32)
    value = draw.standard_normal((count, 2**depth)).astype(np.float32)
    row = draw.integers(-2, 3, 7).astype(np.float32)
    trees = Trees(feature, threshold, value)
    assert trees.kernel is not None
    assert trees.kernel.sum(row) == sum_in_python(feature, threshold, value)(row)
    assert trees.predict(row[:]) == trees.predict_batch(row[None])[0]


@cache
def parts_and_view(sorts: int) -> tuple[Parts, Viewer]:
    """Weights and trees of no meaning, on features as they come; `sorts`: rows of weights."""
    draw = np.random.default_rng(1)
    viewer = Viewer(both_features()[0], {}, words=False)
    width = len(viewer.form_names)
    feature = draw.integers(0, width, (4, 300), dtype=np.int16)
    threshold, values = draw.random((4, 300), dtype=np.float32), draw.standard_normal((sorts, 300, 16)).astype(np.float32)
    mean, nothing = draw.standard_normal(width).astype(np.float32), np.empty(0, dtype=np.float32)
    scale = draw.random(width, dtype=np.float32) + np.float32(0.05)
    shapes = ((sorts, viewer.features.embedder.dim), (sorts, width), (sorts,))
    on_embedding, on_form, bias = (draw.standard_normal(shape).astype(np.float32) for shape in shapes)
    trees = tuple(Trees(feature, threshold, value) for value in values)
    return Parts(mean, scale, on_embedding, on_form, nothing, nothing, trees, bias), viewer


@pytest.mark.parametrize("sorts", [1, 2])
@given(text=ANY_TEXT)
@example(text="e\u0301 \ud800 é")
@example(text="")
@example(text="Which is it?\nA. red\nB. blue")
@example(text="Which is it? (A) red (B) blé")
@example(text="Which is it, red or blue?")
def test_sums_of_parts_are_the_same(text: str, sorts: int) -> None:
    parts, viewer = parts_and_view(sorts)
    prompt = without_repeats(text)
    quick = parts.compiled(viewer.features)
    assert quick is not None
    assert parts.with_rest(quick(prompt), *viewer.rest(prompt)) == parts.log_odds(viewer.see(text))


def test_a_second_row_of_weights_is_for_prompts_that_list_options() -> None:
    """Each sum is that of the row alone."""
    both, viewer = parts_and_view(2)
    for row, prompt in enumerate(("Which is it, red or blue?", "Which is it?\nA. red\nB. blue")):
        one = slice(row, row + 1)
        alone = replace(both, embedding=both.embedding[one], form=both.form[one], trees=both.trees[one], bias=both.bias[one])
        sums = [each(prompt) for each in (both.compiled(viewer.features), alone.compiled(viewer.features)) if each is not None]
        assert sums == [both.log_odds(viewer.see(prompt))] * 2


WRONG = {
    "a token that there is not": (lambda: whole_table().embed(np.array([10**6]).tobytes()), IndexError),
    "a token below 0": (lambda: whole_table().embed(np.array([-1]).tobytes()), IndexError),
    "fewer shifts than rows": (lambda: scan.Rows(TABLE.rows, TABLE.shifts[:-1], TABLE.scales), ValueError),
    "a shift that is too great": (lambda: scan.Rows(TABLE.rows, TABLE.shifts + np.uint8(5), TABLE.scales), ValueError),
    "fewer scales than columns": (lambda: scan.Rows(TABLE.rows, TABLE.shifts, TABLE.scales[:-1]), ValueError),
    "rows of another type": (lambda: scan.Rows(TABLE.scales, TABLE.shifts, TABLE.scales), TypeError),
    "a text cut at less than nothing": (lambda: scan.plain_text("a", -1), ValueError),
    "a table that is cut short": (lambda: scan.WordPiece({b"a": 0}, b"##", 0, 100, b"abc", b"", b""), ValueError),
    "a word's number below 0": (lambda: scan.WordPiece({b"a": -1}, b"##", 0, 100, bytes(256), b"", b""), ValueError),
    "a listed word that is too long": (lambda: scan.Form({b"x" * 33: 1}, {}, ((), (), ()), 8), ValueError),
    "too many listed words": (lambda: scan.Form({b"%d" % i: 1 for i in range(999)}, {}, ((), (), ()), 8), ValueError),
    "too many phrases": (lambda: scan.Form({}, {}, ((b"so",) * 33, (), ()), 8), ValueError),
    "a lone surrogate": (lambda: WordPiece(TABLE.tokenizer, compiled=True)._tokens("\ud800"), UnicodeEncodeError),
    "no buckets": (lambda: scan.word_counts(b"a", 1, 0), ValueError),
    "fewer words than none": (lambda: scan.word_counts(b"a", -1, 8), ValueError),
    "a spelling that is no text": (lambda: scan.respell("é", {"é": 1}), TypeError),
    "a spelling that there is not": (lambda: scan.respell("é", {}), KeyError),
    "weights of another number": (lambda: linear(WEIGHTS[:-1]), ValueError),
    "weights of another type": (lambda: linear(WEIGHTS.astype(np.float64)), TypeError),
    "a table that is none": (lambda: scan.Reader(*([whole_table()] * 3)), TypeError),
    "something else that is no table": (lambda: scan.Reader(1, "", None), TypeError),
    "a reader that is none": (lambda: scan.Linear(whole_table(), WEIGHTS), TypeError),
    "a text that is counted as bytes": (lambda: linear(WEIGHTS).dot("é", None, 1.0), ValueError),
    "a text that is no text": (lambda: linear(WEIGHTS).dot(b"e", None, 1.0), TypeError),
    "something counted that is no bytes": (lambda: linear(WEIGHTS).dot("e", "e", 1.0), TypeError),
    "a scale that is no number": (lambda: linear(WEIGHTS).dot("e", None, "1"), TypeError),
    "trees on more features than there are": (lambda: sum_of(tree(feature=60)), ValueError),
    "trees that are none": (lambda: sum_of(surface.compiled_rules()), TypeError),
    "fewer trees than rows": (lambda: sum_of(tree(feature=5), rows=(2, 2, 2), times=1), ValueError),
    "three rows of weights": (lambda: sum_of(tree(feature=5), rows=(3, 3, 3)), ValueError),
    "no row of weights": (lambda: sum_of(tree(feature=5), rows=(0, 0, 0)), ValueError),
    "fewer rows on the embedding": (lambda: sum_of(tree(feature=5), rows=(1, 2, 2)), ValueError),
    "fewer rows on the form": (lambda: sum_of(tree(feature=5), rows=(2, 1, 2)), ValueError),
    "fewer constants than rows": (lambda: sum_of(tree(feature=5), rows=(2, 2, 1)), ValueError),
    "options that are no surface feature": (lambda: sum_of(tree(feature=5), options=surface.SURFACE_DIM), ValueError),
    "options below 0": (lambda: sum_of(tree(feature=5), options=-1), ValueError),
    "a feature that there is not": (lambda: tree(feature=5).sum(np.zeros(5, dtype=np.float32)), IndexError),
    "a feature below 0": (lambda: tree(feature=-1), ValueError),
}  # fmt: skip


@cache
def whole_table() -> scan.Rows:
    return scan.Rows(TABLE.rows, TABLE.shifts, TABLE.scales)


WEIGHTS = np.ones(len(TABLE.scales) + surface.SURFACE_DIM, dtype=np.float32)


def linear(weights: Vector) -> scan.Linear:
    reader = both_features()[0].reader
    assert reader is not None
    return scan.Linear(reader, weights)


def sum_of(trees: Any, rows: tuple[int, int, int] = (1, 1, 1), options: int = 0, times: int | None = None) -> scan.Parts:
    """`rows`: of the weights on the embedding, of those on the form, and constants. The trees are given `times`, or as often
    as there are constants."""
    reader, row = both_features()[0].reader, np.ones(60, dtype=np.float32)
    assert reader is not None
    widths = ((256,), (60,), ())
    weights = [np.ones((count, *width), dtype=np.float32) for count, width in zip(rows, widths, strict=True)]
    given = (trees,) * (rows[2] if times is None else times)
    return scan.Parts(
        reader, form.compiled_rules(), given, row, row, weights[0], weights[1], weights[2], options, 0.3, 0.6, 4.0
    )


def tree(feature: int) -> scan.Trees:
    one = np.zeros((1, 1), dtype=np.float32)
    return scan.Trees(np.array([[feature]], dtype=np.int16), one, np.zeros((1, 2), dtype=np.float32))


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(case: str) -> None:
    call, error = WRONG[case]
    with pytest.raises(error):
        call()


SCORES = """
import logging, sys
logging.basicConfig(format="%(levelname)s %(name)s %(message)s")
if sys.argv[1] == "without":
    sys.modules["routellm.embeddings._scan"] = None
from routellm.embeddings import kernel
from routellm.routers.routers import build_router
from tests.prompts import ODD_PROMPTS
assert kernel.COMPILED == (sys.argv[1] == "with")
for name in ("mf", "gain_fast"):
    print(build_router(name, None).calculate_strong_win_rates(ODD_PROMPTS).tobytes().hex())
"""


def test_without_the_kernel_the_scores_are_the_same_and_one_line_says_so() -> None:
    run = {
        way: subprocess.run([sys.executable, "-c", SCORES, way], capture_output=True, text=True, check=True, cwd=Path.cwd())
        for way in ("with", "without")
    }
    assert run["with"].stdout == run["without"].stdout != ""
    assert run["with"].stderr == ""
    assert run["without"].stderr.startswith("WARNING routellm.embeddings routellm's compiled kernel is missing")
    assert run["without"].stderr.count("\n") == 1


def test_a_table_is_let_go_of() -> None:
    before = sys.getrefcount(TABLE.rows)
    for _ in range(3):
        scan.Rows(TABLE.rows, TABLE.shifts, TABLE.scales)
    after = sys.getrefcount(TABLE.rows)
    assert after == before
