"""The shape of a run summary: what ``equilign demo --json`` prints and `render_report` reads.

Every key may be missing and every value may be None. Win rates are shares of comparisons with the
start model, ties counted one half, so that 0.5 means "as good as the start model". `kl_nats` is
KL(policy || start) in nats per completion. `low` and `high` bound a 95 % interval.
"""

from typing import Any, TypedDict


class PromptCounts(TypedDict, total=False):
    """How many prompts the run used."""

    train: int
    evaluation: int


class AttributeSummary(TypedDict, total=False):
    """One attribute the oracle judges by; `kind` is "learned" or "rule"."""

    name: str
    description: str
    kind: str
    held_out_accuracy: float | None
    low: float | None
    high: float | None


class OracleSummary(TypedDict, total=False):
    """Who compared the answers."""

    name: str
    attributes: list[AttributeSummary]


class CycleSummary(TypedDict, total=False):
    """How often the sampled answers to one prompt beat each other in a circle.

    `share` is `with_cycle / prompts`; `condorcet_share` is the share of prompts with one answer
    that beats every other.
    """

    prompts: int
    with_cycle: int
    share: float
    low: float
    high: float
    condorcet_share: float


class RoundSummary(TypedDict, total=False):
    """The state after one round of sample, compare, update."""

    round: int
    win_rate: float
    low: float
    high: float
    kl_nats: float
    mean_tokens: float
    loss: float
    seconds: float
    cycles: CycleSummary


class EstimateSummary(TypedDict, total=False):
    """A win rate with its interval."""

    win_rate: float
    low: float
    high: float


class FinalSummary(EstimateSummary, total=False):
    """The trained model on the evaluation prompts."""

    kl_nats: float
    mean_tokens: float
    attributes: dict[str, EstimateSummary]


class ExampleSummary(TypedDict, total=False):
    """One prompt with the start model's answer and the trained model's.

    `win_prob` is the oracle's probability of preferring the trained answer; `attributes` gives,
    per attribute, 1 where the trained answer scores higher, 0 where it scores lower, 0.5 for ties.
    """

    prompt: str
    before: str
    after: str
    win_prob: float
    attributes: dict[str, float]


class MethodSummary(TypedDict, total=False):
    """One training method; `paper` is a citation such as "arXiv:2405.00675"."""

    title: str
    paper: str
    seconds: float
    rounds: list[RoundSummary]
    final: FinalSummary
    examples: list[ExampleSummary]


class StartSummary(TypedDict, total=False):
    """The model before training."""

    mean_tokens: float


class Summary(TypedDict, total=False):
    """A whole run."""

    command: str
    seed: int
    model: str
    output_dir: str
    seconds: float
    peak_memory_mb: float
    prompts: PromptCounts
    samples_per_prompt: int
    oracle: OracleSummary
    methods: dict[str, MethodSummary]
    start: StartSummary
    config: dict[str, Any]
    environment: dict[str, Any]
