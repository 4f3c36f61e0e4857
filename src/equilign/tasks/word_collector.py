"""Word Collector: a point for every different target word (STA-RLHF).

The constrained one counts no word that the prompt holds already.
"""

import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Protocol

from equilign.errors import ConfigError
from equilign.tasks.utilities import UtilityOracle

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


class Vocabulary(Protocol):
    """What is asked of a tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids."""
        ...

    def decode(self, token_ids: list[int]) -> str:
        """Text again."""
        ...


def words_of(text: str) -> set[str]:
    """The different words of a text, lower case; ``don't`` and ``well-known`` are one each."""
    return {word.lower() for word in _WORD.findall(text)}


def target_words() -> tuple[str, ...]:
    """The 30 commonest content words of 1,392 instructions, the commonest first."""
    path = resources.files("equilign") / "assets" / "word_collector" / "words.json"
    return tuple(json.loads(path.read_text(encoding="utf-8"))["words"])


class WordCollector(UtilityOracle):
    """How many different target words an answer has.

    Args:
        words: the targets; `target_words` by default. Case does not matter.
        constrained: whether words of the prompt do not count.
        rationality: see `UtilityOracle`.

    Raises:
        ConfigError: no words, or one that can never be found.
    """

    def __init__(
        self,
        words: Sequence[str] | None = None,
        *,
        constrained: bool = False,
        rationality: float = 1.0,
    ) -> None:
        super().__init__(rationality)
        if isinstance(words, str):
            raise ConfigError(f"words = {words!r}; give a list of words")
        self.words = frozenset(w.lower() for w in (target_words() if words is None else words))
        self.constrained = constrained
        if not self.words:
            raise ConfigError("word collector needs at least one target word")
        bad = sorted(word for word in self.words if words_of(word) != {word})
        if bad:
            raise ConfigError(
                f"{', '.join(map(repr, bad))}: a target word must be one word of letters, "
                "apostrophes and hyphens, or it is never found in a text"
            )

    def utility(self, prompt: str, answer: str) -> float:
        """Different target words in ``answer``; constrained: those that ``prompt`` lacks."""
        found = words_of(answer) & self.words
        return float(len(found - words_of(prompt) if self.constrained else found))

    def check_tokenizer(self, tokenizer: Vocabulary) -> None:
        """Make sure that a model with this vocabulary can write every target word.

        Raises:
            ConfigError: it cannot; names the words.
        """
        lost = [w for w in sorted(self.words) if not _can_write(tokenizer, w)]
        if lost:
            raise ConfigError(
                f"the model's vocabulary cannot write {len(lost)} of the {len(self.words)} target "
                f"words: {', '.join(lost[:10])}{', ...' if len(lost) > 10 else ''}; leave them "
                "out of `words`, or take a model whose tokenizer has them"
            )


def _can_write(tokenizer: Vocabulary, word: str) -> bool:
    ids = tokenizer.encode(f" {word}", add_special_tokens=False)
    return words_of(tokenizer.decode(ids)) == {word}
