"""From verdicts on held-out pairs to the summary: numbers, comparisons, plain words."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from equilign.evaluation.intervals import Estimate
from equilign.fitting.baselines import fit_length_judge, label_entropy, labels, length_margins
from equilign.fitting.measures import (
    Measures,
    difference,
    log_losses,
    mean_over_prompts,
    measure,
    right_answers,
)
from equilign.fitting.split import Split, prompt_unit
from equilign.formats import PreferencePair

FACE_VALUE = 0.05
"""A calibration error (in probability) that may be overlooked."""


def prompt_numbers(pairs: Sequence[PreferencePair]) -> np.ndarray:
    """Number of each pair's prompt, equal for prompts that the split kept together."""
    place: dict[str, int] = {}
    return np.array([place.setdefault(prompt_unit(p.prompt), len(place)) for p in pairs])


def held_out_json(found: Measures, entropy: float) -> dict[str, Any]:
    """The held-out numbers as plain values; ``low`` and ``high`` belong to the accuracy."""
    return {
        "accuracy": found.accuracy.value,
        "low": found.accuracy.low,
        "high": found.accuracy.high,
        "log_loss": found.log_loss.value,
        "log_loss_low": found.log_loss.low,
        "log_loss_high": found.log_loss.high,
        "calibration_error": found.calibration.value,
        "calibration_low": found.calibration.low,
        "calibration_high": found.calibration.high,
        "expected_calibration_error": found.ece,
        "calibration_bins": len(found.bins),
        "bins": [asdict(b) for b in found.bins],
        "label_entropy": entropy,
        "pairs": found.pairs,
        "decided_pairs": found.decided,
        "prompts": found.prompts,
    }


def data_json(split: Split) -> dict[str, Any]:
    """What the data are like: sizes, ties, soft labels, and whether cycles could show."""
    pairs = [*split.train, *split.validation, *split.held_out]
    prob = labels(pairs)
    answers: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        answers[prompt_unit(pair.prompt)] |= {pair.chosen, pair.rejected}
    parts = {"train": split.train, "validation": split.validation, "held_out": split.held_out}
    return {
        "pairs": {name: len(part) for name, part in parts.items()},
        "prompts": {name: len({prompt_unit(p.prompt) for p in v}) for name, v in parts.items()},
        "ties": float((prob == 0.5).mean()),
        "soft_labels": float(((prob > 0.0) & (prob < 1.0)).mean()),
        "prompts_with_three_answers": sum(len(a) >= 3 for a in answers.values()),
    }


def measured(margins: np.ndarray, split: Split, seed: int) -> dict[str, Any]:
    """`held_out_json` of a judge's margins on the held-out pairs."""
    pairs = split.held_out
    prompts = prompt_numbers(pairs)
    entropy = mean_over_prompts(label_entropy(pairs), prompts, (0.0, math.inf)).value
    return held_out_json(measure(margins, labels(pairs), prompts, seed=seed), entropy)


def baselines_json(margins: np.ndarray, split: Split) -> dict[str, Any]:
    """Length as a judge, and by how much the fitted one is better; paired, prompt by prompt."""
    pairs = split.held_out
    prompts, prob = prompt_numbers(pairs), labels(pairs)
    longer = right_answers(length_margins(pairs), prob)
    fitted = fit_length_judge(split.train)
    by_length = fitted.margins(pairs)
    won = difference(right_answers(margins, prob), longer, prompts, 1.0)
    gained = difference(log_losses(by_length, prob), log_losses(margins, prob), prompts)
    return {
        "chance": {"accuracy": 0.5, "log_loss": math.log(2.0)},
        "longer_wins": _value(mean_over_prompts(longer, prompts), "accuracy"),
        "length_judge": {
            "weight": fitted.weight,
            "accuracy": mean_over_prompts(right_answers(by_length, prob), prompts).value,
            "log_loss": mean_over_prompts(
                log_losses(by_length, prob), prompts, (0.0, math.inf)
            ).value,
        },
        "accuracy_over_longer_wins": _value(won, "difference"),
        "log_loss_below_length_judge": _value(gained, "difference"),
    }


