from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from routellm.errors import DataError
from routellm.evals.benchmarks.file import FileBenchmark
from routellm.evals.collecting.journal import read_rows
from routellm.evals.collecting.judge import main
from routellm.evals.collecting.responses import main as responses
from routellm.training.reading import read_preferences
from tests.evals.collecting.stage import completion, error, question_of, write_jsonl
from tests.live import LiveServer, Recorded, Reply

CATEGORIES = {"p1": "math", "p2": "writing", "p3": "coding"}


@pytest.fixture
def answered(live: LiveServer, tmp_path: Path) -> list[str]:
    """Two models' answers to three prompts, of which p3 has two turns: "strong answers p1", ..."""
    prompts = [{"prompt": ["p3", "p3b"] if name == "p3" else name, "category": CATEGORIES[name]} for name in CATEGORIES]
    file = write_jsonl(tmp_path / "prompts.jsonl", prompts)
    for model in ("strong", "weak"):
        live.answer = lambda request: completion(f"{request.json['model']} answers {question_of(request)}")
        asked = ["--benchmark", file, "--model", f"openai/{model}", "--base-url", live.base_url]
        assert responses([*asked, "--output", str(tmp_path / f"{model}.jsonl")]) == 0
    live.requests.clear()
    return [str(tmp_path / "strong.jsonl"), str(tmp_path / "weak.jsonl")]


def judge(live: LiveServer, answered: list[str], *more: str) -> int:
    return main([*answered, "--judge", "openai/judge", "--base-url", live.base_url, *more])


def shown(request: Recorded) -> list[str]:
    """The answers in a judge's question, in their order."""
    return re.findall(r"(strong|weak) answers", question_of(request))


