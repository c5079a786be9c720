"""What is only said to be polite, and what is not."""

from __future__ import annotations

import pytest

from routellm.embeddings.courtesy import without_courtesy
from routellm.routers.routers import build_router
from tests.prompts import ODD_PROMPTS

QUESTION = "What is the capital of France?"
TASK = "Explain why the sky is blue."
POLITE = [
    f"Please answer this. {QUESTION}",
    f"Hi there! {QUESTION}",
    f"Hello,\n{QUESTION}",
    f"Could you help me with something? {QUESTION}",
    f"Good morning! I have a question for you. {QUESTION}",
    f"Please answer the following question:\n\n{QUESTION}",
    f"{QUESTION} Thanks!",
    f"{QUESTION}\nThank you so much in advance.",
    f"{QUESTION} Please help. Thanks a lot.",
    f"Hi! I need your help with this. {QUESTION} Any help would be appreciated.",
]


@pytest.mark.parametrize("prompt", POLITE)
def test_sentences_of_nothing_but_courtesy_go(prompt: str) -> None:
    assert without_courtesy(prompt) == QUESTION


@pytest.mark.parametrize(
    "prompt",
    [
        f"Please {TASK[0].lower()}{TASK[1:]}",
        f"Could you please {TASK[0].lower()}{TASK[1:]}",
        f"Can you {TASK[0].lower()}{TASK[1:]}",
        f"Hi, would you kindly {TASK[0].lower()}{TASK[1:]}",
    ],
)
def test_the_way_of_asking_goes_and_a_capital_letter_stays(prompt: str) -> None:
    assert without_courtesy(prompt) == TASK
    assert without_courtesy(prompt.lower()) == TASK.lower()


@pytest.mark.parametrize(
    "prompt",
    [
        *ODD_PROMPTS, QUESTION, TASK, "Hello", "Please", "Thanks!", "Thank you very much.", "Could you help me?",
        "Can you fly?", "hello world program in C", "Will you marry me?",
        "Would you expect the pressure to rise?", "Solve\n\\[x + 1 = 2\\]",
        "Translate to French: thank you for the flowers", "How do I say please and thank you in Dutch, and when?",
        "This is a test of the emergency broadcast system. What was it first used for?",
    ],
)  # fmt: skip
def test_everything_else_is_left_as_it_is(prompt: str) -> None:
    assert without_courtesy(prompt) is prompt


@pytest.mark.parametrize("prompt", [*POLITE, f"Can you {TASK[0].lower()}{TASK[1:]}"])
def test_a_second_time_finds_nothing_more(prompt: str) -> None:
    once = without_courtesy(prompt)
    assert without_courtesy(once) is once


@pytest.mark.parametrize("prompt", POLITE)
def test_the_default_router_scores_a_polite_prompt_like_a_curt_one(prompt: str) -> None:
    router = build_router("gain_fast")
    assert router.calculate_strong_win_rate(prompt) == router.calculate_strong_win_rate(QUESTION)
    assert router.calculate_strong_win_rates([prompt])[0] == router.calculate_strong_win_rate(QUESTION)
