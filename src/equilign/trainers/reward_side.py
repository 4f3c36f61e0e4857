"""The reward's side of the game: one model per annotator, what answers are worth, who responds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equilign.errors import ConfigError
from equilign.losses.policy_gradient import centred, leave_one_out
from equilign.oracles import Ensemble, Oracle
from equilign.trainers.reward_game_config import RewardGameConfig
from equilign.trainers.reward_pairs import replace_ties
from equilign.trainers.reward_player import Annotated, RewardPlayer, spread
from equilign.trainers.rounds import Row, derive_seed

Worth = dict[str, list[float]]
"""Of one prompt's answers: ``rewards``; ``law``, their weights in the policy's loss; and
``responses``, to be added to their advantages."""


def annotators_of(oracle: Oracle, args: RewardGameConfig) -> dict[str, Oracle]:
    """Who labels pairs, by name: the oracle, or each member of an ensemble.

    Raises:
        ConfigError: the oracle cannot be what the options ask for.
    """
    if args.policy_samples == "pair" and (args.pairs != "best_worst" or args.followers != "one"):
        raise ConfigError(
            "policy_samples = 'pair' needs pairs = 'best_worst' and followers = 'one': else "
            "there is no single pair"
        )
    if args.followers == "one":
        return {"reward": oracle}
    if not isinstance(oracle, Ensemble):
        raise ConfigError(
            "followers = 'members' needs an ensemble oracle with a member per annotator; got "
            f"{type(oracle).__name__}"
        )
    return dict(oracle.members)


class RewardSide:
    """All reward models together.

    Args:
        players: by annotator.
        weights: of the players in the mean, summing to 1.
        args: the options.
        name: of the method, which seeds depend on.

    Attributes:
        players: by annotator.
        told: what the last steps and answers said, for the metrics.
    """

    def __init__(
        self,
        players: Mapping[str, RewardPlayer],
        weights: Sequence[float],
        args: RewardGameConfig,
        name: str,
    ) -> None:
        self.players = dict(players)
        self.told: dict[str, float] = {}
        self._weights, self._args, self._name = np.array(weights), args, name

    def annotated(self, rows: list[Row], index: int) -> dict[str, Annotated]:
        """A round's answers as each reward model reads them, with its annotator's pairs."""
        found = {}
        for name, player in self.players.items():
            verdicts = [row["verdicts"][name] for row in rows]
            seed = derive_seed(self._args.seed, self._name, name, "ties", index)
            encode: Any = player.function.encode
            found[name] = Annotated(
                items=encode(rows),
                pairs=[[tuple(p) for p in v["pairs"]] for v in verdicts],
                weights=[v["pair_weights"] for v in verdicts],
                counts=replace_ties(verdicts, seed),
            )
        return found

    def step(self, batches: Mapping[str, Annotated]) -> None:
        """One step of every reward model."""
        for name, player in self.players.items():
            found = player.step(batches[name])
            prefix = "" if len(self.players) == 1 else f"{name}/"
            self.told |= {f"{prefix}{key}": value for key, value in found.items()}

    def valued(
        self, rows: list[Row], batches: Mapping[str, Annotated], *, total: bool
    ) -> list[Worth]:
        """What every answer is worth to the policy.

        Args:
            rows: of the round.
            batches: the same, as of `annotated`.
            total: whether the fit's response counts.
        """
        each = {name: p.rewards(batches[name].items) for name, p in self.players.items()}
        worth: list[Worth] = []
        shares: dict[str, list[list[float]]] = {name: [] for name in self.players}
        for x, mine in enumerate(self._law(rows, batches)):
            rewards, parts = self.aggregate(np.array([each[name][x] for name in self.players]))
            zero = [0.0] * len(mine)
            worth.append({"rewards": rewards.tolist(), "law": mine, "responses": zero})
            for name, part in zip(self.players, parts, strict=True):
                shares[name].append((part * np.array(mine) / len(rows)).tolist())
        means = [np.dot(w["rewards"], w["law"]) for w in worth]
        self.told["learned_reward"] = float(np.mean(means))
        if total:
            self._respond(worth, batches, shares)
        return worth

    def _law(self, rows: list[Row], batches: Mapping[str, Annotated]) -> list[list[float]]:
        """Weights of the answers that the policy learns from."""
        if self._args.policy_samples == "all":
            return [row["weights"] for row in rows]
        (batch,) = batches.values()
        law = []
        for row, pairs, count in zip(rows, batch.pairs, batch.counts, strict=True):
            chosen = {i for a, b, _ in pairs for i in (a, b)}
            size = len(row["completions"])
            law.append([count / 2.0 if i in chosen else 0.0 for i in range(size)])
        return law

    def aggregate(self, rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Several models' rewards ``(F, K)`` as one ``(K,)``, and its derivative in each."""
        if len(rewards) == 1:
            return rewards[0], np.ones_like(rewards)
        if self._args.aggregation == "mean":
            shares = np.repeat(self._weights[:, None], rewards.shape[1], axis=1)
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
    ) -> None:
        args = self._args
        law = [mine["law"] for mine in worth]
        for name, player in self.players.items():
            if not batches[name].used():
                continue
            flat, found = player.response(
                batches[name],
                shares[name],
                solver=args.solver,
                damping=args.damping,
                iterations=args.cg_iterations,
                relative_damping=args.relative_damping,
            )
            extra, size = spread(flat, found, law, selected=args.pairs == "best_worst")
            for mine, more in zip(worth, extra, strict=True):
                mine["responses"] = [a + b for a, b in zip(mine["responses"], more, strict=True)]
            self.told["response_rms"], self.told["damping"] = size, found.damping
            if found.solution is not None:
                self.told["cg_residual"] = found.solution.residual
        if args.baseline == "mean":
            # Here and not in the loss: a batch of one process may be a single prompt.
            responses = torch.tensor([mine["responses"] for mine in worth], dtype=torch.float64)
            left = minus_others(responses, torch.tensor(law, dtype=torch.float64))
            for mine, values in zip(worth, left.tolist(), strict=True):
                mine["responses"] = values

    def save(self, folder: Path) -> None:
        """Weights and optimisers, for a run to go on from."""
        for name, player in self.players.items():
            player.save(folder / f"{name}.pt")

    def load(self, folder: Path) -> None:
        """What `save` wrote.

        Raises:
            ModelError: it is not there, or of other reward models.
        """
        for name, player in self.players.items():
            player.load(folder / f"{name}.pt")

    def save_models(self, folder: Path) -> None:
        """Every reward model for use: in ``folder``, or in one of its own there if several."""
        for name, player in self.players.items():
            save: Any = player.function.save
            save(folder if len(self.players) == 1 else folder / name)


def minus_mean(advantage: Tensor, law: Tensor, *, listed: bool) -> Tensor:
    """Minus the mean of the prompt's other answers; listed ones: minus their expectation.

    Args:
        advantage: ``(prompt, answer)``.
        law: weights in the loss; answers of weight 0 are nobody's baseline.
        listed: whether the answers are all there are, with their probabilities.
    """
    judged = advantage.masked_fill(law <= 0.0, torch.nan)
    found = centred(judged, law) if listed else leave_one_out(judged)
    return found.nan_to_num(nan=0.0)


def minus_others(responses: Tensor, law: Tensor) -> Tensor:
    """Minus the mean response of the round's other prompts.

    A pair selected among a prompt's answers gives them all the same response: only other prompts'
    can be a baseline that no answer of this one decides.
    """
    if len(responses) < 2:
        return responses
    total = law.sum(dim=1)
    own = (law * responses).sum(dim=1)
    others = (own.sum() - own) / (total.sum() - total).clamp(min=1e-12)
    return responses - others[:, None]
