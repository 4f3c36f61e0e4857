"""Which requested values a sentence states, by patterns: the part of the features that reads slots.

The oracles stand below the tasks and may not import them, so this is a matcher of its own,
smaller than `equilign.tasks.restaurants` and also open to slots outside the E2E inventory
(telephone, address, "dogs allowed"), which the rated sentences of the training data use.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

_SLOT = re.compile(r"\s*([A-Za-z][A-Za-z _]*?)\s*\[([^\[\]]*)\]\s*(?:,|$)")

_FILLER = r"(?:\W+(?:a|an|the|is|are|in|of|for|to|its|their|range|customer|quality)\b){0,3}\W+"


def _near(level: str, topic: str) -> str:
    return rf"\b(?:{level})\w*(?:{_FILLER})(?:{topic})|\b(?:{topic})\w*(?:{_FILLER})(?:{level})\b"


_PRICE = r"pric|cost"
_RATE = r"rat(?:e|ing)|review|recommend|scor"
_STARS = r"\W*(?:out\b|of\b|/|stars?)"
_PATTERNS: dict[str, dict[str, str]] = {
    "priceRange": {
        "low": rf"\b(?:cheap|inexpensive|affordabl|budget)"
        rf"|(?:less than|under|below) £?(?:20|twenty)|{_near('low|cheap', _PRICE)}",
        "mid": rf"\b(?:moderate(?:ly)?|reasonabl[ey]|mid\w*|average) *-?(?:{_PRICE})"
        rf"|£?20\W+(?:to )?£?25|{_near('moderate|average|medium', _PRICE)}"
        r"|\bis moderate\b|\breasonabl[ey]\b",
        "high": rf"\bexpensive|\bpricey|\bhigh[ -]end|(?:more than|over|above) £?30"
        rf"|{_near('high', _PRICE)}",
    },
    "customer rating": {
        "low": rf"\b(?:1|one){_STARS}|{_near('low|poor|bad', _RATE)}",
        "mid": rf"\b(?:3|three){_STARS}|{_near('average|moderate|decent', _RATE)}",
        "high": rf"\b(?:5|five)\W*(?:out\b|of\b|/)|(?<!of )\b(?:5|five)\W*stars?"
        rf"|{_near('high|excellent|great|good|well', _RATE)}",
    },
    "area": {
        "riverside": r"\briver",
        "city centre": r"\bcity\W+cent|\bcent(?:re|er) of (?:the )?(?:city|town)|\bdowntown\b"
        r"|\btown cent|\bin the cent(?:re|er)\b",
    },
    "eatType": {
        "coffee shop": r"\bcoffee\W*(?:shop|house|place|bar)|\bcafe\b",
        "pub": r"\bpubs?\b",
        "restaurant": r"\brestaurant|\beatery\b|\bbistro\b|\bdiner\b|\bplace to eat\b",
        "hotel": r"\bhotels?\b|\binn\b",
    },
    "food": {
        "english": r"\benglish\b|\bbritish\b",
        "chinese": r"\bchinese\b",
        "french": r"\bfrench\b",
        "japanese": r"\bjapanese\b|\bsushi\b",
        "italian": r"\bitalian\b|\bpasta\b",
        "indian": r"\bindian\b|\bcurry\b",
        "fast food": r"\bfast[ -]*food\b",
    },
}
_LEVELS = {
    "priceRange": {
        **dict.fromkeys(("cheap", "low", "less than £20"), "low"),
        **dict.fromkeys(("moderate", "£20-25"), "mid"),
        **dict.fromkeys(("high", "more than £30"), "high"),
    },
    "customer rating": {
        **dict.fromkeys(("low", "1 out of 5"), "low"),
        **dict.fromkeys(("average", "3 out of 5"), "mid"),
        **dict.fromkeys(("high", "5 out of 5"), "high"),
    },
}
_YOUNG = r"(?:famil|kid|child)"
_NO = r"\b(?:no|not|non|never|without|nor|doesn't|don't|isn't|aren't|un)\b"
_FLAGS = {
    "familyFriendly": (
        _YOUNG,
        rf"{_NO}[^.!;]{{0,40}}?{_YOUNG}|{_YOUNG}\w*[^.,!;]{{0,25}}{_NO}"
        r"|\badults?\b",
    ),
    "dogs allowed": (r"\b(?:dog|pet)s?\b", _NO),
    "has internet": (r"\binternet|\bwi-?fi", _NO),
    "accepts credit cards": (r"\bcredit cards?", _NO),
}
"""Yes/no slots: pattern of the topic, and pattern of its denial."""

_ORDINARY = frozenset({"restaurant", "hotel"})
"""Words for a place whose type was not asked for; stating them invents nothing."""


def prompt_slots(prompt: str) -> dict[str, str]:
    """``name[The Mill], eatType[pub]`` as a mapping; empty for any text that is no such list."""
    slots: dict[str, str] = {}
    position = 0
    while position < len(prompt):
        match = _SLOT.match(prompt, position)
        if match is None:
            return {}
        slots[match[1]] = match[2].strip()
        position = match.end()
    return slots


@lru_cache(maxsize=1024)
def value_pattern(value: str) -> re.Pattern[str]:
    """Pattern of a value's words in order, whatever marks stand between them; "the" optional."""
    words = re.findall(r"[^\W_]+", value)
    if not words:
        return re.compile(r"$.")
    article = words[0] == "the" and len(words) > 1
    joined = r"\W+".join(map(re.escape, words[article:]))
    return re.compile(rf"(?<!\w){'(?:the )?' if article else ''}{joined}(?!\w)")


def _stated(slot: str, text: str) -> set[str]:
    if slot in _FLAGS:
        topic, denial = _FLAGS[slot]
        if re.search(topic, text) is None and (slot != "familyFriendly" or "adult" not in text):
            return set()
        return {"no" if re.search(denial, text) else "yes"}
    return {level for level, p in _PATTERNS.get(slot, {}).items() if re.search(p, text)}


def count_unmet(slots: Mapping[str, str], text: str) -> tuple[int, int]:
    """Requested values that a sentence does not state, and values it states instead or unasked.

    Names of places are matched first and blanked, so that "near Café Rouge" is no café.

    Args:
        slots: as `prompt_slots` gives them, values normalised as the text is.
        text: the sentence, lower case, accents folded.

    Returns:
        Number of missing values, and number of E2E slots with another value than the one asked.
    """
    missing = invented = 0
    for slot in ("name", "near"):
        if slot in slots:
            text, found = value_pattern(slots[slot]).subn(" @ ", text)
            missing += not found
    for slot in {**dict.fromkeys(slots), **dict.fromkeys((*_PATTERNS, "familyFriendly"))}:
        if slot in ("name", "near"):
            continue
        stated = _stated(slot, text)
        if slot not in slots:
            invented += bool(stated - _ORDINARY)
            continue
        value = slots[slot]
        wanted = _LEVELS.get(slot, {}).get(value, value)
        missing += wanted not in stated and value_pattern(value).search(text) is None
        invented += bool(stated - {wanted, "restaurant"})
    return missing, invented
