"""Options of the trainers that learn from labelled pairs."""

from dataclasses import dataclass, field

from equilign.errors import ConfigError
from equilign.trainers.config import GameConfig
from equilign.trainers.pair_selection import LABELS, SELECTIONS

_FIXED_ROUNDS = {"help": "Passes of play; given pairs are the same in each of them."}


@dataclass
class ContrastiveConfig(GameConfig):
    """`GameConfig` plus a loss of labelled pairs.

    Raises:
        ConfigError: an option is out of range.
    """

    beta: float = field(
        default=0.1,
        metadata={
            "help": "KL weight to the reference. DPO: reward nats per nat of log-ratio, as in TRL. "
            "IPO: its tau, win probability per nat (the margin aimed at is 1 / (2 beta) nats)."
        },
    )
    label_smoothing: float = field(
        default=0.0,
        metadata={"help": "Probability that a label is flipped (conservative DPO); DPO only."},
    )
    length_normalised: bool = field(
        default=False,
        metadata={
            "help": "Divide log-ratios by the answer's tokens (TRL's 'ipo' and 'sigmoid_norm'). "
            "Default: sums, as in the papers' equations; beta then means something else."
        },
    )
    labels: str = field(
        default="hard",
        metadata={
            "help": "'hard': who the verdict favours; 'soft': the win probability itself; "
            "'sampled': one draw from it."
        },
    )
    pair_selection: str = field(
        default="best_worst",
        metadata={
            "help": "Which pairs of the K responses: 'best_worst' (highest and lowest mean win "
            "rate), 'random', or 'all'. Given pairs are taken as they are."
        },
    )
    pairs_per_prompt: int = field(
        default=1, metadata={"help": "Pairs per prompt with pair_selection = 'random'."}
    )
    too_long: str = field(
        default="error",
        metadata={
            "help": "Given pairs with a prompt or an answer beyond max_prompt_length or "
            "max_completion_length: 'error', or 'drop' (counted). Never cut."
        },
    )

    def __post_init__(self) -> None:
        if not self.beta > 0.0:
            raise ConfigError(f"beta = {self.beta}; the KL weight must be > 0")
        if not 0.0 <= self.label_smoothing < 0.5:
            raise ConfigError(f"label_smoothing = {self.label_smoothing}; it must be in [0, 0.5)")
        choices = {
            "labels": LABELS,
            "pair_selection": SELECTIONS,
            "too_long": ("error", "drop"),
        }
        for name, allowed in choices.items():
            if vars(self)[name] not in allowed:
                known = ", ".join(map(repr, allowed))
                raise ConfigError(f"{name} = {vars(self)[name]!r}; use one of {known}")
        if self.pairs_per_prompt < 1:
            raise ConfigError(f"pairs_per_prompt = {self.pairs_per_prompt}; it must be >= 1")
        super().__post_init__()


@dataclass
class DPOConfig(ContrastiveConfig):
    """Options of DPO on given pairs; the release's defaults where it states one.

    Deviation: the warm-up is a share of the steps, where the release has 150 steps.
    """

    num_rounds: int = field(default=1, metadata=_FIXED_ROUNDS)
    labels: str = field(
        default="soft",
        metadata={
            "help": "'soft': the data's chosen_prob, which is 1 where there is none; 'hard': the "
            "likelier answer; 'sampled': one draw from it."
        },
    )
    learning_rate: float = field(default=5e-7, metadata={"help": "Optimiser step."})
    optim: str = field(default="rmsprop", metadata={"help": "Optimiser, as in transformers."})
    warmup_steps: float = field(
        default=0.1, metadata={"help": "Warm-up: a share of the round's steps, or a number."}
    )
    max_grad_norm: float = field(default=10.0, metadata={"help": "Gradient clipping, L2 norm."})


@dataclass
class IPOConfig(DPOConfig):
    """Options of IPO on given pairs: those of DPO, with ``beta`` the paper's tau."""


@dataclass
class IteratedDPOConfig(ContrastiveConfig):
    """Options of iterated DPO: the baseline of the SPPO paper, with SPPO's recipe.

    Best and worst of five answers per round, hard labels, one epoch of RMSprop.
    """

    learning_rate: float = field(default=5e-7, metadata={"help": "Optimiser step."})
    optim: str = field(default="rmsprop", metadata={"help": "Optimiser, as in transformers."})
    warmup_steps: float = field(
        default=0.1, metadata={"help": "Warm-up: a share of the round's steps, or a number."}
    )


@dataclass
class IteratedIPOConfig(IteratedDPOConfig):
    """Options of iterated IPO: those of iterated DPO, with ``beta`` IPO's tau."""


@dataclass
class OnlineDPOConfig(ContrastiveConfig):
    """Options of online DPO: two answers per prompt, judged at once, the reference stays.

    Many rounds of few prompts (``num_rounds``, ``prompts_per_round``) are closest to on-policy
    training. Optimiser state and learning-rate schedule run through all rounds.
    """

    num_generations: int = field(
        default=2, metadata={"help": "Responses sampled per prompt (K); each plays each."}
    )
    pair_selection: str = field(
        default="all",
        metadata={
            "help": "Which pairs of the K responses: 'all' (of two: the pair), 'random', or "
            "'best_worst' (highest and lowest mean win rate)."
        },
    )
    learning_rate: float = field(default=5e-7, metadata={"help": "Optimiser step."})
    reset_optimizer_each_round: bool = field(
        default=False,
        metadata={"help": "Fresh optimiser state and learning-rate schedule every round."},
    )
