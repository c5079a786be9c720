"""The fit of a matrix factorisation: Bradley-Terry loss, Adam, early stopping. numpy is all that it takes.

The formulas are those of `routellm.routers.mf`. A minibatch is 64 rows of some 300 numbers, far below the size at which a
deep-learning framework would pay for itself, so the gradient is written out; a test holds it against finite differences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from routellm.training.resume import load_state, save_state

Array: TypeAlias = NDArray[np.float32]
StopOn: TypeAlias = Literal["pooled", "sources"]


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Defaults are the paper's (appendix), but for `source_intercepts`.

    Attributes:
        dim: d, the width of the latent space.
        learning_rate, weight_decay, batch_size: of Adam.
        noise: standard deviation of the Gaussian noise on the standardised prompt vector, while training only.
        epochs: the most that are run.
        patience: epochs without a better validation loss after which training ends.
        source_intercepts: learn one offset of the logit per source of data and drop it afterwards. Sources differ in how often
            the strong model wins; without the offset the router learns to tell the source.
        stop_on: the validation loss that picks the epoch: of all rows together ("pooled"), or the mean of the losses of each
            source's rows ("sources"), in which a large source counts no more than a small one.
        seed: fixes initial weights, order and noise.
    """

    dim: int = 128
    learning_rate: float = 3e-4
    weight_decay: float = 1e-5
    batch_size: int = 64
    noise: float = 0.1
    epochs: int = 100
    patience: int = 5
    source_intercepts: bool = True
    stop_on: StopOn = "pooled"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Battles:
    """Comparisons as arrays of equal length n.

    Attributes:
        prompt: int64, rows of the feature matrix.
        first, second: int64, the two models, rows of the model matrix.
        target: float32, 1 where the first model won, 0 where the second did.
        weight: float32, of each comparison in the loss.
        source: int64, which source of data.
    """

    prompt: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    target: Array
    weight: Array
    source: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.prompt)

    def take(self, rows: NDArray[np.int64]) -> Battles:
        """The battles at `rows`, in that order."""
        return Battles(
            self.prompt[rows], self.first[rows], self.second[rows], self.target[rows], self.weight[rows], self.source[rows]
        )


@dataclass(slots=True)
class Factors:
    """The parameters while they are learned: `models` (n_models, d), `projection` (d, D), `classifier` (d,) and `offsets`
    (n_sources,)."""

    models: Array
    projection: Array
    classifier: Array
    offsets: Array

    def arrays(self) -> list[Array]:
        """The parameters, in a fixed order."""
        return [self.models, self.projection, self.classifier, self.offsets]

    def copy(self) -> Factors:
        """Values that later steps don't change."""
        return Factors(*(array.copy() for array in self.arrays()))


@dataclass(slots=True)
class History:
    """Mean training and validation loss after each epoch, and the epoch (from 0) whose weights were kept."""

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = 0


def initial_factors(n_models: int, width: int, n_sources: int, settings: Hyperparameters) -> Factors:
    """Small random weights, and no offsets."""
    generator = np.random.default_rng(settings.seed)
    models = generator.normal(0.0, 1.0, (n_models, settings.dim))
    projection = generator.normal(0.0, width**-0.5, (settings.dim, width))
    classifier = generator.normal(0.0, settings.dim**-0.5, settings.dim)
    return Factors(*(a.astype(np.float32) for a in (models, projection, classifier, np.zeros(n_sources))))


def loss_and_gradients(factors: Factors, features: Array, battles: Battles) -> tuple[float, list[Array]]:
    """Weighted mean Bradley-Terry loss of a batch, and its gradient by each array of `factors.arrays()`.

    Args:
        features: float32, shape (len(battles), D): each battle's prompt vector.
    """
    norms = np.maximum(np.linalg.norm(factors.models, axis=1, keepdims=True), 1e-12)
    unit = factors.models / norms
    difference = unit[battles.first] - unit[battles.second]
    hidden = features @ factors.projection.T
    product = difference * hidden
    logits = product @ factors.classifier + factors.offsets[battles.source]
    weights = battles.weight / max(float(battles.weight.sum()), 1e-12)
    loss = float((weights * (np.logaddexp(0.0, logits) - battles.target * logits)).sum())

    d_logits = weights * (_sigmoid(logits) - battles.target)
    d_scaled = d_logits[:, None] * factors.classifier
    d_projection = (d_scaled * difference).T @ features
    d_difference = d_scaled * hidden
    d_unit = np.zeros_like(unit)
    np.add.at(d_unit, battles.first, d_difference)
    np.subtract.at(d_unit, battles.second, d_difference)
    # Through the normalisation only the part at a right angle to the vector comes back.
    d_models = (d_unit - (d_unit * unit).sum(axis=1, keepdims=True) * unit) / norms
    d_offsets = np.bincount(battles.source, d_logits, len(factors.offsets)).astype(np.float32)
    return loss, [d_models, d_projection, product.T @ d_logits, d_offsets]


def log_odds(battles: Battles, n_sources: int) -> Array:
    """The log-odds of a win of the first model in each source, float32 of shape (n_sources,); 0 where there is no battle."""
    wins = np.bincount(battles.source, battles.weight * battles.target, n_sources)
    total = np.bincount(battles.source, battles.weight, n_sources)
    rate = np.clip(np.divide(wins, total, out=np.full(n_sources, 0.5), where=total > 0), 1e-3, 1 - 1e-3)
    return np.asarray(np.log(rate / (1 - rate)), dtype=np.float32)


