"""Who is compared: the paper's two variants and its seven competitors.

All see the same number of batches of prompts and sample the same number of answers to each; DPO's
are the start model's. The policy has the same optimiser and the same learning rate everywhere, the
reward model another, the same wherever there is one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from equilign.experiments.sta.scales import Scale

NAIVE, TOTAL, CG = "sta-naive", "sta-total", "sta-total-cg"
RLHF, SIMULTANEOUS, REVERSED, PARL = "rlhf", "simultaneous", "reversed", "parl"
DPO, ITERATED, PPO = "dpo", "iterated-dpo", "ppo"

REWARD_LEARNING_RATE = 1e-4
BETA = 0.02
"""KL weight of the methods that climb a reward, reward per nat."""

DPO_BETA = 0.1
"""Of DPO and iterated DPO, whose reward has another unit: reward nats per nat of log-ratio."""

DAMPING = 300.0
"""Of the total derivative. A reward that has hardly been fitted is flat, and its response to the
policy divides by that flatness: with less damping the correction drowns the gradient. Chosen of 30
and 300 on Unique Nouns, with two other seeds and other prompts, after a whole run with 1."""

COMMON: Mapping[str, Any] = {
    "optim": "adamw_torch",
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "reset_optimizer_each_round": False,
}
"""Optimiser options of every method."""


@dataclass(frozen=True)
class Contestant:
    """One method.

    Attributes:
        name: of its pieces.
        method: in `equilign.methods`.
        title: as in prose.
        solver: of the total derivative.
    """

    name: str
    method: str
    title: str
    solver: str = "woodbury"

    @property
    def game(self) -> bool:
        """Whether it is the game of a policy and a reward model."""
        return self.method not in (DPO, ITERATED, PPO)

    @property
    def on_policy(self) -> bool:
        """Whether it learns from answers of its own."""
        return self.method != DPO

    def batches_per_round(self, scale: Scale) -> int:
        """Iterated DPO plays all batches between two evaluations at once, the others one."""
        return scale.between if self.method == ITERATED else 1

    def steps_per_round(self, scale: Scale) -> int:
        """Optimiser steps of the policy."""
        passes = {REVERSED: scale.inner_steps, PPO: PPO_PASSES}.get(self.method, 1)
        return passes * self.batches_per_round(scale)

    def options(self, scale: Scale) -> dict[str, Any]:
        """Options of its trainer."""
        found = {**COMMON, "learning_rate": scale.learning_rate}
        if self.on_policy:
            found["num_generations"] = scale.answers
        if self.game:
            found |= {
                "beta": BETA,
                "inner_steps": scale.inner_steps,
                "reward_learning_rate": REWARD_LEARNING_RATE,
            }
        if self.method == TOTAL:
            found |= {"solver": self.solver, "damping": DAMPING, "relative_damping": 0.0}
        if self.method == RLHF:
            found |= {"fit_batches": scale.fit_batches, "fit_epochs": scale.inner_steps}
        if self.method in (DPO, ITERATED):
            found |= {"beta": DPO_BETA, "epochs_per_round": 1}
        if self.method == ITERATED:
            found |= {"labels": "hard", "pair_selection": "best_worst"}
        if self.method == PPO:
            found |= {"beta": BETA, "reward": "score", "epochs_per_round": PPO_PASSES}
        return found


PPO_PASSES = 4
"""Updates per batch of PPO, as in the paper."""

CONTESTANTS = (
    Contestant(NAIVE, NAIVE, "STA naive"),
    Contestant(TOTAL, TOTAL, "STA total"),
    Contestant(RLHF, RLHF, "RLHF"),
    Contestant(SIMULTANEOUS, SIMULTANEOUS, "Simultaneous"),
    Contestant(REVERSED, REVERSED, "Reversed"),
    Contestant(PARL, PARL, "PARL"),
    Contestant(DPO, DPO, "DPO"),
    Contestant(ITERATED, ITERATED, "Iterated DPO"),
    Contestant(PPO, PPO, "PPO on ground truth"),
)
"""In the order of tables and figures."""

TIMED = Contestant(CG, TOTAL, "STA total, conjugate gradients", "cg")
"""The paper's solver; measured for its time alone, over a few rounds."""

STA = (NAIVE, TOTAL)
RIVALS = tuple(c.name for c in CONTESTANTS if c.name not in STA)
TITLES: Mapping[str, str] = {c.name: c.title for c in (*CONTESTANTS, TIMED)}
