"""Word Collector, Constrained Word Collector, Unique Nouns: what counts, and as specifications."""

import gzip
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from equilign.errors import ConfigError
from equilign.models import load_tokenizer
from equilign.oracles.base import CallableOracle, ScoredOracle
from equilign.oracles.build import build_oracle
from equilign.tasks.oracles import TASK_ORACLES
from equilign.tasks.stories import story_prompts
from equilign.tasks.tagger import PerceptronTagger, shipped_tagger, split_tokens
from equilign.tasks.unique_nouns import UniqueNouns
from equilign.tasks.utilities import ProspectOracle
from equilign.tasks.word_collector import WordCollector, target_words, words_of

ROOT = Path(__file__).parents[2]


def make(spec):
    return build_oracle(spec, Path(), TASK_ORACLES)


# -- word collector -------------------------------------------------------------------------


def test_each_target_word_counts_once_and_whole():
    task = WordCollector(["Code", "list", "don't"])
    texts = ["code CODE code", "a list of codes", "don't list code.", "listing", ""]
    np.testing.assert_array_equal(task.score(["x"] * 5, texts), [1, 1, 3, 0, 0])


def test_constrained_counts_no_word_of_the_prompt():
    task = WordCollector(["code", "list"], constrained=True)
    found = task.score(["write CODE", "write"], ["code and a list"] * 2)
    np.testing.assert_array_equal(found, [1, 2])


def test_target_words_are_thirty_of_the_instructions():
    words = target_words()
    assert len(words) == len(set(words)) == 30
    with gzip.open(ROOT / "data" / "prompts" / "prompts.jsonl.gz", "rt", encoding="utf-8") as f:
        prompts = [json.loads(line)["prompt"] for line in f]
    held = json.loads(
        (ROOT / "src/equilign/assets/word_collector/words.json").read_text(encoding="utf-8")
    )
    assert held["prompts"] == len(prompts) == 1392
    for word, count in held["words"].items():
        assert count <= sum(word in words_of(p) for p in prompts) <= 2 * count + 5, word
    assert list(held["words"].values()) == sorted(held["words"].values(), reverse=True)


def test_a_vocabulary_that_lacks_a_word_is_named():
    WordCollector().check_tokenizer(load_tokenizer("shipped"))
    from tests.enumerable import tiny_tokenizer

    with pytest.raises(ConfigError, match=r"cannot write 1 of the 2 target words: list;"):
        WordCollector(["a", "list"]).check_tokenizer(tiny_tokenizer())


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "at least one"), (["two words"], "'two words'"), (["x1"], "'x1'"), ("code", "a list")],
)
def test_words_that_cannot_be_found_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        WordCollector(words)


def test_choices_are_quantal_in_the_utility():
    task = WordCollector(["code", "list"], rationality=2.0)
    args = (["x"] * 3, ["code list", "code", ""], ["", "list", "code"])
    expected = [1 / (1 + math.exp(-4.0)), 0.5, 1 / (1 + math.exp(2.0))]
    np.testing.assert_allclose(task.compare(*args), expected)
    sure = WordCollector(["code", "list"], rationality=math.inf)
    np.testing.assert_array_equal(sure.compare(*args), [1.0, 0.5, 0.0])
    assert isinstance(task, ScoredOracle)


# -- unique nouns ---------------------------------------------------------------------------


def test_nouns_are_counted_once_whatever_their_case():
    task = UniqueNouns()
    text = "The king saw the King's daughter. She didn't see John in 1999!"
    assert task.nouns(text) == {"king", "daughter", "john"}
    assert task.score(["x", "x"], [text, ""]).tolist() == [3.0, 0.0]


def test_tokens_are_split_the_treebanks_way():
    found = split_tokens("It's a well-known fact: don't pay 3.50, John's café!")
    assert found == ["It", "'s", "a", "well-known", "fact", ":", "do", "n't", "pay", "3.50", ",",
                     "John", "'s", "café", "!"]  # fmt: skip


