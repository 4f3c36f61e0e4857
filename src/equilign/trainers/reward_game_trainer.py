"""The trainer of a policy and the reward model fitted to its answers, by rule.

One trainer; a rule (`equilign.rules.RewardGameRule`) says who moves first, how often, on whose
samples, and whether the policy's gradient looks through the fit. A round:

1. the policy answers a batch of prompts, the oracle says what the answers are worth, and pairs of
   them are labelled (written to the round's file);
2. the reward model makes the steps that the rule gives it, and says what every answer is worth to
   the policy; with the total derivative, also how the fit would respond;
3. the policy makes its steps: REINFORCE on whole answers, the KL divergence in the reward.

Where the policy leads (STA, simultaneous), step 2 is S steps and step 3 one. Where the reward leads
it is the other way round, and the reward's one step comes *after* the policy's, on what the policy
then answers: that is the batch which the next round plays (reversed), or the one after
S rounds (PARL). After the last round one more batch is played for it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.trainer_utils import TrainOutput

from equilign.errors import ConfigError
from equilign.files import write_json
from equilign.rollout import completion_logps
from equilign.rules import Player, RewardGameRule
from equilign.trainers.game_trainer import GameTrainer
from equilign.trainers.reward_game_config import RewardGameConfig
from equilign.trainers.reward_models import HeadReward, add_lora, text_reward, trunk_states
from equilign.trainers.reward_pairs import PairRule, annotate
from equilign.trainers.reward_player import RewardPlayer
from equilign.trainers.reward_rows import (
    REFERENCE,
    check_lengths,
    game_rows,
    part_of,
    rows_summary,
)
from equilign.trainers.reward_side import RewardSide, Worth, annotators_of, minus_mean
from equilign.trainers.rounds import RoundPlan, Row, chunks, derive_seed, play_or_load


class RewardGameTrainer(GameTrainer):
    """Two players, two optimisers; a subclass names the rule.

    Args:
        args: those of `GameTrainer`, in its order.
        reward_model: in place of the option of that name: a folder or name, a sequence
            classifier, or a module that is a `RewardFunction`.
        reward_tokenizer: of a reward model that is given as a module.
        kwargs: those of `GameTrainer`.

    Raises:
        ConfigError: the oracle cannot be what the options ask for; see also `GameTrainer`.
        ModelError: the reward model cannot be made.
    """

    rule: RewardGameRule

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - those of GameTrainer
        reward_model: str | nn.Module | None = None,
        reward_tokenizer: PreTrainedTokenizerBase | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        self.method = self.rule.name
        super().__init__(*args, **kwargs)
        room = self.config.max_completion_length
        check_lengths(self.prompts, self.tokenizer, self.policy, room)
        self.annotators = annotators_of(self.oracle, self.game_config)
        for oracle in self.annotators.values():
            # A task that only some vocabularies can do says so before anything is played.
            check = getattr(oracle, "check_tokenizer", None)
            if check is not None:
                check(self.tokenizer)
        self._worth: list[Worth] = []
        wanted = self.game_config.reward_model if reward_model is None else reward_model
        if len(self.annotators) > 1 and isinstance(wanted, nn.Module):
            raise ConfigError("several reward models cannot share one module; name a folder")
        ensemble: Any = self.oracle
        several = len(self.annotators) > 1
        self.side = RewardSide(
            {name: self._make_player(wanted, reward_tokenizer, name) for name in self.annotators},
            ensemble.weights if several else [1.0],
            self.game_config,
            self.method,
        )

    @property
    def players(self) -> dict[str, RewardPlayer]:
        """The reward models, by annotator."""
        return self.side.players

    @property
    def game_config(self) -> RewardGameConfig:
        """The options, with their type."""
        assert isinstance(self.args, RewardGameConfig)  # noqa: S101 - for the type checker
        return self.args

    @property
    def inner_steps(self) -> int:
        """S: the rule's, or else the option's."""
        return self.rule.inner_steps or self.game_config.inner_steps

    # -- the reward models --------------------------------------------------------------------

    def _make_player(
        self, wanted: str | nn.Module, tokenizer: PreTrainedTokenizerBase | None, name: str
    ) -> RewardPlayer:
        args = self.game_config
        seed = derive_seed(args.seed, self.method, "reward model", name)
        function: nn.Module
        if isinstance(wanted, nn.Module) and hasattr(wanted, "encode"):
            function = wanted
        elif wanted == "head":
            row = {"prompt_ids": [self.pad_id], "completion_ids": [[self.pad_id]]}
            states = self._states([row])[0]
            function = HeadReward(states.shape[-1], self._states, states.dtype)
        else:
            function = text_reward(wanted, self.policy, self.tokenizer, tokenizer, seed)
        if args.reward_lora_rank is not None:
            add_lora(function, args.reward_lora_rank, seed)
        return RewardPlayer(
            function,
            learning_rate=args.reward_learning_rate,
            optim=args.reward_optim,
            ridge=args.ridge,
            max_grad_norm=args.reward_max_grad_norm,
            batch_size=args.reward_batch_size,
            device=args.device,
        )

    def _states(self, rows: Sequence[Row]) -> list[Tensor]:
        """Of the start model, which is the reference as soon as there is one."""
        size = self.config.generation_batch_size
        if REFERENCE not in self.references:
            return trunk_states(self.policy, rows, self.pad_id, size)
        with self.references.playing(REFERENCE):
            return trunk_states(self.policy, rows, self.pad_id, size)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The policy, and beside it, in ``reward``, the reward model (a folder each if several)."""
        super().save_model(output_dir, _internal_call)
        if not _internal_call and self.team.is_main:
            self.side.save_models(Path(str(output_dir or self.args.output_dir)) / "reward")

    def save_game_state(self, folder: Path) -> None:
        """The reward models, their optimisers, and what this round's answers are worth."""
        super().save_game_state(folder)
        self.side.save(folder)
        write_json(folder / "worth.json", self._worth)

    def load_game_state(self, folder: Path) -> None:
        """What `save_game_state` wrote."""
        super().load_game_state(folder)
        self.side.load(folder)
        self._worth = json.loads((folder / "worth.json").read_text(encoding="utf-8"))

    # -- playing --------------------------------------------------------------------------------

    def start_round(self, index: int) -> None:
        """The start model is the reference, once and for all; RLHF fits its reward to it."""
        if index == 0:
            self.references.take(REFERENCE)
            if not self.rule.refit:
                self._fit_once()

    def play_chunk(self, index: int, number: int, members: list[int]) -> list[Row]:
        """K answers to each prompt, their worth by the oracle, and labelled pairs of them.

        A row holds ``prompt, prompt_ids, completions, completion_ids, finished, weights``,
        ``logps`` (``current`` and ``reference``, nats) and ``verdicts``: per annotator
        ``utilities``, ``pairs`` and ``pair_weights`` (see `annotate`).
        """
        args = self.game_config
        groups = self.sampler.sample(
            [self.prompts[i] for i in members],
            args.num_generations,
            derive_seed(args.seed, self.method, index, number),
        )
        if args.pairs == "best_worst" and any(g.weights for g in groups):
            raise ConfigError("listed answers have no best and worst of K; use pairs = 'all'")
        rule = PairRule(args.pairs, args.labels, args.ties)
        verdicts = {
            name: annotate(
                oracle, groups, rule, derive_seed(args.seed, self.method, name, index, number)
            )
            for name, oracle in self.annotators.items()
        }
        current = self.score_own(groups)
        with self.references.playing(REFERENCE):
            reference = self.score(groups)
        return game_rows(members, groups, verdicts, current, reference)

    def round_summary(self, rows: list[Row]) -> dict[str, float]:
        """Ground truth: mean utility and spread, ties; KL to the start, length, share ended."""
        return rows_summary(rows, list(self.annotators))

    # -- the reward's moves -----------------------------------------------------------------------

    def begin_round(self) -> None:
        """Play or read the round, let the reward move, and tell the rows what they are worth."""
        index = self.round_index
        fresh = self.state.global_step % self.steps_per_round == 0
        super().begin_round()
        rows = self._round_rows()
        if fresh:
            self._worth = self._moves(index, rows)
            if self.team.is_main:
                step = index * self.steps_per_round
                self.metrics.add("reward", index + 1, step, self.side.told)
        for row, worth in zip(rows, self._worth, strict=True):
            row.update(worth)

    def _round_rows(self) -> list[Row]:
        """The round's rows, each once, in the order of its first pass."""
        data: Any = self.train_dataset
        found = [data[i] for i in range(len(data))]
        return list({id(row): row for row in found}.values())

    def _moves(self, index: int, rows: list[Row]) -> list[Worth]:
        """The reward's steps of round ``index``, as the rule orders them, and the worth."""
        rule = self.rule
        self.side.told = {}
        batches = self.side.annotated(rows, index)
        worth: list[Worth] | None = None
        if rule.refit and rule.leader is Player.POLICY:
            if rule.old_reward:
                worth = self.side.valued(rows, batches, total=rule.total_derivative)
            for _ in range(self.inner_steps):
                self.side.step(batches)
        elif rule.refit and self._closes(index):
            self.side.step(batches)
        return (
            self.side.valued(rows, batches, total=rule.total_derivative) if worth is None else worth
        )

    def _closes(self, played: int) -> bool:
        """Whether the leading reward steps after ``played`` rounds, on what is played next."""
        cycle = self.inner_steps if self.rule.fresh else 1
        return played > 0 and played % cycle == 0

    # -- before the first round, and after the last ---------------------------------------------

    def _fit_once(self) -> None:
        """The start model's answers to `fit_batches` batches, and `fit_epochs` passes over them."""
        args = self.game_config
        size = int(args.prompts_per_round or 0)
        seed = derive_seed(args.seed, self.method, "fit")
        plan = RoundPlan(len(self.prompts), args.fit_batches * size, args.fit_epochs, seed)
        rows = self._play(-1, plan.prompts(0))
        batches = self.side.annotated(rows, -1)
        for _, chosen in chunks(plan.order(0), size):
            self.side.step({name: part_of(b, chosen) for name, b in batches.items()})
        if self.team.is_main:
            self.metrics.add("reward", 0, 0, self.side.told)

    def _play(self, index: int, members: list[int]) -> list[Row]:
        """A batch outside of the rounds: before the first (-1), or after the last."""
        with self.accelerator.autocast(), self.references.gathered():
            return play_or_load(
                self.round_file(index),
                members,
                self.config.chunk_prompts,
                lambda number, some: self.play_chunk(index, number, some),
                lambda done, total: self._progress("play", index + 1, done, total),
                self.team,
            )

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,  # noqa: ANN401 - as in transformers
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Play and train all rounds; a leading reward makes its last step after them."""
        result = super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
        last = self.config.num_rounds
        if self.rule.refit and self.rule.leader is Player.REWARD and self._closes(last):
            rows = self._play(last, self.plan.prompts(last))
            self.side.told = {}
            self.side.step(self.side.annotated(rows, last))
            if self.team.is_main:
                self.metrics.add("reward", last + 1, last * self.steps_per_round, self.side.told)
        return result

    # -- the policy's moves -------------------------------------------------------------------

    def batch_loss(self, model: nn.Module, rows: list[Row]) -> tuple[Tensor, dict[str, float]]:
        """``- sum_y law_y A_y log pi(y)``, mean over prompts; no ratio, no clipping.

        ``A`` is the reward minus ``beta`` times the present log-ratio to the start model, minus
        the baseline, plus the fit's response (minus a baseline of its own). Answers without
        weight are left out.
        """
        args = self.game_config
        flat = [
            (row["prompt_ids"], ids)
            for row in rows
            for ids, w in zip(row["completion_ids"], row["law"], strict=True)
            if w > 0.0
        ]
        kept = torch.tensor([[w > 0.0 for w in row["law"]] for row in rows])
        if not flat:
            # Nothing but ties: nothing to learn. But DDP waits for a pass of every process.
            one = [self.pad_id]
            return 0.0 * completion_logps(model, [one], [one], pad_id=self.pad_id).sum(), {}
        found = completion_logps(
            model,
            [prompt for prompt, _ in flat],
            [ids for _, ids in flat],
            pad_id=self.pad_id,
            temperature=args.temperature,
        )
        logps = found.new_zeros(kept.shape).masked_scatter(kept.to(found.device), found)
        reference = logps.new_tensor([row["logps"][REFERENCE] for row in rows])
        law = logps.new_tensor([row["law"] for row in rows])
        ratio = logps.detach() - reference
        naive = logps.new_tensor([row["rewards"] for row in rows]) - args.beta * ratio
        responses = logps.new_tensor([row["responses"] for row in rows])
        listed = all(row["listed"] for row in rows)
        advantage = naive + responses
        if args.baseline == "mean":
            advantage = minus_mean(naive, law, listed=listed) + responses
        return -(law * advantage * logps).sum(dim=1).mean(), {
            "kl_to_reference_nats": float((law * ratio).sum(dim=1).mean())
        }
