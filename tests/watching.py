"""What a method is asked, while it goes on doing its work."""

from __future__ import annotations

from typing import Any

import pytest


def prompts_given_to(monkeypatch: pytest.MonkeyPatch, cls: type[Any], method: str) -> list[str]:
    """A list that gets each prompt that a method of one argument is called with from now on."""
    asked: list[str] = []
    does = getattr(cls, method)

    def watched(self: Any, prompt: str) -> Any:
        asked.append(prompt)
        return does(self, prompt)

    monkeypatch.setattr(cls, method, watched)
    return asked
