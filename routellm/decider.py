"""From a request to a decision: loaded routers, a pair of models, and the rules that come before any score.

The server and the controllers share this room, so that a request is decided alike on either way in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns

import msgspec

from routellm.calibration.quantiles import ScoreQuantiles
from routellm.config import RouterConfig, check_config
from routellm.errors import ConfigError, ModelNotFoundError
from routellm.messages import PromptFrom, PromptView, RouterTarget, parse_model_name, read_prompt
from routellm.routers.routers import ROUTER_CLS, Router, build_router
from routellm.types import Decision, ModelPair, check_threshold


class Ready(msgspec.Struct, frozen=True, gc=False):
    """A decision that took no router: it holds already."""

    decision: Decision


_REMEMBERED_NAMES = 256
"""Model names that were read once, as clients ask for few."""


class Pending(msgspec.Struct, frozen=True, gc=False):
    """A decision that waits for a score."""

    name: str
    router: Router
    threshold: float
    text: str
    started_ns: int

    @property
    def blocking(self) -> bool:
        """Whether the score may take over a millisecond, and so must not be computed on an event loop."""
        return self.router.blocks(self.text)


class Decider:
    """Holds the routers by name and decides which model of the pair answers.

    Args:
        routers: the routers by the names that requests use; at least one.
        pair: the strong and the weak model.
        weak_modalities: kinds of content other than text that the weak model takes ("image", "audio", ...). A request with
            any other kind goes to the strong model.
        prompt_from: which user turns make the prompt that decides.
        default_strong_share: the share of strong calls that `router-<name>` without a threshold aims at, by the quantiles
            that the router's checkpoint carries.

    Raises:
        ConfigError: no routers, or an argument out of range.
    """

    def __init__(
        self,
        routers: Mapping[str, Router],
        pair: ModelPair,
        *,
        weak_modalities: frozenset[str] = frozenset(),
        prompt_from: PromptFrom = "last",
        default_strong_share: float = 0.5,
    ) -> None:
        if not routers:
            raise ConfigError(f"No routers given. Name at least one of: {', '.join(ROUTER_CLS)}.")
        if not 0.0 <= default_strong_share <= 1.0:
            raise ConfigError(f"The default share of strong calls is {default_strong_share!r}; it must lie from 0 to 1.")
        if not (prompt_from in ("last", "first") or (isinstance(prompt_from, int) and prompt_from >= 1)):
            raise ConfigError(f"prompt_from is {prompt_from!r}; it must be 'last', 'first', or a number of user turns.")
        self.routers = dict(routers)
        self.pair = pair
        self._targets: dict[str, RouterTarget] = {}
        self._weak_modalities = weak_modalities
        self.prompt_from = prompt_from
        self.default_thresholds = {
            name: 1.0 - default_strong_share
            if router.quantiles is None
            else router.quantiles.threshold_for_share(default_strong_share).threshold
            for name, router in self.routers.items()
        }

    @classmethod
    def load(
        cls,
        names: Sequence[str],
        pair: ModelPair,
        config: RouterConfig | None = None,
        *,
        weak_modalities: frozenset[str] = frozenset(),
        prompt_from: PromptFrom = "last",
        default_strong_share: float = 0.5,
    ) -> Decider:
        """Build the named routers from `config` (router name -> keyword arguments).

        Raises:
            UnknownNameError: no such router is registered.
            ConfigError: `config` names an unknown router or argument.
            CheckpointError: a router's files can't be read.
        """
        if isinstance(names, str):
            raise ConfigError(f"`routers` must be a list of names, such as [{names!r}], not a single string.")
        checked = check_config(config or {}, ROUTER_CLS)
        return cls(
            {name: build_router(name, checked.get(name)) for name in names},
            pair,
            weak_modalities=weak_modalities,
            prompt_from=prompt_from,
            default_strong_share=default_strong_share,
        )

    @property
    def served_models(self) -> list[str]:
        """Every model name that a request may give: `router-<name>` for each router, then the pair's own names."""
        return list(dict.fromkeys([*(f"router-{name}" for name in self.routers), self.pair.strong, self.pair.weak]))

    def begin(self, model: str, messages: bytes | msgspec.Raw) -> Ready | Pending:
        """`begin_view` for the JSON of a chat request's messages."""
        return self.begin_view(model, lambda prompt_from: read_prompt(messages, prompt_from))

    def begin_view(self, model: str, view_of: Callable[[PromptFrom], PromptView]) -> Ready | Pending:
        """Read a request as far as a router's score.

        Args:
            model: the request's model name: `router-<name>-<threshold>`, `router-<name>`, or one of the pair's own.
            view_of: finds the prompt that decides; not called where the model is one of the pair's own.

        Raises:
            RequestError: the router, the threshold or, by `view_of`, the conversation is wrong.
            ModelNotFoundError: `model` is none that is served.
        """
        started = perf_counter_ns()
        target = self._target(model)
        if target is None:
            return Ready(Decision(model, "pinned", decision_us=_microseconds_since(started)))
        view = view_of(self.prompt_from)
        threshold = self.default_thresholds[target.router] if target.threshold is None else target.threshold
        return self._begin_view(target.router, threshold, view, started)

    def finish(self, pending: Pending) -> Decision:
        """Score the prompt and decide. The only step that may be slow."""
        return self.settle(pending, float(pending.router.calculate_strong_win_rate(pending.text)))

    def settle(self, pending: Pending, win_rate: float) -> Decision:
        """Decide by a score that was computed elsewhere."""
        return Decision(
            self.pair.strong if win_rate >= pending.threshold else self.pair.weak,
            "threshold",
            pending.name,
            pending.threshold,
            win_rate,
            _microseconds_since(pending.started_ns),
        )

    def decide(self, model: str, messages: bytes | msgspec.Raw) -> Decision:
        """`begin` and `finish` in one, for callers that may block."""
        step = self.begin(model, messages)
        return step.decision if isinstance(step, Ready) else self.finish(step)

    def decide_prompt(self, prompt: str, router: str, threshold: float | None = None) -> Decision:
        """Decide for a bare prompt; `threshold` None means the router's default.

        Raises:
            RequestError: the router is not loaded, or the threshold is out of range.
        """
        threshold = self.default_thresholds[self.check_router(router)] if threshold is None else check_threshold(threshold)
        step = self._begin_view(router, threshold, PromptView(prompt or None), perf_counter_ns())
        return step.decision if isinstance(step, Ready) else self.finish(step)

    def check_router(self, name: str) -> str:
        """Return `name`, or raise RequestError where no such router is loaded."""
        if name not in self.routers:
            parse_model_name(f"router-{name}", self.routers)  # raises, with the nearest match
        return name

    def quantiles(self, name: str) -> ScoreQuantiles | None:
        """The score quantiles that the router's checkpoint carries."""
        return self.routers[self.check_router(name)].quantiles

    def _target(self, model: str) -> RouterTarget | None:
        known = self._targets.get(model)
        if known is not None or model in (self.pair.strong, self.pair.weak):
            return known
        target = parse_model_name(model, self.routers)
        if target is None:
            raise ModelNotFoundError(model, [*(f"router-{name}-THRESHOLD" for name in self.routers), *self.served_models])
        if len(self._targets) < _REMEMBERED_NAMES:
            self._targets[model] = target
        return target

    def _begin_view(self, router: str, threshold: float, view: PromptView, started: int) -> Ready | Pending:
        if not view.modalities <= self._weak_modalities:
            return Ready(Decision(self.pair.strong, "modality", router, threshold, None, _microseconds_since(started)))
        if view.text is None:
            return Ready(Decision(self.pair.strong, "no-text", router, threshold, None, _microseconds_since(started)))
        return Pending(router, self.routers[router], threshold, view.text, started)


def _microseconds_since(started_ns: int) -> float:
    return (perf_counter_ns() - started_ns) / 1000.0
