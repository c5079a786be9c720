"""The shipped `causal_llm` on its real base, SmolLM2-135M-Instruct.

Runs where ROUTELLM_TEST_GGUF names the base's file: `make llm` fetches it, and runs this.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.example_prompts import PROMPTS
from routellm.routers.causal.gguf import convert
from routellm.routers.causal_llm import CausalLLMRouter
from tests.conftest import require
from tests.prompts import ODD_PROMPTS

GGUF = os.environ.get("ROUTELLM_TEST_GGUF")

SCORES = {
    "What is the capital of Australia?": 0.2831709,
    "hi, how are you today?": 0.2037309,
    "Prove that the square root of 3 is irrational.": 0.2673881,
    "Find all real x with x² − ½x = 3…": 0.3068527,
}

pytestmark = pytest.mark.skipif(not GGUF, reason="needs a model's file in ROUTELLM_TEST_GGUF; `make llm` has one")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    convert(Path(str(GGUF)), folder)
    return folder


def test_scores_are_what_torch_gave_when_it_was_shipped(base: Path) -> None:
    router = CausalLLMRouter(base_model=str(base), device="cpu")
    for prompt, score in SCORES.items():
        assert router.calculate_strong_win_rate(prompt) == pytest.approx(score, abs=1e-5)


def test_it_needs_no_torch(base: Path) -> None:
    code = """if True:
        import sys
        sys.modules.update(torch=None, transformers=None)
        from routellm.routers.causal_llm import CausalLLMRouter
        print(CausalLLMRouter(base_model=sys.argv[1]).calculate_strong_win_rate("What is the capital of Australia?"))
    """
    run = subprocess.run([sys.executable, "-c", code, str(base)], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) == pytest.approx(SCORES["What is the capital of Australia?"], abs=1e-5)


def test_numpy_and_torch_score_alike(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("torch")
    prompts = [*PROMPTS[:4], *ODD_PROMPTS[:6]]
    numpy = CausalLLMRouter(base_model=str(base), device="cpu").calculate_strong_win_rates(prompts)
    monkeypatch.setattr("routellm.routers.causal.loading.needs_torch", lambda *_: True)
    torch = CausalLLMRouter(base_model=str(base), device="cpu").calculate_strong_win_rates(prompts)
    np.testing.assert_allclose(numpy, torch, rtol=0, atol=1e-5)
