"""The fit of the filter of padding, and `--padding-prompts`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from routellm.routers.checkpoint import META_FILE, WEIGHTS_FILE
from routellm.tables import write_table
from routellm.training import gain_fit, gain_padding
from routellm.training.boosting import TreeSettings
from tests.training.files import write
from tests.training.gains import comparisons, run_train
from tests.training.padding import prompts_of_paragraphs


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    few = TreeSettings(trees=10, depth=3, rate=0.3, penalty=5.0, rows=0.8, columns=0.5)
    monkeypatch.setattr(gain_padding, "PROMPTS", 400)
    monkeypatch.setattr(gain_padding, "TREES", few)
    monkeypatch.setattr(gain_fit, "TREES", few)


def test_the_card_says_what_the_filter_was_fitted_to_and_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    write_table(tmp_path / "prompts.jsonl", {"prompt": prompts_of_paragraphs()})
    data = write(tmp_path / "gains.jsonl", comparisons(200))
    for name, seed in (("one", "0"), ("two", "0"), ("three", "1")):
        flags = ["--validation-share", "0.3", "--padding-prompts", str(tmp_path / "prompts.jsonl"), "--seed", seed]
        assert run_train("gain_fast", data, tmp_path / name, *flags) == 0
    one, two, three = ((tmp_path / name / WEIGHTS_FILE).read_bytes() for name in ("one", "two", "three"))
    assert one == two
    assert one != three
    meta = json.loads((tmp_path / "one" / META_FILE).read_text())
    assert meta["padding_version"] == 1
    assert meta["training"]["padding_prompts"].startswith("prompts.jsonl sha256:")
    assert meta["training"]["prompts_of_the_filter"] == 140 + len(set(prompts_of_paragraphs()))


def test_prompts_of_one_paragraph_teach_nothing_of_padding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "gains.jsonl", comparisons(120))
    write_table(tmp_path / "prompts.jsonl", {"prompt": ["One line.", "Another line."]})
    flags = ["--padding-prompts", str(tmp_path / "prompts.jsonl")]
    assert run_train("gain_fast", data, tmp_path / "made", *flags) == 1
    assert "No prompt has several paragraphs" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "made").exists()


def test_a_missing_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "gains.jsonl", comparisons(120))
    assert run_train("gain_fast", data, tmp_path / "made", "--padding-prompts", str(tmp_path / "none.jsonl")) == 1
    assert "none.jsonl" in capsys.readouterr().err.splitlines()[-1]
