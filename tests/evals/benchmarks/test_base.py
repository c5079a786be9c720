from __future__ import annotations

import numpy as np
import pytest

from routellm.errors import DataError, UnknownNameError
from routellm.evals.benchmarks.base import BenchmarkData
from routellm.training.overlap import prompt_hash
from routellm.types import ModelPair


def make(**change: object) -> BenchmarkData:
    content = {
        "prompts": ("a", "b", "c"),
        "qualities": {"s": np.array([1.0, 0.0, 1.0]), "w": np.array([0.0, 0.0, 1.0])},
        "groups": {"kind": ("x", "y", "x")},
        "costs": {"s": np.array([1.0, 2.0, 3.0])},
        "dropped": {"contaminated": 2},
    }
    return BenchmarkData(**{**content, **change})  # type: ignore[arg-type]


def test_take_cuts_everything_alike_and_counts() -> None:
    data = make().take(np.array([True, False, True]), "odd")
    assert data.prompts == ("a", "c")
    assert data.qualities["w"].tolist() == [0.0, 1.0]
    assert data.groups == {"kind": ("x", "x")}
    assert data.costs["s"].tolist() == [1.0, 3.0]
    assert data.dropped == {"contaminated": 2, "odd": 1}
    assert data.sha256 != make().sha256


def test_without_leaves_out_prompts_by_their_hash() -> None:
    data = make().without({prompt_hash(" b\n"), prompt_hash("unknown")})
    assert data.prompts == ("a", "c")
    assert data.dropped["in a contamination list"] == 1


def test_the_hash_depends_on_prompts_and_qualities_alone() -> None:
    assert make().sha256 == make(groups={}, costs={}, dropped={}).sha256
    assert make().sha256 == make(qualities=dict(reversed(make().qualities.items()))).sha256
    others = [
        make(prompts=("a", "b", "d")),
        make(prompts=("ab", "c", "c")),
        make(prompts=("a", "bc", "c")),
        make(qualities={"s": np.array([1.0, 0.0, 1.0]), "w": np.array([0.0, 0.0, 0.9])}),
        make(qualities={"s": np.array([1.0, 0.0, 1.0]), "v": np.array([0.0, 0.0, 1.0])}),
    ]
    assert len({make().sha256, *(other.sha256 for other in others)}) == 6


def test_any_text_can_be_hashed() -> None:
    assert make(prompts=("\ud83d", "\x00", "日本")).sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": (), "qualities": {}}, r"no prompts \(2 left out: contaminated\)"),
        ({"prompts": ("a", " \n", "c")}, "Prompt 2 of the benchmark is empty"),
        ({"qualities": {"s": np.zeros(2)}}, "'s' has 2 qualities, but there are 3 prompts"),
        ({"groups": {"kind": ("x",)}}, "'kind' has 1 labels, but there are 3 prompts"),
        ({"costs": {"s": np.zeros(4)}}, "'s' has 4 costs, but there are 3 prompts"),
        ({"qualities": {"s": np.array([1.0, np.inf, 0.0])}}, "'s' must be finite"),
    ],
)
def test_content_that_does_not_fit_together_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(**change)


def test_leaving_out_everything_is_an_error() -> None:
    with pytest.raises(DataError, match=r"no prompts \(2 left out: contaminated, 3 left out: all\)"):
        make().take(np.zeros(3, dtype=bool), "all")


def test_results_are_asked_for_by_known_models() -> None:
    for pair in (ModelPair("s", "x"), ModelPair("x", "w")):
        with pytest.raises(UnknownNameError, match="Unknown model 'x'"):
            make().outcomes(pair)
        with pytest.raises(UnknownNameError, match="Unknown model 'x'"):
            make().with_results(pair)