def table(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_grades_become_a_benchmark_file(
    live: LiveServer, answered: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def grade(request: Recorded) -> Reply:
        text = question_of(request)
        return completion("Fine. [[9]]" if "strong answers" in text else "[[4]]" if "p3b" in text else "[[2]]")

    live.answer = grade
    output = tmp_path / "scores.jsonl"
    assert judge(live, answered, "--scores", str(output)) == 0
    assert len(live.requests) == 8  # two models, four turns
    assert table(output) == [
        {"prompt": "p1", "category": "math", "openai/strong": 9.0, "openai/weak": 2.0},
        {"prompt": "p2", "category": "writing", "openai/strong": 9.0, "openai/weak": 2.0},
        {"prompt": "p3", "category": "coding", "openai/strong": 9.0, "openai/weak": 3.0},  # the mean of 2 and 4
    ]
    assert FileBenchmark(output).read().qualities["openai/weak"].tolist() == [2.0, 2.0, 3.0]
    said = capsys.readouterr().err
    assert "openai/strong: 3 graded, mean grade 9.00" in said
    # Everything is in the verdicts' file, so a second run asks nothing.
    assert judge(live, answered, "--scores", str(output)) == 0
    assert len(live.requests) == 8
    assert len(read_rows(tmp_path / "scores.jsonl.verdicts.jsonl")) == 8


def test_a_second_turn_is_graded_with_the_first_in_sight(live: LiveServer, answered: list[str], tmp_path: Path) -> None:
    live.answer = lambda request: completion("[[5]]")
    judge(live, answered, "--scores", str(tmp_path / "s.jsonl"))
    second = [question_of(request) for request in live.requests if "answers p3b" in question_of(request)]
    first = [text for text in map(question_of, live.requests) if "answers p3" in text and text not in second]
    assert len(second) == len(first) == 2
    assert all("answers p3\n" in text for text in second)
    assert all("p3b" not in text for text in first)


def test_unparsable_and_failed_verdicts_are_reported_and_left_out(
    live: LiveServer, answered: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def grade(request: Recorded) -> Reply:
        text = question_of(request)
        if "weak answers p1" in text:
            return completion("I would say eight or [[9]] or [[8]]")
        if "weak answers p2" in text:
            return error(400, "too rude")
        return completion("[[7]]")

    live.answer = grade
    output = tmp_path / "scores.jsonl"
    assert judge(live, answered, "--scores", str(output)) == 1
    said = capsys.readouterr().err
    assert "openai/weak: 1 unparsable, 1 failed, 1 graded, mean grade 7.00" in said
    assert [row["openai/weak"] for row in table(output)] == [None, None, 7.0]


def test_a_consistent_verdict_wins_and_an_inconsistent_one_is_a_tie(
    live: LiveServer, answered: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def compare(request: Recorded) -> Reply:
        text, first = question_of(request), shown(request)[0]
        if "answers p1" in text:  # always for the strong one, wherever it stands
            return completion("[[A]]" if first == "strong" else "[[B]]")
        return completion("[[A]]" if "answers p2" in text else "[[C]]")  # always for the first; never for anyone

    live.answer = compare
    output = tmp_path / "battles.jsonl"
    assert judge(live, answered, "--battles", str(output)) == 0
    assert len(live.requests) == 6
    assert sorted(shown(request)[0] for request in live.requests) == ["strong"] * 3 + ["weak"] * 3  # both orders
    source = "prompts.jsonl, judged by openai/judge"
    names = {"model_a": "openai/strong", "model_b": "openai/weak", "source": source, "contam": ""}
    assert table(output) == [
        {"prompt": "p1", "winner": "model_a", "consistent": True, **names},
        {"prompt": "p2", "winner": "tie", "consistent": False, **names},
        {"prompt": "p3", "winner": "tie", "consistent": True, **names},
    ]
    assert "3 battles: 1 model_a, 1 inconsistent, 1 tie" in capsys.readouterr().err
    preferences = read_preferences([str(output)])
    assert [(row.prompt, row.outcome) for row in preferences.rows] == [("p1", "first"), ("p2", "tie"), ("p3", "tie")]


def test_a_win_of_the_second_and_a_battle_with_half_a_verdict(
    live: LiveServer, answered: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def compare(request: Recorded) -> Reply:
        text, first = question_of(request), shown(request)[0]
        if "answers p2" in text and first == "weak":
            return completion("both are nice")
        if "answers p3" in text and first == "strong":
            return error(400)
        return completion("[[B]]" if first == "strong" else "[[A]]")

    live.answer = compare
    output = tmp_path / "battles.csv"
    assert judge(live, answered, "--battles", str(output)) == 1
    assert "3 battles: 1 model_b, 1 unparsable, 1 failed" in capsys.readouterr().err
    assert [row.outcome for row in read_preferences([str(output)]).rows] == ["second"]


def test_battles_on_a_benchmarks_prompts_are_never_trained_on(live: LiveServer, tmp_path: Path) -> None:
    files = []
    for model in ("strong", "weak"):
        path = tmp_path / f"{model}.jsonl"
        file = write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "p1"}])
        live.answer = lambda request: completion(f"{request.json['model']} answers")
        responses(["--benchmark", file, "--model", f"openai/{model}", "--base-url", live.base_url, "--output", str(path)])
        path.write_text(path.read_text().replace('"source":"prompts.jsonl"', '"source":"mmlu"'))
        files.append(str(path))
    live.answer = lambda request: completion("[[C]]")
    assert judge(live, files, "--battles", str(tmp_path / "b.jsonl")) == 0
    assert table(tmp_path / "b.jsonl")[0]["contam"] == "mmlu"
    with pytest.raises(DataError, match="touches a benchmark"):
        read_preferences([str(tmp_path / "b.jsonl")])


def test_references_go_where_right_and_wrong_exist(live: LiveServer, answered: list[str], tmp_path: Path) -> None:
    references = write_jsonl(
        tmp_path / "r.jsonl",
        [{"prompt": name, "reference": ["ref-p3", "ref-p3b"] if name == "p3" else f"ref-{name}"} for name in CATEGORIES],
    )
    live.answer = lambda request: completion("[[5]]")
    judge(live, answered, "--scores", str(tmp_path / "s.jsonl"), "--references", references)
    seen = {tuple(re.findall(r"\nref-(\w+)\n", question_of(request))) for request in live.requests}
    assert seen == {("p1",), (), ("p3",), ("p3b",)}  # p2 is writing
    assert all("ref-p2" not in question_of(request) for request in live.requests)


def test_incomplete_answers_are_not_judged(
    live: LiveServer, answered: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(answered[1])
    lines = [line for line in path.read_text().splitlines(keepends=True) if "answers p3b" not in line]
    path.write_text("".join(lines))
    live.answer = lambda request: completion("[[5]]")
    assert judge(live, answered, "--scores", str(tmp_path / "s.jsonl")) == 0
    assert "openai/weak: 2 graded, 1 without answer" in capsys.readouterr().err
    assert len(live.requests) == 6
    assert [row["openai/weak"] for row in table(tmp_path / "s.jsonl")] == [5.0, 5.0, None]


def test_verdicts_of_other_kinds_are_not_mixed(
    live: LiveServer, answered: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live.answer = lambda request: completion("[[5]]")
    verdicts = ("--verdicts", str(tmp_path / "v.jsonl"))
    assert judge(live, answered, "--scores", str(tmp_path / "s.jsonl"), *verdicts) == 0
    assert judge(live, answered, "--battles", str(tmp_path / "b.jsonl"), *verdicts) == 2
    assert "asked for differently: system was" in capsys.readouterr().err
    assert judge(live, answered, "--scores", str(tmp_path / "s.jsonl"), *verdicts, "--temperature", "1") == 2
    assert "temperature was 0.0 and is now 1.0" in capsys.readouterr().err


def test_the_cost_limit_leaves_what_was_judged(
    live: LiveServer, answered: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live.answer = lambda request: completion("[[5]]")
    more = ("--price-in", "0", "--price-out", "1000000", "--max-tokens", "10", "--max-cost", "13", "--concurrency", "1")
    assert judge(live, answered, "--scores", str(tmp_path / "s.jsonl"), *more) == 1
    assert len(live.requests) == 2
    said = capsys.readouterr().err
    assert "openai/strong: 2 graded, 1 not asked" in said
    assert [row["prompt"] for row in table(tmp_path / "s.jsonl")] == ["p1", "p2"]


def test_the_demo_model_as_a_judge_gives_nothing_to_read(
    answered: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, told in (("--scores", "openai/weak: 3 unparsable"), ("--battles", "3 battles: 3 unparsable")):
        output = tmp_path / f"{kind[2:]}.jsonl"
        assert main([*answered, "--judge", "demo/judge", kind, str(output)]) == 1
        said = capsys.readouterr().err
        assert told in said
        assert f"There is no verdict to write to {output}" in said
        assert not output.exists()


def test_battles_need_two_models_and_common_prompts(
    live: LiveServer, answered: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(live, answered[:1], "--battles", str(tmp_path / "b.jsonl")) == 1
    assert "Battles need the answers of two models or more" in capsys.readouterr().err
    path = Path(answered[1])
    path.write_text(path.read_text().replace('"prompt":"p', '"prompt":"q'))
    assert judge(live, answered, "--battles", str(tmp_path / "b.jsonl")) == 1
    assert "No prompt was answered by two of" in capsys.readouterr().err
    assert not live.requests
