"""The rows of a game between policy and reward model: their fields, their summary, their limits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase

from equilign.errors import DataError
from equilign.rollout import Group, Prompt, encode_prompt
from equilign.rollout.models import base_model
from equilign.trainers.reward_player import Annotated
from equilign.trainers.rounds import Row

REFERENCE = "reference"
"""The start model."""


def check_lengths(
    prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, policy: nn.Module, room: int
) -> None:
    """Make sure that every prompt fits into the model's context together with an answer.

    Args:
        prompts: of the data set.
        tokenizer: the policy's.
        policy: the model.
        room: length limit of an answer in tokens.

    Raises:
        DataError: one does not; names it.
    """
    base = base_model(policy)
    held = {} if base is None else vars(base.config.get_text_config())
    context = held.get("max_position_embeddings")
    if context is None:
        return
    for number, prompt in enumerate(prompts, 1):
        size = len(encode_prompt(tokenizer, prompt))
        if size + room > context:
            raise DataError(
                f"prompt {number} of the data set has {size} tokens; with max_completion_length"
                f" = {room} it does not fit into the model's context of {context}. Leave it "
                "out, or allow shorter answers"
            )


def game_rows(
    members: Sequence[int],
    groups: Sequence[Group],
    verdicts: Mapping[str, Sequence[Mapping[str, Any]]],
    current: Sequence[Sequence[float]],
    reference: Sequence[Sequence[float]],
) -> list[Row]:
    """Played prompts as rows.

    Args:
        members: places of the prompts in the data set.
        groups: their answers.
        verdicts: per annotator what `equilign.trainers.reward_pairs.annotate` says of each.
        current: log-probabilities of the answers under the policy, nats.
        reference: the same under the start model.
    """
    return [
        {
            "prompt_index": member,
            "prompt": group.prompt,
            "prompt_ids": list(group.prompt_ids),
            "completions": [c.text for c in group.completions],
            "completion_ids": [list(c.ids) for c in group.completions],
            "finished": [c.finished for c in group.completions],
            "weights": list(group.probabilities()),
            "listed": bool(group.weights),
            "logps": {"current": current[x], REFERENCE: reference[x]},
            "verdicts": {name: found[x] for name, found in verdicts.items()},
        }
        for x, (member, group) in enumerate(zip(members, groups, strict=True))
    ]


def rows_summary(rows: Sequence[Row], annotators: Sequence[str]) -> dict[str, float]:
    """Ground truth: mean utility and spread, ties; KL to the start, length, share ended."""
    law = np.array([row["weights"] for row in rows])
    utilities = [
        [[np.nan if u is None else u for u in row["verdicts"][name]["utilities"]] for row in rows]
        for name in annotators
    ]
    worth = np.array(utilities, dtype=float).mean(axis=0)
    seen = ~np.isnan(worth)
    summary: dict[str, float] = {}
    if (law * seen).sum() > 0.0:
        mean = np.average(worth[seen], weights=law[seen])
        spread = np.average((worth[seen] - mean) ** 2, weights=law[seen])
        summary = {"utility": float(mean), "utility_std": float(np.sqrt(spread))}
    now, start = (np.array([r["logps"][k] for r in rows]) for k in ("current", REFERENCE))
    pairless = [not v["pairs"] for row in rows for v in row["verdicts"].values()]
    lengths = np.array([[len(ids) for ids in row["completion_ids"]] for row in rows])
    ended = np.array([row["finished"] for row in rows])
    return {
        **summary,
        "prompts_without_pair": float(np.mean(pairless)),
        "kl_to_reference_nats": float((law * (now - start)).sum() / len(rows)),
        "completion_tokens": float((law * lengths).sum() / len(rows)),
        "finished_share": float((law * ended).sum() / len(rows)),
    }


def part_of(batch: Annotated, chosen: Sequence[int]) -> Annotated:
    """Some of the prompts of a batch."""
    return Annotated(
        [batch.items[i] for i in chosen],
        [batch.pairs[i] for i in chosen],
        [batch.weights[i] for i in chosen],
        [batch.counts[i] for i in chosen],
    )
