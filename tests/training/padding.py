"""Prompts of several paragraphs, from which a filter of padding can be fitted in a second."""

from __future__ import annotations

import numpy as np

from routellm.embeddings.factory import load_embedder
from routellm.embeddings.features import PromptFeatures
from routellm.routers.padding import PaddingFilter
from routellm.training.gain_padding import fit_padding_filter

TOPICS = {
    "bakery": "The bakery sold {n} loaves of bread, and the baker put {m} more into the oven.",
    "harbour": "{n} fishing boats lay in the harbour when a storm at sea sank {m} ships.",
    "hospital": "The nurse gave {n} patients their medicine, while the doctor treated {m} fevers.",
    "orchestra": "The orchestra has {n} violins and {m} trumpets, and plays a symphony of Mahler.",
    "railway": "A train of {n} wagons left the station with {m} passengers on the railway.",
    "garden": "In the garden grow {n} roses and {m} tulips, which need water and sun.",
    "parliament": "The parliament passed {n} laws after the election, and the senate refused {m}.",
    "glacier": "The glacier lost {n} metres of ice in a warm summer, and its lake rose by {m}.",
}
QUESTIONS = {
    "bakery": "How many loaves of bread did the bakery sell?",
    "harbour": "How many boats were left in the harbour?",
    "hospital": "How many patients did the nurse see in the hospital?",
    "orchestra": "How many violins does the orchestra have?",
    "railway": "How many passengers did the train carry?",
    "garden": "How many roses grow in the garden?",
    "parliament": "How many laws did the parliament pass?",
    "glacier": "How many metres of ice did the glacier lose?",
}


def prompts_of_paragraphs(n: int = 160) -> list[str]:
    """Facts and a question on one topic each, or the question alone."""
    made = []
    for number in range(n):
        topic = list(TOPICS)[number % len(TOPICS)]
        facts = TOPICS[topic].format(n=number + 2, m=2 * number + 5)
        made.append(f"{facts}\n\n{QUESTIONS[topic]}" if number % 3 else QUESTIONS[topic])
    return made


def fitted_filter() -> PaddingFilter:
    """A filter that was fitted to `prompts_of_paragraphs`."""
    prompts = prompts_of_paragraphs()
    return fit_padding_filter(prompts, np.full(len(prompts), 1 / len(prompts)), PromptFeatures(load_embedder("static")), 0)
