"""The language-model interpreter of contrastive rules: DPO, IPO and their online forms.

A round is a set of labelled pairs. Rules with fixed pairs read them from the data set; the others
sample K answers to every prompt and have them judged. The reference's log-probabilities are written
into the round, so that training holds one model. The exact interpreter is
`equilign.play.contrastive`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equilign.errors import ConfigError
from equilign.formats import PreferencePair, preference_pairs
from equilign.games import cycle_report
from equilign.losses.pairs import labelled_pair_loss
from equilign.losses.preference import dpo_loss, log_ratios
from equilign.oracles import score_groups
from equilign.rollout import Group, Prompt, completion_logps, prompt_text, score_completions
from equilign.rollout.encoding import end_tokens
from equilign.rules.contrastive import (
    DPO,
    IPO,
    ITERATED_DPO,
    ITERATED_IPO,
    ONLINE_DPO,
    ContrastiveRule,
    PairLoss,
    Pairs,
)
from equilign.trainers.contrastive_config import (
    ContrastiveConfig,
    DPOConfig,
    IPOConfig,
    IteratedDPOConfig,
    IteratedIPOConfig,
    OnlineDPOConfig,
)
from equilign.trainers.game_trainer import GameTrainer
from equilign.trainers.given_pairs import GivenPairs
from equilign.trainers.judged import as_game, as_json
from equilign.trainers.pair_selection import LabelledPairs, PairChoice
from equilign.trainers.rounds import Row, derive_seed

_REFERENCE = "reference"


class ContrastiveTrainer(GameTrainer):
    """Trains a policy by a contrastive rule.

    Rules with fixed pairs take a data set in TRL's preference format (`equilign.formats`: text or
    chat, soft pairs, scored groups) and no oracle. The others take prompts and an oracle.

    Args:
        model, args, train_dataset, oracle, processing_class, ...: see `GameTrainer`.
        rule: where a subclass does not name one.

    Raises:
        ConfigError: label smoothing for IPO, or an oracle is missing.
        DataError: a given pair is malformed, or too long for the options.
    """

    rule: ContrastiveRule

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - those of GameTrainer
        rule: ContrastiveRule | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        if rule is not None:
            self.rule = rule
        self.method = self.rule.name
        fixed = self.rule.pairs == Pairs.OFFLINE
        self.needs_oracle, self.data_format = not fixed, "pairs" if fixed else "prompts"
        self._pairs: list[PreferencePair] = []
        super().__init__(*args, **kwargs)
        config = self.contrastive_config
        if config.label_smoothing > 0.0 and self.rule.loss != PairLoss.DPO:
            raise ConfigError(
                f"label_smoothing = {config.label_smoothing}: {self.rule.title} has none; "
                "give soft labels (chosen_prob in the data, or labels = 'soft')"
            )
        if fixed:
            self.given = GivenPairs(
                self._pairs,
                self.tokenizer,
                end_tokens(self.policy, self.tokenizer),  # type: ignore[arg-type]
                config.max_prompt_length,
                config.max_completion_length,
            )
            if config.too_long == "error":
                self.given.check()

    @property
    def contrastive_config(self) -> ContrastiveConfig:
        """The options, with their type."""
        assert isinstance(self.args, ContrastiveConfig)  # noqa: S101 - for the type checker
        return self.args

    def read_prompts(self, examples: list[Mapping[str, Any]]) -> list[Prompt]:
        """The prompt of every given pair, or of every row of the data set."""
        if self.rule.pairs != Pairs.OFFLINE:
            return super().read_prompts(examples)
        self._pairs = preference_pairs(examples)
        return [pair.prompt for pair in self._pairs]

    def start_round(self, index: int) -> None:
        """Take the reference: the start model, or anew every round where it moves."""
        if index == 0 or self.rule.moves_reference:
            self.references.take(_REFERENCE)

    # -- playing ----------------------------------------------------------------------------

    def play_chunk(self, index: int, number: int, members: list[int]) -> list[Row]:
        """Pairs of prompts ``members``, labelled, with the reference's log-probabilities.

        A row holds ``prompt, prompt_ids, completions, completion_ids, finished``, ``prefs`` (win
        probabilities among the completions; null: no verdict), ``pairs`` (indices, the likelier
        winner first), ``win_probs`` and ``pair_weights`` (of each pair), ``no_verdict``, ``tied``,
        ``too_long`` (how many pairs were left out) and ``logps`` (``reference``: nats, null where a
        completion is in no pair).
        """
        seed = derive_seed(self.args.seed, self.method, index, number, "labels")
        generator = np.random.default_rng(seed)
        if self.rule.pairs == Pairs.OFFLINE:
            labels = self.contrastive_config.labels
            rows = [self.given.row(member, labels, generator) for member in members]
        else:
            rows = self._sampled(index, number, members, generator)
        self._score_reference(rows)
        return rows

    def _sampled(
        self, index: int, number: int, members: list[int], generator: np.random.Generator
    ) -> list[Row]:
        config = self.contrastive_config
        choice = PairChoice(config.pair_selection, config.labels, config.pairs_per_prompt)
        seed = derive_seed(self.args.seed, self.method, index, number, "policy")
        prompts = [self.prompts[i] for i in members]
        groups = self.sampler.sample(prompts, config.num_generations, seed)
        games = score_groups(
            self.oracle,
            [prompt_text(p) for p in prompts],
            [[c.text for c in g.completions] for g in groups],
        )
        rows = []
        for member, group, game in zip(members, groups, games, strict=True):
            texts = [c.text for c in group.completions]
            labelled = choice.of(game, texts, group.weights, generator)
            rows.append(_row(member, group, game, labelled))
        return rows

    def _score_reference(self, rows: list[Row]) -> None:
        places = [(row, k) for row in rows for k in _used(row)]
        with self.references.playing(_REFERENCE):
            logps = score_completions(
                self.policy,
                [row["prompt_ids"] for row, _ in places],
                [row["completion_ids"][k] for row, k in places],
                pad_id=self.pad_id,
                temperature=self.config.temperature,
                batch_size=self.config.generation_batch_size,
            )
        for row in rows:
            row["logps"] = {_REFERENCE: [None] * len(row["completions"])}
        for (row, k), value in zip(places, logps, strict=True):
            row["logps"][_REFERENCE][k] = value

    # -- training ---------------------------------------------------------------------------

    def batch_loss(self, model: nn.Module, rows: list[Row]) -> tuple[Tensor, dict[str, float]]:
        """Mean over prompts of the weighted loss of their pairs; one forward for all answers."""
        places = [(n, k) for n, row in enumerate(rows) for k in _used(row)]
        if not places:  # zero, with a graph: other processes may be waiting for its gradient
            one = rows[0]["prompt_ids"][:1]
            return 0.0 * completion_logps(model, [one], [one], pad_id=self.pad_id).sum(), {}
        answers = [rows[n]["completion_ids"][k] for n, k in places]
        logps = completion_logps(
            model,
            [rows[n]["prompt_ids"] for n, _ in places],
            answers,
            pad_id=self.pad_id,
            temperature=self.config.temperature,
        )
        ref_logps = logps.new_tensor([rows[n]["logps"][_REFERENCE][k] for n, k in places])
        where = {place: position for position, place in enumerate(places)}
        chosen, rejected = (
            torch.tensor(
                [where[n, pair[side]] for n, row in enumerate(rows) for pair in row["pairs"]],
                device=logps.device,
            )
            for side in (0, 1)
        )
        win_probs = logps.new_tensor([p for row in rows for p in row["win_probs"]])
        weights = logps.new_tensor([w for row in rows for w in row["pair_weights"]])
        tokens = logps.new_tensor([len(ids) for ids in answers])
        normalised = self.contrastive_config.length_normalised
        ratios = log_ratios(logps, ref_logps, tokens if normalised else None)
        loss = self._pair_loss(ratios[chosen] - ratios[rejected], win_probs)
        metrics = self._metrics(logps.detach(), ref_logps, chosen, rejected)
        return (weights * loss).sum() / len(rows), metrics

    def _pair_loss(self, margin: Tensor, win_probs: Tensor) -> Tensor:
        config = self.contrastive_config
        if self.rule.loss == PairLoss.IPO:
            eta = 1.0 / config.beta
            return labelled_pair_loss(margin[None], win_probs[None], eta=eta)[0]
        smoothing = config.label_smoothing
        return dpo_loss(margin, win_probs, beta=config.beta, label_smoothing=smoothing)

    def _metrics(
        self, logps: Tensor, ref_logps: Tensor, chosen: Tensor, rejected: Tensor
    ) -> dict[str, float]:
        """TRL's names, and its meanings: sums over tokens, whatever the loss divides by."""
        rewards = self.contrastive_config.beta * (logps - ref_logps)
        margins = rewards[chosen] - rewards[rejected]
        return {
            "rewards/chosen": float(rewards[chosen].mean()),
            "rewards/rejected": float(rewards[rejected].mean()),
            "rewards/margins": float(margins.mean()),
            "rewards/accuracies": float((margins > 0.0).double().mean()),
            "logps/chosen": float(logps[chosen].mean()),
            "logps/rejected": float(logps[rejected].mean()),
        }

    def round_summary(self, rows: list[Row]) -> dict[str, float]:
        """Pairs trained on and left out; of sampled ones also length and how cyclic they are."""
        found: dict[str, float] = {"pairs": sum(len(r["pairs"]) for r in rows)}
        for name in ("no_verdict", "tied", "too_long"):
            found[f"pairs_{name}"] = sum(r[name] for r in rows)
        if self.rule.pairs == Pairs.OFFLINE:
            return found
        lengths = [len(ids) for r in rows for ids in r["completion_ids"]]
        games = [as_game(r["prefs"]) for r in rows]
        report = cycle_report([g for g in games if not np.isnan(g).any()])
        judged = max(report.prompts, 1)
        return {
            **found,
            "completion_tokens": float(np.mean(lengths)),
            "finished_share": float(np.mean([f for r in rows for f in r["finished"]])),
            "cyclic_prompts_share": report.with_cycle / judged,
            "condorcet_winner_share": report.with_condorcet_winner / judged,
        }


