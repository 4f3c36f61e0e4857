"""Unique Nouns: a point for every different noun (STA-RLHF)."""

from collections.abc import Callable
from typing import Any

from equilign.errors import ConfigError
from equilign.tasks.tagger import shipped_tagger, split_tokens
from equilign.tasks.utilities import UtilityOracle

TAGGERS = ("shipped", "nltk")
_NOUNS = frozenset({"NOUN", "PROPN", "NN", "NNS", "NNP", "NNPS"})


class UniqueNouns(UtilityOracle):
    """How many different nouns an answer has, names included, whatever their case.

    "dog" and "dogs" are two: words are not reduced to stems.

    Args:
        tagger: ``"shipped"``, or ``"nltk"`` for NLTK's, as in the paper, where it is installed
            together with its data ``averaged_perceptron_tagger_eng``. NLTK is not part of this
            package's tests.
        rationality: see `UtilityOracle`.

    Raises:
        ConfigError: another tagger, or NLTK or its data are not installed.
    """

    def __init__(self, tagger: str = "shipped", *, rationality: float = 1.0) -> None:
        super().__init__(rationality)
        if tagger not in TAGGERS:
            raise ConfigError(f"tagger = {tagger!r}; use 'shipped' or 'nltk'")
        self._tag = shipped_tagger().tag if tagger == "shipped" else _nltk_tagger()

    def nouns(self, text: str) -> set[str]:
        """The different nouns of a text, lower case."""
        tokens = split_tokens(text)
        tags = self._tag(tokens)
        return {
            token.lower()
            for token, tag in zip(tokens, tags, strict=True)
            if tag in _NOUNS and any(letter.isalpha() for letter in token)
        }

    def utility(self, prompt: str, answer: str) -> float:
        """Different nouns in ``answer``."""
        return float(len(self.nouns(answer)))


def _nltk_tagger() -> Callable[[list[str]], list[str]]:
    try:
        from nltk import pos_tag
    except ImportError as error:
        raise ConfigError(
            "tagger = 'nltk', but NLTK is not installed: pip install nltk, or tagger = 'shipped'"
        ) from error

    def tag(tokens: list[str]) -> list[str]:
        pairs: Any = pos_tag(tokens)
        return [str(kind) for _, kind in pairs]

    try:
        tag(["test"])
    except LookupError as error:
        raise ConfigError(
            "NLTK is installed without its tagger's data: python -m nltk.downloader "
            "averaged_perceptron_tagger_eng, or tagger = 'shipped'"
        ) from error
    return tag
