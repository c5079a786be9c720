from __future__ import annotations

import json
from typing import Any

import pytest

from routellm.calibration.quantiles import ScoreQuantiles
from routellm.decider import Decider, Pending, Ready
from routellm.errors import ConfigError, ModelNotFoundError, RequestError, UnknownNameError
from routellm.routers.routers import Router
from routellm.types import ModelPair

PAIR = ModelPair("big", "small")


class Fixed(Router):
    """Says the same of every prompt, and remembers what it was asked."""

    def __init__(self, score: float, quantiles: ScoreQuantiles | None = None) -> None:
        self.score, self.quantiles = score, quantiles
        self.asked: list[str] = []

    def calculate_strong_win_rate(self, prompt: str) -> float:
        self.asked.append(prompt)
        return self.score


def decider(score: float = 0.5, **options: Any) -> tuple[Decider, Fixed]:
    router = Fixed(score)
    return Decider({"fixed": router, "my-router": Fixed(0.0)}, PAIR, **options), router


def messages(*contents: Any) -> bytes:
    return json.dumps([{"role": "user", "content": content} for content in contents]).encode()


@pytest.mark.parametrize(
    ("score", "threshold", "model"),
    [(0.5, 0.5, "big"), (0.49999, 0.5, "small"), (0.0, 0.0, "big"), (1.0, 1.0, "big"), (0.99, 1.0, "small")],
)
def test_the_strong_model_answers_where_the_win_rate_is_at_least_the_threshold(
    score: float, threshold: float, model: str
) -> None:
    decides, router = decider(score)
    decision = decides.decide(f"router-fixed-{threshold}", messages("hello"))
    assert (decision.model, decision.reason, decision.router) == (model, "threshold", "fixed")
    assert (decision.threshold, decision.win_rate) == (threshold, score)
    assert decision.decision_us > 0
    assert router.asked == ["hello"]
    assert decides.decide_prompt("hello", "fixed", threshold).model == model


@pytest.mark.parametrize("name", ["big", "small"])
def test_a_models_own_name_pins_it_without_reading_the_messages(name: str) -> None:
    decides, router = decider()
    step = decides.begin(name, b"not even JSON")
    assert isinstance(step, Ready)
    assert (step.decision.model, step.decision.reason) == (name, "pinned")
    assert (step.decision.router, step.decision.win_rate) == (None, None)
    assert router.asked == []


@pytest.mark.parametrize("content", ["", "  ", None, []])
def test_without_text_the_strong_model_answers(content: Any) -> None:
    decides, router = decider(0.0)
    decision = decides.decide("router-fixed-0.9", messages(content))
    assert (decision.model, decision.reason, decision.win_rate) == ("big", "no-text", None)
    assert decides.decide_prompt("", "fixed", 0.9).reason == "no-text"
    assert router.asked == []


def test_a_part_that_the_weak_model_cant_take_goes_to_the_strong_one() -> None:
    picture = messages([{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {}}])
    decides, router = decider(0.0)
    assert decides.decide("router-fixed-0.9", picture).reason == "modality"
    assert decides.decide("router-fixed-0.9", picture).model == "big"
    assert router.asked == []
    takes_images, router = decider(0.0, weak_modalities=frozenset({"image"}))
    assert takes_images.decide("router-fixed-0.9", picture).model == "small"
    assert router.asked == ["what is this?"]


def test_which_turns_decide_can_be_chosen() -> None:
    for prompt_from, asked in [("last", "two"), ("first", "one"), (2, "one\n\ntwo")]:
        decides, router = decider(prompt_from=prompt_from)
        decides.decide("router-fixed-0.5", messages("one", "two"))
        assert router.asked == [asked]


def test_begin_stops_before_the_score() -> None:
    decides, router = decider()
    step = decides.begin("router-fixed-0.5", messages("hello"))
    assert isinstance(step, Pending)
    assert router.asked == []
    assert step.blocking
    assert decides.finish(step).model == "big"


def test_without_a_threshold_the_routers_quantiles_give_one() -> None:
    ramp = ScoreQuantiles(tuple(i / 1000 for i in range(1001)), "a ramp", 1001)
    routers = {"measured": Fixed(0.5, ramp), "bare": Fixed(0.5)}
    decides = Decider(routers, PAIR, default_strong_share=0.2)
    assert decides.default_thresholds == pytest.approx({"measured": 0.8, "bare": 0.8})
    assert decides.decide("router-measured", messages("x")).threshold == pytest.approx(0.8)
    assert decides.decide_prompt("x", "bare").threshold == pytest.approx(0.8)
    assert decides.quantiles("measured") is ramp
    assert decides.quantiles("bare") is None


def test_what_is_served_is_listed() -> None:
    assert decider()[0].served_models == ["router-fixed", "router-my-router", "big", "small"]


def test_an_unknown_model_is_refused_with_what_is_served() -> None:
    with pytest.raises(
        ModelNotFoundError, match=r"'bog' is not served \(did you mean 'big'\?\).*router-fixed-THRESHOLD"
    ) as caught:
        decider()[0].begin("bog", messages("x"))
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


@pytest.mark.parametrize("name", ["router-fxied-0.5", "router-fixed-2", "router-fixed-x", "router-"])
def test_a_wrong_router_or_threshold_is_refused(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        decider()[0].begin(name, messages("x"))
    assert (caught.value.status, caught.value.param) == (400, "model")


def test_a_bare_prompt_is_refused_alike() -> None:
    decides, _ = decider()
    with pytest.raises(RequestError, match="did you mean 'fixed'"):
        decides.decide_prompt("x", "fixde")
    with pytest.raises(RequestError):
        decides.decide_prompt("x", "fixed", 1.5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"default_strong_share": 1.5}, "default share of strong calls is 1.5"),
        ({"default_strong_share": float("nan")}, "nan"),
        ({"prompt_from": "middle"}, "'middle'"),
        ({"prompt_from": 0}, "0"),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        decider(**options)


def test_loading_names_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="No routers given"):
        Decider.load([], PAIR)
    with pytest.raises(ConfigError, match=r"must be a list of names, such as \['random'\]"):
        Decider.load("random", PAIR)
    with pytest.raises(UnknownNameError, match="did you mean 'random'"):
        Decider.load(["randon"], PAIR)
    with pytest.raises(ConfigError, match=r"takes no argument 'sede' \(did you mean 'seed'\?\)"):
        Decider.load(["random"], PAIR, {"random": {"sede": 3}})
    with pytest.raises(ConfigError, match="seed of the router 'random' is -1"):
        Decider.load(["random"], PAIR, {"random": {"seed": -1}})
    assert list(Decider.load(["random"], PAIR, {"random": {"seed": 3}}).routers) == ["random"]
