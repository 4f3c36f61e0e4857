"""PPO on tokens, with a critic (Schulman et al. 2017, arXiv:1707.06347)."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from equilign.losses.policy_gradient import approx_kl, clip_is_active, clipped_surrogate
from equilign.losses.ppo import (
    clipped_value_loss,
    generalised_advantages,
    masked_sum,
    masked_whiten,
    token_rewards,
)
from equilign.rules import PPO
from equilign.trainers.critic import Critic, CriticLearner
from equilign.trainers.reward_config import PPOConfig
from equilign.trainers.reward_gradient import RewardTrainer
from equilign.trainers.rounds import Row, derive_seed
from equilign.trainers.token_scoring import completion_tokens, output_layer, score_tokens

__all__ = ["PPOConfig", "PPOTrainer"]


class _CriticStep(TrainerCallback):
    """The critic moves whenever the policy does."""

    def __init__(self, learner: CriticLearner) -> None:
        self._learner = learner

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - signature of transformers
    ) -> None:
        self._learner.step()


class PPOTrainer(RewardTrainer):
    """Clipped token ratios, generalised advantages, a critic beside the policy.

    The reward of a token is ``-beta`` times its log-ratio to the start model, plus the response's
    reward at the last one. Log-probabilities, values and advantages are those of the time of
    playing and stand in the round's file.

    Deviation: the critic reads the policy's last states without differentiating them and has
    weights and an optimiser of its own. It neither is a second language model nor shapes the
    policy's trunk, so there is no value coefficient to choose.

    Deviation: losses are summed over a response's tokens and averaged over responses, which is the
    gradient of the expected reward and does not depend on how a batch is split.
    """

    rule = PPO

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - those of GameTrainer
        super().__init__(*args, **kwargs)
        config = self.ppo_config
        self._head = output_layer(self.policy)
        weight = cast(Tensor, self._head.weight)
        critic = Critic(
            int(weight.shape[-1]),
            cast(Literal["head", "mlp"], config.critic),
            dtype=torch.promote_types(weight.dtype, torch.float32),
            seed=derive_seed(config.seed, self.method, "critic"),
        )
        self.learner = CriticLearner(
            critic,
            learning_rate=config.critic_learning_rate,
            max_grad_norm=config.max_grad_norm,
            device=weight.device,
        )
        # transformers sets it while it trains: fewer batches may make the last step.
        self.current_gradient_accumulation_steps = config.gradient_accumulation_steps
        self.add_callback(_CriticStep(self.learner))

    @property
    def ppo_config(self) -> PPOConfig:
        """The options, with their type."""
        assert isinstance(self.args, PPOConfig)  # noqa: S101 - for the type checker
        return self.args

    def save_game_state(self, folder: Path) -> None:
        """The critic and its optimiser."""
        super().save_game_state(folder)
        self.learner.save(folder)

    def load_game_state(self, folder: Path) -> None:
        """What `save_game_state` wrote."""
        super().load_game_state(folder)
        self.learner.load(folder)

    # -- playing ----------------------------------------------------------------------------

    def play_chunk(self, index: int, number: int, members: list[int]) -> list[Row]:
        """Sample K responses to each prompt; log-probability, value and advantage of every token.

        A row holds ``prompt, prompt_ids, completions, completion_ids, finished, weights``,
        ``rewards`` (the oracle's, null: no verdict), and per response and token ``token_logps``
        (``current`` and ``reference``, nats), ``values``, ``advantages`` and ``targets`` (of the
        critic). Advantages of a response without a verdict are 0.
        """
        groups, rows = self.sample_and_judge(index, number, members)
        flat = [(g.prompt_ids, c.ids) for g in groups for c in g.completions]
        current, values = self._score(flat, self.learner.values)
        with self.references.playing("reference"):
            reference, _ = self._score(flat, None)
        scores = self.shaped_rewards(rows).flatten()
        advantages, targets = self._advantages(scores, current, reference, values)
        columns = {"values": values, "advantages": advantages, "targets": targets}
        size = len(groups[0].completions)
        for i, row in enumerate(rows):
            mine = slice(i * size, (i + 1) * size)
            row["token_logps"] = {"current": current[mine], "reference": reference[mine]}
            row.update({name: column[mine] for name, column in columns.items()})
        return rows

    def _score(
        self,
        flat: Sequence[tuple[Sequence[int], Sequence[int]]],
        value: Callable[[Tensor], Tensor] | None,
    ) -> tuple[list[list[float]], list[list[float]]]:
        return score_tokens(
            self.policy,
            flat,
            pad_id=self.pad_id,
            temperature=self.config.temperature,
            batch_size=self.config.generation_batch_size,
            head=self._head,
            value=value,
        )

    def _advantages(
        self,
        scores: Tensor,
        current: list[list[float]],
        reference: list[list[float]],
        values: list[list[float]],
    ) -> tuple[list[list[float]], list[list[float]]]:
        """Advantages and the critic's targets, one number per token."""
        args = self.ppo_config
        mask = _mask([len(tokens) for tokens in current])
        like = torch.zeros((), dtype=torch.float64)
        old = _fill(values, mask, like)
        rewards = token_rewards(
            scores.nan_to_num(nan=0.0),
            _fill(current, mask, like),
            _fill(reference, mask, like),
            mask,
            beta=args.beta,
        )
        gains = generalised_advantages(rewards, old, mask, gamma=args.gamma, lam=args.lam)
        targets = gains + old
        judged = mask & ~scores.isnan()[:, None]
        gains = masked_whiten(gains, judged) if args.whiten_advantages else gains
        gains = gains.masked_fill(~judged, 0.0)
        rows = range(len(mask))
        return [gains[i][mask[i]].tolist() for i in rows], [
            targets[i][mask[i]].tolist() for i in rows
        ]

    # -- training ---------------------------------------------------------------------------

    def batch_loss(self, model: nn.Module, rows: list[Row]) -> tuple[Tensor, dict[str, float]]:
        """The policy's loss; the critic's gradient is taken on the way."""
        flat = [(row["prompt_ids"], ids) for row in rows for ids in row["completion_ids"]]
        found = completion_tokens(
            model,
            [prompt for prompt, _ in flat],
            [ids for _, ids in flat],
            pad_id=self.pad_id,
            temperature=self.config.temperature,
            head=self._head,
        )
        mask, clip = found.mask, self.ppo_config.cliprange
        judged = [[0.0 if r is None else 1.0 for r in row["rewards"]] for row in rows]
        weights = found.logps.new_tensor([row["weights"] for row in rows])
        weights = (weights * found.logps.new_tensor(judged)).flatten() / len(rows)

        def stored(*path: str) -> Tensor:
            return _fill(_tokens(rows, path), mask, found.logps)

        log_ratio = (found.logps - stored("token_logps", "current")).masked_fill(~mask, 0.0)
        advantage = stored("advantages")
        surrogate = clipped_surrogate(log_ratio, advantage, low=clip, high=clip)
        assert found.states is not None  # noqa: S101 - asked for above
        value_loss = self._learn(found.states, stored("values"), stored("targets"), mask, weights)
        moved = log_ratio.detach()
        tokens = (weights * mask.sum(dim=1)).sum().clamp(min=1e-30)
        clipped = clip_is_active(moved, advantage, low=clip, high=clip)
        return (weights * masked_sum(surrogate, mask)).sum(), {
            "value_loss": value_loss,
            "approx_kl_to_old_nats": float((weights * masked_sum(approx_kl(moved), mask)).sum()),
            "clip_ratio/region_mean": float((weights * masked_sum(clipped, mask)).sum() / tokens),
        }

    def _learn(
        self, states: Tensor, old: Tensor, targets: Tensor, mask: Tensor, weights: Tensor
    ) -> float:
        """One batch's share of the critic's next step; the loss per response."""
        bound = self.ppo_config.cliprange_value
        values = self.learner.values(states)
        squared = clipped_value_loss(
            values,
            old.to(values.dtype),
            targets.to(values.dtype),
            cliprange=math.inf if bound is None else bound,
        )
        loss = (weights.to(values.dtype) * masked_sum(squared, mask)).sum()
        self.learner.accumulate(loss, self.current_gradient_accumulation_steps)
        return float(loss.detach())

    def log_ratios_to_reference(self, row: Row) -> list[float]:
        """``log pi - log ref`` of each whole response when it was sampled, nats."""
        logps = row["token_logps"]
        pairs = zip(logps["current"], logps["reference"], strict=True)
        return [math.fsum(now) - math.fsum(start) for now, start in pairs]

    def round_summary(self, rows: list[Row]) -> dict[str, float]:
        """As for the other rewards, and how much of the returns the critic foresaw."""
        summary = super().round_summary(rows)
        kept = [i for i, r in enumerate(_each(rows, "rewards")) if r is not None]
        targets, values = (_each(rows, name) for name in ("targets", "values"))
        goal = np.array([x for i in kept for x in targets[i]])
        seen = np.array([x for i in kept for x in values[i]])
        if goal.size and goal.var() > 0.0:
            summary["explained_variance"] = float(1.0 - (goal - seen).var() / goal.var())
        return summary


def _each(rows: Sequence[Row], field: str) -> list[Any]:
    return [value for row in rows for value in row[field]]


def _tokens(rows: Sequence[Row], path: Sequence[str]) -> list[list[float]]:
    found: list[list[float]] = []
    for row in rows:
        value: Any = row
        for key in path:
            value = value[key]
        found += value
    return found


def _mask(lengths: Sequence[int]) -> Tensor:
    width = max(lengths, default=0)
    return torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]


def _fill(values: Sequence[Sequence[float]], mask: Tensor, like: Tensor) -> Tensor:
    """Ragged rows at the places that the mask marks, in order; 0 elsewhere."""
    result = torch.zeros(mask.shape, dtype=like.dtype, device=mask.device)
    flat = [x for row in values for x in row]
    result[mask] = torch.tensor(flat, dtype=like.dtype, device=mask.device)
    return result
