from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from routellm.errors import DataError, MissingExtraError
from routellm.tables import check_writable, read_table, write_table
from tests.conftest import require

TABLE = {"index": [0, 2], "mf": [0.25, 1.0], "прим, \"'": ["a\nb", "ü"]}


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def rows(source: str | Path, *columns: str) -> list[tuple[Any, ...]]:
    return list(read_table(str(source), columns))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        require("pyarrow")
    path = tmp_path / f"scores{suffix}"
    write_table(path, TABLE)
    as_text = suffix == ".csv"
    expected = list(zip(*TABLE.values(), strict=True))
    assert rows(path, *TABLE) == ([tuple(str(value) for value in row) for row in expected] if as_text else expected)
    assert rows(path, "mf", "index") == [(row[1], row[0]) for row in rows(path, *TABLE)]
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_missing_column_is_named_with_those_found(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        require("pyarrow")
    path = tmp_path / f"table{suffix}"
    write_table(path, {"question": ["x"], "prompts": ["y"]})
    with pytest.raises(DataError, match=r"has no column 'prompt' \(did you mean 'prompts'\?\)\. It has: question, prompts"):
        rows(path, "prompt")


def test_text_has_a_prompt_in_each_line_whatever_ends_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\n\n  two \nthree\x00\xe2\x80\xa8still three")
    assert rows(path, "prompt") == [("one",), ("",), ("  two ",), ("three\x00\u2028still three",)]


def test_jsonl_passes_over_blank_lines_and_gives_none_for_what_a_row_lacks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"prompt": "a", "n": 1}\n\n{"n": 2}\n  \n{"prompt": null}\n{"prompt": "\\ud83d"}')
    assert rows(path, "prompt") == [("a",), (None,), (None,), ("\ud83d",)]


def test_csv_takes_quoted_line_breaks_commas_and_a_megabyte(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    path = write(tmp_path / "a.csv", f'id,prompt\r\n1,"one, ""two""\nthree"\r\n2,{long}\r\n')
    assert rows(path, "prompt") == [('one, "two"\nthree',), (long,)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"prompt": "x"}\n{"prompt": \n', "line 2: not valid JSON"),
        ("a.jsonl", '{"prompt": "x"}\n["x"]\n', 'line 2: must be an object, such as {"prompt": ...}'),
        ("a.jsonl", b'{"prompt": "x"}\n{"prompt": "\xff"}\n', "line 2: not UTF-8 text"),
        ("a.jsonl", "[" * 100_000, "line 1: not valid JSON"),
        ("a.csv", 'id,prompt\n1,x\n2,"never closed\n3,y\n', "in the row from line 3 on: not valid CSV"),
        ("a.csv", "id,prompt\n1,x\n2,one, two\n", "line 3: more values than the header names"),
        ("a.csv", b"prompt\nx\n\xff\n", "line 3: not UTF-8 text"),
        ("a.csv", "", "has no column 'prompt'. It has: none"),
        ("a.txt", b"fine\n\xfe\n", "line 2: not UTF-8 text"),
        ("a.xlsx", "x", "its name must end in .jsonl or .csv or .parquet or .txt"),
        ("noending", "x", "its name must end in"),
    ],
)
def test_a_broken_file_is_named_with_the_line(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DataError) as caught:
        rows(path, "prompt")
    assert said in str(caught.value)
    assert path in str(caught.value)


def test_a_parquet_file_that_is_none_is_named(tmp_path: Path) -> None:
    require("pyarrow")
    path = write(tmp_path / "a.parquet", "not parquet")
    with pytest.raises(DataError, match=r"a\.parquet can't be read as parquet"):
        rows(path, "prompt")


@pytest.mark.parametrize("source", ["nowhere.jsonl", "folder/nowhere.csv", "/nowhere", ""])
def test_a_missing_file_is_named(source: str) -> None:
    with pytest.raises(DataError, match="There is no file"):
        rows(source, "prompt")


@pytest.mark.parametrize("name", ["scores.xlsx", "nowhere/scores.csv", "."])
def test_what_cant_be_written_is_told_beforehand(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError):
        check_writable(tmp_path / name)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text("held before")
    with pytest.raises(TypeError):
        write_table(path, {"index": [0, 1], "mf": [0.5, object()]})
    assert path.read_text() == "held before"
    assert [found.name for found in tmp_path.iterdir()] == ["scores.jsonl"]


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = write(tmp_path / "a.parquet", "x")
    with pytest.raises(MissingExtraError, match=r'pip install "routellm\[eval\]"'):
        rows(path, "prompt")
    with pytest.raises(MissingExtraError):
        check_writable(path)


def test_without_datasets_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r'owner/name.*pip install "routellm\[hub\]"'):
        rows("owner/name", "prompt")


HUB = """
import json, sys
from routellm.tables import read_table
try:
    print(json.dumps(list(read_table(sys.argv[1], ["prompt"], "train"))))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_data_set_of_the_hub_is_read_by_the_datasets_library(tmp_path: Path) -> None:
    """The library takes a folder OWNER/NAME for the data set of that name, so the whole way runs without the hub."""
    require("datasets")
    (tmp_path / "owner" / "name").mkdir(parents=True)
    lines = [{"prompt": '["hello"]', "id": 1}, {"prompt": "there", "id": 2}]
    write(tmp_path / "owner" / "name" / "train.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    environment = {
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "PATH": "/usr/bin",
    }

    def run(name: str) -> str:
        command = [sys.executable, "-c", HUB, name]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout

    assert json.loads(run("owner/name")) == [['["hello"]'], ["there"]]
    assert run("owner/other").startswith("DataError The data set 'owner/other', split 'train', can't be loaded from the hub")
