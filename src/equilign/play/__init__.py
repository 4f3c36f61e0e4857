"""A rule on a matrix, exactly. No torch here."""

from equilign.play.contrastive import ContrastiveOptions
from equilign.play.exact import (
    SampledFeedback,
    apply_stage,
    exact_feedback,
    log_normalise,
    mirror_step,
    start_slots,
)
from equilign.play.leader_follower import LeaderFollowerOptions
from equilign.play.mirror import MirrorOptions
from equilign.play.options import PlayOptions, decreasing, suggest_eta
from equilign.play.play import play
from equilign.play.reward_game import RewardGameOptions
from equilign.play.trajectory import Trajectory

__all__ = [
    "ContrastiveOptions",
    "LeaderFollowerOptions",
    "MirrorOptions",
    "PlayOptions",
    "RewardGameOptions",
    "SampledFeedback",
    "Trajectory",
    "apply_stage",
    "decreasing",
    "exact_feedback",
    "log_normalise",
    "mirror_step",
    "play",
    "start_slots",
    "suggest_eta",
]
