"""Kinds of comparisons that count for prompts that list options only, or for all others, and kinds that count for more."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm.embeddings.factory import load_embedder
from routellm.embeddings.features import PromptFeatures
from routellm.embeddings.form import form_features
from routellm.embeddings.surface import surface_features
from routellm.errors import DataError
from routellm.routers.checkpoint import META_FILE, load_checkpoint
from routellm.routers.odds import log_odds
from routellm.routers.parts import lists_options
from routellm.routers.routers import Router, build_router
from routellm.routers.views import View, Viewer
from routellm.training import gain_fit
from routellm.training.boosting import TreeSettings
from routellm.training.gain_fit import Gains, Linear, Members, balanced, fit_members, fold, gather
from routellm.training.gain_kinds import KindSettings
from routellm.training.preferences import Preference
from routellm.training.scale import Scale
from tests.training.files import write
from tests.training.gains import comparisons, prompt, run_train


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gain_fit, "TREES", TreeSettings(trees=20, depth=3, rate=0.2, penalty=5.0, rows=0.8, columns=0.5))
    monkeypatch.setattr(gain_fit, "SMALL", 20)


def with_options(one: str) -> str:
    return f"{one}\nA. the first\nB. the second\nC. neither"


def exams(n: int, *, options: bool = True) -> list[dict[str, Any]]:
    """Rows of the kind `quiz`, in which easy prompts are those that are won."""
    rows = comparisons(n, seed=1, sources={"quiz/arts": (0.9, 0.2), "quiz/sums": (0.9, 0.2)})
    return [{**row, "prompt": with_options(row["prompt"])} for row in rows] if options else rows


# The command


def trained(folder: Path, *flags: str, name: str = "gain_fast") -> Router:
    folder.mkdir(exist_ok=True)
    data = write(folder / "gains.jsonl", comparisons(240) + exams(160))
    assert run_train(name, data, folder / "made", "--validation-share", "0.3", *flags) == 0
    return build_router(name, {"checkpoint_path": str(folder / "made")})


def lead(router: Router, *, options: bool) -> float:
    """How much higher hard prompts score than easy ones, in log-odds."""

    def mean(hard: bool) -> float:
        asked = [prompt(subject, hard, number) for subject in ("arts", "sums") for number in range(900, 915)]
        scores = router.calculate_strong_win_rates([with_options(one) if options else one for one in asked])
        return float(np.mean([log_odds(float(score)) for score in scores]))

    return mean(True) - mean(False)


@pytest.mark.parametrize("name", ["gain_fast", "gain_accurate"])
def test_an_options_only_kind_turns_prompts_with_options_round_and_no_others(tmp_path: Path, name: str) -> None:
    flags = ["--options-only", "quiz", "--kind-weight", "quiz=8", "--embedding-model", "static"]
    router = trained(tmp_path, *flags, name=name)
    assert lead(router, options=False) > 0.2
    assert lead(router, options=True) < -0.2


@pytest.mark.parametrize("name", ["gain_fast", "gain_accurate"])
def test_an_open_only_kind_turns_prompts_without_options_round_and_no_others(tmp_path: Path, name: str) -> None:
    folder, others = tmp_path / "made", [{**row, "prompt": with_options(row["prompt"])} for row in comparisons(240)]
    data = write(tmp_path / "gains.jsonl", others + exams(160, options=False))
    flags = ["--open-only", "quiz", "--kind-weight", "quiz=8", "--embedding-model", "static", "--validation-share", "0.3"]
    assert run_train(name, data, folder, *flags) == 0
    router = build_router(name, {"checkpoint_path": str(folder)})
    assert lead(router, options=False) < -0.2
    assert lead(router, options=True) > 0.2


def test_without_the_flag_it_moves_all_prompts_alike(tmp_path: Path) -> None:
    router = trained(tmp_path, "--kind-weight", "quiz=8")
    assert lead(router, options=False) < -0.05
    assert lead(router, options=True) < -0.05


def test_a_kind_of_little_weight_turns_nothing_round(tmp_path: Path) -> None:
    router = trained(tmp_path, "--options-only", "quiz", "--kind-weight", "quiz=0.01")
    assert lead(router, options=True) > 0.05


def test_the_card_says_which_kinds_count_how(tmp_path: Path) -> None:
    trained(tmp_path / "two", "--options-only", "quiz", "--kind-weight", "quiz=8", "gain=1.5", "--kind-weight", "difficulty=2")
    trained(tmp_path / "one")
    trained(tmp_path / "open", "--open-only", "difficulty")
    trained(tmp_path / "trees", "--open-trees")
    told = {}
    for name in ("two", "one", "open", "trees"):
        folder = tmp_path / name / "made"
        training = json.loads((folder / META_FILE).read_text())["training"]
        tensors = load_checkpoint(folder, "gain_fast").tensors
        rows = {len(tensors[part]) for part in ("embedding", "form", "trees.value", "bias")}
        names = ("options_only", "open_only", "open_trees", "kind_weights")
        told[name] = (*(training[one] for one in names), rows)
        shown = set(re.findall(r"^\| (\w+) \|", (folder / "README.md").read_text(), re.M))
        assert shown >= set(names)
    assert told == {
        "two": (["quiz"], [], False, ["quiz=8", "gain=1.5", "difficulty=2"], {2}),
        "one": ([], [], False, [], {1}),
        "open": ([], ["difficulty"], False, [], {2}),
        "trees": ([], [], True, [], {2}),
    }


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--options-only", "quizz"], 2,
            "--options-only names the kind 'quizz' (did you mean 'quiz'?); the data have: 'gain', 'quiz'"),
        (["--options-only", "quiz", "gain"], 2, "--options-only names all kinds that the data have"),
        (["--options-only", "gain"], 1, "No training prompt of the kind 'gain' lists options"),
        (["--open-only", "quiz"], 1, "Every training prompt of the kind 'quiz' lists options; leave it out of --open-only."),
        (["--open-only", "gian"], 2,
            "--open-only names the kind 'gian' (did you mean 'gain'?); the data have: 'gain', 'quiz'"),
        (["--open-only", "quiz", "gain"], 2, "--open-only names all kinds that the data have"),
        (["--open-only", "gain", "--options-only", "quiz"], 2,
            "--options-only and --open-only name all kinds that the data have; leave one that counts for all prompts."),
        (["--open-only", "quiz", "--options-only", "quiz"], 2,
            "--options-only and --open-only both name the kind 'quiz'; name it in one, or in none."),
        (["--kind-weight", "qiz=2"], 2, "--kind-weight names the kind 'qiz' (did you mean 'quiz'?)"),
        (["--kind-weight", "quiz"], 2, "--kind-weight takes KIND=X with a number X, such as exam=2, not 'quiz'"),
        (["--kind-weight", "2"], 2, "--kind-weight takes KIND=X with a number X, such as exam=2, not '2'"),
        (["--kind-weight", "quiz=two"], 2, "not 'quiz=two'"),
        (["--kind-weight", "quiz=0"], 2, "--kind-weight of 'quiz' is 0; it must be a number above 0"),
        (["--kind-weight", "gain=1", "quiz=-1"], 2, "--kind-weight of 'quiz' is -1"),
        (["--kind-weight", "quiz=nan"], 2, "--kind-weight of 'quiz' is nan"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_and_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], code: int, said: str
) -> None:
    data = write(tmp_path / "gains.jsonl", comparisons(60, sources={"gain/arts": (0.2, 0.8)}) + exams(40))
    assert run_train("gain_fast", data, tmp_path / "made", *flags) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("routellm: error: ")
    assert said in error
    assert not (tmp_path / "made").exists()


# The fit


def gains_of(rows: list[dict[str, Any]]) -> Gains:
    first = {"strong": "first", "tie": "tie"}
    read = [Preference(row["prompt"], "big", "small", first[row["outcome"]], row["source"], row["weight"]) for row in rows]  # type: ignore[arg-type]
    return gather(read, "big", "small")


def look(gains: Gains) -> tuple[Viewer, View, Scale]:
    viewer = Viewer(PromptFeatures(load_embedder("static")), {}, words=False)
    seen = viewer.see_batch(gains.prompts)
    return viewer, seen, Scale.of(seen.form)


QUIZ = KindSettings(across=["quiz"], options_only=["quiz"], weights={"quiz": 3.0})
OPEN = KindSettings(across=["quiz"], open_only=["quiz"], weights={"quiz": 3.0})
TREES = replace(QUIZ, open_trees=True)
ALL = comparisons(120) + exams(80) + exams(12, options=False)
"""Prompts of the kind `quiz` that list no options tell nothing where it is options-only."""


def test_it_adds_nothing_on_average_and_as_much_as_its_weight() -> None:
    gains = gains_of(ALL)
    _, seen, scale = look(gains)
    view, listing, rows = scale.standardised(seen), lists_options(seen.form), np.arange(0, len(gains.prompt), 2)
    members = fit_members(gains, view, listing, rows, QUIZ, 1.0, 0)
    everything = members.scores(view, listing)
    added = everything - members.scores(view, np.zeros(len(view), dtype=np.bool_))
    assert 0 < listing.sum() < len(listing)
    assert not added[~listing].any()
    assert added[listing].std() == pytest.approx(3.0)
    fitted = rows[listing[gains.prompt[rows]]]
    mean = np.average(added[gains.prompt[fitted]], weights=balanced(gains.source[fitted]))
    assert mean == pytest.approx(0.0, abs=1e-9)
    assert [each.listing for each in members.linear] == [None, None, True]
    assert [each.listing for each in members.boosted] == [None, None]


def test_an_open_only_kind_adds_nothing_on_average_either() -> None:
    """Neither its regression nor its trees."""
    gains = gains_of(comparisons(120) + exams(80) + exams(60, options=False))
    _, seen, scale = look(gains)
    view, listing, rows = scale.standardised(seen), lists_options(seen.form), np.arange(0, len(gains.prompt), 2)
    members = fit_members(gains, view, listing, rows, OPEN, 1.0, 0)
    fitted = rows[~listing[gains.prompt[rows]]]
    for several in (members.linear, members.boosted):
        assert [each.listing for each in several] == [None, None, False]
        quiz = several[2]
        scores = quiz.model.scores(view) if isinstance(quiz.model, Linear) else quiz.model.predict_batch(view.form)
        added = quiz.counted(scores, listing)
        assert not added[listing].any()
        assert added[~listing].std() == pytest.approx(3.0)
        mean = np.average(added[gains.prompt[fitted]], weights=balanced(gains.source[fitted]))
        assert mean == pytest.approx(0.0, abs=1e-9)


def test_trees_for_open_prompts_leave_those_as_they_are_and_count_for_no_others() -> None:
    gains = gains_of(ALL)
    _, seen, scale = look(gains)
    view, listing, rows = scale.standardised(seen), lists_options(seen.form), np.arange(len(gains.prompt))
    members = fit_members(gains, view, listing, rows, TREES, 1.0, 0)
    everywhere = fit_members(gains, view, listing, rows, replace(TREES, open_trees=False), 1.0, 0)
    assert [each.listing for each in members.linear] == [None, None, True]
    assert [each.listing for each in members.boosted] == [False, False]
    scores, before = members.scores(view, listing), everywhere.scores(view, listing)
    assert np.ptp((scores - before)[~listing]) == pytest.approx(0.0, abs=1e-9)
    regressions = Members(members.linear).scores(view, listing)
    assert scores[listing].tolist() == regressions[listing].tolist()
    assert np.ptp((scores - regressions)[~listing]) > 0.1
    for each in members.boosted:  # and on average over all prompts the kind was fitted on, they would have added nothing
        mean = np.average(each.model.predict_batch(view.form)[gains.prompt], weights=balanced(gains.source))
        assert each.mean == pytest.approx(mean)


def test_other_kinds_and_other_prompts_are_as_if_it_were_not_there() -> None:
    """Of its own prompts without options nothing is learned either."""
    gains = gains_of(ALL)
    _, seen, scale = look(gains)
    view, listing = scale.standardised(seen), lists_options(seen.form)
    others = np.flatnonzero(~np.isin(np.arange(len(gains.prompt)), gains.kinds()["quiz"]))
    members = fit_members(gains, view, listing, np.arange(len(gains.prompt)), QUIZ, 1.0, 0)
    known = fit_members(gains, view, listing, np.union1d(others, np.flatnonzero(listing[gains.prompt])), QUIZ, 1.0, 0)
    assert members.scores(view, listing).tolist() == known.scores(view, listing).tolist()
    alone = gains_of(comparisons(120))
    places = np.array([gains.prompts.index(one) for one in alone.prompts])
    part = Gains(gains.prompts, places[alone.prompt], alone.gain, alone.won, alone.source, alone.sources)
    without = fit_members(part, view, listing, np.arange(len(part.prompt)), KindSettings(), 1.0, 0)
    assert members.scores(view, listing)[~listing].tolist() == without.scores(view, listing)[~listing].tolist()


def test_a_weight_multiplies_trees_and_regression_alike() -> None:
    gains = gains_of(comparisons(120))
    _, seen, scale = look(gains)
    view, listing, rows = scale.standardised(seen), lists_options(seen.form), np.arange(len(gains.prompt))
    heavy, light = (fit_members(gains, view, listing, rows, KindSettings(weights=w), 1.0, 0) for w in ({"gain": 4.0}, {}))
    for several in ("linear", "boosted"):
        pairs = zip(getattr(light, several), getattr(heavy, several), strict=True)
        ratios = [one.divisor / other.divisor for one, other in pairs]
        assert ratios == [1.0, 4.0]  # difficulty, gain


@pytest.mark.parametrize(
    "kinds", [QUIZ, OPEN, TREES, KindSettings(open_trees=True)], ids=["options-only", "open-only", "both", "open trees"]
)
def test_what_is_folded_scores_as_the_members_do(kinds: KindSettings) -> None:
    gains = gains_of(ALL)
    viewer, seen, scale = look(gains)
    view, listing = scale.standardised(seen), lists_options(seen.form)
    members = fit_members(gains, view, listing, np.arange(len(gains.prompt)), kinds, 1.0, 0)
    parts = fold(members, scale, 1.3, -0.7)
    assert (parts.embedding.shape, parts.form.shape, parts.bias.shape) == ((2, 256), (2, len(viewer.form_names)), (2,))
    assert {tensor.dtype for tensor in (parts.embedding, parts.form, parts.bias)} == {np.dtype(np.float32)}
    assert (parts.words.shape, parts.prior.shape) == ((0,), (0,))
    wanted = 1.3 * members.scores(view, listing) - 0.7
    assert [parts.log_odds(seen.row(row)) for row in range(len(seen))] == pytest.approx(wanted.tolist(), abs=1e-4)


def test_prompts_without_options_alone_are_refused_for_a_kind_that_needs_them() -> None:
    gains = gains_of(comparisons(120) + exams(40, options=False))
    _, seen, scale = look(gains)
    rows = np.arange(len(gains.prompt))
    with pytest.raises(DataError, match="No training prompt of the kind 'quiz' lists options"):
        fit_members(gains, scale.standardised(seen), lists_options(seen.form), rows, QUIZ, 1.0, 0)


@pytest.mark.parametrize(
    ("prompt", "listed"),
    [
        ("Which is red?\nA. sky\nB. blood", True),
        ("Which is red? (a) sky (b) blood", True),
        ("Which is red?\nA. sky\nB. blood\nC. grass\nD. snow\nE. coal", True),
        ("Which is red?\nA. sky\nB. blood\nC. grass\nD. snow\nE. coal\nF. sand", False),
        ("How much is in an orange of vitamin C. Tell me.", False),
        ("Name a colour.", False),
    ],
)
def test_options_are_two_to_five_marks(prompt: str, listed: bool) -> None:
    form = np.concatenate([surface_features(prompt), form_features(prompt)])
    assert bool(lists_options(form)) is listed
