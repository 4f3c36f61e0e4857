"""SLHF: a Leader answers, a Follower sees the answer and improves on it (arXiv:2512.16626).

Both climb at once, by policy gradients on sampled games, the Follower ``kappa`` times as fast. The
Leader maximises and the Follower minimises
``E[P(y > z) + beta_F KL(omega(.|y) || omega_ref)] - beta_L KL(pi || pi_ref)``.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, TrainerCallback

from equilign.errors import ConfigError
from equilign.oracles import Oracle
from equilign.rollout import Group, Prompt, Sampler, TransformersSampler, completion_token_logps
from equilign.rollout.encoding import encode_prompt
from equilign.rollout.follower import FollowerPrompt, replies
from equilign.rules import SLHF
from equilign.trainers.game_trainer import GameTrainer, Progress
from equilign.trainers.motion import PlayersMove
from equilign.trainers.players import ROLES, Role, TwoPlayers, make_players, player_folders
from equilign.trainers.rounds import Row, derive_seed
from equilign.trainers.setup import tokenizer_of
from equilign.trainers.slhf_config import SLHFConfig
from equilign.trainers.slhf_loss import side_loss, value
from equilign.trainers.slhf_rows import (
    fill,
    judge,
    make_rows,
    responses,
    summary,
)
from equilign.trainers.token_scoring import score_tokens

__all__ = ["SLHFConfig", "SLHFTrainer"]

_REFERENCE = "reference"
_TEMPLATE_TOKENS = 64
"""Room for the marks that a chat template puts around two more messages."""


@dataclass(frozen=True)
class PlayerSampler:
    """Answers of one of two players.

    Attributes:
        inner: asks the module that is trained.
        turn: a context within which that module is the player.
    """

    inner: Sampler
    turn: Callable[[], AbstractContextManager[None]]

    def sample(self, prompts: Sequence[Prompt], num_samples: int, seed: int) -> list[Group]:
        """See `equilign.rollout.types.Sampler.sample`."""
        with self.turn():
            return self.inner.sample(prompts, num_samples, seed)


class SLHFTrainer(GameTrainer):
    """StackelbergGDA on language models.

    A round is sampled and judged with both players as they are at its start. Deviations from the
    authors' code are in the table of methods.

    Args:
        model: the start model of both players; a module, or a path or name.
        args: options.
        train_dataset: rows with a ``prompt``.
        oracle: who judges; always asked about the original prompt.
        processing_class: the tokenizer of both.
        sampler: who answers, for both players: it must ask ``trainer.policy``.
        follower_model: where ``players = "separate"``, the Follower's start model, with the same
            tokenizer; a copy of ``model`` by default.
        peft_config: adapt each model with PEFT; ``players = "adapters"`` has a default.
        callbacks: as in transformers.
        progress: called while rounds are played and trained.

    Attributes:
        pair: the two players where they have weights of their own, else None.
        follower_prompt: what the Follower is shown.

    Raises:
        ConfigError: options that do not go together; see also `GameTrainer`.
        ModelError: a player without trainable weights, or, while training, one that does not move.
    """

    rule = SLHF
    roles = ROLES

    def __init__(  # noqa: PLR0913 - that of GameTrainer, and a second model
        self,
        model: str | nn.Module,
        args: SLHFConfig,
        train_dataset: Sequence[Mapping[str, Any]],
        oracle: Oracle | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        *,
        sampler: Sampler | None = None,
        follower_model: str | nn.Module | None = None,
        peft_config: PeftConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.method = self.rule.name
        self.follower_prompt: FollowerPrompt = args.follower_prompt()
        self.pushed: dict[Role, bool] = dict.fromkeys(ROLES, False)
        other = args.follower_model if follower_model is None else follower_model
        tokenizer = tokenizer_of(model, processing_class)
        module, adapter = make_players(model, other, args.players, peft_config, args)
        self.pair: TwoPlayers | None = module if isinstance(module, TwoPlayers) else None
        super().__init__(
            module,
            args,
            train_dataset,
            oracle,
            tokenizer,
            sampler=sampler,
            peft_config=adapter,
            callbacks=callbacks,
            progress=progress,
        )
        if self.pair is not None and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ConfigError(
                f"players = {args.players!r} trains on one process or with plain data "
                "parallelism; with FSDP or DeepSpeed use players = 'shared'"
            )
        self._own_weights = [p for p in self.policy.parameters() if p.requires_grad]
        self.add_callback(PlayersMove(self))

    @property
    def slhf_config(self) -> SLHFConfig:
        """The options, with their type."""
        assert isinstance(self.args, SLHFConfig)  # noqa: S101 - for the type checker
        return self.args

    # -- players ----------------------------------------------------------------------------

    def playing(self, role: Role) -> AbstractContextManager[None]:
        """Within, `policy` is ``role``; it is the Leader anywhere else."""
        return nullcontext() if self.pair is None else self.pair.playing(role)

    def player_weights(self, role: Role) -> list[nn.Parameter]:
        """What ``role`` trains."""
        return self._own_weights if self.pair is None else self.pair.weights(role)

    def player_sampler(self, role: Role) -> Sampler:
        """Answers of ``role`` as it is at the time of asking."""
        inner = self.sampler
        if role == "follower" and isinstance(inner, TransformersSampler):
            # It is shown a whole answer more, and the instruction.
            empty = encode_prompt(self.tokenizer, self.follower_prompt.of("", ""))
            room = self.config.max_completion_length + len(empty) + _TEMPLATE_TOKENS
            limit = inner.config.max_prompt_tokens + room
            inner = replace(inner, config=replace(inner.config, max_prompt_tokens=limit))
        return PlayerSampler(inner, lambda: self.playing(role))

    def due(self) -> tuple[Role, ...]:
        """Who moves at the coming optimiser step."""
        leads = (self.state.global_step + 1) % self.slhf_config.leader_update_every == 0
        return self.roles if leads else ("follower",)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """One optimiser; a Follower with weights of its own has ``kappa`` times the step.

        A factor of its loss would not do: Adam takes it out again.
        """
        made = self.optimizer is not None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if made or self.pair is None:
            return optimizer
        follows = {id(p) for p in self.pair.weights("follower")}
        for group in list(optimizer.param_groups):
            mine = [p for p in group["params"] if id(p) in follows]
            if mine:
                group["params"] = [p for p in group["params"] if id(p) not in follows]
                rate = self.slhf_config.kappa * group["lr"]
                optimizer.add_param_group({**group, "params": mine, "lr": rate})
        return optimizer

    # -- playing ----------------------------------------------------------------------------

    def start_round(self, index: int) -> None:
        """The start players are the references, once and for all."""
        if index == 0:
            self.references.take(_REFERENCE)

    def play_chunk(self, index: int, number: int, members: list[int]) -> list[Row]:
        """Leader answers, replies to each, verdicts, and what each response is worth.

        The fields of a row are those of `equilign.trainers.slhf_rows`.
        """
        args = self.slhf_config

        def seed(role: Role) -> int:
            return derive_seed(args.seed, self.method, index, number, role)

        led = self.player_sampler("leader").sample(
            [self.prompts[i] for i in members], args.num_generations, seed("leader")
        )
        replied = replies(
            self.player_sampler("follower"),
            self.follower_prompt,
            led,
            args.num_follower_generations,
            seed("follower"),
        )
        rows = make_rows(members, led, replied, judge(self.oracle, led, replied))
        self._score(rows, {"leader": led, "follower": [g for side in replied for g in side]})
        listed = any(g.weights for g in led), any(g.weights for s in replied for g in s)
        value(rows, dict(zip(self.roles, listed, strict=True)), args)
        return rows

    def _score(self, rows: list[Row], said: Mapping[Role, list[Group]]) -> None:
        """Log-probabilities of every response, now and under the reference."""
        original = self.slhf_config.follower_reference == "prompt"
        for role in self.roles:
            with self.playing(role):
                now = self.score_own(said[role])
                with self.references.playing(_REFERENCE):
                    start, _ = score_tokens(
                        self.policy,
                        responses(rows, role, original_prompt=original).pairs,
                        pad_id=self.pad_id,
                        temperature=self.config.temperature,
                        batch_size=self.config.generation_batch_size,
                    )
            fill(rows, role, "logps", [logp for group in now for logp in group])
            fill(rows, role, "ref_logps", start)

    def round_summary(self, rows: list[Row]) -> dict[str, float]:
        """See `equilign.trainers.slhf_rows.summary`."""
        return summary(rows)

    # -- training ---------------------------------------------------------------------------

    def batch_loss(self, model: nn.Module, rows: list[Row]) -> tuple[Tensor, dict[str, float]]:
        """The Leader's loss plus ``kappa`` times the Follower's, per prompt.

        Where they have weights of their own, ``kappa`` is in the learning rate instead. Each
        player has a forward pass of its own: together, the Leader's short responses would be
        padded to the Follower's.
        """
        losses: dict[Role, Tensor] = {}
        metrics: dict[str, float] = {}
        for role in self.due():
            asked = responses(rows, role)
            with self.playing(role):
                logps, mask = completion_token_logps(
                    model,
                    asked.prompts,
                    asked.completions,
                    pad_id=self.pad_id,
                    temperature=self.config.temperature,
                )
            losses[role], found, pushed = side_loss(rows, role, logps, mask, self.slhf_config)
            metrics |= {f"{role}_{name}": number for name, number in found.items()}
            self.pushed[role] |= pushed
        kappa = self.slhf_config.kappa if self.pair is None else 1.0
        total = kappa * losses["follower"]
        if "leader" in losses:
            return losses["leader"] + total, metrics
        if self.pair is not None and self.team.size > 1:
            # DDP waits for a gradient of every weight; `PlayersMove` takes this one away.
            total = total + 0.0 * sum(p.sum() for p in self.pair.weights("leader"))
        return total, metrics

    # -- saving -----------------------------------------------------------------------------

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        folder = Path(str(output_dir or self.args.output_dir))
        if self.pair is None:
            super()._save(str(folder), state_dict)
        if not self.args.should_save:
            return
        if self.pair is not None:
            for role in self.roles:
                self.pair.save_player(role, folder)
                self.tokenizer.save_pretrained(str(folder / role))
            torch.save(self.args, folder / "training_args.bin")
        self.follower_prompt.save(player_folders(folder)["follower"])

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        if self.pair is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        # transformers would make only one adapter trainable again.
        folder = Path(resume_from_checkpoint)
        for role in self.roles:
            self.pair.load_player(role, folder)
        self.references.load(folder / "references")
        self.load_game_state(folder / "game")
