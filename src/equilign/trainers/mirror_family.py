"""One trainer and one configuration per mirror rule; the rule says everything else.

Defaults are the papers' where they state one (``eta`` and ``beta`` in our names: nats per unit of
win probability, and win probability per nat); SPPO has a file of its own.
"""

from dataclasses import dataclass, field

from equilign.rules import (
    COMAL,
    EGPO,
    INPO,
    MMD,
    MPO,
    MWU,
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


def _eta(value: float, source: str) -> float:
    text = f"Mirror step, nats per unit of win probability{source}."
    return field(default=value, metadata={"help": text})


def _beta(value: float, source: str) -> float:
    text = f"KL weight to the reference, win probability per nat; eta * beta <= 1{source}."
    return field(default=value, metadata={"help": text})


def _rounds(value: int, why: str) -> int:
    return field(default=value, metadata={"help": f"Rounds of sample, compare, train; {why}."})


@dataclass
class PairsConfig(MirrorConfig):
    """`MirrorConfig` with the loss that needs no normaliser, as these papers have it."""

    eta: float = _eta(100.0, "")
    loss: str = field(
        default="pairs",
        metadata={"help": "'pairs': no normaliser; 'pointwise': with the normaliser below."},
    )


@dataclass
class MWUConfig(PairsConfig):
    """Options of multiplicative weights: SPPO's step without its constant."""


class MWUTrainer(MirrorTrainer):
    """Multiplicative weights in self-play; its last answer goes round in circles."""

    rule = MWU


@dataclass
class OMWUConfig(PairsConfig):
    """Options of OMWU; the paper trains no language model, so the step is ours."""


class OMWUTrainer(MirrorTrainer):
    """Optimistic multiplicative weights (arXiv:2512.24818): towards the unregularised Nash."""

    rule = OMWU


@dataclass
class ONPOConfig(PairsConfig):
    """Options of ONPO; a step takes two rounds."""

    eta: float = _eta(100.0, "; the paper's 1 / eta = 0.01")
    num_rounds: int = _rounds(6, "two per step")


class ONPOTrainer(MirrorTrainer):
    """Optimistic Nash policy optimisation (arXiv:2502.16852): two sequences."""

    rule = ONPO


@dataclass
class RegularisedConfig(PairsConfig):
    """`PairsConfig` with a pull to the reference."""

    eta: float = _eta(50.0, "")
    beta: float = _beta(0.005, "")


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

    eta: float = _eta(200.0, "; the paper's eta = 0.005 is 1 / 200")
    beta: float = _beta(0.005 / 3.0, "; the paper's tau is a third of its eta")


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

    num_rounds: int = _rounds(6, "two per step")


class EGPOTrainer(MirrorTrainer):
    """Extragradient preference optimisation (arXiv:2503.08942): answers the half point."""

    rule = EGPO


@dataclass
class MMDConfig(RegularisedConfig):
    """Options of magnetic mirror descent; the magnet stays."""


class MMDTrainer(MirrorTrainer):
    """Magnetic mirror descent (arXiv:2206.05825) in self-play."""

    rule = MMD


@dataclass
class MPOConfig(RegularisedConfig):
    """Options of MPO; the paper's step and schedule were not available."""

    num_rounds: int = _rounds(6, "the magnet moves every inner_steps")
    inner_steps: int = field(default=2, metadata={"help": "Rounds between moves of the magnet."})


class MPOTrainer(MirrorTrainer):
    """Magnetic preference optimisation (arXiv:2410.16714): the magnet follows the policy."""

    rule = MPO


@dataclass
class COMALConfig(RegularisedConfig):
    """Options of COMAL; its second version's schedule, its first version's step."""

    eta: float = _eta(500.0, "; the paper's eta = 0.002 is 1 / 500")
    beta: float = _beta(0.002 / 3.0, "; a third of the paper's eta")
    num_rounds: int = _rounds(18, "the reference moves every inner_steps")
    inner_steps: int = field(default=6, metadata={"help": "Rounds between moves of the reference."})


class COMALTrainer(MirrorTrainer):
    """Convergent meta alignment (arXiv:2410.23223): INPO with a reference that follows."""

    rule = COMAL


@dataclass
class PolicyGradientConfig(MirrorConfig):
    """Options of policy gradients: a round should be one batch, so that its samples are fresh.

    ``eta`` has no effect: the learning rate is the step.
    """

    eta: float = _eta(1.0, "; without effect on a policy gradient: the learning rate is the step")
    beta: float = _beta(0.008, "; the paper's tau")
    num_rounds: int = _rounds(100, "each one batch")
    reset_optimizer_each_round: bool = field(
        default=False, metadata={"help": "One optimiser and one schedule for the whole run."}
    )


@dataclass
class SelfPlayPGConfig(PolicyGradientConfig):
    """Options of the self-play policy gradient."""


class SelfPlayPGTrainer(MirrorTrainer):
    """Self-play policy gradient (arXiv:2312.00886)."""

    rule = SELF_PLAY_PG


@dataclass
class OnlineIPO2Config(PolicyGradientConfig):
    """Options of online IPO on the policy's own pairs; its gradient is 4 / beta of this one."""


class OnlineIPO2Trainer(MirrorTrainer):
    """Online IPO on the policy's own pairs (arXiv:2403.08635): self-play's gradient."""

    rule = ONLINE_IPO_2


@dataclass
class NashMDPGConfig(PolicyGradientConfig):
    """Options of Nash-MD-PG; ``mixture`` is the paper's beta."""


class NashMDPGTrainer(MirrorTrainer):
    """Nash-MD-PG (arXiv:2312.00886): policy gradient against the mixture with the reference."""

    rule = NASH_MD_PG
