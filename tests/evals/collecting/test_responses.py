"""`routellm responses` as a user runs it: in this process, and as a process of its own that is killed or interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from routellm.evals.collecting.journal import read_rows
from routellm.evals.collecting.responses import main
from tests.evals.collecting.stage import SECRET, asked, by_prompt, completion, echo, error, question_of, write_jsonl
from tests.live import PATIENCE, STALL, Gate, LiveServer, Recorded, Reply

PROMPTS = [f"question {number}" for number in range(12)]


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    return write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS])


def command(live: LiveServer, prompts: str, output: Path, *more: str) -> list[str]:
    return [
        *("--benchmark", prompts, "--model", "openai/m", "--base-url", live.base_url, "--api-key", SECRET),
        *("--output", str(output), *more),
    ]


@contextmanager
def process(arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "routellm.evals.collecting.responses", *arguments], stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def read_until(running: subprocess.Popen[str], words: str) -> str:
    assert running.stderr is not None
    seen = ""
    for line in running.stderr:
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"{words!r} was not said, but: {seen}")


def test_answers_come_in_and_the_end_is_told(
    live: LiveServer, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live.answer = echo
    output = tmp_path / "a.jsonl"
    assert main(command(live, prompts, output, "--price-in", "2", "--price-out", "10")) == 0
    assert {prompt: row.response for prompt, row in by_prompt(output).items()} == {p: f"re: {p}" for p in PROMPTS}
    said = capsys.readouterr()
    assert said.out == ""
    assert "12/12 calls, $0.0004" in said.err
    assert live.requests[0].json["temperature"] == 0
    assert live.requests[0].json["max_tokens"] == 1024


def test_a_kill_in_the_middle_loses_nothing_and_repeats_nothing(live: LiveServer, prompts: str, tmp_path: Path) -> None:
    output = tmp_path / "a.jsonl"
    stalled = set(PROMPTS[5:])
    live.answer = lambda request: Reply([STALL]) if question_of(request) in stalled else echo(request)
    with process(command(live, prompts, output, "--concurrency", "2")) as running:
        live.wait_for_request(6)  # the first five are answered, and each worker wrote its last before it asked again
        running.send_signal(signal.SIGKILL)
        running.wait(PATIENCE)
    under_way = Counter({prompt: count for prompt, count in asked(live).items() if prompt in stalled})
    assert under_way == {PROMPTS[5]: 1, PROMPTS[6]: 1}
    with output.open("ab") as file:  # as if the kill had hit in the middle of a line
        file.write(b'{"key":"0123456789')
    live.answer = echo
    with process(command(live, prompts, output, "--concurrency", "2")) as running:
        assert running.stderr is not None
        assert "dropped a last line that was torn off" in running.stderr.read()
        assert running.wait(PATIENCE) == 0
    assert asked(live) - under_way == Counter(PROMPTS)  # what never was answered had to be asked again; nothing else was
    assert [row.question for row in read_rows(output)] == [row.question for row in by_prompt(output).values()]
    assert set(by_prompt(output)) == set(PROMPTS)


def test_ctrl_c_waits_for_calls_under_way_and_says_how_to_go_on(live: LiveServer, prompts: str, tmp_path: Path) -> None:
    output = tmp_path / "a.jsonl"
    gate = Gate()
    body = completion("late").steps[0]
    live.answer = lambda request: Reply([gate, body])
    with process(command(live, prompts, output, "--concurrency", "3")) as running:
        live.wait_for_request(2)
        running.send_signal(signal.SIGINT)
        read_until(running, "waiting for the calls under way")
        gate.open()
        assert running.stderr is not None
        assert "the same command goes on from there" in running.stderr.read()
        assert running.wait(PATIENCE) == 130
    assert len(live.requests) == len(by_prompt(output)) == 3
    live.answer = echo
    assert main(command(live, prompts, output)) == 0
    assert asked(live) == Counter(PROMPTS)


def test_a_second_ctrl_c_breaks_calls_off(live: LiveServer, prompts: str, tmp_path: Path) -> None:
    live.answer = lambda request: Reply([STALL])
    with process(command(live, prompts, tmp_path / "a.jsonl")) as running:
        live.wait_for_request(0)
        running.send_signal(signal.SIGINT)
        read_until(running, "waiting for the calls under way")
        running.send_signal(signal.SIGINT)
        assert running.wait(PATIENCE) == 130
    assert (tmp_path / "a.jsonl").read_text() == ""


def test_two_processes_on_one_output(
    live: LiveServer, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live.answer = lambda request: Reply([STALL])
    output = tmp_path / "a.jsonl"
    with process(command(live, prompts, output)):
        live.wait_for_request(0)
        assert main(command(live, prompts, output)) == 2
    assert "Another process is writing to" in capsys.readouterr().err


def test_the_cost_limit_stops_and_keeps_what_is_done(
    live: LiveServer, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live.answer = echo
    output = tmp_path / "a.jsonl"
    prices = ("--price-in", "0", "--price-out", "1000000", "--max-tokens", "10")
    assert main(command(live, prompts, output, *prices, "--max-cost", "25")) == 1
    said = capsys.readouterr().err
    assert "8/12 calls, $16.0000 of at most $25" in said
    assert "Stopped: the next call may cost $10.0000" in said
    assert len(by_prompt(output)) == 8
    assert main(command(live, prompts, output, *prices, "--max-cost", "100")) == 0
    assert asked(live) == Counter(PROMPTS)


def test_a_key_is_in_no_file_and_no_message(
    live: LiveServer, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def leak(request: Recorded) -> Reply:
        return error(400, f"Your request with {request.headers['authorization']} is wrong")

    live.answer = leak
    output = tmp_path / "a.jsonl"
    assert main(command(live, prompts, output)) == 1
    live.answer = lambda request: error(401, f"Wrong key: {SECRET}")
    assert main(command(live, prompts, output, "--retry-failed")) == 1
    said = capsys.readouterr()
    assert "Wrong key: ***" in said.err
    assert "Bearer ***" in output.read_text()
    for text in (said.err, said.out, *(path.read_text() for path in tmp_path.iterdir())):
        assert SECRET not in text


def test_a_key_from_the_environment_is_struck_out_too(
    live: LiveServer, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROQ_API_KEY", SECRET)
    live.answer = lambda request: error(400, request.headers["authorization"])
    arguments = ["--benchmark", prompts, "--model", "groq/m", "--base-url", live.base_url]
    assert main([*arguments, "--output", str(tmp_path / "a.jsonl")]) == 1
    assert "Bearer ***" in (tmp_path / "a.jsonl").read_text()
    assert SECRET not in (tmp_path / "a.jsonl").read_text() + capsys.readouterr().err


def test_the_demo_model_needs_nothing(prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "a.jsonl"
    assert main(["--benchmark", prompts, "--model", "demo/strong", "--limit", "3", "--output", str(output)]) == 0
    assert [row.question for row in read_rows(output)] == PROMPTS[:3]
    assert "price of demo/strong is not known" in capsys.readouterr().err
    failing = tmp_path / "b.jsonl"
    assert main(["--benchmark", prompts, "--model", "demo/x?status=400", "--limit", "3", "--output", str(failing)]) == 1
    assert {row.status for row in read_rows(failing)} == {"failed"}
    assert "3 calls failed; each says why in" in capsys.readouterr().err


def test_fields_of_ones_own_and_a_system_message(live: LiveServer, prompts: str, tmp_path: Path) -> None:
    body = '{"max_tokens": null, "temperature": null, "max_completion_tokens": 9, "reasoning_effort": "low"}'
    assert main(command(live, prompts, tmp_path / "a.jsonl", "--body", body, "--system", "Be brief.", "--limit", "1")) == 0
    sent = live.requests[0].json
    assert sent.pop("messages")[0] == {"role": "system", "content": "Be brief."}
    assert sent == {"model": "m", "max_completion_tokens": 9, "reasoning_effort": "low"}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--max-cost", "1"], "--max-cost needs a price, and that of 'openai/m' is not known"),
        (["--price-in", "1"], "go together"),
        (
            ["--max-cost", "1", "--price-in", "1", "--price-out", "1", "--body", '{"max_tokens": null}'],
            "--max-cost needs a longest answer",
        ),
        (["--body", "{"], "is not a JSON object"),
        (["--body", '{"stream": true}'], "--body can't hold 'stream'"),
        (["--concurrency", "0"], "'0' is not a whole number from 1"),
        (["--requests-per-minute", "0"], "'0' is not a number above 0"),
        (["--temperature", "nan"], "'nan' is not a number from 0"),
        (["--limit", "0"], "--limit is 0"),
    ],
)
def test_bad_arguments(
    live: LiveServer, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    try:
        code = main(command(live, prompts, tmp_path / "a.jsonl", *more))
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    assert code == 2
    assert told in capsys.readouterr().err
    assert not live.requests


def test_a_missing_key_is_told_before_anything_is_asked(
    prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--benchmark", prompts, "--model", "gpt-4o", "--output", str(tmp_path / "a.jsonl")]) == 2
    assert "OPENAI_API_KEY" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["prompts.jsonl"]
