"""The game between a policy and the reward model fitted to its answers: STA-RLHF and relatives.

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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.trainer_utils import TrainOutput

from equilign.errors import ConfigError, DataError
from equilign.files import write_json
from equilign.losses.policy_gradient import centred, leave_one_out
from equilign.oracles import Ensemble, Oracle
from equilign.rollout import completion_logps, encode_prompt, score_answers
from equilign.rollout.models import base_model
from equilign.rules import PARL, REVERSED, RLHF, SIMULTANEOUS, STA_NAIVE, STA_TOTAL, RewardGameRule
from equilign.rules import Player as Who
from equilign.trainers.game_trainer import GameTrainer
from equilign.trainers.reward_game_config import (
    PARLConfig,
    ReversedConfig,
    RewardGameConfig,
    RLHFConfig,
    SimultaneousConfig,
    STANaiveConfig,
    STATotalConfig,
)
from equilign.trainers.reward_models import HeadReward, text_reward, trunk_states
from equilign.trainers.reward_pairs import PairRule, annotate, replace_ties
from equilign.trainers.reward_player import Annotated, RewardPlayer, spread
from equilign.trainers.rounds import RoundPlan, Row, chunks, derive_seed, play_or_load

_REFERENCE = "reference"
Worth = dict[str, list[float]]
"""Of one prompt's answers: ``rewards``, and ``responses`` to be added to their advantage."""


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
        self._check_lengths()
        self.annotators = self._annotators()
        for oracle in self.annotators.values():
            # A task that only some vocabularies can do says so before anything is played.
            check = getattr(oracle, "check_tokenizer", None)
            if check is not None:
                check(self.tokenizer)
        self._worth: list[Worth] = []
        self._told: dict[str, float] = {}
        wanted = self.game_config.reward_model if reward_model is None else reward_model
        if len(self.annotators) > 1 and isinstance(wanted, nn.Module):
            raise ConfigError("several reward models cannot share one module; name a folder")
        self.players = {
            name: self._make_player(wanted, reward_tokenizer, name) for name in self.annotators
        }

    @property
    def game_config(self) -> RewardGameConfig:
        """The options, with their type."""
        assert isinstance(self.args, RewardGameConfig)  # noqa: S101 - for the type checker
        return self.args

    @property
    def inner_steps(self) -> int:
        """S: the rule's, or else the option's."""
        return self.rule.inner_steps or self.game_config.inner_steps

    def _check_lengths(self) -> None:
        base = base_model(self.policy)
        held = {} if base is None else vars(base.config.get_text_config())
        context = held.get("max_position_embeddings")
        if context is None:
            return
        room = self.config.max_completion_length
        for number, prompt in enumerate(self.prompts, 1):
            size = len(encode_prompt(self.tokenizer, prompt))
            if size + room > context:
                raise DataError(
                    f"prompt {number} of the data set has {size} tokens; with max_completion_length"
                    f" = {room} it does not fit into the model's context of {context}. Leave it "
                    "out, or allow shorter answers"
                )

    # -- the reward models --------------------------------------------------------------------

    def _annotators(self) -> dict[str, Oracle]:
        args = self.game_config
        if args.policy_samples == "pair" and (
            args.pairs != "best_worst" or args.followers != "one"
        ):
            raise ConfigError(
                "policy_samples = 'pair' needs pairs = 'best_worst' and followers = 'one': else "
                "there is no single pair"
            )
        if args.followers == "one":
            return {"reward": self.oracle}
        if not isinstance(self.oracle, Ensemble):
            raise ConfigError(
                "followers = 'members' needs an ensemble oracle with a member per annotator; got "
                f"{type(self.oracle).__name__}"
            )
        return dict(self.oracle.members)

    def _make_player(
        self, wanted: str | nn.Module, tokenizer: PreTrainedTokenizerBase | None, name: str
    ) -> RewardPlayer:
        args = self.game_config
        seed = derive_seed(args.seed, self.method, "reward model", name)
        function = self._function(wanted, tokenizer, seed)
        if args.reward_lora_rank is not None:
            _add_lora(function, args.reward_lora_rank, seed)
        return RewardPlayer(
            function,
            learning_rate=args.reward_learning_rate,
            optim=args.reward_optim,
            ridge=args.ridge,
            max_grad_norm=args.reward_max_grad_norm,
            batch_size=args.reward_batch_size,
            device=args.device,
        )

    def _function(
        self, wanted: str | nn.Module, tokenizer: PreTrainedTokenizerBase | None, seed: int
    ) -> nn.Module:
        if isinstance(wanted, nn.Module) and hasattr(wanted, "encode"):
            return wanted
        if wanted == "head":
            states = self._states([self._any_row()])[0]
            return HeadReward(states.shape[-1], self._states, states.dtype)
        return text_reward(wanted, self.policy, self.tokenizer, tokenizer, seed)

    def _any_row(self) -> Row:
        return {"prompt_ids": [self.pad_id], "completion_ids": [[self.pad_id]]}

    def _states(self, rows: Sequence[Row]) -> list[Tensor]:
        """Of the start model, which is the reference as soon as there is one."""
        size = self.config.generation_batch_size
        if _REFERENCE not in self.references:
            return trunk_states(self.policy, rows, self.pad_id, size)
        with self.references.playing(_REFERENCE):
            return trunk_states(self.policy, rows, self.pad_id, size)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The policy, and beside it, in ``reward``, the reward model (a folder each if several)."""
        super().save_model(output_dir, _internal_call)
        if not _internal_call and self.team.is_main:
            folder = Path(str(output_dir or self.args.output_dir)) / "reward"
            for name, player in self.players.items():
                own = folder if len(self.players) == 1 else folder / name
                player.function.save(own)  # type: ignore[operator]

    def save_game_state(self, folder: Path) -> None:
        """The reward models, their optimisers, and what this round's answers are worth."""
        super().save_game_state(folder)
        for name, player in self.players.items():
            player.save(folder / f"{name}.pt")
        write_json(folder / "worth.json", self._worth)

    def load_game_state(self, folder: Path) -> None:
        """What `save_game_state` wrote."""
        super().load_game_state(folder)
        for name, player in self.players.items():
            player.load(folder / f"{name}.pt")
        self._worth = json.loads((folder / "worth.json").read_text(encoding="utf-8"))

    # -- playing --------------------------------------------------------------------------------

    def start_round(self, index: int) -> None:
        """The start model is the reference, once and for all; RLHF fits its reward to it."""
        if index == 0:
            self.references.take(_REFERENCE)
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
        current = self._logps(groups)
        with self.references.playing(_REFERENCE):
            reference = self._logps(groups)
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
                "logps": {"current": current[x], _REFERENCE: reference[x]},
                "verdicts": {name: found[x] for name, found in verdicts.items()},
            }
            for x, (member, group) in enumerate(zip(members, groups, strict=True))
        ]

    def _logps(self, groups: Any) -> list[list[float]]:  # noqa: ANN401 - a list of groups
        return score_answers(
            self.policy,
            groups,
            pad_id=self.pad_id,
            temperature=self.config.temperature,
            batch_size=self.config.generation_batch_size,
        )

    def round_summary(self, rows: list[Row]) -> dict[str, float]:
        """Ground truth: mean utility and spread, ties; KL to the start, length, share ended."""
        law = np.array([row["weights"] for row in rows])
        utilities = [
            [[np.nan if u is None else u for u in row["verdicts"][name]["utilities"]]
             for row in rows]
            for name in self.annotators
        ]  # fmt: skip
        worth = np.array(utilities, dtype=float).mean(axis=0)
        seen = ~np.isnan(worth)
        summary: dict[str, float] = {}
        if (law * seen).sum() > 0.0:
            mean = np.average(worth[seen], weights=law[seen])
            spread_ = np.average((worth[seen] - mean) ** 2, weights=law[seen])
            summary = {"utility": float(mean), "utility_std": float(np.sqrt(spread_))}
        now, start = (np.array([r["logps"][k] for r in rows]) for k in ("current", _REFERENCE))
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
                self.metrics.add("reward", index + 1, step, self._told)
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
        self._told = {}
        batches = self._annotated(rows, index)
        worth: list[Worth] | None = None
        if rule.refit and rule.leader is Who.POLICY:
            if rule.old_reward:
                worth = self._valued(rows, batches)
            for _ in range(self.inner_steps):
                self._reward_step(batches)
        elif rule.refit and self._closes(index):
            self._reward_step(batches)
        return self._valued(rows, batches) if worth is None else worth

    def _closes(self, played: int) -> bool:
        """Whether the leading reward steps after ``played`` rounds, on what is played next."""
        cycle = self.inner_steps if self.rule.fresh else 1
        return played > 0 and played % cycle == 0

    def _reward_step(self, batches: Mapping[str, Annotated]) -> None:
        for name, player in self.players.items():
            found = player.step(batches[name])
            prefix = "" if len(self.players) == 1 else f"{name}/"
            self._told |= {f"{prefix}{key}": value for key, value in found.items()}

    def _annotated(self, rows: list[Row], index: int) -> dict[str, Annotated]:
        found = {}
        for name, player in self.players.items():
            verdicts = [row["verdicts"][name] for row in rows]
            seed = derive_seed(self.args.seed, self.method, name, "ties", index)
            encode: Any = player.function.encode
            found[name] = Annotated(
                items=encode(rows),
                pairs=[[tuple(p) for p in v["pairs"]] for v in verdicts],
                weights=[v["pair_weights"] for v in verdicts],
                counts=replace_ties(verdicts, seed),
            )
        return found

    def _valued(self, rows: list[Row], batches: Mapping[str, Annotated]) -> list[Worth]:
        """Rewards of every answer to the policy, and the fit's response where it counts."""
        each = {name: p.rewards(batches[name].items) for name, p in self.players.items()}
        law = self._law(rows, batches)
        worth: list[Worth] = []
        shares: dict[str, list[list[float]]] = {name: [] for name in self.players}
        for x, mine in enumerate(law):
            rewards, parts = self._aggregate(np.array([each[name][x] for name in self.players]))
            zero = [0.0] * len(mine)
            worth.append({"rewards": rewards.tolist(), "law": mine, "responses": zero})
            for name, part in zip(self.players, parts, strict=True):
                shares[name].append((part * np.array(mine) / len(rows)).tolist())
        self._told["learned_reward"] = float(
            np.mean([np.dot(w["rewards"], w["law"]) for w in worth])
        )
        if self.rule.total_derivative:
            self._respond(worth, batches, shares, law)
        return worth

    def _law(self, rows: list[Row], batches: Mapping[str, Annotated]) -> list[list[float]]:
        """Weights of the answers that the policy learns from."""
        if self.game_config.policy_samples == "all":
            return [row["weights"] for row in rows]
        (batch,) = batches.values()
        law = []
        for row, pairs, count in zip(rows, batch.pairs, batch.counts, strict=True):
            chosen = {i for a, b, _ in pairs for i in (a, b)}
            size = len(row["completions"])
            law.append([count / 2.0 if i in chosen else 0.0 for i in range(size)])
        return law

    def _aggregate(self, rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Several models' rewards as one ``(K,)``, and its derivative in each, ``(F, K)``."""
        if len(rewards) == 1:
            return rewards[0], np.ones_like(rewards)
        if self.game_config.aggregation == "mean":
            oracle: Any = self.oracle
            shares = np.repeat(np.array(oracle.weights)[:, None], rewards.shape[1], axis=1)
            return (shares * rewards).sum(axis=0), shares
        # Each is determined up to a constant per prompt: only differences can be compared.
        gains = rewards - rewards.mean(axis=1, keepdims=True)
        least = np.arange(len(rewards))[:, None] == gains.argmin(axis=0)[None, :]
        return gains.min(axis=0), least.astype(float)

    def _respond(
        self,
        worth: list[Worth],
        batches: Mapping[str, Annotated],
        shares: Mapping[str, list[list[float]]],
        law: list[list[float]],
    ) -> None:
        args = self.game_config
        for name, player in self.players.items():
            if not batches[name].used():
                continue
            flat, found = player.response(
                batches[name],
                shares[name],
                solver=args.solver,
                damping=args.damping,
                iterations=args.cg_iterations,
            )
            extra, size = spread(flat, found, law, selected=args.pairs == "best_worst")
            for mine, more in zip(worth, extra, strict=True):
                mine["responses"] = [a + b for a, b in zip(mine["responses"], more, strict=True)]
            self._told["response_rms"] = size
            if found.solution is not None:
                self._told["cg_residual"] = found.solution.residual
                self._told["negative_curvature"] = float(found.solution.negative_curvature)

    # -- before the first round, and after the last ---------------------------------------------

    def _fit_once(self) -> None:
        """The start model's answers to `fit_batches` batches, and `fit_epochs` passes over them."""
        args = self.game_config
        size = int(args.prompts_per_round or 0)
        seed = derive_seed(args.seed, self.method, "fit")
        plan = RoundPlan(len(self.prompts), args.fit_batches * size, args.fit_epochs, seed)
        rows = self._play(-1, plan.prompts(0))
        batches = self._annotated(rows, -1)
        for _, chosen in chunks(plan.order(0), size):
            self._reward_step(
                {
                    name: Annotated(
                        [b.items[i] for i in chosen],
                        [b.pairs[i] for i in chosen],
                        [b.weights[i] for i in chosen],
                        [b.counts[i] for i in chosen],
                    )
                    for name, b in batches.items()
                }
            )
        if self.team.is_main:
            self.metrics.add("reward", 0, 0, self._told)

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
        if self.rule.refit and self.rule.leader is Who.REWARD and self._closes(last):
            rows = self._play(last, self.plan.prompts(last))
            self._told = {}
            self._reward_step(self._annotated(rows, last))
            if self.team.is_main:
                self.metrics.add("reward", last + 1, last * self.steps_per_round, self._told)
        return result

    # -- the policy's moves -------------------------------------------------------------------

    def batch_loss(self, model: nn.Module, rows: list[Row]) -> tuple[Tensor, dict[str, float]]:
        """``- sum_y law_y A_y log pi(y)``, mean over prompts; no ratio, no clipping.

        ``A`` is the reward minus ``beta`` times the present log-ratio to the start model, minus
        the baseline, plus the fit's response. Answers without weight are left out.
        """
        args = self.game_config
        flat = [
            (row["prompt_ids"], ids)
            for row in rows
            for ids, w in zip(row["completion_ids"], row["law"], strict=True)
            if w > 0.0
        ]
        kept = torch.tensor([[w > 0.0 for w in row["law"]] for row in rows])
        if not flat:  # nothing but ties: nothing to learn, but still a loss of this model
            parameters = [p for p in model.parameters() if p.requires_grad]
            return sum((p.sum() for p in parameters), torch.zeros(())) * 0.0, {}
        found = completion_logps(
            model,
            [prompt for prompt, _ in flat],
            [ids for _, ids in flat],
            pad_id=self.pad_id,
            temperature=args.temperature,
        )
        logps = found.new_zeros(kept.shape).masked_scatter(kept.to(found.device), found)
        reference = logps.new_tensor([row["logps"][_REFERENCE] for row in rows])
        law = logps.new_tensor([row["law"] for row in rows])
        ratio = logps.detach() - reference
        naive = logps.new_tensor([row["rewards"] for row in rows]) - args.beta * ratio
        responses = logps.new_tensor([row["responses"] for row in rows])
        listed = all(row["listed"] for row in rows)
        advantage = naive + responses
        if args.baseline == "mean":
            advantage = _minus_mean(naive, law, listed=listed) + _minus_others(responses, law)
        return -(law * advantage * logps).sum(dim=1).mean(), {
            "kl_to_reference_nats": float((law * ratio).sum(dim=1).mean())
        }


def _minus_mean(advantage: Tensor, law: Tensor, *, listed: bool) -> Tensor:
    """Minus the mean of the prompt's other answers; listed ones: minus their expectation."""
    judged = advantage.masked_fill(law <= 0.0, torch.nan)
    found = centred(judged, law) if listed else leave_one_out(judged)
    return found.nan_to_num(nan=0.0)


def _minus_others(responses: Tensor, law: Tensor) -> Tensor:
    """Minus the mean response of the batch's other prompts.

    A pair selected among a prompt's answers gives them all the same response: only other prompts'
    can be a baseline that no answer of this one decides.
    """
    if len(responses) < 2:
        return responses
    total = law.sum(dim=1)
    own = (law * responses).sum(dim=1)
    others = (own.sum() - own) / (total.sum() - total).clamp(min=1e-12)
    return responses - others[:, None]


def _add_lora(function: nn.Module, rank: int, seed: int) -> None:
    """An adapter on every linear layer of a text reward's model; its head is trained in full.

    Raises:
        ConfigError: the reward has no layers to adapt.
    """
    from peft import LoraConfig, get_peft_model

    from equilign.rollout.generate import seeded
    from equilign.trainers.reward_models import TextReward

    if not isinstance(function, TextReward):
        raise ConfigError("reward_lora_rank is for reward models of text; leave it out")
    options = LoraConfig(
        task_type="SEQ_CLS", r=rank, lora_alpha=2 * rank, target_modules="all-linear"
    )
    with seeded(seed, torch.device("cpu")):
        function.model = get_peft_model(function.model, options)


class STANaiveTrainer(RewardGameTrainer):
    """The policy leads, its gradient takes the fitted reward as given."""

    rule = STA_NAIVE


class STATotalTrainer(RewardGameTrainer):
    """The policy leads and foresees how the fit responds: the total derivative."""

    rule = STA_TOTAL


class SimultaneousTrainer(RewardGameTrainer):
    """One step each, the policy's with the reward from before it."""

    rule = SIMULTANEOUS


class ReversedTrainer(RewardGameTrainer):
    """The reward leads; the policy makes its inner steps on one batch."""

    rule = REVERSED


class PARLTrainer(RewardGameTrainer):
    """The reward leads; the policy makes its inner steps on fresh batches."""

    rule = PARL


class RLHFTrainer(RewardGameTrainer):
    """The reward is fitted to the start model's answers and stays."""

    rule = RLHF


__all__ = [
    "PARLConfig",
    "PARLTrainer",
    "RLHFConfig",
    "RLHFTrainer",
    "ReversedConfig",
    "ReversedTrainer",
    "RewardGameConfig",
    "RewardGameTrainer",
    "STANaiveConfig",
    "STANaiveTrainer",
    "STATotalConfig",
    "STATotalTrainer",
    "SimultaneousConfig",
    "SimultaneousTrainer",
]
