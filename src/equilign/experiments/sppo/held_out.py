"""The judge that nothing is trained against: other ratings, and what people wrote themselves.

Four votes, as in the training panel each for the answer that scores higher. Three heads are fitted
to the human ratings that the training panel's heads never saw; they share its form but no fitted
number (`assets/sppo_held_out/README.md`). The fourth compares with human descriptions of the
very prompt and shares nothing at all with the training panel.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np

from equilign.errors import OracleError
from equilign.oracles import Panel
from equilign.oracles.panel import Attribute
from equilign.oracles.reward_heads import load_reward_heads

ORDERS = range(1, 7)
BETA = 2.0
"""Recall counts `BETA` squared times as much as precision."""

Grams = tuple[Counter[str], ...]


def character_grams(text: str) -> Grams:
    """Counts of runs of 1 to 6 characters, lower case, white space left out."""
    letters = "".join(text.lower().split())
    return tuple(Counter(letters[i : i + n] for i in range(len(letters) - n + 1)) for n in ORDERS)


def chrf(answer: Grams, reference: Grams) -> float:
    """Character F-score in [0, 1] (Popović 2015, WMT, "chrF"): mean precision and mean recall.

    Orders longer than either text are left out; 0 where nothing can be compared.
    """
    precision, recall = [], []
    for mine, theirs in zip(answer, reference, strict=True):
        shared, left, right = (mine & theirs).total(), mine.total(), theirs.total()
        if left and right:
            precision.append(shared / left)
            recall.append(shared / right)
    if not precision:
        return 0.0
    p, r = float(np.mean(precision)), float(np.mean(recall))
    return 0.0 if p + r == 0.0 else (1 + BETA**2) * p * r / (BETA**2 * p + r)


@dataclass(frozen=True)
class References:
    """Likeness to what people wrote for the same prompt.

    Attributes:
        texts: prompt to its human descriptions.
    """

    texts: Mapping[str, tuple[Grams, ...]]

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """The best `chrf` with any of the prompt's references, shape ``(n,)``.

        Raises:
            OracleError: a prompt that nobody described.
        """
        scores = []
        for prompt, answer in zip(prompts, answers, strict=True):
            if prompt not in self.texts:
                raise OracleError(f"there is no human description of the prompt {prompt[:60]!r}")
            grams = character_grams(answer)
            scores.append(max(chrf(grams, reference) for reference in self.texts[prompt]))
        return np.array(scores)


def _folder() -> Path:
    return Path(str(resources.files("equilign") / "assets" / "sppo_held_out"))


@lru_cache(maxsize=1)
def shipped_references() -> References:
    """The references of the package's held-out prompts."""
    lines = (_folder() / "references.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return References(
        {row["prompt"]: tuple(character_grams(t) for t in row["references"]) for row in rows}
    )


def held_out_panel() -> Panel:
    """Informativeness, naturalness and quality from unseen ratings, and likeness to people."""
    heads = load_reward_heads(_folder() / "heads.json")
    learned = [
        Attribute(name, head.score, "From ratings the training panel never saw.", "learned", known)
        for name, head in heads.items()
        if (known := head.held_out) is not None
    ]
    likeness = Attribute(
        "human references",
        shipped_references().score,
        "Closer to a description that a person wrote for the prompt.",
    )
    return Panel([*learned, likeness])
