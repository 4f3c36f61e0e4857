"""The shipped reward heads punish broken descriptions, bear odd text and refuse broken files."""

import functools
import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest

from equilign.errors import DataError
from equilign.oracles.reward_heads import SHIPPED, load_reward_heads
from equilign.oracles.slot_matching import prompt_slots

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("informativeness", "naturalness", "quality")
MILL = "name[The Mill], eatType[pub], food[Chinese], area[riverside]"
GOOD = "The Mill is a pub that serves Chinese food by the riverside."


@pytest.fixture(scope="module")
def heads():
    return load_reward_heads()


# ---- use on text of the kind it is shipped for -------------------------------------------------


@functools.cache
def e2e_pairs():
    """One human sentence for each of 400 held-out meaning representations."""
    path = ROOT / "data" / "text" / "e2e_restaurants" / "test.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    first = {row["mr"]: row["ref"] for row in reversed(rows)}
    return sorted(first.items())[:400]


def drop_half(prompt, words, rng):
    return [words[i] for i in sorted(rng.sample(range(len(words)), len(words) // 2))]


def shuffle(prompt, words, rng):
    return rng.sample(words, len(words))


def repeat_value(prompt, words, rng):
    spoken = [v for s, v in prompt_slots(prompt).items() if s != "familyFriendly"]
    return [*words, *[rng.choice(spoken)] * 10]


def only_values(prompt, words, rng):
    return [", ".join(prompt_slots(prompt).values())]


def nothing(prompt, words, rng):
    return []


def another(prompt, words, rng):
    return rng.choice(e2e_pairs())[1].rstrip(" .").split()


# Share of human sentences scored above their ruin when this was written, in the order of NAMES;
# the test asks for a little less.
MEASURED = {
    drop_half: (0.9725, 0.89, 0.8675),
    shuffle: (0.9875, 0.9575, 0.9775),
    repeat_value: (1.0, 1.0, 1.0),
    only_values: (0.905, 0.7525, 0.6625),
    nothing: (1.0, 1.0, 1.0),
    another: (0.98, 0.945, 0.9625),
}


@pytest.mark.parametrize("ruin", MEASURED, ids=lambda f: f.__name__)
def test_human_sentences_beat_their_ruins(ruin, heads):
    rng = random.Random(7)
    prompts, human = zip(*e2e_pairs(), strict=True)
    ruined = []
    for prompt, sentence in zip(prompts, human, strict=True):
        words = ruin(prompt, sentence.rstrip(" .").split(), rng)
        ruined.append(" ".join(words) + "." if words else "")
    for name, measured in zip(NAMES, MEASURED[ruin], strict=True):
        share = np.mean(heads[name].score(prompts, human) > heads[name].score(prompts, ruined))
        assert share >= measured - 0.03
        assert share > 0.6


def test_more_requested_values_are_worth_more(heads):
    with_all = "The Mill is a pub that serves Chinese food in the riverside area."
    without = "The Mill is a pub that serves Chinese food in the area."
    for head in heads.values():
        better, worse = head.score([MILL] * 2, [with_all, without])
        assert better > worse


# ---- robustness --------------------------------------------------------------------------------

ODD = [
    "",
    " ",
    "\x00\x1b[31m\u202e",
    "\ud800",
    "!!!???...",
    "((((",
    "a" * 10_000,
    "the " * 10_000,
    ", " * 10_000,
    "Ⅷ²" * 50,
    "\ufdfa" * 2_000,
    "北京饭店",
    "<name> <end>",
    "🍕" * 30,
    "name[",
    "[]",
    "'" * 99,
]


@pytest.mark.parametrize("prompt", [MILL, *ODD, "Tell me a story.", "name[], near[the], x y_z[a]"])
def test_odd_text_gives_finite_scores(prompt, heads):
    for head in heads.values():
        scores = head.score([prompt] * len(ODD), ODD)
        assert scores.shape == (len(ODD),)
        assert scores.dtype == np.float64
        assert np.isfinite(scores).all()


def test_gibberish_loses_under_any_prompt(heads):
    for prompt in (MILL, "Tell me about a pub."):
        for head in heads.values():
            good, *bad = head.score(
                [prompt] * 4, [GOOD, "", "xkq wzzt grfl pqd.", "the the the the the the."]
            )
            assert good > max(bad)


def test_scores_do_not_depend_on_company_or_repetition(heads):
    answers = [GOOD, "pub", "", GOOD]
    again = load_reward_heads()
    for name, head in heads.items():
        scores = head.score([MILL] * 4, answers)
        assert scores[0] == scores[3]
        singles = [again[name].score([MILL], [answer])[0] for answer in answers]
        assert scores.tolist() == singles
        assert head.score([], []).shape == (0,)
        with pytest.raises(ValueError, match="zip"):
            head.score([MILL], [])


@pytest.mark.parametrize(
    "ruin",
    [
        lambda text: text[:1000],
        lambda text: text.replace('"format": 1', '"format": 9'),
        lambda text: text.replace('"missing"', '"misplaced"'),
        lambda text: text.replace('"missing": ', '"missing": -'),
        lambda text: text.replace('"missing": ', '"missing": 1e999'),
        lambda text: text.replace('"phrases": [', '"phrases": ["zzz",'),
        lambda text: text.replace('"oddness": [', '"oddness": ["00",'),
        lambda text: "[]",
        lambda text: "",
    ],
)
def test_a_broken_file_is_refused_with_its_name_and_the_cure(ruin, tmp_path):
    path = tmp_path / "heads.json"
    path.write_text(ruin(SHIPPED.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(DataError, match=r"heads\.json.*train\.py"):
        load_reward_heads(path)
    assert issubclass(DataError, ValueError)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.json"):
        load_reward_heads(tmp_path / "nowhere.json")