def validation_loss(factors: Factors, features: Array, battles: Battles, stop_on: StopOn) -> float:
    """The loss that picks the epoch; see `Hyperparameters.stop_on`. `features` has shape (n_prompts, D)."""
    if stop_on == "pooled":
        return loss_and_gradients(factors, features[battles.prompt], battles)[0]
    parts = [battles.take(np.flatnonzero(battles.source == source)) for source in np.unique(battles.source)]
    return float(np.mean([loss_and_gradients(factors, features[part.prompt], part)[0] for part in parts]))


def fit(
    features: Array,
    train: Battles,
    validation: Battles,
    n_models: int,
    n_sources: int,
    settings: Hyperparameters,
    on_epoch: Callable[[int, float, float], None] = lambda epoch, train, validation: None,
    keep: Path | None = None,
) -> tuple[Factors, History]:
    """Learn factors from `train`, and keep those of the epoch with the least loss on `validation`.

    Args:
        features: float32, shape (n_prompts, D), standardised.
        on_epoch: called after each epoch with its number and both losses.
        keep: a file to keep the state in after each epoch; where it exists, the fit goes on from there, to the same result.

    Returns:
        The factors of the best epoch, and the history of losses.
    """
    factors = initial_factors(n_models, features.shape[1], n_sources, settings)
    if settings.source_intercepts:
        # At Adam's pace the offsets would take most of the epochs to arrive, and features would stand in for them meanwhile.
        factors.offsets[:] = log_odds(train, n_sources)
    run = _Run(factors, factors.copy(), _Adam(factors.arrays(), settings), np.random.default_rng([settings.seed, 1]))
    if keep is not None:
        run.load(keep)
    history = run.history
    for epoch in range(len(history.train), settings.epochs):
        if epoch - 1 - history.best_epoch >= settings.patience:
            break
        history.train.append(_epoch(run, features, train, settings))
        history.validation.append(validation_loss(factors, features, validation, settings.stop_on))
        on_epoch(epoch, history.train[-1], history.validation[-1])
        if history.validation[-1] <= min(history.validation):
            run.best, history.best_epoch = factors.copy(), epoch
        if keep is not None:
            run.save(keep)
    return run.best, history


def _epoch(run: _Run, features: Array, train: Battles, settings: Hyperparameters) -> float:
    """One pass over the training battles in a new order; returns the mean loss."""
    order = run.generator.permutation(len(train))
    losses = []
    for start in range(0, len(order), settings.batch_size):
        batch = train.take(order[start : start + settings.batch_size])
        rows = features[batch.prompt]
        rows = rows + settings.noise * run.generator.standard_normal(rows.shape, dtype=np.float32)
        loss, gradients = loss_and_gradients(run.factors, rows, batch)
        if not settings.source_intercepts:
            gradients[3][:] = 0.0
        run.optimiser.step(gradients)
        losses.append(loss)
    return float(np.mean(losses))


class _Adam:
    """Adam (Kingma and Ba, 2015) with L2 weight decay in the gradient; the offsets, last in the list, are not decayed."""

    def __init__(self, parameters: list[Array], settings: Hyperparameters) -> None:
        self._parameters = parameters
        self._rate, self._decay = settings.learning_rate, settings.weight_decay
        self.mean = [np.zeros_like(parameter) for parameter in parameters]
        self.square = [np.zeros_like(parameter) for parameter in parameters]
        self.steps = 0

    def step(self, gradients: list[Array]) -> None:
        self.steps += 1
        rate = self._rate * (1 - 0.999**self.steps) ** 0.5 / (1 - 0.9**self.steps)
        moments = zip(self._parameters, gradients, self.mean, self.square, strict=True)
        for position, (parameter, gradient, mean, square) in enumerate(moments):
            if position < len(self._parameters) - 1:
                gradient = gradient + self._decay * parameter
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient * gradient - square)
            parameter -= rate * mean / (np.sqrt(square) + 1e-8)


@dataclass(slots=True)
class _Run:
    """What changes during a fit."""

    factors: Factors
    best: Factors
    optimiser: _Adam
    generator: np.random.Generator
    history: History = field(default_factory=History)

    def _arrays(self) -> dict[str, Array]:
        groups = {
            "factors": self.factors.arrays(),
            "best": self.best.arrays(),
            "mean": self.optimiser.mean,
            "square": self.optimiser.square,
        }
        return {f"{name}.{index}": array for name, arrays in groups.items() for index, array in enumerate(arrays)}

    def save(self, path: Path) -> None:
        about = {"steps": self.optimiser.steps, "generator": self.generator.bit_generator.state, **asdict(self.history)}
        save_state(path, self._arrays(), about)

    def load(self, path: Path) -> None:
        state = load_state(path)
        if state is None:
            return
        arrays, about = state
        for name, array in self._arrays().items():
            array[...] = arrays[name]
        self.optimiser.steps = about.pop("steps")
        self.generator.bit_generator.state = about.pop("generator")
        self.history = History(**about)


def _sigmoid(logits: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), dtype=np.float32)
