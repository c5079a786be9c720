"""How comparisons become examples of the three classes, and in which order they are trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from routellm.embeddings.truncation import TokenIds
from routellm.errors import DataError
from routellm.routers.battles import Outcome
from routellm.training.bert_data import Examples, by_length, epoch_order, make_examples, pad, sample_for_checks
from routellm.training.preferences import Preference
from tests.embeddings.encoders import write_tokenizer


def row(prompt: str, outcome: Outcome, source: str = "s", weight: float = 1.0, names: str = "big small") -> Preference:
    first, second = names.split()
    return Preference(prompt, first, second, outcome, source, weight)


def examples_of(
    rows: list[Preference], held: list[bool], folder: Path
) -> tuple[Examples, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    write_tokenizer(folder / "tokenizer.json")
    return make_examples(rows, np.array(held), "big", "small", TokenIds(folder / "tokenizer.json", 8).of_batch)


def many(tmp_path: Path) -> Examples:
    """100 prompts of a large source and 4 of a small one, all for training, and two more for validation."""
    outcomes: list[Outcome] = ["first", "second", "tie"]
    rows = [row(f"{'a ' * (place % 9)}{place}", outcomes[place % 3], "large") for place in range(100)]
    rows += [row(f"b{place}", outcomes[place % 3], "small") for place in range(4)]
    rows += [row("c", "first", "small"), row("d", "tie", "small")]
    return examples_of(rows, [False] * 104 + [True] * 2, tmp_path)[0]


def test_classes_follow_the_pair_whichever_is_named_first(tmp_path: Path) -> None:
    rows = [
        row("a", "first"),
        row("b", "first", names="small big"),
        row("c", "tie", names="small big"),
        row("d", "first", names="big other"),
        row("e", "second"),
        row("f", "first"),
    ]
    examples, held = examples_of(rows, [False, False, False, False, True, True], tmp_path)
    assert list(examples.prompts) == ["a", "b", "c", "e", "f"]
    assert examples.targets.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert held.tolist() == [False, False, False, True, True]


def test_comparisons_of_one_prompt_and_source_are_one_example_with_shares(tmp_path: Path) -> None:
    """Shares are those of the weights, which add up; the same prompt from elsewhere is an example of its own."""
    rows = [
        row("a", "first", weight=3.0),
        row("b", "tie"),
        row("a", "first", names="small big"),
        row("a", "tie", "t"),
        row("c", "first"),
        row("c", "second"),
    ]
    examples, held = examples_of(rows, [False, False, False, False, True, True], tmp_path)
    assert (list(examples.prompts), examples.source.tolist()) == (["a", "b", "a", "c"], [0, 0, 1, 0])
    assert examples.targets.tolist() == [[0.75, 0, 0.25], [0, 1, 0], [0, 1, 0], [0.5, 0, 0.5]]
    np.testing.assert_allclose(examples.weight, np.array([4, 1, 7 / 3, 2]) * 3 / 7)
    assert held.tolist() == [False, False, False, True]


def test_weights_have_a_mean_of_one_in_each_source_and_sources_share_by_the_root_of_theirs(tmp_path: Path) -> None:
    rows = [row("a", "first", "x", 3.0), row("b", "tie", "x", 1.0), row("c", "first", "y", 0.25), row("d", "tie", "z", 9.0)]
    rows += [row("e", "first", "y", 0.25), row("f", "tie", "x", 2.0)]
    examples, _ = examples_of(rows, [False, False, False, False, True, True], tmp_path)
    assert examples.weight.tolist() == [1.5, 0.5, 1.0, 1.0, 1.0, 1.0]
    roots = np.sqrt([4.0, 0.25, 9.0])
    np.testing.assert_allclose(examples.share, roots / roots.sum())
    np.testing.assert_allclose(examples.class_rates(np.arange(4))[0], np.array([2.0, 1.0, 0.5]) / 3.5)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_weight_that_is_no_positive_number_is_refused(weight: float, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="of the source 's' weighs"):
        examples_of([row("a", "first", weight=weight), row("b", "tie")], [False, True], tmp_path)


def test_rows_of_other_models_or_of_one_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="None of the 1 comparisons is of 'big' and 'small'"):
        examples_of([row("a", "first", names="big other")], [False], tmp_path)
    ties = [row("a", "tie"), row("b", "tie"), row("c", "first"), row("d", "tie")]
    with pytest.raises(DataError, match="The training rows need"):
        examples_of(ties, [False, False, True, True], tmp_path)
    with pytest.raises(DataError, match="The validation rows need"):
        examples_of(ties, [True, True, False, False], tmp_path)


def test_an_epoch_draws_from_sources_by_their_share_and_repeats_no_row_before_all_were_seen(tmp_path: Path) -> None:
    examples = many(tmp_path)
    rows = np.arange(104)
    epochs = [epoch_order(examples, rows, 60, epoch, seed=1) for epoch in range(4)]
    small = [int((examples.source[order] == 1).sum()) for order in epochs]
    assert [len(order) for order in epochs] == [60] * 4
    assert small == [10] * 4  # sqrt(4) to sqrt(100)
    of_small = np.concatenate([order[examples.source[order] == 1] for order in epochs])
    assert np.bincount(of_small)[100:104].tolist() == [10] * 4
    first_two = np.concatenate(epochs[:2])
    assert len(set(first_two[examples.source[first_two] == 0])) == 100
    assert epochs[0].tolist() == epoch_order(examples, rows, 60, 0, seed=1).tolist()
    assert epochs[0].tolist() != epoch_order(examples, rows, 60, 0, seed=2).tolist()


def test_checks_are_drawn_from_sources_alike(tmp_path: Path) -> None:
    examples = many(tmp_path)
    chosen = sample_for_checks(examples, np.arange(106), 20, seed=0)
    assert np.bincount(examples.source[chosen]).tolist() == [10, 6]
    assert len(set(chosen)) == 16


def test_parts_are_of_similar_length_and_hold_no_more_tokens_than_asked(tmp_path: Path) -> None:
    examples = many(tmp_path)
    rows = np.arange(40)
    parts = list(by_length(examples, rows, tokens=24))
    assert sorted(np.concatenate(parts)) == rows.tolist()
    for part in parts:
        ids, mask = pad(examples, part)
        assert ids.size <= 24
        assert mask.sum(axis=1).tolist() == [len(examples.ids[place]) for place in part]
        assert ids[0, : mask[0].sum()].tolist() == examples.ids[part[0]].tolist()
    assert max(len(examples.ids[place]) for place in rows) == 8  # the tokenizer's cut
