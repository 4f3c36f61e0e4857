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

    loss: str = field(
        default="pointwise",
        metadata={
            "help": "'pointwise': squared residual of the step with the normaliser above; "
            "'pairs': squared differences of residuals within a group, which need none."
        },
    )
    responses: str = field(
        default="all",
        metadata={
            "help": "Which of the K responses are trained on: 'all', or 'best_worst' (highest and "
            "lowest win rate, as in the SPPO paper; the others only count in win rates)."
        },
    )
    verdicts: str = field(
        default="soft",
        metadata={
            "help": "'soft' win probabilities, or 'hard' votes; with 'best_worst' hard means that "
            "the best wins and the worst loses for certain (TRL's sppo_hard)."
        },
    )
    mixture: float = field(
        default=0.125,
        metadata={"help": "Weight of the reference in the opponent of Nash-MD-PG."},
    )
    inner_steps: int = field(
        default=1,
        metadata={"help": "Steps between two moves of the reference, for rules that move it."},
    )

    def __post_init__(self) -> None:
        if self.loss not in ("pointwise", "pairs"):
            raise ConfigError(f"loss = {self.loss!r}; use 'pointwise' or 'pairs'")
        choices = {"responses": ("all", "best_worst"), "verdicts": ("soft", "hard")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name} = {getattr(self, name)!r}; use {' or '.join(map(repr, allowed))}"
                )
        if not 0.0 <= self.mixture <= 1.0:
            raise ConfigError(f"mixture = {self.mixture}; a weight in [0, 1]")
        if self.inner_steps < 1:
            raise ConfigError(f"inner_steps = {self.inner_steps}; it must be >= 1")
        if not self.eta > 0.0:
            raise ConfigError(f"eta = {self.eta}; the mirror step must be > 0")
        if not self.beta >= 0.0:
            raise ConfigError(f"beta = {self.beta}; the KL weight must be >= 0")
        if self.normaliser not in ("estimated", "paper"):
            raise ConfigError(f"normaliser = {self.normaliser!r}; use 'estimated' or 'paper'")
        super().__post_init__()
