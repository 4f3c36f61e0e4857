"""REINFORCE and RLOO: policy gradients of a scalar reward on whole responses.

The KL divergence to the start model is part of the reward: its sequence-level ``k1`` estimate at
the time of playing, as in RLOO (Ahmadian et al. 2024, arXiv:2402.14740). The policy is trained on
a round's samples through the probability ratio of the whole response, clipped as in PPO; at the
first step of a round the ratio is 1 and the step is the plain one.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equilign.losses.policy_gradient import (
    approx_kl,
    centred,
    clip_is_active,
    clipped_surrogate,
    leave_one_out,
    penalised_reward,
)
from equilign.rollout import Group, completion_logps
from equilign.rules import REINFORCE, RLOO, RewardRule
from equilign.trainers.game_trainer import GameTrainer
from equilign.trainers.reward_config import (
    ReinforceConfig,
    RewardConfig,
    RLOOConfig,
    SequenceConfig,
)
from equilign.trainers.reward_source import choose_reward, group_rewards
from equilign.trainers.rounds import Row, derive_seed

__all__ = [
    "RLOOConfig",
    "RLOOTrainer",
    "ReinforceConfig",
    "ReinforceTrainer",
    "RewardTrainer",
    "SequenceTrainer",
]

_REFERENCE = "reference"


class RewardTrainer(GameTrainer):
    """What the trainers of this family share: sampling, rewards, the reference.

    Raises:
        ConfigError: scores are asked for and the oracle has none; see also `GameTrainer`.
    """

    rule: RewardRule

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - those of GameTrainer
        self.method = self.rule.name
        super().__init__(*args, **kwargs)
        self.reward_kind = choose_reward(self.oracle, self.reward_config.reward)

    @property
    def reward_config(self) -> RewardConfig:
        """The options, with their type."""
        assert isinstance(self.args, RewardConfig)  # noqa: S101 - for the type checker
        return self.args

    def start_round(self, index: int) -> None:
        """The start model is the reference, once and for all."""
        if index == 0:
            self.references.take(_REFERENCE)

    def sample_and_judge(
        self, index: int, number: int, members: list[int]
    ) -> tuple[list[Group], list[Row]]:
        """K responses per prompt, and rows that say what each is worth (null: no verdict)."""
        groups = self.sampler.sample(
            [self.prompts[i] for i in members],
            self.config.num_generations,
            derive_seed(self.args.seed, self.method, index, number),
        )
        worth, extra = self.worth(index, number, groups)
        rows = [
            {
                "prompt_index": member,
                "prompt": group.prompt,
                "prompt_ids": list(group.prompt_ids),
                "completions": [c.text for c in group.completions],
                "completion_ids": [list(c.ids) for c in group.completions],
                "finished": [c.finished for c in group.completions],
                "weights": list(group.probabilities()),
                "rewards": [None if math.isnan(r) else float(r) for r in rewards],
                **more,
            }
            for member, group, rewards, more in zip(members, groups, worth, extra, strict=True)
        ]
        return groups, rows

    def worth(
        self, index: int, number: int, groups: list[Group]
    ) -> tuple[list[np.ndarray], list[Row]]:
        """The reward of every response (nan: no verdict), and what else their rows are to hold."""
        return group_rewards(self.oracle, self.reward_kind, groups), [{} for _ in groups]

    def shaped_rewards(self, rows: Sequence[Row]) -> Tensor:
        """Rewards as they are trained on, ``(prompt, response)``: clipped, cut responses fined."""
        args = self.reward_config
        rewards = _table([[math.nan if r is None else r for r in row["rewards"]] for row in rows])
        if args.reward_clip_range is not None:
            rewards = rewards.clamp(*args.reward_clip_range)
        cut = ~torch.tensor([row["finished"] for row in rows])
        return rewards - args.missing_eos_penalty * cut

    def round_summary(self, rows: list[Row]) -> dict[str, float]:
        """Mean reward and its spread, KL to the start, length, share ended by the model."""
        rewards = np.array([[math.nan if r is None else r for r in row["rewards"]] for row in rows])
        law = np.array([row["weights"] for row in rows])
        seen = ~np.isnan(rewards)
        summary = {"unjudged_share": float(1.0 - seen.mean())}
        if (law * seen).sum() > 0.0:
            mean = np.average(rewards[seen], weights=law[seen])
            spread = np.average((rewards[seen] - mean) ** 2, weights=law[seen])
            summary |= {"reward": float(mean), "reward_std": float(np.sqrt(spread))}
        ratios = np.array([self.log_ratios_to_reference(row) for row in rows])
        lengths = np.array([[len(ids) for ids in row["completion_ids"]] for row in rows])
        ended = np.array([row["finished"] for row in rows])
        return {
            **summary,
            "kl_to_reference_nats": float((law * ratios).sum() / len(rows)),
            "completion_tokens": float((law * lengths).sum() / len(rows)),
            "finished_share": float((law * ended).sum() / len(rows)),
        }

    def log_ratios_to_reference(self, row: Row) -> list[float]:
        """``log pi - log ref`` of each whole response when it was sampled, nats."""
        current, reference = row["logps"]["current"], row["logps"][_REFERENCE]
        return [a - b for a, b in zip(current, reference, strict=True)]


class SequenceTrainer(RewardTrainer):
    """Trains on the ratio of whole responses; a subclass says what each is better than."""

    @property
    def sequence_config(self) -> SequenceConfig:
        """The options, with their type."""
        assert isinstance(self.args, SequenceConfig)  # noqa: S101 - for the type checker
        return self.args

    def advantages(self, worth: Tensor, weights: Tensor, *, listed: bool) -> Tensor:
        """Reward minus baseline.

        Args:
            worth: rewards minus the KL penalty, ``(prompt, response)``; ``nan``: no verdict.
            weights: of the responses, rows sum to 1.
            listed: whether the responses are all there are, with their probabilities, rather
                than independent samples.
        """
        raise NotImplementedError

    def play_chunk(self, index: int, number: int, members: list[int]) -> list[Row]:
        """Sample K responses to each prompt and say how much better each is than expected.

        A row holds ``prompt, prompt_ids, completions, completion_ids, finished, weights``,
        ``rewards`` (the oracle's, null: no verdict), ``logps`` (``current`` and ``reference``,
        nats) and ``advantages`` (0 without a verdict).
        """
        groups, rows = self.sample_and_judge(index, number, members)
        current = self.score_own(groups)
        with self.references.playing(_REFERENCE):
            reference = self.score(groups)
        for row, now, start in zip(rows, current, reference, strict=True):
            row["logps"] = {"current": now, _REFERENCE: start}
        worth = penalised_reward(
            self.shaped_rewards(rows),
            _table(current),
            _table(reference),
            beta=self.reward_config.beta,
        )
        listed = any(g.weights for g in groups)
        advantages = self.advantages(worth, _table([r["weights"] for r in rows]), listed=listed)
        if self.sequence_config.normalize_advantages:
            known = advantages[~advantages.isnan()]
            spread = known.std() if known.numel() > 1 else torch.ones(())
            advantages = (advantages - known.mean()) / (spread + 1e-4)
        for row, values in zip(rows, advantages.nan_to_num(nan=0.0).tolist(), strict=True):
            row["advantages"] = values
        return rows

    def batch_loss(self, model: nn.Module, rows: list[Row]) -> tuple[Tensor, dict[str, float]]:
        """Weighted mean of the clipped surrogate over all responses, unjudged ones as zeros."""
        flat = [(row["prompt_ids"], ids) for row in rows for ids in row["completion_ids"]]
        logps = completion_logps(
            model,
            [prompt for prompt, _ in flat],
            [ids for _, ids in flat],
            pad_id=self.pad_id,
            temperature=self.config.temperature,
        ).view(len(rows), -1)
        log_ratio = logps - logps.new_tensor([row["logps"]["current"] for row in rows])
        advantage = logps.new_tensor([row["advantages"] for row in rows])
        weights = logps.new_tensor([row["weights"] for row in rows])
        bounds = self._bounds()
        loss = clipped_surrogate(log_ratio, advantage, **bounds)
        moved = log_ratio.detach()
        clipped = clip_is_active(moved, advantage, **bounds)
        return (weights * loss).sum(dim=1).mean(), {
            "approx_kl_to_old_nats": float((weights * approx_kl(moved)).sum(dim=1).mean()),
            "clip_ratio/region_mean": float((weights * clipped).sum(dim=1).mean()),
        }

    def _bounds(self) -> dict[str, float]:
        args = self.sequence_config
        low = math.inf if args.epsilon is None else args.epsilon
        return {"low": low, "high": low if args.epsilon_high is None else args.epsilon_high}


class RLOOTrainer(SequenceTrainer):
    """The baseline is the mean reward of the other responses to the prompt."""

    rule = RLOO

    def advantages(self, worth: Tensor, weights: Tensor, *, listed: bool) -> Tensor:
        """See `SequenceTrainer.advantages`."""
        return centred(worth, weights) if listed else leave_one_out(worth)


class ReinforceTrainer(SequenceTrainer):
    """The baseline is the mean of the other responses played together, a constant, or none."""

    rule = REINFORCE

    def advantages(self, worth: Tensor, weights: Tensor, *, listed: bool) -> Tensor:
        """See `SequenceTrainer.advantages`."""
        args = self.args
        assert isinstance(args, ReinforceConfig)  # noqa: S101 - for the type checker
        if args.baseline == "none":
            return worth
        if args.baseline == "constant":
            return worth - args.baseline_value
        together, law = worth.reshape(1, -1), weights.reshape(1, -1)
        return (centred(together, law) if listed else leave_one_out(together)).view_as(worth)


def _table(values: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
