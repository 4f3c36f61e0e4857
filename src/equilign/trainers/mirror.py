"""The language-model interpreter of mirror rules.

The exact interpreter (`equilign.play.exact`) computes ``sum a_k log q_k + eta sum b_m P q_m``
for every response there is. This one does it for K sampled responses per prompt: anchors are
log-probabilities under the slots' weights, payoffs are mean win probabilities against samples of
the slots, and the policy is regressed on the result. It knows slots and stages, and no rule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from equilign.errors import ConfigError
from equilign.games import cycle_report
from equilign.losses import (
    Normaliser,
    log_normaliser,
    mirror_regression_loss,
    mirror_residual,
    pair_loss,
    reinforce_loss,
)
from equilign.oracles import compare_symmetric, score_groups
from equilign.rollout import (
    Group,
    MixtureSampler,
    completion_logps,
    prompt_text,
)
from equilign.rules import Closing, MirrorRule, Slot, Step
from equilign.trainers.game_trainer import GameTrainer
from equilign.trainers.judged import (
    add_win_rates,
    as_game,
    as_json,
    choose_responses,
    harden,
)
from equilign.trainers.mirror_config import MirrorConfig
from equilign.trainers.rounds import Row, derive_seed
from equilign.trainers.slots import Slots, StagePlan


class MirrorTrainer(GameTrainer):
    """Trains a policy by a mirror rule: its stages in order, one per round.

    A round samples K responses of the current policy to each prompt, asks how they do against the
    stage's opponents, and regresses the model on the stage's right-hand side. The result becomes
    the slot that the stage writes; a rule of two stages makes a step in two rounds.

    Args:
        model, args, train_dataset, oracle, processing_class, ...: see `GameTrainer`.
        rule: where a subclass does not name one.

    Raises:
        ConfigError: the rule projects or regresses onto the simplex, which only a matrix has;
            ``num_rounds`` is no multiple of the stages; the rule plays against a mixture and the
            sampler cannot; or it uses the reference with ``beta`` 0.
    """

    rule: MirrorRule

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - those of GameTrainer
        rule: MirrorRule | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        if rule is not None:
            self.rule = rule
        self.method = self.rule.name
        super().__init__(*args, **kwargs)
        config = self.mirror_config
        self.step = Step(config.eta, config.beta, config.mixture, config.inner_steps)
        self.stages = StagePlan(self.rule, self.step)
        self.slots = Slots(self.stages, self.references)
        self._check_rule()

    def _check_rule(self) -> None:
        rule, count = self.rule, len(self.rule.stages)
        if rule.closing not in (Closing.NORMALISE, Closing.GRADIENT):
            raise ConfigError(
                f"{rule.title} can be played on a matrix only: the policy of a language model is "
                "not a vector that could be projected"
            )
        if self.config.num_rounds % count:
            raise ConfigError(
                f"num_rounds = {self.config.num_rounds}; a step of {rule.title} takes {count} "
                f"rounds, so it must be a multiple of {count}"
            )
        mixes = any(stage.mixture is not None for stage in rule.stages)
        if mixes and not hasattr(self.sampler, "sample_mixture"):
            raise ConfigError(
                f"{rule.title} plays against a mixture of policies; the sampler "
                f"{type(self.sampler).__name__} has no sample_mixture"
            )

    @property
    def mirror_config(self) -> MirrorConfig:
        """The options, with their type."""
        assert isinstance(self.args, MirrorConfig)  # noqa: S101 - for the type checker
        return self.args

    def start_round(self, index: int) -> None:
        """Move the slots that the rule asks for; see `Slots.start_round`."""
        self.slots.start_round(index)

    # -- playing ----------------------------------------------------------------------------

    def play_chunk(self, index: int, number: int, members: list[int]) -> list[Row]:
        """Sample K responses to each prompt, let them play each other and every opponent slot.

        A row holds ``prompt, prompt_ids, completions, completion_ids, finished``, ``weights`` (of
        the sampling), ``loss_weights`` (0 without a verdict),
        ``prefs`` (K x K, among the responses; null: no verdict), ``logps`` (slot -> K, nats; of the
        reference only the first where it is no anchor),
        ``win_rates`` (slot -> K) and ``trained`` (which of the K are trained on).
        """
        prompts = [self.prompts[i] for i in members]
        groups = self._sample(Slot.CURRENT, prompts, index, number)
        games = score_groups(
            self.oracle,
            [prompt_text(p) for p in prompts],
            [[c.text for c in g.completions] for g in groups],
        )
        rows = [_row(i, g, p) for i, g, p in zip(members, groups, games, strict=True)]
        hard = self.mirror_config.verdicts == "hard"
        for slot in sorted(self.stages.opponents(index)):
            opponents = (
                groups if slot == Slot.CURRENT else self._sample(slot, prompts, index, number)
            )
            blocks = games if slot == Slot.CURRENT else self._blocks(groups, opponents)
            for row, block, other in zip(rows, blocks, opponents, strict=True):
                weights = np.array(other.probabilities())
                add_win_rates(row, str(slot), harden(block) if hard else block, weights)
        for row, game in zip(rows, games, strict=True):
            choose_responses(row, game, self.mirror_config.responses, hard=hard)
        self._add_logps(index, groups, rows)
        return rows

    def _add_logps(self, index: int, groups: list[Group], rows: list[Row]) -> None:
        """Log-probabilities under every anchor, and under the start model for the KL metric."""
        with self.slots.playing(Slot.CURRENT):
            current = self.score_own(groups)
        for slot in sorted(self.stages.anchors(index) | {Slot.CURRENT, Slot.REFERENCE}):
            scored = groups
            if slot not in self.stages.anchors(index) and not groups[0].weights:
                # The metric alone needs it: one of the K samples is enough for an estimate.
                scored = [replace(g, completions=g.completions[:1]) for g in groups]
            # In the first round every slot is the start model.
            if slot == Slot.CURRENT or index == 0:
                found = current
            else:
                with self.slots.playing(slot):
                    found = self.score(scored)
            for row, values in zip(rows, found, strict=True):
                row["logps"][str(slot)] = values

    def _sample(self, slot: Slot, prompts: Sequence[Any], index: int, number: int) -> list[Group]:
        seed = derive_seed(self.args.seed, self.method, index, number, str(slot))
        size = self.config.num_generations
        if slot == Slot.MIXTURE:
            mixing = cast(MixtureSampler, self.sampler)  # checked at the start
            return mixing.sample_mixture(self.slots.mixture(index), prompts, size, seed)
        with self.slots.playing(slot):
            return self.sampler.sample(prompts, size, seed)

    def _blocks(self, groups: list[Group], opponents: list[Group]) -> list[np.ndarray]:
        """Win probability of each response against each of an opponent's."""
        x, a, b = [], [], []
        for group, other in zip(groups, opponents, strict=True):
            for mine in group.completions:
                for theirs in other.completions:
                    x.append(prompt_text(group.prompt))
                    a.append(mine.text)
                    b.append(theirs.text)
        verdicts = compare_symmetric(self.oracle, x, a, b)
        blocks, start = [], 0
        for group, other in zip(groups, opponents, strict=True):
            shape = (len(group.completions), len(other.completions))
            blocks.append(verdicts[start : start + shape[0] * shape[1]].reshape(shape))
            start += shape[0] * shape[1]
        return blocks

    # -- training ---------------------------------------------------------------------------

    def batch_loss(self, model: nn.Module, rows: list[Row]) -> tuple[Tensor, dict[str, float]]:
        """Weighted mean squared residual of the mirror step over the batch's responses."""
        flat = [(r["prompt_ids"], r["completion_ids"][i]) for r in rows for i in r["trained"]]
        logps = completion_logps(
            model,
            [p for p, _ in flat],
            [c for _, c in flat],
            pad_id=self.pad_id,
            temperature=self.config.temperature,
        ).view(len(rows), -1)
        stage = self.stages.stage(self.round_index)
        anchor = _combine(stage.anchor(self.step), rows, "logps", logps)
        payoff = _combine(stage.payoff(self.step), rows, "win_rates", logps)
        weights = logps.new_tensor([[r["loss_weights"][i] for i in r["trained"]] for r in rows])
        judged = weights.sum(dim=1) > 0.0
        if not bool(judged.any()):
            return 0.0 * logps.sum(), {}
        parts = (logps, anchor, payoff, weights)
        # Every prompt counts the same in the mean, one without any verdict not at all.
        loss = self._loss(*(part[judged] for part in parts)).sum() / len(rows)
        moved = (logps.detach() - anchor)[judged].abs().mean()
        return loss, {"abs_log_ratio_to_anchor_nats": float(moved)}

    def _loss(self, logps: Tensor, anchor: Tensor, payoff: Tensor, weights: Tensor) -> Tensor:
        """One number per prompt."""
        eta = self.step.eta
        if self.rule.closing == Closing.GRADIENT:
            residual = mirror_residual(logps.detach(), anchor, payoff, eta=eta)
            return reinforce_loss(logps, -residual / eta, weights)
        if self.mirror_config.loss == "pairs":
            return pair_loss(mirror_residual(logps, anchor, payoff, eta=eta), weights)
        kind = _normaliser(self.mirror_config.normaliser)
        log_z = log_normaliser(payoff, weights, eta=eta, kind=kind)
        squared = mirror_regression_loss(logps, anchor, payoff, log_z, eta=eta)
        return (weights * squared).sum(dim=1)

    def round_summary(self, rows: list[Row]) -> dict[str, float]:
        """KL to the start, length, share ended by the model, and how cyclic the games are."""
        games = [as_game(r["prefs"]) for r in rows]
        whole = [game for game in games if not np.isnan(game).any()]
        report = cycle_report(whole) if whole else None
        ratio = [_log_ratio(r) for r in rows]
        lengths = [len(ids) for r in rows for ids in r["completion_ids"]]
        return {
            "kl_to_reference_nats": float(np.mean(ratio)),
            "completion_tokens": float(np.mean(lengths)),
            "finished_share": float(np.mean([f for r in rows for f in r["finished"]])),
            "masked_verdicts_share": float(np.mean([np.isnan(g).mean() for g in games])),
            "cyclic_prompts_share": report.with_cycle / report.prompts if report else 0.0,
            "condorcet_winner_share": (
                report.with_condorcet_winner / report.prompts if report else 0.0
            ),
        }


