from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.errors import DataError
from routellm.prompt_files import collect_prompts, prompt_text, read_prompts
from tests.test_messages import json_values


def collect(*values: Any, **options: Any) -> list[str]:
    return list(collect_prompts(values, "here", **options).prompts)


def test_prompts_keep_their_rows_and_nothing_goes_unsaid() -> None:
    found = collect_prompts(["a", "", "b", None, "a", 3, " \n", ["c", "d"]], "here")
    assert found.prompts == ("a", "b", "a", "d")
    assert found.rows == (0, 2, 4, 7)
    assert (found.empty, found.unreadable, found.repeated, found.conversations) == ((1, 6), (3, 5), 1, 1)
    assert found.notes() == [
        "left out 2 prompts without text (rows 1, 6)",
        "left out 2 values that can't be read as a prompt (rows 3, 5)",
        "counted 1 that repeat an earlier prompt again",
        "took 1 from lists of turns",
    ]


def test_where_all_is_well_there_is_nothing_to_note() -> None:
    assert collect_prompts(["a", "b"], "here").notes() == []


def test_long_lists_of_rows_are_cut_short() -> None:
    assert collect_prompts([""] * 9, "here").notes() == ["left out 9 prompts without text (rows 0, 1, 2, 3, 4, ...)"]


CHAT = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [{"type": "text", "text": "first"}, {"type": "image_url", "image_url": {}}]},
    {"role": "assistant", "content": "yes?"},
    {"role": "user", "content": "second"},
    {"role": "assistant", "content": "done"},
]


@pytest.mark.parametrize("as_json", [False, True])
def test_of_chats_the_users_turn_is_taken_by_the_servers_rule(as_json: bool) -> None:
    def given_as(value: Any) -> Any:
        return json.dumps(value) if as_json else value

    assert collect(given_as(CHAT)) == ["second"]
    assert collect(given_as(CHAT), prompt_from="first") == ["first"]
    assert collect(given_as(CHAT), prompt_from=2) == ["first\n\nsecond"]
    assert collect(given_as(["one", "two"])) == ["two"]
    assert collect(given_as(["one", "two"]), prompt_from="first") == ["one"]


@pytest.mark.parametrize(
    "text", ["[1, 2, 3]", "[]", '["a", 3]', '[{"a": 1}]', "[x] is a set", "[\ud800]", "[" * 50_000 + "]" * 50_000]
)
def test_a_prompt_that_only_looks_like_a_list_stays_a_prompt(text: str) -> None:
    assert collect(text) == [text]


def test_lone_surrogates_of_scraped_chats_are_replaced() -> None:
    assert collect('["half a pair: \\ud83d"]', ["\ud83d"], "\ud83d") == ["half a pair: ?", "?", "\ud83d"]


@pytest.mark.parametrize("value", [[], [None], [[]], [{"role": 3}], [{"content": "x"}], {"role": "user"}, True, 1.5])
def test_what_is_no_prompt_is_told_apart(value: Any) -> None:
    found = collect_prompts([value], "here")
    assert (found.prompts, found.unreadable) == ((), (0,))


@given(st.lists(json_values, max_size=10))
def test_every_value_is_either_a_prompt_or_told_of(values: list[Any]) -> None:
    found = collect_prompts(values, "here")
    assert sorted([*found.rows, *found.empty, *found.unreadable]) == list(range(len(values)))
    assert all(prompt.strip() for prompt in found.prompts)


def test_a_file_without_any_prompt_says_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": ""}\n{"prompt": 3}\n')
    with pytest.raises(DataError, match=r"holds no prompt in the column 'prompt': left out 1 prompt without text"):
        read_prompts(str(path))
    path.write_text("")
    with pytest.raises(DataError, match="it is empty"):
        read_prompts(str(path))


def test_another_column_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,question\n1,why?\n2,how?\n")
    assert read_prompts(str(path), "question").prompts == ("why?", "how?")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (" hi ", "hi"),
        (["first turn", "second turn"], "first turn"),
        (json.dumps(["first turn", "second turn"]), "first turn"),
        ('["first turn", null]', "first turn"),
        (CHAT, "first"),
        (json.dumps(CHAT), "first"),
        ("[1, 2, 3]", "[1, 2, 3]"),
        ("[x for x in y]", "[x for x in y]"),
        ("[]", "[]"),
        ('["half', '["half'),
        (None, ""),
        (float("nan"), ""),
        ([], ""),
        (17, ""),
    ],
)
def test_the_prompt_in_a_cell(cell: object, text: str) -> None:
    assert prompt_text(cell) == text
