from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from routellm.errors import DataError
from routellm.evals.benchmarks.routerbench import RouterBench
from tests.evals.benchmarks import samples
from tests.evals.mirror import load

PAIR = RouterBench().default_pair()


def test_rows_of_one_question_are_joined(tmp_path: Path) -> None:
    data = RouterBench().read(samples.routerbench(tmp_path))
    assert data.prompts == ('It\'s a "test"?\nA) yes', "Write more code.", "Write code.")
    assert data.qualities["gpt-3.5-turbo-1106"].tolist() == [1.0, 1.0, 0.0]
    assert data.qualities[PAIR.strong].tolist() == [1.0, 0.0, 1.0]
    assert data.costs[PAIR.strong].tolist() == [0.3, 0.5, 0.4]  # what the prompt given once cost
    assert data.groups == {"eval_name": ("arc-challenge", "mbpp", "mbpp")}
    assert data.dropped == {"second row of one question": 1}


def test_the_real_files_hold_eleven_models_with_their_costs() -> None:
    data = load(RouterBench())
    assert len(data) == 3_164
    assert data.dropped == {"second row of one question": 14}
    assert Counter(data.groups["eval_name"]) == {"arc-challenge": 1_470, "winogrande": 1_267, "mbpp": 427}
    assert len(data.qualities) == 11
    assert set(data.costs) == set(data.qualities)
    assert all(np.isfinite(values).all() for values in (*data.qualities.values(), *data.costs.values()))
    outcomes = data.outcomes(PAIR)
    assert (outcomes.strong.sum(), outcomes.weak.sum()) == (2_784.0, 2_347.0)
    assert data.costs[PAIR.strong].sum() > 10 * data.costs[PAIR.weak].sum()
    assert not any(prompt.startswith("[") for prompt in data.prompts)


def one_row(folder: Path, **change: object) -> list[Path]:
    models = [samples.ROUTERBENCH_STRONG, samples.ROUTERBENCH_WEAK]
    header = ["sample_id", "prompt", "eval_name", *models, *(f"{model}|total_cost" for model in models)]
    row = {
        "sample_id": "a.1",
        "prompt": "['What?']",
        "eval_name": "a",
        header[3]: 1.0,
        header[4]: 0.0,
        header[5]: 0.1,
        header[6]: 0.1,
    }
    rows = [row, {**row, **change}]
    return [samples.write_csv(folder / "a.csv", header, [list(each.values()) for each in rows])]


@pytest.mark.parametrize("prompt", ["What?", "['What?', 'Why?']", "[]", "[3]", "[", "{}", "__import__('os')", "(" * 500, ""])
def test_a_prompt_that_is_no_list_of_one_string_is_refused(tmp_path: Path, prompt: str) -> None:
    with pytest.raises(DataError, match=r"row 2: the prompt must be written as a list of one string"):
        RouterBench().read(one_row(tmp_path, sample_id="a.2", prompt=prompt))


@pytest.mark.parametrize(
    ("column", "value"), [(samples.ROUTERBENCH_STRONG, "right"), (samples.ROUTERBENCH_WEAK + "|total_cost", "$1")]
)
def test_what_is_no_number_is_named(tmp_path: Path, column: str, value: str) -> None:
    with pytest.raises(DataError) as caught:
        RouterBench().read(one_row(tmp_path, **{"sample_id": "a.2", column: value}))
    assert f"row 2, column {column!r}: must be a number, not {value!r}" in str(caught.value)


def test_a_second_result_of_one_question_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 2: its `sample_id` names another question, or a result"):
        RouterBench().read(one_row(tmp_path))