def _log_ratio(row: Row) -> float:
    """``log pi - log ref``, over the row's samples or the first of them, nats."""
    current, reference = row["logps"]["current"], row["logps"]["reference"]
    if len(reference) < len(current):
        return float(current[0] - reference[0])
    return float(np.dot(row["weights"], np.subtract(current, reference)))


def _normaliser(name: str) -> Normaliser:
    return "paper" if name == "paper" else "estimated"


def _row(member: int, group: Group, prefs: np.ndarray) -> Row:
    return {
        "prompt_index": member,
        "prompt": group.prompt,
        "prompt_ids": list(group.prompt_ids),
        "completions": [c.text for c in group.completions],
        "completion_ids": [list(c.ids) for c in group.completions],
        "finished": [c.finished for c in group.completions],
        "weights": list(group.probabilities()),
        "loss_weights": list(group.probabilities()),
        "prefs": as_json(prefs),
        "logps": {},
        "win_rates": {},
    }


def _combine(weights: Mapping[Slot, float], rows: list[Row], field: str, like: Tensor) -> Tensor:
    total = torch.zeros_like(like)
    for slot, weight in weights.items():
        if weight != 0.0:
            values = [[r[field][str(slot)][i] for i in r["trained"]] for r in rows]
            total = total + weight * like.new_tensor(values)
    return total
