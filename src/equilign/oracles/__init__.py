"""Who judges: ``compare(prompts, a, b) -> win probability``."""

from importlib import import_module
from typing import Any

from equilign.oracles.base import (
    CallableOracle,
    Oracle,
    ScoredOracle,
    checked_compare,
    compare_symmetric,
    score_groups,
)
from equilign.oracles.build import build_oracle
from equilign.oracles.cache import CachedOracle, CacheStatistics
from equilign.oracles.ensemble import Ensemble
from equilign.oracles.human import Human
from equilign.oracles.llm_config import LLMJudgeConfig
from equilign.oracles.llm_judge import JudgeStatistics, LLMJudge
from equilign.oracles.llm_prompt import JudgePrompt
from equilign.oracles.panel import Attribute, Panel
from equilign.oracles.tabular import ScoreOracle, TabularOracle

_JUDGES = {
    "GeneralPreferenceModel": "equilign.oracles.general_preference",
    "JudgeConfig": "equilign.oracles.judge_text",
    "PairwiseModel": "equilign.oracles.judge_models",
    "RewardModel": "equilign.oracles.judge_models",
    "load_judge": "equilign.oracles.general_preference",
    "save_judge_config": "equilign.oracles.judge_text",
}
"""Judges that are models, imported when asked for: the others need no torch."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class or a function
    if name in _JUDGES:
        return vars(import_module(_JUDGES[name]))[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_JUDGES})


__all__ = [
    "Attribute",
    "CacheStatistics",
    "CachedOracle",
    "CallableOracle",
    "Ensemble",
    "Human",
    "JudgePrompt",
    "JudgeStatistics",
    "LLMJudge",
    "LLMJudgeConfig",
    "Oracle",
    "Panel",
    "ScoreOracle",
    "ScoredOracle",
    "TabularOracle",
    "build_oracle",
    "checked_compare",
    "compare_symmetric",
    "score_groups",
]
