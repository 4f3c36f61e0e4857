"""A rule on sequences: pure torch functions, unreduced."""

from equilign.losses.logps import sequence_logps, token_logps
from equilign.losses.mirror import Normaliser, log_normaliser, mirror_regression_loss

__all__ = [
    "Normaliser",
    "log_normaliser",
    "mirror_regression_loss",
    "sequence_logps",
    "token_logps",
]
