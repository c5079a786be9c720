from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.embeddings.static import StaticEmbedder
from routellm.errors import DataError
from routellm.training import overlap
from routellm.training.overlap import Overlap, prompt_hash, read_overlaps, write_overlaps

WORDS = [f"word{number}" for number in range(40)]
LONG = " ".join(WORDS)  # 40 words: 28 runs of 13
EMBEDDER = StaticEmbedder()
find_overlaps = partial(overlap.find_overlaps, embedder=EMBEDDER)  # a table that is read once makes for quick tests
OTHER = "A question about rivers that flow north and the countries which they cross on their way to some distant sea"


def by_runs(train: list[str], prompts: list[str], min_share: float = 0.0) -> list[tuple[int, int, float]]:
    """(training row, index of the prompt, share) of what the word runs find."""
    index = {prompt_hash(prompt): number for number, prompt in enumerate(prompts)}
    found = find_overlaps(train, prompts, min_cosine=2.0, min_share=min_share)
    assert {one.measure for one in found} <= {"ngram"}
    return [(one.train_row, index[one.prompt_sha256], one.value) for one in found]


def test_a_copy_is_found_by_both_measures_and_named_by_number_and_hash() -> None:
    found = overlap.find_overlaps(["nothing to see here", f"  {LONG}\n"], [OTHER, LONG], benchmark="mine")
    assert {one.measure for one in found} == {"cosine", "ngram"}
    for one in found:
        assert (one.train_row, one.benchmark, one.value) == (2, "mine", 1.0)
        assert one.prompt_sha256 == one.train_sha256 == prompt_hash(LONG)


def test_nothing_in_common_gives_an_empty_list() -> None:
    assert find_overlaps([OTHER], [LONG]) == []
    assert find_overlaps([], [LONG]) == []
    assert find_overlaps([LONG], []) == []


def test_the_share_is_that_of_the_benchmark_prompt_s_runs() -> None:
    # The first 20 words hold 8 of its 28 runs of 13 words.
    assert by_runs([" ".join(WORDS[:20])], [LONG]) == [(1, 0, round(8 / 28, 4))]
    assert by_runs([" ".join(WORDS[:12])], [LONG]) == []


def test_a_question_inside_a_longer_text_is_found() -> None:
    question = " ".join(WORDS[:15])
    assert by_runs([f"Please answer: {OTHER}. {question}? Think first. {OTHER}"], [question]) == [(1, 0, 1.0)]


def test_case_punctuation_and_white_space_do_not_matter() -> None:
    changed = ", ".join(WORDS[:15]).upper().replace("WORD3,", "\n«Word3»;")
    assert by_runs([changed], [" ".join(WORDS[:15])]) == [(1, 0, 1.0)]


@pytest.mark.parametrize("count", [8, 10, 12])
def test_a_prompt_of_8_to_12_words_is_one_run(count: int) -> None:
    prompt = " ".join(WORDS[:count])
    assert by_runs([f"so: {prompt} and more"], [prompt]) == [(1, 0, 1.0)]
    assert by_runs([" ".join(WORDS[1 : count + 1])], [prompt]) == []


def test_a_shorter_prompt_has_to_be_the_whole_training_prompt() -> None:
    assert by_runs(["What is a word? And what else?", "what IS a word"], ["What is a word?"]) == [(2, 0, 1.0)]


def test_runs_do_not_reach_from_one_training_prompt_into_the_next() -> None:
    assert by_runs([" ".join(WORDS[:7]), " ".join(WORDS[7:15])], [" ".join(WORDS[:15])]) == []


def test_characters_of_scripts_without_spaces_count_as_words() -> None:
    prompt = "日本の首都である東京の人口は何人ですか"
    assert by_runs([f"質問です。{prompt}？答えてください。"], [prompt]) == [(1, 0, 1.0)]


def test_what_many_prompts_share_is_boilerplate() -> None:
    head = " ".join(WORDS[:20])
    few = [f"{head} {' '.join(f'{letter}{number}' for number in range(5))}" for letter in "abcdefghij"]
    many = [*few, f"{head} k0 k1 k2 k3 k4"]
    assert len(by_runs([head], few)) == 10
    assert by_runs([head], many) == []
    assert by_runs([many[3]], many) == [(1, 3, 1.0)]


def test_each_row_has_its_nearest_prompt_and_each_prompt_its_nearest_row() -> None:
    prompts = [" ".join(WORDS[:20]), " ".join(WORDS[:26])]  # 8 runs and 14 runs
    train = [" ".join(WORDS[:20]), " ".join(WORDS[:26]), " ".join(WORDS[:14])]
    # Row 1 holds all of prompt 0 and 8/14 of prompt 1; row 2 holds all of both; row 3 holds 2/8 and 2/14.
    found = by_runs(train, prompts)
    assert (1, 0, 1.0) in found
    assert (2, 1, 1.0) in found
    assert (3, 0, 0.25) in found
    assert (3, 1, round(2 / 14, 4)) not in found
    assert Counter(row for row, _, _ in found).keys() == {1, 2, 3}