def _used(row: Row) -> list[int]:
    """Completions that are in a pair, ascending."""
    return sorted({k for pair in row["pairs"] for k in pair})


def _row(member: int, group: Group, game: np.ndarray, labelled: LabelledPairs) -> Row:
    return {
        "prompt_index": member,
        "prompt": group.prompt,
        "prompt_ids": list(group.prompt_ids),
        "completions": [c.text for c in group.completions],
        "completion_ids": [list(c.ids) for c in group.completions],
        "finished": [c.finished for c in group.completions],
        "prefs": as_json(game),
        **labelled.fields(),
        "too_long": 0,
    }


class DPOTrainer(ContrastiveTrainer):
    """Direct preference optimisation on given pairs (Rafailov et al. 2023, arXiv:2305.18290)."""

    rule = DPO
    needs_oracle = False
    data_format = "pairs"


class IPOTrainer(ContrastiveTrainer):
    """Identity preference optimisation on given pairs (Azar et al. 2023, arXiv:2310.12036)."""

    rule = IPO
    needs_oracle = False
    data_format = "pairs"


class IteratedDPOTrainer(ContrastiveTrainer):
    """DPO on the policy's own judged pairs; the reference becomes the policy every round."""

    rule = ITERATED_DPO


class IteratedIPOTrainer(ContrastiveTrainer):
    """IPO on the policy's own judged pairs; the reference becomes the policy every round."""

    rule = ITERATED_IPO


class OnlineDPOTrainer(ContrastiveTrainer):
    """DPO on the policy's own judged pairs; the start model stays the reference."""

    rule = ONLINE_DPO


__all__ = [
    "ContrastiveConfig",
    "ContrastiveTrainer",
    "DPOConfig",
    "DPOTrainer",
    "IPOConfig",
    "IPOTrainer",
    "IteratedDPOConfig",
    "IteratedDPOTrainer",
    "IteratedIPOConfig",
    "IteratedIPOTrainer",
    "OnlineDPOConfig",
    "OnlineDPOTrainer",
]
