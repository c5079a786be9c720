"""How a prompt is cut into pieces."""

from __future__ import annotations

import pytest

from benchmarks.example_prompts import PROMPTS
from routellm.routers.pieces import MOST, joined, pieces_of
from tests.prompts import ODD_PROMPTS

CODE = "```python\ndef f(x):\n\n    return x\n```"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("One line.", ["One line."]),
        ("Facts.\n\nMore\nof them.\n \n\nA question?", ["Facts.", "More\nof them.", "A question?"]),
        ("Facts.\nA question?", ["Facts.\nA question?"]),
        ("Facts.\r\n\r\nA question?\r\n", ["Facts.", "A question?"]),
        ("Which?\n\nA. this\nB. that\n\nAnswer:", ["Which?\n\nA. this\nB. that", "Answer:"]),
        (f"Why is it None?\n{CODE}\nTell me.", ["Why is it None?", CODE, "Tell me."]),
        ("Never closed:\n```\na\n\nb", ["Never closed:\n```\na", "b"]),
        ("", []),
        ("\n \n\n", []),
    ],
)
def test_paragraphs_and_blocks_of_code_are_pieces(prompt: str, expected: list[str]) -> None:
    assert pieces_of(prompt) == expected


@pytest.mark.parametrize("prompt", [*PROMPTS, *ODD_PROMPTS])
def test_nothing_but_white_space_is_lost(prompt: str) -> None:
    assert joined(pieces_of(prompt)).split() == prompt.split()


def test_many_pieces_are_taken_together() -> None:
    prompt = "\n\n".join(f"Paragraph number {number}." for number in range(1000))
    pieces = pieces_of(prompt)
    assert len(pieces) == MOST
    assert joined(pieces) == prompt
