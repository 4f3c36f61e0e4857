"""One trainer and one configuration per mirror rule; the rule says everything else.

SPPO has a file of its own, because its paper's recipe has defaults of its own.
"""

from dataclasses import dataclass, field

from equilign.rules import (
    COMAL,
    EGPO,
    INPO,
    MPO,
    NASH_MD,
    NASH_MD_PG,
    OMD,
    OMWU,
    ONLINE_IPO_1,
    ONLINE_IPO_2,
    ONPO,
    SELF_PLAY_PG,
)
from equilign.trainers.mirror import MirrorTrainer
from equilign.trainers.mirror_config import MirrorConfig


@dataclass
class PairsConfig(MirrorConfig):
    """`MirrorConfig` with the loss that needs no normaliser, as these papers have it."""

    eta: float = field(
        default=20.0, metadata={"help": "Mirror step, nats per unit of win probability."}
    )
    loss: str = field(default="pairs", metadata={"help": "'pairs' or 'pointwise'."})


@dataclass
class RegularisedConfig(PairsConfig):
    """`PairsConfig` with a pull to the reference."""

    eta: float = field(
        default=10.0, metadata={"help": "Mirror step, nats per unit of win probability."}
    )
    beta: float = field(
        default=0.03,
        metadata={"help": "KL weight to the reference, win probability per nat; eta * beta <= 1."},
    )


@dataclass
class MovingConfig(RegularisedConfig):
    """`RegularisedConfig` for rules whose reference follows the policy."""

    inner_steps: int = field(
        default=2, metadata={"help": "Steps between two moves of the reference."}
    )


@dataclass
class OMWUConfig(PairsConfig):
    """Options of OMWU."""


class OMWUTrainer(MirrorTrainer):
    """Optimistic multiplicative weights (arXiv:2512.24818): towards the unregularised Nash."""

    rule = OMWU


@dataclass
class ONPOConfig(PairsConfig):
    """Options of ONPO; a step takes two rounds."""

    num_rounds: int = field(default=4, metadata={"help": "Rounds; two per step."})


class ONPOTrainer(MirrorTrainer):
    """Optimistic Nash policy optimisation (arXiv:2502.16852): two sequences."""

    rule = ONPO


@dataclass
class OMDConfig(RegularisedConfig):
    """Options of regularised mirror descent."""


class OMDTrainer(MirrorTrainer):
    """Regularised mirror descent in self-play (arXiv:2312.00886)."""

    rule = OMD


@dataclass
class OnlineIPO1Config(RegularisedConfig):
    """Options of online IPO on pairs from a law that does not depend on the policy."""


class OnlineIPO1Trainer(MirrorTrainer):
    """Online IPO (arXiv:2403.08635), the form whose step is mirror descent's."""

    rule = ONLINE_IPO_1


@dataclass
class INPOConfig(RegularisedConfig):
    """Options of INPO; the paper's eta is the inverse of ours, its tau our beta."""


class INPOTrainer(MirrorTrainer):
    """Iterative Nash policy optimisation (arXiv:2407.00617)."""

    rule = INPO


@dataclass
class NashMDConfig(RegularisedConfig):
    """Options of Nash-MD by regression."""


class NashMDTrainer(MirrorTrainer):
    """Nash mirror descent (arXiv:2312.00886): the opponent is the mixture with the reference."""

    rule = NASH_MD


@dataclass
class EGPOConfig(RegularisedConfig):
    """Options of EGPO; a step takes two rounds."""

    num_rounds: int = field(default=4, metadata={"help": "Rounds; two per step."})


class EGPOTrainer(MirrorTrainer):
    """Extragradient preference optimisation (arXiv:2503.08942): answers the half point."""

    rule = EGPO


@dataclass
class MPOConfig(MovingConfig):
    """Options of MPO."""


class MPOTrainer(MirrorTrainer):
    """Magnetic preference optimisation (arXiv:2410.16714): the magnet follows the policy."""

    rule = MPO


@dataclass
class COMALConfig(MovingConfig):
    """Options of COMAL."""


class COMALTrainer(MirrorTrainer):
    """Convergent meta alignment (arXiv:2410.23223): INPO with a reference that follows."""

    rule = COMAL


@dataclass
class PolicyGradientConfig(RegularisedConfig):
    """Options of policy gradients: rounds should be one batch, so that samples are fresh."""


class SelfPlayPGTrainer(MirrorTrainer):
    """Self-play policy gradient (arXiv:2312.00886)."""

    rule = SELF_PLAY_PG


class OnlineIPO2Trainer(MirrorTrainer):
    """Online IPO on the policy's own pairs (arXiv:2403.08635): self-play's gradient."""

    rule = ONLINE_IPO_2


class NashMDPGTrainer(MirrorTrainer):
    """Nash-MD-PG (arXiv:2312.00886): policy gradient against the mixture with the reference."""

    rule = NASH_MD_PG
