"""What the stickiness benchmark reads, and what it counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.stickiness import Result, main, read_conversations, route
from routellm.errors import DataError

SCORES = [[0.6, 0.45, 0.6], [0.4, 0.1]]


def test_switches_and_shares_are_counted() -> None:
    assert route(SCORES, 0.5, None) == Result(switches=1.0, kept=pytest.approx(1 / 3), never=0.5, strong=pytest.approx(2 / 5))
    assert route(SCORES, 0.5, 0.0) == route(SCORES, 0.5, None)
    assert route(SCORES, 0.5, 0.1) == Result(switches=0.0, kept=1.0, never=1.0, strong=pytest.approx(3 / 5))


def test_conversations_of_one_turn_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "conversations.jsonl"
    path.write_text('{"turns": ["Hello!", "Go on."], "id": 5}\n{"turns": ["Hello!"]}\n')
    assert read_conversations(path) == [["Hello!", "Go on."]]


@pytest.mark.parametrize("line", ["no JSON", "5", '{"turns": "Hello!"}', '{"turns": [5, 6]}', '{"turns": ["alone"]}'])
def test_a_file_that_can_not_be_used_is_told(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "conversations.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=r"conversations\.jsonl"):
        read_conversations(path)
    with pytest.raises(SystemExit):
        main([str(path)])
    assert "conversations.jsonl" in capsys.readouterr().err
