"""STA-RLHF and its relatives: who leads, how often the other one moves, and who foresees what.

The game and a round of it: `equilign.trainers.reward_game_trainer`.
"""

from equilign.rules import PARL, REVERSED, RLHF, SIMULTANEOUS, STA_NAIVE, STA_TOTAL
from equilign.trainers.reward_game_config import (
    PARLConfig,
    ReversedConfig,
    RewardGameConfig,
    RLHFConfig,
    SimultaneousConfig,
    STANaiveConfig,
    STATotalConfig,
)
from equilign.trainers.reward_game_trainer import RewardGameTrainer


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
