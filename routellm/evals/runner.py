"""From routers and a benchmark to results: scores (out of the cache where they can be), then metrics with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from routellm.evals.benchmarks.base import BenchmarkData
from routellm.evals.cache import ScoreCache
from routellm.metrics.bootstrap import Interval, Samples, resample
from routellm.metrics.curves import Array, Curve, Outcomes, apgr, auc, cpt, exact_curve, oracle_curve, published_curve
from routellm.routers.routers import Router
from routellm.types import ModelPair

TARGETS = (0.2, 0.5, 0.8)
"""The PGR levels of CPT20, CPT50 and CPT80."""

_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Scored:
    """A router's scores: one array of shape (n,) for each run. Only a router that draws its scores has more than one run."""

    name: str
    runs: tuple[Array, ...]
    cached: bool
    fingerprint: str | None


@dataclass(frozen=True, slots=True)
class Numbers:
    """Metrics of one protocol: APGR, AUC, and CPT by PGR level."""

    apgr: float
    auc: float
    cpt: dict[float, float]

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> Numbers:
        """The mean over a router's runs."""
        return cls(
            float(np.mean([apgr(curve) for curve in curves])),
            float(np.mean([auc(curve) for curve in curves])),
            {target: float(np.mean([cpt(curve, target) for curve in curves])) for target in TARGETS},
        )


@dataclass(frozen=True, slots=True)
class RouterResult:
    """One router on one benchmark.

    Attributes:
        apgr, auc, cpt: of the exact curve, with bootstrap intervals.
        published: the same metrics by the paper's ten-bin protocol.
        curve: quality over strong share; the mean of the runs' curves.
        band: low and high ends of the quality's 95% interval at `curve.share`.
        fingerprint: of the router, where it has one.
        groups: for each grouping, label -> APGR within it (NaN where the models tie there), and its number of prompts.
    """

    name: str
    scores: tuple[Array, ...]
    apgr: Interval
    auc: Interval
    cpt: dict[float, Interval]
    published: Numbers
    curve: Curve
    band: tuple[Array, Array]
    groups: dict[str, dict[str, tuple[float, int]]]
    fingerprint: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much the APGR of `better` exceeds that of `other`, with the paired bootstrap's interval."""

    better: str
    other: str
    difference: Interval


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """All that was found on one benchmark."""

    name: str
    pair: ModelPair
    data: BenchmarkData
    outcomes: Outcomes
    routers: list[RouterResult]
    comparisons: list[Comparison]
    oracle: Curve


def score(
    name: str,
    routers: Sequence[Router],
    benchmark: str,
    data: BenchmarkData,
    cache: ScoreCache,
    *,
    overwrite: bool = False,
    parallel: int = 1,
    advance: Callable[[int], None] = lambda prompts: None,
) -> Scored:
    """Score a benchmark's prompts.

    Args:
        routers: the router itself; for one that draws its scores, one instance for each run.
        overwrite: compute again, whatever the cache holds.
        parallel: how many batches of prompts a router that blocks (on a network, in an encoder) scores at once.
        advance: told how many prompts more are done.
    """
    fingerprint = routers[0].fingerprint if len(routers) == 1 else None
    path = None if fingerprint is None else cache.path(name, fingerprint, benchmark, data.sha256)
    if path is not None and not overwrite:
        kept = cache.read(path, len(data))
        if kept is not None:
            advance(len(data))
            return Scored(name, (kept,), True, fingerprint)
    runs = [_score_run(router, data.prompts, parallel if router.blocking else 1, advance) for router in routers]
    if path is not None:
        cache.write(path, runs[0])
    return Scored(name, tuple(runs), False, fingerprint)


def _score_run(router: Router, prompts: Sequence[str], parallel: int, advance: Callable[[int], None]) -> Array:
    batches = [prompts[start : start + _CHUNK] for start in range(0, len(prompts), _CHUNK)]
    parts = []
    with ThreadPoolExecutor(parallel) as pool:
        for part in pool.map(router.calculate_strong_win_rates, batches):
            advance(len(part))
            parts.append(np.asarray(part, dtype=np.float64))
    return np.concatenate(parts)


