"""Routing from Python, offline: `python -m examples.offline_routing`. No key, no network, no server.

The demo models answer with made-up text that says so. For real answers change the two names, say to "gpt-4o" and
"ollama/llama3"; nothing else changes.
"""

from __future__ import annotations

from routellm import ROUTER_CLS, Controller, Router

PROMPTS = [
    "Which colour is the sky?",
    "What is the capital of France?",
    "Write a Python function that merges two sorted lists, and prove that it runs in linear time.",
]
THRESHOLD = 0.4


class LengthRouter(Router):
    """A router of your own: the longer the prompt, the more is expected of the strong model."""

    def __init__(self, longest: int = 100) -> None:
        self.longest = longest

    def calculate_strong_win_rate(self, prompt: str) -> float:
        return min(len(prompt) / self.longest, 1.0)


def main() -> None:
    """Decide for each prompt by both routers, then let the chosen model answer one of them."""
    ROUTER_CLS["length"] = LengthRouter
    with Controller(
        routers=["mf", "length"],
        strong_model="demo/strong",
        weak_model="demo/weak",
        config={"length": {"longest": 80}},
    ) as client:
        for router in client.routers:
            for prompt in PROMPTS:
                decision = client.decide(prompt, router, THRESHOLD)  # without a threshold: the router's default one
                print(f"{router:<7} win rate {decision.win_rate:.3f}  {decision.model:<12} {prompt}")
        reply = client.chat.completions.create(
            model=f"router-length-{THRESHOLD}", messages=[{"role": "user", "content": PROMPTS[-1]}]
        )
        print(f"\n{reply.decision.model} answers: {reply.choices[0].message.content}")


if __name__ == "__main__":
    main()
