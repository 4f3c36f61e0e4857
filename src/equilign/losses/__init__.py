"""A rule on sequences: pure torch functions, unreduced."""

from equilign.losses.leader_follower import (
    importance_weights,
    kl_coefficients,
    leader_payoff,
    listed_advantages,
    player_loss,
    sampled_advantages,
)
from equilign.losses.logps import linear_token_logps, sequence_logps, token_logps
from equilign.losses.mirror import (
    Normaliser,
    log_normaliser,
    mirror_regression_loss,
    mirror_residual,
)
from equilign.losses.pairs import kl_to_step, labelled_pair_loss, pair_loss, sampled_pair_loss
from equilign.losses.policy_gradient import (
    approx_kl,
    centred,
    clip_is_active,
    clipped_surrogate,
    leave_one_out,
    penalised_reward,
    reinforce_loss,
)
from equilign.losses.ppo import (
    clipped_value_loss,
    generalised_advantages,
    masked_sum,
    masked_whiten,
    token_rewards,
)
from equilign.losses.preference import dpo_loss, log_ratios

__all__ = [
    "Normaliser",
    "approx_kl",
    "centred",
    "clip_is_active",
    "clipped_surrogate",
    "clipped_value_loss",
    "dpo_loss",
    "generalised_advantages",
    "importance_weights",
    "kl_coefficients",
    "kl_to_step",
    "labelled_pair_loss",
    "leader_payoff",
    "leave_one_out",
    "linear_token_logps",
    "listed_advantages",
    "log_normaliser",
    "log_ratios",
    "masked_sum",
    "masked_whiten",
    "mirror_regression_loss",
    "mirror_residual",
    "pair_loss",
    "penalised_reward",
    "player_loss",
    "reinforce_loss",
    "sampled_advantages",
    "sampled_pair_loss",
    "sequence_logps",
    "token_logps",
    "token_rewards",
]
