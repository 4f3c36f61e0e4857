"""Options of the mirror trainers."""

from dataclasses import dataclass, field

from equilign.errors import ConfigError
from equilign.trainers.config import GameConfig


@dataclass
class MirrorConfig(GameConfig):
    """`GameConfig` plus the step of a mirror rule.

    Raises:
        ConfigError: an option is out of range.
    """

    eta: float = field(
        default=1000.0,
        metadata={
            "help": "Mirror step, nats per unit of win probability. The SPPO release calls "
            "1 / eta 'beta' (its 0.001 is eta = 1000)."
        },
    )
    beta: float = field(
        default=0.0,
        metadata={"help": "KL weight to the start model, win probability per nat (NLHF's tau)."},
    )
    normaliser: str = field(
        default="paper",
        metadata={
            "help": "log Z of the mirror step: the 'paper' constant eta / 2 (the mean payoff of a "
            "group that plays itself: least noise), or 'estimated' from the round's samples "
            "(exact in the limit of many samples fitted to convergence)."
        },
    )

    def __post_init__(self) -> None:
        if not self.eta > 0.0:
            raise ConfigError(f"eta = {self.eta}; the mirror step must be > 0")
        if not self.beta >= 0.0:
            raise ConfigError(f"beta = {self.beta}; the KL weight must be >= 0")
        if self.normaliser not in ("estimated", "paper"):
            raise ConfigError(f"normaliser = {self.normaliser!r}; use 'estimated' or 'paper'")
        super().__post_init__()
