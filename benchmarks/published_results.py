"""The published results of the paper's routers (Ong et al., ICLR 2025, tables 1 to 3): gpt-4-1106-preview over Mixtral-8x7B.

Each is CPT50 in percent, CPT80 in percent and APGR, by the ten-bin protocol. "votes": trained on 65,000 human votes; "votes
+ judge": on 110,000 pairs judged by GPT-4 besides; "votes + gold": on 1,500 labelled questions of MMLU's validation part
besides.
"""

from __future__ import annotations

Row = tuple[str, float, float, float]

PUBLISHED: dict[str, tuple[Row, ...]] = {
    "mmlu": (
        ("random", 50.07, 79.93, 0.500),
        ("bert, votes", 49.43, 77.80, 0.502),
        ("causal_llm 8B, votes", 48.88, 77.93, 0.499),
        ("mf, votes", 45.00, 76.86, 0.524),
        ("sw_ranking, votes", 55.82, 80.25, 0.473),
        ("bert, votes + gold", 41.30, 72.20, 0.572),
        ("causal_llm 8B, votes + gold", 35.49, 70.31, 0.600),
        ("mf, votes + gold", 35.46, 71.40, 0.597),
        ("sw_ranking, votes + gold", 35.40, 71.55, 0.603),
    ),
    "gsm8k": (
        ("random", 50.00, 80.08, 0.497),
        ("bert, votes", 58.78, 83.84, 0.438),
        ("causal_llm 8B, votes", 56.09, 83.56, 0.461),
        ("mf, votes", 53.59, 85.24, 0.475),
        ("sw_ranking, votes", 54.43, 82.11, 0.475),
        ("bert, votes + judge", 44.76, 79.09, 0.531),
        ("causal_llm 8B, votes + judge", 33.64, 63.26, 0.622),
        ("mf, votes + judge", 38.82, 72.62, 0.565),
        ("sw_ranking, votes + judge", 41.21, 72.20, 0.568),
    ),
    "mt-bench": (
        ("random", 49.03, 78.08, 0.500),
        ("bert, votes", 78.09, 87.64, 0.391),
        ("causal_llm 8B, votes", 28.82, 77.53, 0.573),
        ("mf, votes", 25.32, 74.26, 0.580),
        ("sw_ranking, votes", 37.85, 58.99, 0.610),
        ("bert, votes + judge", 19.58, 34.02, 0.751),
        ("causal_llm 8B, votes + judge", 31.50, 48.75, 0.679),
        ("mf, votes + judge", 13.40, 31.31, 0.802),
        ("sw_ranking, votes + judge", 23.21, 36.04, 0.759),
    ),
}
"""Benchmark -> rows of (router and its training data, CPT50, CPT80, APGR)."""
