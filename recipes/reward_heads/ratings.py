"""Read the human comparisons and bring them into the shape the heads are used on.

The meaning representations of the ratings, ``inform(name='X',pricerange=cheap,...)``, become
attribute lists as in the E2E data set, ``name[Xname], priceRange[cheap], ...``.
"""

import gzip
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAIRS = REPOSITORY / "data" / "ratings" / "nlg_restaurant_hotel" / "pairs.jsonl.gz"
ATTRIBUTES = ("informativeness", "naturalness", "quality")
TEST_SHARE = 5
"""One meaning representation in this many goes to the held-out test split."""

SLOT_NAMES = {
    "eattype": "eatType",
    "type": "eatType",
    "pricerange": "priceRange",
    "price_range": "priceRange",
    "kids_allowed": "familyFriendly",
    "good_for_meal": "meal",
    "dogs_allowed": "dogs allowed",
    "has_internet": "has internet",
    "accepts_credit_cards": "accepts credit cards",
}
"""Slot of the ratings to slot of the attribute list; a slot not named here keeps its name."""

SLOT_VALUES = {
    "citycentre": "city centre",
    "coffeeshop": "coffee shop",
    "Fastfood": "Fast food",
    "inexpensive": "cheap",
    "expensive": "high",
    "pricey": "high",
    "ultra high end": "high",
}
"""Spellings of a value; a value not named here stays as it is."""

NO_VALUE = frozenset({"", "none", "dont_care", "yes or no", "placetoeat"})
"""Values that ask for nothing a sentence could state; their slots are left out."""

_ACT = re.compile(r"\??\w+\((.*)\)$")
_SLOT = re.compile(r"(\w+)=('[^']*'|[^,]*)")
_HIDDEN_AREA = re.compile(r"\b(in (?:the )?)x\b|\bx(?= area\b)")
_HIDDEN_NEAR = re.compile(r"\b((?:near|near to|close to|next to|vicinity of) (?:the )?)x\b")


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt and what people thought of them.

    Attributes:
        dataset: BAGEL, SFRES or SFHOT.
        group: the meaning representation as in the source; never on two sides of a split.
        prompt: its attribute list.
        a: one answer.
        b: the other.
        margin: attribute to rating of a minus rating of b, in points of 1..6.
    """

    dataset: str
    group: str
    prompt: str
    a: str
    b: str
    margin: dict[str, float]


def attribute_list(meaning: str) -> str:
    """Meaning representation of the ratings as an attribute list; empty if it asks nothing.

    A second value of one slot gets the slot name "also ...". The place names that BAGEL hides
    behind 'X' get one word per slot, so that name and neighbour can be told apart.

    Raises:
        ValueError: the text is no ``act(slot=value,...)``.
    """
    match = _ACT.match(meaning)
    if match is None:
        raise ValueError(f"not an act(slot=value,...): {meaning!r}")
    slots: dict[str, str] = {}
    for source, raw in _SLOT.findall(match[1]):
        value = raw.strip("'")
        if value in NO_VALUE:
            continue
        slot = SLOT_NAMES.get(source, source)
        value = f"X{source}" if value == "X" else SLOT_VALUES.get(value, value)
        if slots.get(slot) == value:
            continue
        slots[f"also {slot}" if slot in slots else slot] = value
    return ", ".join(f"{slot}[{value}]" for slot, value in slots.items())


def name_hidden_places(answer: str) -> str:
    """Give each ``x`` of a BAGEL sentence the word `attribute_list` uses, told by its context."""
    answer = _HIDDEN_NEAR.sub(r"\1xnear", answer)
    answer = _HIDDEN_AREA.sub(lambda m: f"{m[1] or ''}xarea", answer)
    return re.sub(r"\bx\b", "xname", answer)


def read_comparisons(path: Path = PAIRS) -> list[Comparison]:
    """All pairs, in file order."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        Comparison(
            row["dataset"],
            row["prompt"],
            attribute_list(row["prompt"]),
            *(name_hidden_places(row[s]) if row["dataset"] == "BAGEL" else row[s] for s in "ab"),
            row["margin"],
        )
        for row in rows
    ]


def bucket(text: str, buckets: int, salt: str = "") -> int:
    """A number in [0, buckets) that depends on nothing but the text and the salt."""
    return int.from_bytes(hashlib.sha256((salt + text).encode()).digest()[:8], "big") % buckets


def is_test(comparison: Comparison) -> bool:
    """Whether a comparison belongs to the held-out split, decided by its group alone."""
    return bucket(comparison.group, TEST_SHARE, "test:") == 0
