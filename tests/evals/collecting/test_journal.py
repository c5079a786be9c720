from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routellm.errors import ConfigError, DataError
from routellm.evals.collecting.journal import Journal, Row, call_key, read_rows

PARAMETERS = {"temperature": 0.0}


def row(number: int, **changes: object) -> Row:
    fields = {
        "key": f"key-{number}",
        "source": "s",
        "model": "m",
        "parameters": PARAMETERS,
        "prompt": f"p{number}",
        "turn": 1,
        "turns": 1,
        "question": f"p{number}\nwith a line break and ü",
        "status": "ok",
        "response": "r",
    }
    return Row(**{**fields, **changes})  # type: ignore[arg-type]


def journal(path: Path, **changes: object) -> Journal:
    return Journal(path, **{"source": "s", "model": "m", "parameters": PARAMETERS, **changes})  # type: ignore[arg-type]


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with journal(path) as first:
        first.append(row(1))
        first.append(row(2))
    with journal(path) as second:
        assert second.rows() == [row(1), row(2)]
        assert second.get("key-2") == row(2)
        assert second.get("key-3") is None
        assert second.torn == 0
    assert read_rows(path) == [row(1), row(2)]


def test_a_line_torn_off_anywhere_costs_that_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with journal(path) as first:
        first.append(row(1))
        size = path.stat().st_size
        first.append(row(2))
    content = path.read_bytes()
    for cut in range(size + 1, len(content)):
        path.write_bytes(content[:cut])
        assert read_rows(path) == ([row(1), row(2)] if cut == len(content) - 1 else [row(1)])
        with journal(path) as again:
            kept = len(again)
            assert again.torn == (0 if kept == 2 else cut - size)
            again.append(row(3))
        assert [each.key for each in read_rows(path)] == ["key-1", *(["key-2"] if kept == 2 else []), "key-3"]


def test_zeros_that_a_crash_left_at_the_end_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with journal(path) as first:
        first.append(row(1))
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    with journal(path) as again:
        assert again.rows() == [row(1)]
        assert again.torn == 100


def test_a_row_that_did_not_get_to_the_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with journal(path) as first:
        first.append(row(1))
        with monkeypatch.context() as patched:
            patched.setattr("os.fsync", full)
            with pytest.raises(DataError, match="No space left"):
                first.append(row(2))
        assert first.get("key-2") is None
        first.append(row(3))
    assert read_rows(path) == [row(1), row(3)]


def test_a_later_line_of_the_same_key_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with journal(path) as first:
        first.append(row(1, status="failed", response=None))
        first.append(row(1))
        assert first.rows() == [row(1)]
    assert read_rows(path) == [row(1)]


@pytest.mark.parametrize(
    "content", ["some notes of mine", "notes\nmore notes\n", '{"prompt": "p", "gpt": 1}\n', '{"key":"x"}\n']
)
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=r"not a finished call.*routellm responses"):
        journal(path)
    assert path.read_text() == content


def test_a_broken_line_within_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with journal(path) as first:
        first.append(row(1))
    path.write_bytes(path.read_bytes() + b'{"key":"torn\n' + path.read_bytes())
    with pytest.raises(DataError, match="line 2"):
        journal(path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"parameters": {"temperature": 1.0}}, r"temperature was 0.0 and is now 1.0"),
        ({"parameters": {}}, r"temperature was 0.0 and is now None"),
        ({"model": "other"}, r"model was 'm' and is now 'other'"),
        ({"source": "other"}, r"source was 's' and is now 'other'"),
    ],
)
def test_other_parameters_are_not_mixed_in(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    path = tmp_path / "a.jsonl"
    with journal(path) as first:
        first.append(row(1))
    with pytest.raises(ConfigError, match=told):
        journal(path, **changes)
    with journal(path) as again:  # the refusal let go of the file
        assert len(again) == 1


def test_two_processes_can_not_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    code = (
        "import sys; from routellm.evals.collecting.journal import Journal\n"
        "with Journal(sys.argv[1], 's', 'm', {}): print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(ConfigError, match="Another process is writing"):
            journal(path)
        other.kill()
        other.wait()
    with journal(path) as free_again:
        assert len(free_again) == 0


def test_places_that_can_not_be_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.jsonl"):
        journal(tmp_path / "a.csv")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(DataError, match=r"folder\.jsonl"):
        journal(tmp_path / "folder.jsonl")
    with pytest.raises(DataError, match="can't be written"):
        journal(tmp_path / "missing" / "a.jsonl")
    with pytest.raises(DataError, match="can't be read"):
        read_rows(tmp_path / "missing.jsonl")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(), min_size=1), st.text())
def test_any_text_survives(tmp_path: Path, texts: list[str], model: str) -> None:
    path = tmp_path / "any.jsonl"
    path.unlink(missing_ok=True)
    rows = [row(n, question=text, response=text, prompt=text, model=model) for n, text in enumerate(texts)]
    with journal(path, model=model) as open_journal:
        for each in rows:
            open_journal.append(each)
    assert read_rows(path) == rows


def test_a_key_depends_on_all_that_makes_the_call() -> None:
    call = ("s", ("i",), ("t1", "t2"), "m", {"a": 1, "b": 2})
    others = [
        ("x", *call[1:]),
        (call[0], (), *call[2:]),
        (*call[:2], ("t1",), *call[3:]),
        (*call[:2], ("t1", "x"), *call[3:]),
        (*call[:3], "x", call[4]),
        (*call[:4], {"a": 1, "b": 3}),
    ]
    keys = {call_key(*each) for each in [call, *others]}  # type: ignore[arg-type]
    assert len(keys) == 1 + len(others)
    assert call_key(*call[:4], {"b": 2, "a": 1}) == call_key(*call)
