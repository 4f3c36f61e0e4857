"""Reward heads fitted to human ratings: one score of a description per rated attribute.

A Bradley-Terry model (Bradley & Terry 1952, Biometrika 39:324-345): the probability that people
rate answer a above answer b is ``sigmoid(score(a) - score(b))``. The score is what the phrases of
a sentence earn minus what its faults cost (`equilign.oracles.text_features`). Both are bounded,
the phrases by `STYLE_CAP`, so that no choice of words makes up for what a sentence leaves out.
How the weights were fitted, and how well they predict ratings nobody fitted them to, stands in
`assets/restaurant_heads/README.md`; `recipes/reward_heads/train.py` does it again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equilign.errors import DataError
from equilign.oracles.text_features import (
    FAULTS,
    ODDNESS_CAP,
    WordTables,
    class_names,
    fault_vector,
    phrase_vector,
)

SHIPPED = Path(__file__).resolve().parents[1] / "assets" / "restaurant_heads" / "heads.json"
FORMAT = 1
STYLE_CAP = 0.5
"""Most that phrases can add to or take from a score, in logits."""

_LEVELS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, eq=False)
class RewardHead:
    """How much people like one attribute of a description, in logits.

    Attributes:
        name: the rated attribute, for instance "quality".
        fault_weights: cost of each complete fault, >= 0, shape (len(FAULTS),).
        phrase_weights: worth of each known phrase before bounding, shape (len(phrases),).
        phrases: known phrase to its place in ``phrase_weights``.
        tables: what is known of ordinary English.
        held_out: accuracy on held-out human comparisons with its 95 % Wilson interval,
            (accuracy, low, high); None before it has been measured.
    """

    name: str
    fault_weights: np.ndarray
    phrase_weights: np.ndarray
    phrases: Mapping[str, int]
    tables: WordTables
    held_out: tuple[float, float, float] | None = None

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """Score of each answer to its prompt; higher is better, in logits.

        Args:
            prompts: attribute lists such as ``name[The Mill], eatType[pub]``; any other text is
                taken as a prompt that asks for nothing in particular.
            answers: descriptions, any text; as many as prompts.

        Returns:
            float64, shape (n,), finite.

        Raises:
            ValueError: not as many answers as prompts.
        """
        rows = zip(prompts, answers, strict=True)
        return np.array([self._score_one(p, a) for p, a in rows], dtype=np.float64)

    def _score_one(self, prompt: str, answer: str) -> float:
        faults = fault_vector(prompt, answer, self.tables) @ self.fault_weights
        style = phrase_vector(prompt, answer, self.phrases) @ self.phrase_weights
        return float(bounded_style(style) - faults)


def bounded_style(total: np.ndarray) -> np.ndarray:
    """Weighted phrase shares, any shape, squeezed smoothly into +-`STYLE_CAP` logits."""
    return STYLE_CAP * np.tanh(total / STYLE_CAP)


def encode_tables(tables: WordTables) -> dict[str, Any]:
    """Tables as JSON: one character per pair of classes, 36 levels from 0 to `ODDNESS_CAP`."""
    levels = np.rint(tables.oddness / ODDNESS_CAP * (len(_LEVELS) - 1)).astype(int)
    return {
        "words": " ".join(tables.words),
        "oddness": ["".join(_LEVELS[level] for level in row) for row in levels],
        "letter_triples": " ".join(sorted(tables.trigrams)),
    }


def decode_tables(value: Mapping[str, Any]) -> WordTables:
    """Inverse of `encode_tables`, up to the rounding to 36 levels.

    Raises:
        KeyError: a part is missing.
        ValueError: the table is not square, or holds a character that is no level.
    """
    words = tuple(value["words"].split())
    rows = [[_LEVELS.index(character) for character in row] for row in value["oddness"]]
    size = len(class_names(words))
    if len(rows) != size or any(len(row) != size for row in rows):
        raise ValueError(f"the oddness table must be {size} x {size}, one row per word class")
    oddness = np.array(rows, dtype=np.float64) * (ODDNESS_CAP / (len(_LEVELS) - 1))
    return WordTables(words, oddness, frozenset(value["letter_triples"].split()))


def load_reward_heads(path: Path | None = None) -> dict[str, RewardHead]:
    """The heads of a file, by attribute name.

    Args:
        path: a file that `recipes/reward_heads/train.py` wrote; the shipped one when not given.

    Raises:
        DataError: (a ValueError) the file cannot be read or is malformed; names it and the cure.
    """
    path = SHIPPED if path is None else path
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']!r}, this version reads {FORMAT}")
        tables = decode_tables(value["tables"])
        places = {phrase: place for place, phrase in enumerate(value["phrases"])}
        return {name: _head(name, head, places, tables) for name, head in value["heads"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no entry {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"cannot read reward heads from {path}: {reason}. "
            "Reinstall equilign, or write the file again with recipes/reward_heads/train.py."
        ) from error


def _head(
    name: str, value: Mapping[str, Any], places: Mapping[str, int], tables: WordTables
) -> RewardHead:
    faults = np.array([value["fault_weights"][fault] for fault in FAULTS], dtype=np.float64)
    style = np.array(value["phrase_weights"], dtype=np.float64)
    if style.shape != (len(places),):
        raise ValueError(f"head {name!r} has {style.size} phrase weights for {len(places)} phrases")
    if not (np.isfinite(faults).all() and np.isfinite(style).all()) or (faults < 0).any():
        raise ValueError(f"head {name!r}: weights must be finite, and of faults not negative")
    measured = value.get("held_out")
    held_out = (
        None
        if measured is None
        else (float(measured["accuracy"]), float(measured["low"]), float(measured["high"]))
    )
    return RewardHead(name, faults, style, places, tables, held_out)
