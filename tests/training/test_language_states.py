"""What a language model makes of prompts: computed, kept, read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from routellm.commands import FAILURE, OK, USAGE
from routellm.errors import ConfigError, DataError
from routellm.tables import read_table, write_table
from routellm.training import language_states
from routellm.training.language_states import MAX_CHARACTERS, StateReader, States, main, read_states
from routellm.training.testprompts import TestPrompts
from tests.conftest import require
from tests.routers.tiny_llama import LAYERS, WIDTH, write_base
from tests.watching import prompts_given_to

PROMPTS = ["What is 2 + 2?", "Name a colour.", "Prove it.", "x" * (MAX_CHARACTERS + 50)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("torch")
    return write_base(tmp_path_factory.mktemp("base"))


def write_prompts(path: Path, prompts: list[str]) -> str:
    write_table(path, {"prompt": prompts})
    return str(path)


def test_a_state_is_the_mean_of_hidden_states_as_transformers_computes_them(base: Path) -> None:
    torch, transformers = require("torch"), require("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(base, local_files_only=True, dtype=torch.float32)
    ids = transformers.AutoTokenizer.from_pretrained(base)("Name a colour." + language_states.ENDING)["input_ids"]
    with torch.inference_mode():
        hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    # The last of transformers' hidden states is normalised, those before it are not.
    wanted = hidden[LAYERS - 1][0, 1:].mean(dim=0).numpy()
    np.testing.assert_allclose(StateReader(base, LAYERS - 1).state("Name a colour."), wanted, atol=1e-5)


def test_more_layers_than_the_model_has_are_refused(base: Path) -> None:
    with pytest.raises(ConfigError, match=f"--layers is {LAYERS + 1}; the model in .* has {LAYERS}"):
        StateReader(base, LAYERS + 1)


def test_the_command_computes_what_its_output_lacks(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, computed = tmp_path / "states.parquet", prompts_given_to(monkeypatch, StateReader, "state")
    arguments = ["--base", str(base), "--layers", "1", "--output", str(output), "--prompts"]
    first = write_prompts(tmp_path / "first.jsonl", [*PROMPTS[:2], PROMPTS[0]])
    assert main([*arguments, first]) == OK
    assert sorted(computed) == sorted(PROMPTS[:2])
    assert main([*arguments, first, write_prompts(tmp_path / "second.jsonl", PROMPTS)]) == OK
    assert len(computed) == len(PROMPTS)
    states = read_states(str(output))
    assert sorted(states.prompts) == sorted(prompt[:MAX_CHARACTERS] for prompt in PROMPTS)
    assert states.states.shape == (len(PROMPTS), WIDTH)
    row = states.prompts.index(PROMPTS[1])
    np.testing.assert_array_equal(states.states[row], StateReader(base, 1).state(PROMPTS[1]))


def test_states_of_other_layers_are_not_mixed(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, prompts = str(tmp_path / "states.parquet"), write_prompts(tmp_path / "prompts.jsonl", PROMPTS)
    arguments = ["--base", str(base), "--prompts", prompts, "--output", output]
    assert main([*arguments, "--layers", "1"]) == OK
    kept = read_states(output)
    assert main([*arguments, "--layers", "2"]) == FAILURE
    said = capsys.readouterr().err
    assert "holds states of 1 layers of " in said
    assert "those to come would be of 2 layers of " in said
    assert np.array_equal(read_states(output).states, kept.states)


def test_a_limit_draws_prompts_by_the_seed(base: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", [f"Number {number}?" for number in range(40)])
    drawn = []
    for seed in ("1", "1", "2"):
        output = tmp_path / f"states{len(drawn)}.parquet"
        arguments = ["--base", str(base), "--layers", "1", "--limit", "5", "--seed", seed]
        assert main([*arguments, "--prompts", prompts, "--output", str(output)]) == OK
        drawn.append([prompt for (prompt,) in read_table(str(output), ["prompt"])])
    assert len(drawn[0]) == 5
    assert drawn[0] == drawn[1] != drawn[2]


def test_bad_arguments_are_refused_in_one_line(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", PROMPTS)
    output = str(tmp_path / "states.parquet")
    assert main(["--prompts", prompts, "--limit", "0", "--output", output]) == USAGE
    assert main(["--prompts", str(tmp_path / "none.jsonl"), "--output", output]) == FAILURE
    assert main(["--prompts", prompts, "--base", str(tmp_path / "nobody"), "--output", output]) == FAILURE
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert "--limit is 0" in said[0]
    assert "none.jsonl" in said[1]
    assert "nobody" in said[2]


def test_test_prompts_are_left_out(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    question = "Which of these four inner planets has the two small moons that are called Phobos and Deimos?"
    hashed = TestPrompts.of({"quiz": [(question, question)]})
    monkeypatch.setattr(TestPrompts, "load", lambda: hashed)
    prompts, output = write_prompts(tmp_path / "prompts.jsonl", [*PROMPTS[:2], question]), tmp_path / "states.parquet"
    assert main(["--base", str(base), "--layers", "1", "--prompts", prompts, "--output", str(output)]) == OK
    assert sorted(read_states(str(output)).prompts) == sorted(PROMPTS[:2])
    assert "left out 1 prompts that hold a benchmark's test prompt" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ({"prompt": [], "state": []}, "0 rows"),
        ({"prompt": ["a", ""], "state": [[1.0], [2.0]]}, "needs a prompt and a state in every row"),
        ({"prompt": ["a", "b"], "state": [[1.0], [2.0, 3.0]]}, r"widths \[1, 2\]"),
        ({"prompt": ["a", "b"], "state": [[1.0], [float("nan")]]}, "not finite"),
        ({"prompt": ["a"], "vector": [[1.0]]}, "'state'"),
    ],
)
def test_a_file_that_holds_no_states_is_refused(rows: dict[str, list[object]], complaint: str, tmp_path: Path) -> None:
    require("pyarrow")
    path = tmp_path / "states.parquet"
    write_table(path, rows)
    with pytest.raises(DataError, match=complaint):
        read_states(str(path))


def test_components_keep_distances_and_cut_off_single_huge_values() -> None:
    random = np.random.default_rng(0)
    plain = random.standard_normal((200, 6)).astype(np.float32) * np.array([5, 4, 3, 2, 1, 1], dtype=np.float32)
    components = States(["x"] * 200, plain).components(6)
    distances = [np.linalg.norm(each[:20, None] - each[None, :20], axis=2) for each in (plain, components)]
    np.testing.assert_allclose(*distances, rtol=0.05, atol=0.05)
    huge = plain.copy()
    huge[3, 5] = 1e4
    spread = States(["x"] * 200, huge).components(6).std(axis=0)
    np.testing.assert_allclose(spread, components.std(axis=0), rtol=0.05)