def analyse(
    name: str,
    data: BenchmarkData,
    pair: ModelPair,
    scored: Sequence[Scored],
    *,
    bins: int = 10,
    repeats: int = 1000,
    seed: int = 0,
) -> BenchmarkResult:
    """Metrics of every router, and of each against the others.

    Args:
        bins: quantile bins of the published protocol.
        repeats: resamples of the bootstrap.
        seed: of the bootstrap.
    """
    outcomes = data.outcomes(pair)
    samples = resample({one.name: one.runs for one in scored}, outcomes, TARGETS, repeats, seed)
    results = [_result(one, data, outcomes, samples[one.name], bins, repeats, seed) for one in scored]
    return BenchmarkResult(name, pair, data, outcomes, results, _compare(results, samples), oracle_curve(outcomes))


def _result(
    scored: Scored, data: BenchmarkData, outcomes: Outcomes, samples: Samples, bins: int, repeats: int, seed: int
) -> RouterResult:
    exact = [exact_curve(run, outcomes) for run in scored.runs]
    numbers = Numbers.of(exact)
    curve = mean_curve(exact)
    return RouterResult(
        scored.name,
        scored.runs,
        Interval.of(numbers.apgr, samples.apgr),
        Interval.of(numbers.auc, samples.auc),
        {target: Interval.of(numbers.cpt[target], samples.cpt[target]) for target in TARGETS},
        Numbers.of([published_curve(run, outcomes, bins) for run in scored.runs]),
        curve,
        quality_band(scored.runs[0], outcomes, curve.share, min(repeats, 300), seed),
        {grouping: _by_group(scored.runs, outcomes, labels) for grouping, labels in data.groups.items()},
        scored.fingerprint,
    )


def mean_curve(curves: Sequence[Curve], points: int = 201) -> Curve:
    """The mean of curves, at evenly spaced shares; a single curve of at most so many points is returned as it is."""
    if len(curves) == 1 and len(curves[0].share) <= points:
        return curves[0]
    share = np.linspace(0.0, 1.0, points)
    return Curve(share, np.mean([curve.at(share) for curve in curves], axis=0))


def quality_band(scores: Array, outcomes: Outcomes, share: Array, repeats: int, seed: int) -> tuple[Array, Array]:
    """Ends of the 95% bootstrap interval of quality at each strong share.

    Prompts are resampled, and with them what both models reach; so the band shows the sampling error of the benchmark itself.
    """
    generator = np.random.default_rng([seed, 7])
    rows = np.empty((repeats, len(share)))
    for repeat in range(repeats):
        drawn = generator.integers(0, len(outcomes), len(outcomes))
        rows[repeat] = exact_curve(scores[drawn], outcomes.take(drawn)).at(share)
    low, high = np.quantile(rows, (0.025, 0.975), axis=0)
    return low, high


def _by_group(runs: Sequence[Array], outcomes: Outcomes, labels: Sequence[str]) -> dict[str, tuple[float, int]]:
    names = np.array(labels)
    found = {}
    for label in sorted(set(labels)):
        rows = np.flatnonzero(names == label)
        within = outcomes.take(rows)
        found[label] = (float(np.mean([apgr(exact_curve(run[rows], within)) for run in runs])), len(rows))
    return found


def _compare(results: Sequence[RouterResult], samples: Mapping[str, Samples]) -> list[Comparison]:
    ranked = sorted(results, key=lambda result: -np.nan_to_num(result.apgr.value, nan=-np.inf))
    pairs = [(one, other) for position, one in enumerate(ranked) for other in ranked[position + 1 :]]
    return [
        Comparison(
            one.name,
            other.name,
            Interval.of(one.apgr.value - other.apgr.value, samples[one.name].apgr - samples[other.name].apgr),
        )
        for one, other in pairs
    ]
