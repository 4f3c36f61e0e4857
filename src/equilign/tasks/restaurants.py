"""Restaurant descriptions: an attribute list goes in, a sentence that says all of it comes out.

The input is a *meaning representation* as in the E2E data set (Novikova et al. 2017,
SIGDIAL), ``name[The Mill], eatType[pub], area[riverside]``. This module reads one and tells
which of its values a sentence realises, and which values the sentence states that were never
asked for. It is plain text matching: transparent, deterministic, and blind to meaning it has no
pattern for. Numeric and worded values of one level count as the same statement ("1 out of 5" and
"poorly rated"), as the E2E annotators used them interchangeably.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

SLOTS = (
    "name",
    "eatType",
    "food",
    "priceRange",
    "customer rating",
    "area",
    "familyFriendly",
    "near",
)
"""The attribute names of the E2E data set, in its order."""

_SLOT = re.compile(r"\s*([A-Za-z][A-Za-z _]*?)\s*\[([^\[\]]*)\]\s*(?:,|$)")

# Several spellings of one level. "mid" also holds the numeric middle bands.
_PRICE_LEVEL = {
    "cheap": "low",
    "low": "low",
    "less than £20": "low",
    "moderate": "mid",
    "£20-25": "mid",
    "high": "high",
    "more than £30": "high",
}
_RATING_LEVEL = {
    "low": "low",
    "1 out of 5": "low",
    "average": "mid",
    "3 out of 5": "mid",
    "high": "high",
    "5 out of 5": "high",
}

_RATE = r"(?:rat(?:ed|ing|ings|es|e)|review\w*|recommend\w*|scor\w*|feedback|satisfaction)"
# Within one clause: in "a low rating, high prices" the rating is low and the prices are high.
_SPACE = r"[^\w.,;:!?]+"
_COLON = r"[^\w.,;!?]+"
_CUSTOMER = (
    rf"(?:(?:a|the|customers?|consumers?|user|service|quality|by|is|are|of|its|their){_SPACE})*"
)
_PRICE_WORD = r"(?:pric\w*|cost\w*)"
_GAP = rf"(?:{_SPACE}(?:a|an|the|is|are|in|of|for|its|their|ranges?|menu|food)\b)*{_COLON}"
_NO_RATE = rf"\b(?!{_SPACE}{_CUSTOMER}{_RATE})"
_NO_PRICE = rf"\b(?!{_SPACE}{_PRICE_WORD})"
_PRICE = {
    "low": (
        r"\bcheap\w*|\binexpensive\w*|\baffordabl\w*|\bbudget\b|\bbargain\w*|\beconomical\w*"
        r"|(?:less than|under|below|up to|no more than)\W*(?:20|twenty)\b"
        rf"|\blow(?:er|ly)?(?:{_GAP})?{_PRICE_WORD}|{_PRICE_WORD}{_GAP}low{_NO_RATE}"
    ),
    "mid": (
        rf"\bmoderat\w*{_NO_RATE}"
        r"|\breasonabl\w*|\bmid\w*[ -]*(?:pric|cost|range)\w*|\bfair\w* pric\w*"
        r"|\b20\W*(?:[-–]|to|and|through)\W*25\b|twenty to twenty"
        rf"|\b(?:average|medium|mid)[ -]+(?:{_GAP})?{_PRICE_WORD}"
        rf"|{_PRICE_WORD}{_GAP}(?:average|medium){_NO_RATE}"
    ),
    "high": (
        r"\bexpensive\w*|\bpricey\b|\bup(?:scale|market)\b|\bhigh[ -]end\b|\bcostly\b"
        r"|(?:more than|over|above|at least|upwards of)\W*(?:30|thirty)\b"
        rf"|\bhigh(?:er|ly)?(?:[ -]|{_GAP})?{_PRICE_WORD}|{_PRICE_WORD}{_GAP}high{_NO_RATE}"
    ),
}
_OF = r"(?:out\W*(?:of)?|of|/)"
_RATING = {
    "low": (
        rf"\b(?:1|one)\W*{_OF}\W*(?:a |possible )?(?:5|five)|\b(?:1|one)\W*stars?\b"
        rf"|\b(?:low|lowly|poor|poorly|bad|badly){_SPACE}{_CUSTOMER}{_RATE}"
        rf"|{_RATE}{_COLON}{_CUSTOMER}(?:low|poor|bad)\w*{_NO_PRICE}"
    ),
    "mid": (
        rf"\b(?:3|three)\W*{_OF}\W*(?:a |possible )?(?:5|five)|\b(?:3|three)\W*stars?\b"
        rf"|\b(?:average|averagely|moderate|moderately|decent|ok|mediocre){_SPACE}{_CUSTOMER}{_RATE}"
        rf"|{_RATE}{_COLON}{_CUSTOMER}(?:average|moderate|mediocre)\w*{_NO_PRICE}"
    ),
    "high": (
        rf"\b(?:5|five)\W*{_OF}\W*(?:a |possible )?(?:5|five)"
        r"|(?<!of )(?<!out )(?<!/)\b(?:5|five)\W*stars?\b"
        rf"|\b(?:high|highly|good|well|great|excellent|top){_SPACE}{_CUSTOMER}{_RATE}"
        rf"|{_RATE}{_COLON}{_CUSTOMER}(?:high|excellent|great|good)\w*{_NO_PRICE}"
    ),
}
_KIDS = r"(?:famil(?:y|ies)|kid'?s?|child(?:ren)?'?s?)"
_NOT_FAMILY = (
    r"\b(?:not?|non|isn'?t|aren'?t|doesn'?t|don'?t|never|without|nor|un)\b"
    rf"(?:(?!\bbut\b)[^.!;]){{0,35}}?{_KIDS}"
    # Not across "and", "but": "family friendly but not cheap" welcomes families.
    rf"|{_KIDS}(?:(?!\b(?:and|but|that|which)\b)[^.,!;]){{0,25}}"
    r"\b(?:not(?! far)|isn'?t|aren'?t|unfriendly|unwelcome|prohibited)\b"
    rf"|{_KIDS}[ -]free\b"
    r"|\badults?\b(?! and\b)"
)
_AREA = {
    "riverside": r"\briver(?:side|bank)?\b",
    "city centre": r"\bcity\W+(?:centre|center)\b|\bcent(?:re|er) of (?:the )?(?:city|town)\b"
    r"|\bcent(?:ral|re|er)\b|\bdowntown\b|\btown cent(?:re|er)\b",
}
_EAT_TYPE = {
    "coffee shop": r"\bcoffee\W*(?:shop|house|place|bar|store)s?\b|\bcaf[eé]s?\b",
    "pub": r"\bpubs?\b",
    "restaurant": r"\brestaurants?\b|\bdin(?:er|ing)\b|\beatery\b|\bbistro\b",
}
_FOOD = {
    "English": r"\benglish\b|\bbritish\b(?! pound)",
    "Chinese": r"\bchinese\b",
    "French": r"\bfrench\b",
    "Japanese": r"\bjapanese\b|\bsushi\b",
    "Italian": r"\bitalian\b|\bpasta\b",
    "Indian": r"\bindian\b|\bcurry\b",
    "Fast food": r"\bfast[ -]*food\b",
}


_KNOWN = {
    "eatType": set(_EAT_TYPE),
    "food": set(_FOOD),
    "priceRange": set(_PRICE),
    "customer rating": set(_RATING),
    "area": set(_AREA),
    "familyFriendly": {"yes", "no"},
}


@dataclass(frozen=True)
class Coverage:
    """What a sentence says of an attribute list.

    Attributes:
        realised: slots whose requested value the sentence states.
        missing: requested slots whose value it does not state.
        invented: slots for which it states a value that was not requested.
    """

    realised: tuple[str, ...]
    missing: tuple[str, ...]
    invented: tuple[str, ...]

    @property
    def share(self) -> float:
        """Share of requested values realised, in [0, 1]."""
        total = len(self.realised) + len(self.missing)
        return len(self.realised) / total if total else 1.0


def parse_attributes(text: str) -> dict[str, str]:
    """Read ``name[The Mill], eatType[pub]`` into ``{"name": "The Mill", "eatType": "pub"}``.

    Raises:
        ValueError: the text is not a comma-separated list of ``slot[value]``.
    """
    slots: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _SLOT.match(text, position)
        if match is None:
            raise ValueError(f"not an attribute list at {text[position : position + 40]!r}")
        slots[match[1]] = match[2].strip()
        position = match.end()
    if not slots:
        raise ValueError("an attribute list needs at least one slot[value]")
    return slots


def format_attributes(slots: Mapping[str, str]) -> str:
    """Inverse of `parse_attributes`."""
    return ", ".join(f"{slot}[{value}]" for slot, value in slots.items())


@lru_cache(maxsize=512)
def _entity(name: str) -> re.Pattern[str]:
    bare = re.sub(r"^the ", "", name.strip().lower())
    return re.compile(r"(?<!\w)(?:the )?" + r"\W+".join(map(re.escape, bare.split())) + r"(?!\w)")


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _mentions(patterns: Mapping[str, str], text: str) -> set[str]:
    return {value for value, pattern in patterns.items() if _compiled(pattern).search(text)}


def _family(text: str) -> set[str]:
    if _compiled(_NOT_FAMILY).search(text):
        return {"no"}
    return {"yes"} if _compiled(rf"\b{_KIDS}\b").search(text) else set()


def _stated(text: str) -> dict[str, set[str]]:
    return {
        "eatType": _mentions(_EAT_TYPE, text),
        "food": _mentions(_FOOD, text),
        "priceRange": _mentions(_PRICE, text),
        "customer rating": _mentions(_RATING, text),
        "area": _mentions(_AREA, text),
        "familyFriendly": _family(text),
    }


def _verbatim(value: str, text: str) -> bool:
    return _entity(value).search(text) is not None


def _level(slot: str, value: str) -> str:
    table = {"priceRange": _PRICE_LEVEL, "customer rating": _RATING_LEVEL}.get(slot)
    if table is None:
        table = {known.lower(): known for known in _KNOWN[slot]}
    return table.get(value.lower(), value)


def coverage(slots: Mapping[str, str], sentence: str) -> Coverage:
    """Which requested values ``sentence`` states, and for which slots it states another one.

    Names of places are matched first and then blanked, so that "near Café Rouge" does not
    count as a café, nor "Raja Indian Cuisine" as Indian food. "Restaurant" is never counted as
    invented: it is the ordinary word for a place whose type was not given. A value or slot outside
    the E2E inventory (``food[Thai]``, ``phone[...]``) is realised when it stands there verbatim.
    """
    text = sentence.lower().replace("’", "'")
    realised: list[str] = []
    missing: list[str] = []
    for slot in ("name", "near"):
        if slot in slots:
            found = _entity(slots[slot]).search(text) is not None
            (realised if found else missing).append(slot)
            text = _entity(slots[slot]).sub(" @ ", text)
    stated = _stated(text)
    invented = []
    for slot in slots:
        if slot not in stated and slot not in ("name", "near"):
            (realised if _verbatim(slots[slot], text) else missing).append(slot)
    for slot, values in stated.items():
        wanted = _level(slot, slots[slot]) if slot in slots else None
        if wanted is not None:
            found = wanted in values or (wanted not in _KNOWN[slot] and _verbatim(wanted, text))
            (realised if found else missing).append(slot)
        extra = values - {wanted}
        if slot == "eatType":
            extra -= {"restaurant"}
        if extra:
            invented.append(slot)
    return Coverage(tuple(realised), tuple(missing), tuple(invented))
