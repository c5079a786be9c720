from __future__ import annotations

import pytest

from routellm.errors import ConfigError
from routellm.ledger.redaction import load_redaction
from tests.ledger.making import made, stored, write


def without_digits(prompt: str) -> str:
    return "".join("#" if character.isdigit() else character for character in prompt)


def only_questions(prompt: str) -> str | None:
    return prompt if prompt.endswith("?") else None


def broken(prompt: str) -> str:
    raise RuntimeError(f"I fail on {prompt}")


def returns_bytes(prompt: str) -> bytes:
    return prompt.encode()


@pytest.mark.parametrize(
    ("function", "kept"),
    [
        ("without_digits", ["Call ####?", "Bye #"]),
        ("only_questions", ["Call 5551?", None]),
        ("broken", [None, None]),
        ("returns_bytes", [None, None]),
    ],
)
def test_what_the_users_function_says_is_kept(
    sqlite_url: str, function: str, kept: list[str | None], caplog: pytest.LogCaptureFixture
) -> None:
    records = [made(1, prompt="Call 5551?"), made(2, prompt="Bye 5")]
    write(sqlite_url, *records, prompts=True, redact=f"{__name__}:{function}")
    rows = stored(sqlite_url)
    assert [row["prompt"] for row in rows] == kept
    assert len(rows) == 2, "no request is lost with its prompt"
    assert "5551" not in caplog.text
    assert len(caplog.records) == (kept == [None, None]), "a failure is told, once"


@pytest.mark.parametrize("path", ["no.such.module:function", f"{__name__}:no_such_function", f"{__name__}:__name__"])
def test_a_function_that_is_not_there(path: str) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.ledger\.redact is"):
        load_redaction(path)
