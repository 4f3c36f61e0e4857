"""Preference pairs from a model's own answers, for methods that learn from given pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from equilign.files import read_jsonl, write_jsonl
from equilign.formats import ScoredGroup, preference_rows
from equilign.oracles import Oracle, score_groups
from equilign.rollout import Prompt, SamplingConfig, TransformersSampler, prompt_text

ANSWERS = 5


def judged_pairs(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    oracle: Oracle,
    prompts: Sequence[Prompt],
    sampling: SamplingConfig,
    *,
    seed: int,
) -> list[dict[str, Any]]:
    """Best against worst of five answers to every prompt, as soft preference rows.

    Best and worst are those with the highest and the lowest mean win probability within the
    group; a prompt whose answers tie gives no pair.

    Args:
        path: read if it is there, written otherwise.
        model: who answers.
        tokenizer: of the model.
        oracle: who judges.
        prompts: what is answered.
        sampling: how.
        seed: of the sampling.
    """
    if not path.exists():
        groups = TransformersSampler(model, tokenizer, sampling).sample(prompts, ANSWERS, seed)
        texts = [tuple(c.text for c in g.completions) for g in groups]
        games = score_groups(oracle, [prompt_text(p) for p in prompts], texts)
        rows: list[dict[str, Any]] = []
        for prompt, answers, game in zip(prompts, texts, games, strict=True):
            means = game.mean(axis=1)
            best, worst = int(means.argmax()), int(means.argmin())
            pair = ScoredGroup(
                prompt,
                (answers[best], answers[worst]),
                ((0.5, float(game[best, worst])), (float(game[worst, best]), 0.5)),
            )
            rows += preference_rows(pair.pairs(ties=False))
        write_jsonl(path, rows)
    return read_jsonl(path)
