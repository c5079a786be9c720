from pathlib import Path

import pytest

from routellm.commands import OK
from routellm.evals.test_prompts import main, question_of
from routellm.training.testprompts import FILE
from tests.evals.mirror import data_mirror


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        ("What is it?\nA. one\nB. two\nAnswer:", "What is it?"),
        ("What\nis it?\n(A) one\n(B) two", "What\nis it?"),
        ("Old one?\nA) x\nB) y\nAnswer:\nA\n\nNew one?\nA) x\nB) y\nAnswer:", "New one?"),
        ("A. Smith buys 3 apples.\nHow many are left?", "A. Smith buys 3 apples.\nHow many are left?"),
        ("Write a function.", "Write a function."),
    ],
)
def test_the_question_of_a_prompt(prompt: str, question: str) -> None:
    assert question_of(prompt) == question


def test_the_shipped_file_is_what_the_command_makes(tmp_path: Path) -> None:
    made = tmp_path / "made.safetensors"
    assert main(["--data-mirror", str(data_mirror()), "--output", str(made)]) == OK
    assert made.read_bytes() == FILE.read_bytes()
