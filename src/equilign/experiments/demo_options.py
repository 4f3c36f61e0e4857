"""Options of each method in the demo, as data: what suits the shipped model and a few rounds.

A round of the demo plays every prompt once, whatever the method: methods whose step takes several
rounds of the trainer, or that want small fresh batches, share the prompts out among them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DemoOptions:
    """One method's own options.

    Attributes:
        args: fields of its configuration.
        rounds_per_step: rounds of the trainer that make one round of the demo.
    """

    args: Mapping[str, Any] = field(default_factory=dict)
    rounds_per_step: int = 1


COMMON: Mapping[str, Any] = {
    "epochs_per_round": 1,
    "generation_batch_size": 160,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "linear",
    "num_generations": 5,
    "optim": "adamw_torch",
    "per_device_train_batch_size": 8,
    "warmup_steps": 0.1,
}
"""Of every method that says nothing else."""

_MIRROR = DemoOptions({"eta": 20.0})
_REGULARISED = DemoOptions({"eta": 20.0, "beta": 0.005})
# A policy gradient climbs for as long as its samples are fresh: one batch a round.
_GRADIENT = DemoOptions(
    {"chunk_prompts": 8, "lr_scheduler_type": "constant", "warmup_steps": 0}, rounds_per_step=17
)

# Answers of the start model, encoded again: rarely, that makes them much longer than they were.
_PAIRS = DemoOptions({"beta": 0.1, "max_completion_length": 160, "too_long": "drop"})

DEMO_OPTIONS: Mapping[str, DemoOptions] = {
    "sppo": _MIRROR,
    "mwu": _MIRROR,
    "omwu": _MIRROR,
    "onpo": DemoOptions({"eta": 20.0}, rounds_per_step=2),
    "omd": _REGULARISED,
    "online-ipo-1": _REGULARISED,
    "inpo": _REGULARISED,
    "nash-md": _REGULARISED,
    "mmd": _REGULARISED,
    "mpo": DemoOptions({"eta": 20.0, "beta": 0.005, "inner_steps": 1}),
    "comal": DemoOptions({"eta": 20.0, "beta": 0.005, "inner_steps": 1}),
    "egpo": DemoOptions({"eta": 20.0, "beta": 0.005}, rounds_per_step=2),
    "self-play-pg": _GRADIENT,
    "online-ipo-2": _GRADIENT,
    "nash-md-pg": _GRADIENT,
    "reinforce": _GRADIENT,
    "rloo": _GRADIENT,
    "ppo": _GRADIENT,
    "dpo": _PAIRS,
    "ipo": _PAIRS,
}
"""Method -> its own options; others have `COMMON` and their own defaults."""


def demo_options(name: str) -> DemoOptions:
    """Options of a method in the demo, those of all methods included."""
    own = DEMO_OPTIONS.get(name, DemoOptions())
    return DemoOptions({**COMMON, **own.args}, own.rounds_per_step)
