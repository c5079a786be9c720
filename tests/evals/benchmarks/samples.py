"""Small files in the layouts of the built-in benchmarks, for tests that need no network. Their prompts are made up."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from routellm.evals.benchmarks.published import STRONG, WEAK

ROUTERBENCH_STRONG, ROUTERBENCH_WEAK = "gpt-4-1106-preview", "mistralai/mixtral-8x7b-chat"


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_contaminated(folder: Path, *prompts: str) -> Path:
    return write_jsonl(folder / "contaminated_prompts.jsonl", [{"eval_prompt": prompt, "train_idx": 1} for prompt in prompts])


def mmlu(folder: Path) -> list[Path]:
    """Of `MMLU(["anatomy", "astronomy"])`: five questions, one of them contaminated."""
    header = ["prompt", WEAK, STRONG]
    return [
        write_csv(
            folder / "mmlu_anatomy.csv",
            header,
            [("Which bone?\nA. one\nAnswer:", True, True), ("Which nerve?", False, True), ("Leaked?", True, False)],
        ),
        write_csv(folder / "mmlu_astronomy.csv", header, [("Which star?", False, False), ("Which, “moon”?", True, False)]),
        write_contaminated(folder, "Leaked?", "Another one"),
    ]


def gsm8k(folder: Path) -> list[Path]:
    """Three problems, one of them contaminated."""
    header = ["prompt", WEAK, STRONG, f"{WEAK}_response", f"{STRONG}_response"]
    rows = [("2 + 2?", True, True, "4", "4"), ("3 * 3?", False, True, "6", "9,\nsurely"), ("Leaked?", True, True, "1", "1")]
    return [write_csv(folder / "gsm8k_responses.csv", header, rows), write_contaminated(folder, "Leaked?")]


def mt_bench(folder: Path) -> list[Path]:
    """Four questions, of which one is contaminated by its first turn and one by its second."""
    turns = [["Write.", "Shorter."], ["Count.", "Again."], ["Leaked?", "Fine."], ["Good.", "Leaked too?"]]
    questions = [
        {"question_id": 81 + index, "category": ("writing", "math")[index % 2], "turns": pair}
        for index, pair in enumerate(turns)
    ]
    grades = {(STRONG, 1): 9, (STRONG, 2): 10, (WEAK, 1): 8, (WEAK, 2): 5.5}
    judgements = [
        {"question_id": question["question_id"], "model": model, "turn": turn, "score": score, "judge": ["gpt-4"]}
        for question in questions
        for (model, turn), score in grades.items()
    ]
    return [
        write_jsonl(folder / "question.jsonl", questions),
        write_jsonl(folder / "judgements.jsonl", judgements),
        write_contaminated(folder, "Leaked?", "Leaked too?"),
    ]


def routerbench(folder: Path) -> list[Path]:
    """Three questions in two files; the first stands in two rows, as some do in the real files."""
    models = ["gpt-3.5-turbo-1106", ROUTERBENCH_STRONG, ROUTERBENCH_WEAK]
    header = ["", "sample_id", "prompt", "eval_name", *models, *(f"{m}|model_response" for m in models)]
    header += [*(f"{m}|total_cost" for m in models), "oracle_model_to_route_to"]

    def row(sample: str, prompts: list[str], task: str, qualities: list[Any], costs: list[float]) -> list[Any]:
        return [7, sample, repr(prompts), task, *qualities, "['x']", "['y']", "['z']", *costs, "gpt-4"]

    train = [
        row("arc.1", ['It\'s a "test"?\nA) yes'], "arc-challenge", ["", 1.0, 0.0], [0.1, 0.3, 0.01]),
        row("mbpp.1", ["Write code."], "mbpp", [0.0, 1.0, 1.0], [0.2, 0.4, 0.02]),
    ]
    test = [
        row("arc.1", ['It\'s a "test"?\nA) yes'] * 2, "arc-challenge", [1.0, "", ""], [0.2, 0.6, 0.02]),
        row("mbpp.2", ["Write more code."], "mbpp", [1.0, 0.0, 1.0], [0.3, 0.5, 0.03]),
    ]
    return [write_csv(folder / "a_test.csv", header, test), write_csv(folder / "a_train.csv", header, train)]
