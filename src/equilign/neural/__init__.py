"""A rule on a policy with parameters: the third interpreter of mirror rules, in torch.

`equilign.play` moves the probabilities themselves; here gradient steps move the weights of a
network whose output they are, with the losses that language models are trained with.
"""

from equilign.neural.options import LOSSES, OPTIMISERS, TrainOptions
from equilign.neural.policies import MLPPolicy, Policy, TabularPolicy
from equilign.neural.training import train_policy

__all__ = [
    "LOSSES",
    "OPTIMISERS",
    "MLPPolicy",
    "Policy",
    "TabularPolicy",
    "TrainOptions",
    "train_policy",
]
