from pathlib import Path

import pytest

from routellm.training.testprompts import FILE, TestPrompts

STORY = (
    "A baker makes 48 loaves every morning and sells three quarters of them before noon, then half of the rest by four in the "
    "afternoon, and gives what is left to a shelter across the street. How many loaves does the shelter get in a week?"
)
PASSAGE = (
    "Read the letter below, which a farmer wrote to his brother in the winter of the great flood, and answer the question "
    "that comes after it in your own words."
)
SHORT = "Which planet of the solar system spins the fastest?"
TINY = "Is glass a liquid?"
OPTIONS = "\nA. Jupiter\nB. Mars\nC. Venus\nD. Saturn\nAnswer:"


@pytest.fixture(scope="module")
def hashed() -> TestPrompts:
    templates = [f"{PASSAGE} What does the author say about subject number {number}?" for number in range(12)]
    return TestPrompts.of(
        {
            "stories": [(STORY, STORY)],
            "quiz": [(SHORT + OPTIONS, SHORT), (TINY + OPTIONS, TINY), *((text, text) for text in templates)],
        }
    )


def found(hashed: TestPrompts, *prompts: str) -> list[tuple[int, str]]:
    return [(one.row, one.benchmark) for one in hashed.search(prompts)]


@pytest.mark.parametrize(
    "prompt",
    [
        STORY,
        STORY.upper(),
        "  " + STORY.replace(" ", "\n ").replace(",", ";") + "!",
        f"Please solve this for me. {STORY} Explain each step.",
        STORY.replace("48", "64"),
    ],
)
def test_a_copy_is_found_whatever_its_form(hashed: TestPrompts, prompt: str) -> None:
    assert found(hashed, "something else", prompt) == [(1, "stories")]


@pytest.mark.parametrize(
    ("prompt", "benchmark"),
    [
        (SHORT + OPTIONS, "quiz"),
        (SHORT, "quiz"),
        (f"Question: {SHORT} (1) Mars (2) Earth", "quiz"),
        (TINY + OPTIONS.lower(), "quiz"),
        (TINY, None),
        (f"{TINY} I wonder, since old windows are thicker at the bottom.", None),
        ("Which planet of the solar system spins the slowest?", None),
        (" ".join(STORY.split()[:12]), None),
        (f"{PASSAGE} Who wrote this?", None),
        (f"{PASSAGE} What does the author say about subject number 7? Answer briefly.", "quiz"),
        ("", None),
    ],
)
def test_what_counts_as_holding_a_test_prompt(hashed: TestPrompts, prompt: str, benchmark: str | None) -> None:
    assert found(hashed, prompt) == ([(0, benchmark)] if benchmark else [])


def test_questions_that_differ_by_their_options_only_are_told_by_the_whole(hashed: TestPrompts) -> None:
    question = "Which of the following statements is true of it?"
    hashed = TestPrompts.of({"quiz": [(f"{question}\nA. {word}", question) for word in ("one", "two")]})
    assert found(hashed, question, f"{question} a: TWO", f"{question} a: three") == [(1, "quiz")]


def test_rows_are_counted_over_chunks(hashed: TestPrompts) -> None:
    prompts = [f"nothing of note in row {number}" for number in range(2100)]
    prompts[5] = prompts[2050] = STORY
    assert found(hashed, *prompts) == [(5, "stories"), (2050, "stories")]


def test_what_was_saved_is_loaded(hashed: TestPrompts, tmp_path: Path) -> None:
    hashed.save(tmp_path / "hashes", {"sources": {}})
    loaded = TestPrompts.load(tmp_path / "hashes")
    assert loaded.benchmarks == ("stories", "quiz")
    assert found(loaded, STORY, TINY + OPTIONS) == [(0, "stories"), (1, "quiz")]


def test_the_shipped_hashes_know_the_benchmarks_and_little_else() -> None:
    shipped = TestPrompts.load()
    assert shipped.benchmarks == ("mmlu", "gsm8k", "mt-bench", "routerbench")
    assert FILE.stat().st_size < 2e6
    known = (
        "compose an engaging travel blog post about a recent trip to Hawaii: highlighting cultural experiences and must-see "
        "attractions"
    )
    harmless = [STORY, SHORT, TINY, "Write a haiku.", "What is the capital of France?", "Explain how a hash table works."]
    assert found(shipped, *harmless, known) == [(len(harmless), "mt-bench")]
