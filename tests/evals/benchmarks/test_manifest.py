from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from routellm.commands import FAILURE, OK
from routellm.evals.benchmarks import manifest
from tests.evals.mirror import data_mirror

URL = "https://raw.githubusercontent.com/owner/repo/c0ffee/data"


def test_the_command_pins_the_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "copy" / "tables").mkdir(parents=True)
    for name in ("b.csv", "a.csv", "c.txt"):
        (tmp_path / "copy" / "tables" / name).write_text(name)
    output = tmp_path / "mine.json"
    arguments = ["--copy", str(tmp_path / "copy"), "--files", "tables/*.csv", "--licence", "MIT", "--output", str(output)]
    assert manifest.main([URL + "/", *arguments]) == OK
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a.csv", "b.csv")}
    assert json.loads(output.read_text()) == {
        "url": URL,
        "licence": "MIT",
        "files": {f"tables/{name}": [5, digest] for name, digest in hashes.items()},
    }


def test_a_pattern_without_a_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--copy", str(tmp_path), "--files", "*.csv", "--licence", "MIT", "--output", str(tmp_path / "mine.json")]
    assert manifest.main([URL, *arguments]) == FAILURE
    assert "matches '*.csv'" in capsys.readouterr().err
    assert not (tmp_path / "mine.json").exists()


@pytest.mark.parametrize("name", ["mmlu", "gsm8k", "mt_bench", "routerbench"])
def test_the_shipped_manifests_are_what_the_command_makes(name: str) -> None:
    path = Path(manifest.__file__).parent / "data" / f"{name}.json"
    shipped = json.loads(path.read_text(encoding="utf-8"))
    copy = data_mirror() / shipped["url"].removeprefix("https://raw.githubusercontent.com/")
    made = manifest.make_manifest(shipped["url"], copy, list(shipped["files"]), shipped["licence"])
    assert manifest.format_manifest(made) == path.read_text(encoding="utf-8")