def comparison_json(
    transitive: np.ndarray, other: np.ndarray, other_kind: str, split: Split, seed: int
) -> dict[str, Any]:
    """Does a judge that may be intransitive predict better than a reward model?

    Args:
        transitive: the reward model's margins on the held-out pairs.
        other: the margins of the judge that may be intransitive.
        other_kind: ``"general"`` or ``"pairwise"``.
        split: the data.
        seed: of the bootstrap.

    Returns:
        ``difference`` is the mean of (log-loss of the reward model - log-loss of the other), nats
        per pair: positive where the other is better. ``verdict`` is True, False or None.
    """
    pairs = split.held_out
    prompts, prob = prompt_numbers(pairs), labels(pairs)
    gain = difference(log_losses(transitive, prob), log_losses(other, prob), prompts)
    verdict = True if gain.low > 0.0 else False if gain.high < 0.0 else None
    numbers = f"{gain.value:+.3f} nats per pair (95 %: {gain.low:+.3f} to {gain.high:+.3f})"
    name = {"general": "general preference model", "pairwise": "pairwise judge"}[other_kind]
    words = {
        True: f"Yes: the {name} has a smaller held-out log-loss than the reward model, by "
        f"{numbers}. Preferences here are not all a matter of one score per answer.",
        False: f"No: the {name} has a larger held-out log-loss than the reward model; the "
        f"difference is {numbers}. A reward model is enough, and better, on these data.",
        None: f"Not that these data could tell: the {name}'s held-out log-loss differs from the "
        f"reward model's by {numbers}, and the interval holds 0. Take the simpler reward model.",
    }[verdict]
    return {
        "transitive": {"kind": "reward", **_scores(measured(transitive, split, seed))},
        "other": {"kind": other_kind, **_scores(measured(other, split, seed))},
        **_value(gain, "difference"),
        "verdict": verdict,
        "words": words,
    }


def _scores(held_out: Mapping[str, Any]) -> dict[str, Any]:
    names = ("accuracy", "low", "high", "log_loss", "log_loss_low", "log_loss_high")
    return {name: held_out[name] for name in names}


def _value(estimate: Estimate, name: str) -> dict[str, Any]:
    return {name: estimate.value, "low": estimate.low, "high": estimate.high}


def claims(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was asked of the judge, with a verdict by rule and the evidence."""
    h, b = summary["held_out"], summary["baselines"]
    won = b["accuracy_over_longer_wins"]
    found = [
        {
            "claim": "The judge does better than chance on prompts that it has not seen.",
            "holds": _above(h["low"], h["high"], 0.5),
            "evidence": f"Agrees with the majority on {_percent(h, 'accuracy')} of "
            f"{h['decided_pairs']} pairs with one ({h['prompts']} prompts). Holds if the interval "
            "lies above 50 %.",
        },
        {
            "claim": "It knows more than that longer answers win.",
            "holds": _above(won["low"], won["high"], 0.0),
            "evidence": "“The longer answer wins” agrees on "
            f"{_percent(b['longer_wins'], 'accuracy')}; the judge’s accuracy is larger by "
            f"{_percent(won, 'difference')}. Holds if that interval lies above 0.",
        },
        {
            "claim": "Its probabilities can be taken at face value.",
            "holds": _above(-h["calibration_high"], -h["calibration_low"], -FACE_VALUE),
            "evidence": f"Calibration error {h['calibration_error']:.3f} (95 %: "
            f"{h['calibration_low']:.3f} to {h['calibration_high']:.3f}; root mean square over "
            f"{h['calibration_bins']} bins, corrected for noise). Holds if the "
            f"interval lies below {FACE_VALUE}.",
        },
    ]
    comparison = summary.get("comparison")
    if comparison is not None:
        found.append(
            {
                "claim": "A judge that may be intransitive predicts better than a reward model.",
                "holds": comparison["verdict"],
                "evidence": comparison["words"],
            }
        )
    return [{**claim, "source": ""} for claim in found]


def _above(low: float, high: float, level: float) -> bool | None:
    return True if low > level else False if high < level else None


def _percent(values: Mapping[str, Any], name: str) -> str:
    value, low, high = (100.0 * values[key] for key in (name, "low", "high"))
    return f"{value:.1f} % (95 %: {low:.1f} to {high:.1f} %)"
