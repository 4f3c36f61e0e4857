"""What the reward heads see of a short description: faults in [0, 1], and its phrases.

Every *fault* is 0 for a sentence that states all that was asked for and reads like English, up
to 1 where the fault is complete. All of them saturate, so no amount of text, of repetition or of
frequent words can earn a score. The *phrases* are the words and neighbouring words of the
sentence with the requested values blanked ("<name>", "<area> area"); each distinct phrase counts
once and all of one sentence share a total of 1, so neither length nor repetition adds up.

Word order is judged by a table of adjacent word classes, counted once from public-domain
stories: a pair of neighbours that occurs less often than chance is penalised, and a pair that
occurs more often earns nothing (pointwise mutual information clipped at 0; Church & Hanks 1990,
Computational Linguistics 16:22-29).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np

from equilign.oracles.slot_matching import count_unmet, prompt_slots, value_pattern

FAULTS = (
    "missing",
    "invented",
    "short",
    "long",
    "repeated_value",
    "repeated_word",
    "repeated_pair",
    "bare_list",
    "odd_order",
    "odd_word",
    "comma_before_verb",
    "marks",
    "no_stop",
    "dangling",
    "article",
)
"""Names of the faults, in the order of the feature vector."""

MAX_CHARACTERS = 2000
"""Prompt and answer are read up to here; `long` has saturated long before."""

ODDNESS_CAP = 3.0
"""Largest penalty of one pair of neighbours, in nats."""

ODDNESS_SATURATION = 1.2
"""Mean penalty per pair, in nats, at which the order of a sentence counts as wholly wrong."""

FEWEST_PHRASES = 20
"""An answer with fewer distinct phrases shares its total as if it had this many."""

_TOKEN = re.compile(r"<[a-z_ ]+>|£?[^\W_]+(?:['-][^\W_]+)*|\S")
_MARKS = re.compile(r"[,;:]\s*[,;:.!?]|[.!?]\s*[,;:]|\.\s*\.|\s+[,.;:!?]|^\s*[,.;:!?]")
_COMMA_VERB = re.compile(
    r"[^,.!?]+, (?:is|are|was|has|have|serves?|allows?|does|do|offers?|accepts?|can|will)\b"
)
# fmt: off
_DANGLING = frozenset(
    {
        "a", "an", "and", "are", "as", "at", "but", "by", "for", "from", "has", "have",
        "if", "in", "is", "its", "near", "of", "on", "or", "serves", "that", "the", "their",
        "to", "which", "with"
    }
)
_JOINING = frozenset(
    {
        "accept", "accepts", "allow", "allows", "located", "offer", "offers", "priced",
        "rated", "select", "serve", "serves"
    }
)
# fmt: on
_COMMON_SYMBOLS = frozenset(".,;:!?'\"()-/&%£$")
_FOLD = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-"})


@dataclass(frozen=True, eq=False)
class WordTables:
    """What is known of ordinary English, counted from public-domain text.

    Attributes:
        words: the frequent words that are a class of their own; other words are classed by
            their ending.
        oddness: shape (classes, classes), nats in [0, `ODDNESS_CAP`]: how much less often the
            column's class follows the row's than chance would have it; 0 for usual pairs.
            Class order is that of `class_names`.
        trigrams: letter triples of ordinary words, "^" and "$" marking start and end.
    """

    words: tuple[str, ...]
    oddness: np.ndarray
    trigrams: frozenset[str]

    @cached_property
    def index(self) -> dict[str, int]:
        """Class name to row and column number."""
        return {name: number for number, name in enumerate(class_names(self.words))}

    @cached_property
    def common(self) -> frozenset[str]:
        """The frequent words as a set."""
        return frozenset(self.words)


ENDINGS = ("ing", "ed", "ly", "s")
_OTHER_CLASSES = ("<number>", "<mark>", "<word>", *(f"<{e}>" for e in ENDINGS), "<start>", "<end>")


def class_names(words: Sequence[str]) -> tuple[str, ...]:
    """Row and column names of the oddness table: the frequent words, then the open classes."""
    return (*words, *_OTHER_CLASSES)


def word_class(token: str, index: Mapping[str, int]) -> int:
    """Class number of one lower-case token; ``index`` maps class names to numbers."""
    if token in index:
        return index[token]
    if any(character.isdigit() for character in token):
        return index["<number>"]
    if is_blank(token):
        return index["<word>"]
    if not token[0].isalpha():
        return index["<mark>"]
    ending = next((e for e in ENDINGS if token.endswith(e) and len(token) > len(e) + 2), None)
    return index["<word>" if ending is None else f"<{ending}>"]


def is_blank(token: str) -> bool:
    """Whether a token stands for a requested value, such as ``<name>``."""
    return len(token) > 1 and token[0] == "<"


def is_word(token: str) -> bool:
    """Whether a token is a word, a number or a blanked value rather than a mark."""
    return is_blank(token) or token.lstrip("£")[:1].isalnum()


def normalise(text: str) -> str:
    """Lower case, plain quotes, no accents or invisible characters, single spaces."""
    text = unicodedata.normalize("NFKD", text[:MAX_CHARACTERS].translate(_FOLD)).lower()
    kept = (
        " " if character.isspace() else character
        for character in text
        if character.isspace() or unicodedata.category(character)[0] not in "CM"
    )
    # Decomposing can lengthen the text, hence the second cut.
    return re.sub(r" +", " ", "".join(kept)[:MAX_CHARACTERS]).strip()


def tokens(text: str) -> list[str]:
    """Words and single marks of normalised text; quotation marks are left out."""
    return [token for token in _TOKEN.findall(text) if token != '"']


def letter_triples(word: str) -> Iterable[str]:
    """Triples of ``^word$``."""
    marked = f"^{word}$"
    return (marked[i : i + 3] for i in range(len(marked) - 2))


def _coverage_faults(slots: Mapping[str, str], text: str) -> tuple[float, float]:
    """Share of requested values not stated, and values stated unasked (two saturate)."""
    if not slots:
        return 0.0, 0.0
    missing, invented = count_unmet(slots, text)
    return missing / len(slots), min(invented, 2) / 2


def blank_values(slots: Mapping[str, str], text: str) -> tuple[str, dict[str, int]]:
    """Text with every verbatim value replaced by ``<slot>``, and how often each stood there.

    Longer values go first, so that one inside another is not counted twice.
    """
    mentions: dict[str, int] = {}
    for slot, value in sorted(slots.items(), key=lambda item: -len(item[1])):
        if value in ("yes", "no"):
            continue
        text, mentions[slot] = value_pattern(value).subn(f" <{slot.lower()}> ", text)
    return re.sub(r" +([,.;:!?])", r"\1", re.sub(r" +", " ", text)).strip(), mentions


def _length_faults(words: int, slots: int) -> tuple[float, float]:
    """Too few and too many words for the number of slots; bounds wide enough for human text."""
    least, most = (2 + 2 * slots, 12 + 6 * slots) if slots else (3, 150)
    return max(0.0, 1 - words / least), min(1.0, max(0.0, words / most - 1))


def _repetition_faults(
    words: Sequence[str],
    plain: Sequence[str],
    mentions: Mapping[str, int],
    common: frozenset[str],
) -> tuple[float, float, float]:
    """Extra mentions of a value (three saturate), repeated content words, repeated pairs."""
    extra = sum(max(0, count - 1) for count in mentions.values())
    content = Counter(word for word in plain if word not in common and not is_blank(word))
    again = sum(content.values()) - len(content)
    pairs = list(pairwise(words))
    pair_again = len(pairs) - len(set(pairs)) + sum(a == b for a, b in pairs)
    return (
        min(extra, 3) / 3,
        min(1.0, 2 * again / max(1, sum(content.values()))),
        min(1.0, 2 * pair_again / max(1, len(pairs))),
    )


def _order_fault(parts: Sequence[str], tables: WordTables) -> float:
    """Mean oddness of neighbours, start and end included."""
    classes = [word_class(part, tables.index) for part in parts]
    path = [tables.index["<start>"], *classes, tables.index["<end>"]]
    mean = float(tables.oddness[path[:-1], path[1:]].mean())
    return min(1.0, mean / ODDNESS_SATURATION)


def _list_fault(plain_words: Sequence[str], common: frozenset[str]) -> float:
    """1 for values without a joining word, 0 where three words in twenty are frequent ones."""
    stems = (word.partition("'")[0] for word in plain_words)
    joining = sum(stem in common or stem in _JOINING for stem in stems)
    return max(0.0, 1 - joining / max(1.0, 0.15 * len(plain_words)))


def _word_fault(parts: Sequence[str], tables: WordTables) -> float:
    """Share of tokens that are no pronounceable word, number or common mark; four times over."""
    odd = 0
    for part in parts:
        if part in _COMMON_SYMBOLS or is_blank(part) or any(c.isdigit() for c in part):
            continue
        pieces = re.split(r"['-]", part.lstrip("£"))
        odd += not all(t in tables.trigrams for piece in pieces for t in letter_triples(piece))
    return min(1.0, 4 * odd / max(1, len(parts)))


def _article_fault(words: Sequence[str]) -> float:
    """1 where "a" stands before a vowel letter or "an" before a consonant letter."""
    vowel = re.compile(r"(?!one\b|uni|eu|us[aeiu])[aeiou]|hour|hono|8|11\b|18\b")
    return float(
        any((a == "an") != bool(vowel.match(b)) for a, b in pairwise(words) if a in ("a", "an"))
    )


@dataclass(frozen=True)
class _Reading:
    """One answer, read: its text and words, and the same with the requested values blanked."""

    slots: dict[str, str]
    text: str
    words: list[str]
    plain: list[str]
    mentions: dict[str, int]


@lru_cache(maxsize=1024)
def _read(prompt: str, answer: str) -> _Reading:
    """Kept for a while: every attribute reads the same answers, and in both orders."""
    slots = {
        slot: normalise(value) for slot, value in prompt_slots(prompt[:MAX_CHARACTERS]).items()
    }
    # Angle brackets are how blanked values are written, so an answer may not bring its own.
    text = re.sub(r" +", " ", normalise(answer).replace("<", " ").replace(">", " ")).strip()
    blanked, mentions = blank_values(slots, text)
    words = [token for token in tokens(text) if is_word(token)]
    return _Reading(slots, text, words, tokens(blanked), mentions)


def fault_vector(prompt: str, answer: str, tables: WordTables) -> np.ndarray:
    """Faults of one answer.

    Args:
        prompt: attribute list ``name[The Mill], eatType[pub]``; for any other text the faults
            that need slots are 0.
        answer: the description, any text.
        tables: what is known of ordinary English.

    Returns:
        float64, shape (len(FAULTS),), every entry in [0, 1]. An answer without a single word
        has no style to judge, so it gets 1 in every entry.
    """
    r = _read(prompt, answer)
    if not r.words:
        return np.ones(len(FAULTS))
    unbalanced = r.text.count("(") != r.text.count(")") or r.text.count('"') % 2 == 1
    plain_words = [token for token in r.plain if is_word(token)]
    values = (
        *_coverage_faults(r.slots, r.text),
        *_length_faults(len(r.words), len(r.slots)),
        *_repetition_faults(r.words, plain_words, r.mentions, tables.common),
        _list_fault(plain_words, tables.common),
        _order_fault(r.plain, tables),
        _word_fault(r.plain, tables),
        float(_COMMA_VERB.match(r.text) is not None),
        min(len(_MARKS.findall(r.text)) + unbalanced, 2) / 2,
        float(r.text.rstrip("\"')")[-1:] not in (".", "!", "?")),
        float(r.words[-1] in _DANGLING and r.text[-1] != "?"),
        _article_fault(r.words),
    )
    return np.array(values, dtype=np.float64)


def phrases(prompt: str, answer: str) -> set[str]:
    """Distinct words and pairs of neighbours, start and end included, requested values blanked."""
    path = ["<start>", *_read(prompt, answer).plain, "<end>"]
    return {*path[1:-1], *(f"{a} {b}" for a, b in pairwise(path))}


def phrase_vector(prompt: str, answer: str, known: Mapping[str, int]) -> np.ndarray:
    """Share of each known phrase among all distinct phrases of one answer.

    Args:
        prompt: as for `fault_vector`.
        answer: as for `fault_vector`.
        known: phrase to its place in the result.

    Returns:
        float64, shape (len(known),), entries >= 0 with a sum <= 1. Phrases that are not known
        count in the total, and so do `FEWEST_PHRASES`: a few favoured words are no style.
    """
    found = phrases(prompt, answer)
    shares = np.zeros(len(known))
    shares[[known[phrase] for phrase in found if phrase in known]] = 1.0
    return shares / max(len(found), FEWEST_PHRASES)
