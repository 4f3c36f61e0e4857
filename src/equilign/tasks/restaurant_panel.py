"""The judge of restaurant descriptions: three learned attributes and two rules."""

from collections.abc import Sequence

import numpy as np

from equilign.oracles.panel import Attribute, Panel
from equilign.oracles.reward_heads import load_reward_heads
from equilign.tasks.restaurants import coverage, parse_attributes

_LEARNED = {
    "informativeness": "Does it give all the useful information? Learned from human ratings.",
    "naturalness": "Could a native speaker have written it? Learned from human ratings.",
    "quality": "Is it grammatical, fluent, adequate? Learned from human ratings.",
}


def slot_coverage(prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """Share of requested values stated, less the share of slots given a value not asked for."""
    scores = []
    for prompt, answer in zip(prompts, answers, strict=True):
        slots = parse_attributes(prompt)
        found = coverage(slots, answer)
        scores.append((len(found.realised) - len(found.invented)) / len(slots))
    return np.array(scores)


def conciseness(prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """Fewer words are better: minus the number of words."""
    return np.array([-float(len(answer.split())) for answer in answers])


def restaurant_panel() -> Panel:
    """Informativeness, naturalness, quality (human ratings), coverage and conciseness (rules).

    The form of SLHF's five-attribute judge (arXiv:2512.16626) on this domain.
    """
    heads = load_reward_heads()
    learned = [
        Attribute(name, heads[name].score, text, "learned", heads[name].held_out)
        for name, text in _LEARNED.items()
    ]
    rules = [
        Attribute(
            "coverage", slot_coverage, "Requested values stated, less values nobody asked for."
        ),
        Attribute("conciseness", conciseness, "Fewer words."),
    ]
    return Panel([*learned, *rules])