def test_the_shipped_tagger_is_as_good_as_it_says():
    sys.path.insert(0, str(ROOT / "recipes" / "sta_tasks"))
    try:
        from tagger import measure
    finally:
        sys.path.pop(0)
    found = measure(shipped_tagger())
    assert found["accuracy"] == pytest.approx(0.9350, abs=1e-4)
    assert found["noun_precision"] == pytest.approx(0.9435, abs=1e-4)
    assert found["noun_recall"] == pytest.approx(0.9548, abs=1e-4)
    assert found["unique_nouns_error"] == pytest.approx(0.459, abs=1e-3)
    assert measure(PerceptronTagger({}, {}))["accuracy"] < 0.3, "everything a noun"


def test_nltk_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(ConfigError, match="NLTK is not installed"):
        UniqueNouns("nltk")
    fake = type(sys)("nltk")

    def no_data(tokens):
        raise LookupError("averaged_perceptron_tagger_eng")

    fake.pos_tag = no_data
    monkeypatch.setitem(sys.modules, "nltk", fake)
    with pytest.raises(ConfigError, match=r"nltk\.downloader"):
        UniqueNouns("nltk")
    fake.pos_tag = lambda tokens: [(t, "NNS" if t == "dogs" else "DT") for t in tokens]
    assert UniqueNouns("nltk").nouns("the dogs") == {"dogs"}
    with pytest.raises(ConfigError, match="tagger = 'spacy'"):
        UniqueNouns("spacy")


# -- prospect theory ------------------------------------------------------------------------


def test_losses_loom_larger_than_gains():
    of = WordCollector(["a", "b", "c", "d"])
    felt = ProspectOracle(of, reference=2.0)
    texts = ["a b c d", "a b", ""]
    expected = [2.0**0.88, 0.0, -2.25 * 2.0**0.88]
    np.testing.assert_allclose(felt.score(["x"] * 3, texts), expected)
    plain = ProspectOracle(of, reference=2.0, curvature=1.0, loss_aversion=1.0)
    np.testing.assert_allclose(
        plain.compare(["x"] * 2, texts[:2], texts[1:]), of.compare(["x"] * 2, texts[:2], texts[1:])
    )
    with pytest.raises(ConfigError, match="curvature = 0"):
        ProspectOracle(of, curvature=0.0)
    with pytest.raises(ConfigError, match="CallableOracle only compares"):
        ProspectOracle(CallableOracle(lambda x, a, b: 0.5))
    with pytest.raises(ConfigError, match="loss_aversion"):
        ProspectOracle(of, loss_aversion=-1.0)


# -- specifications -------------------------------------------------------------------------


def test_every_kind_is_built_from_a_specification():
    assert make({"kind": "word-collector"}).words == frozenset(target_words())
    assert make({"kind": "constrained-word-collector", "words": ["code"]}).constrained
    assert make({"kind": "unique-nouns", "rationality": 3}).rationality == 3.0
    made = make({"kind": "prospect", "of": {"kind": "unique-nouns"}, "reference": 5})
    assert isinstance(made.of, UniqueNouns)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "word-collector", "word": ["x"]}, "no option 'word'; it has words, rationality"),
        ({"kind": "word-collector", "words": "x"}, "give a list of words"),
        ({"kind": "word-collector", "rationality": "much"}, "it must be a number"),
        ({"kind": "unique-nouns", "rationality": 0}, "must be > 0"),
        ({"kind": "prospect"}, "needs 'of'"),
    ],
)
def test_bad_specifications_say_what_is_wrong(spec, message):
    with pytest.raises(ConfigError, match=message):
        make(spec)


def test_the_stories_are_new_to_the_shipped_model():
    align, evaluate = story_prompts("align"), story_prompts("evaluate")
    assert (len(align), len(evaluate)) == (272, 128)
    texts = [p[0]["content"] for p in (*align, *evaluate)]
    assert len(set(texts)) == 400
    assert all(t.startswith("Continue the story: ") for t in texts)
    with pytest.raises(ConfigError, match="no split 'test'"):
        story_prompts("test")


@pytest.mark.slow
def test_no_story_is_in_the_training_data():
    sys.path.insert(0, str(ROOT / "recipes" / "shipped_model"))
    try:
        import corpus
    finally:
        sys.path.pop(0)
    train, _ = corpus.load_stories()
    whole = "\n".join(train)
    texts = [p[0]["content"] for s in ("align", "evaluate") for p in story_prompts(s)]
    assert not [t for t in texts if t.removeprefix(corpus.CONTINUE) in whole]
