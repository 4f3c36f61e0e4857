"""SPPO: the policy plays itself (Wu et al. 2024, arXiv:2405.00675)."""

from dataclasses import dataclass, field

from equilign.rules import SPPO
from equilign.trainers.mirror import MirrorTrainer
from equilign.trainers.mirror_config import MirrorConfig


@dataclass
class SPPOConfig(MirrorConfig):
    """Options of SPPO; the defaults are the paper's where it states one.

    Deviation: all K responses are trained on with their soft win rates, where the paper keeps
    the best and the worst.
    """

    learning_rate: float = field(default=5e-7, metadata={"help": "Optimiser step."})
    optim: str = field(default="rmsprop", metadata={"help": "Optimiser, as in transformers."})
    warmup_steps: float = field(
        default=0.1, metadata={"help": "Warm-up: a share of the round's steps, or a number."}
    )


class SPPOTrainer(MirrorTrainer):
    """Self-play preference optimisation: soft K-way win rates, anchored at each round's start."""

    rule = SPPO