def test_the_limits_are_inclusive() -> None:
    train = [" ".join(WORDS[:26])]  # 14 of 28 runs
    assert by_runs(train, [LONG], min_share=0.5) == [(1, 0, 0.5)]
    assert by_runs(train, [LONG], min_share=0.51) == []


def test_cosine_agrees_with_the_plain_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "_CHUNK", 3)
    monkeypatch.setattr(overlap, "_BLOCK", 2)
    train = [" ".join(WORDS[start : start + 12]) for start in range(0, 28, 4)] + [OTHER, "cats and dogs", ""]
    prompts = [" ".join(WORDS[start : start + 10]) for start in (3, 9, 20)] + ["dogs and a cat", OTHER[:40]]
    cosines = EMBEDDER.embed_batch(train) @ EMBEDDER.embed_batch(prompts).T
    found = [one for one in find_overlaps(iter(train), prompts, min_cosine=0.5, min_share=2.0) if one.measure == "cosine"]
    hashes = [prompt_hash(prompt) for prompt in prompts]
    got = {(one.train_row - 1, hashes.index(one.prompt_sha256)): one.value for one in found}
    nearest = {(row, int(cosines[row].argmax())) for row in range(len(train)) if cosines[row].max() >= 0.5}
    nearest |= {
        (int(cosines[:, column].argmax()), column) for column in range(len(prompts)) if cosines[:, column].max() >= 0.5
    }
    assert set(got) == nearest
    for (row, column), value in got.items():
        assert value == pytest.approx(float(cosines[row, column]), abs=1e-4)


def test_training_prompts_are_read_once_and_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "_CHUNK", 2)

    def rows() -> Iterator[str]:
        yield from [OTHER, "short", LONG, OTHER, LONG]

    found = find_overlaps(rows(), [LONG])
    assert {one.train_row for one in found} == {3, 5}


@given(st.lists(st.text(max_size=40), max_size=6), st.lists(st.text(max_size=40), max_size=6))
def test_any_text_is_taken(train: list[str], prompts: list[str]) -> None:
    for one in find_overlaps(train, prompts, min_cosine=0.0, min_share=0.0):
        assert 1 <= one.train_row <= len(train)
        assert np.isfinite(one.value)
        assert one.train_sha256 == prompt_hash(train[one.train_row - 1])


@given(st.lists(st.sampled_from(WORDS[:5]), min_size=13, max_size=40), st.lists(st.sampled_from(WORDS[:5]), max_size=60))
def test_shares_agree_with_sets_of_runs(prompt: list[str], train: list[str]) -> None:
    wanted = {tuple(prompt[start : start + 13]) for start in range(len(prompt) - 12)}
    held = {tuple(train[start : start + 13]) for start in range(len(train) - 12)}
    share = len(wanted & held) / len(wanted)
    assert by_runs([" ".join(train)], [" ".join(prompt)]) == ([(1, 0, round(share, 4))] if share else [])


@pytest.mark.parametrize("name", ["list.jsonl", "list.csv"])
def test_a_list_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    written = find_overlaps([LONG, OTHER], [LONG, OTHER], benchmark="mine")
    write_overlaps(tmp_path / name, written)
    assert read_overlaps(tmp_path / name) == written
    assert "word1" not in (tmp_path / name).read_text()


def test_an_empty_list_is_a_list(tmp_path: Path) -> None:
    write_overlaps(tmp_path / "list.jsonl", [])
    assert read_overlaps(tmp_path / "list.jsonl") == []


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    with pytest.raises(DataError, match="no file"):
        read_overlaps(path)
    path.write_text("prompt\nx\n")
    with pytest.raises(DataError, match="no column 'train_row'"):
        read_overlaps(path)
    head = "train_row,train_sha256,benchmark,prompt_sha256,measure,value\n"
    path.write_text(head + "1,a,b,c,guess,1\n")
    with pytest.raises(DataError, match="row 1: the measure is 'guess'"):
        read_overlaps(path)
    path.write_text(head + "one,a,b,c,ngram,1\n")
    with pytest.raises(DataError, match=r"row 1: .*'one'"):
        read_overlaps(path)


def test_a_hash_names_text_without_the_space_around_it() -> None:
    assert prompt_hash(" a\n") == prompt_hash("a") != prompt_hash("b")
    assert prompt_hash("\ud83d")
    assert Overlap(1, "a", "b", "c", "cosine", 0.5) == Overlap(1, "a", "b", "c", "cosine", 0.5)
