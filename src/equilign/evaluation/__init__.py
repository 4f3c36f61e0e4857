"""What a user asks after training: who wins, how sure are we, how far did it move."""

from equilign.evaluation.intervals import Estimate, clustered_mean, wilson

__all__ = ["Estimate", "clustered_mean", "wilson"]
