"""Conversations for the shipped model: restaurant descriptions and stories, from `data/text`.

Everything here is a pure function of the files and of a `random.Random`; the split into training
and held-out material is by a hash of the text, so it never moves.
"""

import gzip
import hashlib
import json
import random
import re
from dataclasses import dataclass, field
from pathlib import Path

from equilign.tasks.restaurants import coverage, format_attributes, parse_attributes

DATA = Path(__file__).resolve().parents[2] / "data" / "text"
HELD_OUT_INPUTS = 400
IMPROVE = "Improve the answer."
IMPROVE_VARIANTS = (
    "Please improve the answer.",
    "Improve the previous answer.",
    "Write a better answer, as if it were the first one.",
    "Can you do better? Answer again.",
)
CONTINUE = "Continue the story: "
EXTRA_FOODS = ("Thai", "Spanish", "Mexican", "Greek", "Turkish", "Vegan", "Korean", "Seafood")

Message = dict[str, str]


@dataclass(frozen=True)
class Conversation:
    """Messages, and from which message on the loss counts."""

    messages: list[Message]
    learn_from: int


@dataclass
class Restaurants:
    """Human sentences by attribute list; `clean` holds those that say all of it and no more."""

    sentences: dict[str, list[str]] = field(default_factory=dict)
    clean: dict[str, list[str]] = field(default_factory=dict)

    def add(self, attributes: str, sentence: str) -> None:
        """File one human sentence."""
        found = coverage(parse_attributes(attributes), sentence)
        self.sentences.setdefault(attributes, []).append(sentence)
        if not found.missing and not found.invented:
            self.clean.setdefault(attributes, []).append(sentence)


def _tidy(sentence: str) -> str:
    text = re.sub(r"\s+", " ", sentence.strip())
    text = re.sub(r"\s+([,.])", r"\1", text)
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else text + "."


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def load_restaurants() -> tuple[Restaurants, Restaurants]:
    """Training and held-out restaurants; the held-out inputs all come from the test file."""
    rows: list[tuple[str, str, str]] = []
    for name in ("dev", "test"):
        with gzip.open(DATA / "e2e_restaurants" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as f:
            rows += [(name, row["mr"], _tidy(row["ref"])) for row in map(json.loads, f)]
    candidates = sorted({mr for name, mr, _ in rows if name == "test"}, key=_hash)
    held_out = set(candidates[:HELD_OUT_INPUTS])
    train, test = Restaurants(), Restaurants()
    for _, mr, ref in rows:
        (test if mr in held_out else train).add(mr, ref)
    return train, test


def load_stories() -> tuple[list[str], list[str]]:
    """Runs of consecutive paragraphs: (training, held out). One block of 20 in 40 is held out."""
    path = DATA / "fairy_tales" / "fairy_tales.txt.gz"
    with gzip.open(path, "rt", encoding="utf-8") as f:
        lines = [line.strip() for line in f]
    blocks = ["\n".join(lines[i : i + 20]) for i in range(0, len(lines), 20)]
    held_out = [b for i, b in enumerate(blocks) if i % 40 == 17]
    # One training text per uninterrupted run of blocks.
    train: list[str] = []
    run: list[str] = []
    for i, block in enumerate(blocks):
        if i % 40 == 17:
            train.append("\n".join(run))
            run = []
        else:
            run.append(block)
    return [*train, "\n".join(run)], held_out


def invented_names(stories: list[str], rng: random.Random, count: int = 600) -> list[str]:
    """Place names made of words of the stories, so that names are copied, not recalled."""
    words = sorted(set(re.findall(r"(?<=[a-z,] )[A-Z][a-z]{3,9}\b", " ".join(stories[::5]))))
    names = []
    for _ in range(count):
        first, second = rng.choice(words), rng.choice(words)
        names.append(rng.choice((f"The {first}", f"{first} {second}", f"{first} House", first)))
    return names


def _swap(text: str, old: str, new: str) -> str:
    bare = re.sub(r"^the ", "", old, flags=re.I)
    pattern = r"(?:\b[Tt]he )?(?<!\w)" + r"\W+".join(map(re.escape, bare.split())) + r"(?!\w)"
    return re.sub(pattern, lambda _: new, text, flags=re.I)


def _rename(
    attributes: str, sentences: list[str], names: list[str], rng: random.Random
) -> tuple[str, list[str]]:
    """Put other places (and another cuisine) into input and sentences alike."""
    slots = parse_attributes(attributes)
    changed = dict(slots)
    for slot in ("near", "name"):
        if slot in slots:
            changed[slot] = rng.choice(names)
    if len({changed.get("near"), changed["name"]}) == 1:
        return attributes, sentences
    if "food" in slots and rng.random() < 0.3 and slots["food"] != "Fast food":
        changed["food"] = rng.choice(EXTRA_FOODS)
    marks = {slot: f"\x00{i}\x00" for i, slot in enumerate(("near", "name", "food"))}
    out = []
    for text in sentences:
        for slot, mark in marks.items():
            if slots.get(slot) != changed.get(slot):
                text = _swap(text, slots[slot], mark)
        for slot, mark in marks.items():
            if slot in changed:
                text = text.replace(mark, changed[slot])
        out.append(_tidy(text))
    return format_attributes(changed), out


def restaurant_conversation(
    data: Restaurants, attributes: str, names: list[str], rng: random.Random
) -> Conversation:
    """One input with a clean human answer, or with an answer and a better one."""
    answer = rng.choice(data.clean[attributes])
    previous = rng.choice(data.sentences[attributes])
    prompt = attributes
    if rng.random() < 0.5:
        prompt, (answer, previous) = _rename(attributes, [answer, previous], names, rng)
    found = coverage(parse_attributes(prompt), answer)
    if found.missing or found.invented:  # the renaming broke the sentence
        return restaurant_conversation(data, attributes, names, rng)
    if rng.random() < 0.3:
        slots = list(parse_attributes(prompt).items())
        rng.shuffle(slots)
        prompt = format_attributes(dict(slots))
    messages = [{"role": "user", "content": prompt}]
    if rng.random() < 0.25 and previous != answer:
        instruction = IMPROVE if rng.random() < 0.6 else rng.choice(IMPROVE_VARIANTS)
        messages += [
            {"role": "assistant", "content": previous},
            {"role": "user", "content": instruction},
        ]
    messages.append({"role": "assistant", "content": answer})
    return Conversation(messages, learn_from=len(messages) - 1)


def story_conversation(text: str, rng: random.Random, characters: int = 1000) -> Conversation:
    """A passage, cut at a sentence: the first part asks, the rest answers. All of it is learnt."""
    start = rng.randrange(max(1, len(text) - characters))
    window = text[start : start + characters]
    window = re.split(r"(?<=[.!?\"])\s", window, maxsplit=1)[-1]  # begin at a sentence
    ends = [m.end() for m in re.finditer(r"[.!?]\"?(?=\s)", window)]
    if len(ends) < 3:
        return story_conversation(text, rng, characters)
    cut = rng.choice(ends[: max(1, len(ends) * 6 // 10)])
    prompt, answer = window[:cut].strip(), window[cut : ends[-1]].strip()
    return Conversation(
        [
            {"role": "user", "content": CONTINUE + prompt},
            {"role": "assistant", "content": answer},
        ],
        learn_from=0,
    )
