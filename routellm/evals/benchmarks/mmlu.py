"""MMLU, 5 shots, as the RouteLLM paper measured it: whether each model chose the right option of four.

The test set has 105 prompts twice or more, some of them in two domains; they stay, as they did in the paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from routellm.downloads import RemoteFile
from routellm.errors import ConfigError, UnknownNameError
from routellm.evals.benchmarks.base import Benchmark, BenchmarkData
from routellm.evals.benchmarks.manifest import pinned
from routellm.evals.benchmarks.published import CONTAMINATED, MODELS, PAIR, contaminated_prompts, correctness
from routellm.tables import read_table
from routellm.types import ModelPair

GROUPS = {
    "STEM": """
        abstract_algebra astronomy college_biology college_chemistry college_computer_science college_mathematics
        college_physics computer_security conceptual_physics electrical_engineering elementary_mathematics
        high_school_biology high_school_chemistry high_school_computer_science high_school_mathematics high_school_physics
        high_school_statistics machine_learning
    """.split(),
    "humanities": """
        formal_logic high_school_european_history high_school_us_history high_school_world_history international_law
        jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law world_religions
    """.split(),
    "social sciences": """
        econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics
        high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations
        security_studies sociology us_foreign_policy
    """.split(),
    "other": """
        anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing
        medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology
    """.split(),
}
"""The usual four groups -> their domains."""

DOMAINS = {domain: group for group, domains in GROUPS.items() for domain in domains}
"""Domain -> its group."""


class MMLU(Benchmark):
    """14,042 questions of 57 domains, grouped by `domain` and by `group`.

    Args:
        domains: read only these; names of domains or of groups ("STEM"). None for all.

    Raises:
        ConfigError: `domains` is empty, or a string instead of several.
        UnknownNameError: there is no such domain or group.
    """

    def __init__(self, domains: Iterable[str] | None = None) -> None:
        self.domains = sorted(DOMAINS) if domains is None else _chosen(domains)

    def files(self) -> Sequence[RemoteFile]:
        tables = [f"responses/mmlu_{domain}.csv" for domain in self.domains]
        return [pinned("mmlu", path) for path in (*tables, "contaminated_prompts.jsonl")]

    def read(self, paths: Sequence[Path]) -> BenchmarkData:
        *tables, listed = paths
        left_out = contaminated_prompts(listed)
        prompts: list[str] = []
        domains: list[str] = []
        correct: list[tuple[float, ...]] = []
        dropped = 0
        for domain, path in zip(self.domains, tables, strict=True):
            for row, (prompt, *values) in enumerate(read_table(str(path), ["prompt", *MODELS]), 1):
                if prompt in left_out:
                    dropped += 1
                    continue
                prompts.append(prompt)
                domains.append(domain)
                correct.append(
                    tuple(correctness(value, model, path, row) for model, value in zip(MODELS, values, strict=True))
                )
        qualities = np.array(correct, dtype=np.float64).reshape(len(prompts), len(MODELS))
        return BenchmarkData(
            prompts=tuple(prompts),
            qualities={model: qualities[:, column].copy() for column, model in enumerate(MODELS)},
            groups={"domain": tuple(domains), "group": tuple(DOMAINS[domain] for domain in domains)},
            dropped={CONTAMINATED: dropped},
        )

    def default_pair(self) -> ModelPair:
        return PAIR


def _chosen(names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise ConfigError(f"MMLU's domains must be a list of names, not the string {names!r}.")
    chosen: set[str] = set()
    for name in names:
        if name not in DOMAINS and name not in GROUPS:
            raise UnknownNameError("MMLU domain", name, [*DOMAINS, *GROUPS])
        chosen.update(GROUPS.get(name, [name]))
    if not chosen:
        raise ConfigError(f"MMLU's domains are an empty list; name some of: {', '.join([*GROUPS, *sorted(DOMAINS)])}.")
    return sorted(chosen)
