"""Count which word classes and letters follow each other in public-domain stories."""

import gzip
from collections import Counter
from pathlib import Path

import numpy as np

from equilign.oracles.text_features import (
    ODDNESS_CAP,
    WordTables,
    class_names,
    letter_triples,
    normalise,
    tokens,
    word_class,
)

STORIES = (
    Path(__file__).resolve().parents[2] / "data" / "text" / "fairy_tales" / "fairy_tales.txt.gz"
)
FREQUENT_WORDS = 250
SMOOTHING = 20.0
"""Pseudo-count per row, spread as the column classes occur overall."""

LEAST_WORD_COUNT = 2
"""A letter triple is ordinary when a word that occurs this often contains it."""


def read_sentences(path: Path = STORIES) -> list[list[str]]:
    """Tokens of each sentence of the stories; a sentence ends at a full stop, ``!`` or ``?``."""
    sentences: list[list[str]] = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            current: list[str] = []
            for token in tokens(normalise(line)):
                current.append(token)
                if token in ".!?":
                    sentences.append(current)
                    current = []
    return sentences


def pair_oddness(sentences: list[list[str]], words: tuple[str, ...]) -> np.ndarray:
    """Clipped negative pointwise mutual information of neighbouring classes, in nats.

    Returns:
        float64, shape (classes, classes), in [0, `ODDNESS_CAP`]; see `WordTables.oddness`.
    """
    index = {name: i for i, name in enumerate(class_names(words))}
    classes = {token: word_class(token, index) for s in sentences for token in s}
    counts = np.zeros((len(index), len(index)))
    for sentence in sentences:
        path = [index["<start>"], *(classes[token] for token in sentence), index["<end>"]]
        np.add.at(counts, (path[:-1], path[1:]), 1.0)
    overall = counts.sum(axis=0) / counts.sum()
    share = (counts + SMOOTHING * overall) / (counts.sum(axis=1, keepdims=True) + SMOOTHING)
    floor = np.exp(-ODDNESS_CAP)
    # A class that nothing precedes (<start>) has no expectation to fall short of.
    ratio = np.divide(share, overall, out=np.ones_like(share), where=overall > 0)
    return -np.log(np.clip(ratio, floor, 1.0))


def build_tables(sentences: list[list[str]]) -> WordTables:
    """Everything the features know of ordinary English."""
    counts = Counter(token for sentence in sentences for token in sentence)
    words = tuple(sorted(token for token, _ in counts.most_common(FREQUENT_WORDS)))
    triples = {
        triple
        for word, count in counts.items()
        if count >= LEAST_WORD_COUNT and word.isalpha()
        for triple in letter_triples(word)
    }
    return WordTables(words, pair_oddness(sentences, words), frozenset(triples))
