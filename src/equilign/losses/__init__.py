"""A rule on sequences: pure torch functions, unreduced."""

from equilign.losses.logps import sequence_logps, token_logps
from equilign.losses.mirror import (
    Normaliser,
    log_normaliser,
    mirror_regression_loss,
    mirror_residual,
)
from equilign.losses.pairs import kl_to_step, labelled_pair_loss, pair_loss, sampled_pair_loss
from equilign.losses.policy_gradient import reinforce_loss

__all__ = [
    "Normaliser",
    "kl_to_step",
    "labelled_pair_loss",
    "log_normaliser",
    "mirror_regression_loss",
    "mirror_residual",
    "pair_loss",
    "reinforce_loss",
    "sampled_pair_loss",
    "sequence_logps",
    "token_logps",
]
