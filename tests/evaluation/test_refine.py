"""Chains of a Leader's answer and its improvements: semantics, and exact games."""

from itertools import product

import numpy as np
import pytest

from equilign.errors import ConfigError, DataError
from equilign.evaluation.refine import (
    Chain,
    Refiner,
    chain_games,
    picks,
    standing,
    wins_over_leader,
)
from equilign.games import PreferenceGame, follower_policy, refine
from equilign.oracles.tabular import TabularOracle
from equilign.rollout import Completion, Group
from equilign.rollout.follower import FollowerPrompt

FORM = FollowerPrompt("better", "{prompt}|{answer}")
TEXTS = ("A", "B", "C")
CYCLE = np.array([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])
"""A beats B beats C beats A."""


def completion(text, finished=True):
    return Completion((1,), text, finished)


def group(prompt, *texts):
    return Group(prompt, (7,), tuple(map(completion, texts)))


class Telling:
    """Answers with what it was asked, and by which seed; remembers every call."""

    def __init__(self):
        self.calls = []

    def sample(self, prompts, num_samples, seed):
        self.calls.append((list(prompts), num_samples, seed))
        return [group(p, f"{p.rpartition('|')[2]}+{seed % 97}.{i}") for i, p in enumerate(prompts)]


class Replying:
    """A Follower by table: answers to answer ``i`` are drawn from row ``i``."""

    def __init__(self, rows):
        self.rows = np.asarray(rows)

    def sample(self, prompts, num_samples, seed):
        generator = np.random.default_rng(seed)
        shown = [TEXTS.index(p.rpartition("|")[2]) for p in prompts]
        below = np.cumsum(self.rows[shown], axis=1)
        drawn = (generator.random((len(shown), 1)) > below).sum(axis=1)
        return [group(p, TEXTS[i]) for p, i in zip(prompts, drawn, strict=True)]


# -- chains ---------------------------------------------------------------------------------


def test_each_round_shows_the_answer_before_and_keeps_the_prompt():
    follower = Telling()
    chains = Refiner(follower, FORM).chain([group("x", "a", "b"), group("y", "c")], 2, seed=3)
    assert [len(row) for row in chains] == [2, 1]
    assert [row[0].prompt for row in chains] == ["x", "y"]
    first, second = follower.calls
    assert first[0] == ["x|a", "x|b", "y|c"]
    assert first[1] == 1
    (one, other), (last,) = chains
    assert [c.texts[0] for c in (one, other, last)] == ["a", "b", "c"]
    assert second[0] == [f"{c.prompt}|{c.texts[1]}" for c in (one, other, last)]
    assert last.texts == ("c", last.texts[1], f"{last.texts[1]}+{second[2] % 97}.2")
    assert {c.rounds for c in (one, other, last)} == {2}


def test_shorter_chains_begin_longer_ones_and_seeds_differ():
    led = [group("x", "a", "b"), group("y", "c")]
    follower = Telling()
    refiner = Refiner(follower, FORM)
    long = refiner.chain(led, 4, seed=5)
    assert len({seed for _, _, seed in follower.calls}) == 4, "every round has its own seed"
    for rounds in range(4):
        short = refiner.chain(led, rounds, seed=5)
        cut = [[c.answers[: rounds + 1] for c in row] for row in long]
        assert [[c.answers for c in row] for row in short] == cut
    other = refiner.chain(led, 4, seed=6)
    assert other[0][0].texts[1] != long[0][0].texts[1]
    with pytest.raises(ConfigError, match="rounds = -1"):
        refiner.chain(led, -1, seed=0)


def test_no_group_and_no_answer_ask_nobody():
    follower = Telling()
    assert Refiner(follower, FORM).chain([], 3, seed=0) == []
    assert Refiner(follower, FORM).chain([Group("x", (), ())], 3, seed=0) == [()]
    assert follower.calls == []


def test_a_chain_that_cannot_be_shown_stays_and_says_since_when():
    follower = Telling()
    refiner = Refiner(follower, FORM, fits=lambda p: len(p) < 5 and not p.startswith("no"))
    (a,), (b,) = refiner.chain([group("x", "a"), group("no", "b")], 3, seed=0)
    assert b.texts == ("b", "b", "b", "b")
    assert b.stopped == 1
    assert a.texts[0] == "a"
    assert a.texts[1] != a.texts[0]
    # The first improvement already made it too long; it is not asked about again.
    assert a.texts[1] == a.texts[2] == a.texts[3]
    assert a.stopped == 2
    assert [c[0] for c in follower.calls] == [["x|a"]]


def test_a_stopped_chain_is_not_asked_again_even_if_it_would_fit():
    follower = Telling()
    chain = Chain("x", (completion("a"),)).stay()
    assert chain.stopped == 1
    (found,) = Refiner(follower, FORM).step([chain], seed=0)
    assert found.stopped == 1
    assert found.texts == ("a", "a", "a")
    assert follower.calls == []


def test_what_the_sampler_raises_is_raised_without_a_rule_for_what_fits():
    class Strict:
        def sample(self, prompts, num_samples, seed):
            raise DataError("prompt 0 is too long")

    with pytest.raises(DataError, match="too long"):
        Refiner(Strict(), FORM).chain([group("x", "a")], 1, seed=0)


def test_standing_answers_by_round():
    chains = Refiner(Telling(), FORM).chain([group("x", "a", "b"), group("y", "c")], 1, seed=0)
    assert [g.prompt for g in standing(chains, 0)] == ["x", "y"]
    assert [[c.text for c in g.completions] for g in standing(chains, 0)] == [["a", "b"], ["c"]]
    assert standing(chains, 1)[1].completions[0].text == chains[1][0].texts[1]


# -- exact games ----------------------------------------------------------------------------


def test_three_answers_visit_a_whole_cycle():
    """Follower = the unregularised Stackelberg follower: the answer that beats what it is shown."""
    rows = follower_policy(PreferenceGame(CYCLE), beta_follower=0.0)
    rows = np.asarray(rows).reshape(3, 3)
    assert rows.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    refiner = Refiner(Replying(rows), FORM)
    for chain in (row[0] for row in refiner.chain([group("x", t) for t in TEXTS], 3, seed=0)):
        assert set(chain.texts[:3]) == set(TEXTS)
        assert chain.texts[3] == chain.texts[0], "and then it begins again"
        wins = wins_over_leader(TabularOracle(TEXTS, CYCLE), [chain])
        assert wins[0] == pytest.approx([0.9, 0.1, 0.5])


def test_a_random_annotators_favourite_by_refinement_and_by_sampling():
    """1/3, 2/3, 1 against 1 - (2/3)^N: enumerated, and played through the Refiner."""
    rows = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=float)
    exact_chain, exact_sample = [], []
    for n in (1, 2, 3):
        hits = [
            favourite in {(start - k) % 3 for k in range(n)}
            for start, favourite in product(range(3), repeat=2)
        ]
        exact_chain.append(np.mean(hits))
        drawn = [f in s for *s, f in product(range(3), repeat=n + 1)]
        exact_sample.append(np.mean(drawn))
    assert exact_chain == pytest.approx([1 / 3, 2 / 3, 1])
    assert exact_sample == pytest.approx([1 - (2 / 3) ** n for n in (1, 2, 3)])

    count = 6000
    generator = np.random.default_rng(0)
    favourites = generator.integers(3, size=count)
    led = [group(f"p{i}", TEXTS[k]) for i, k in enumerate(generator.integers(3, size=count))]
    chains = Refiner(Replying(rows), FORM).chain(led, 2, seed=1)
    alone = [
        [TEXTS.index(row[0].texts[0]) for row in Refiner(uniform(), FORM).chain(led, 0, 0)],
        *([TEXTS.index(g.completions[0].text) for g in uniform().sample(asked(count), 1, s)]
          for s in (1, 2)),
    ]  # fmt: skip
    for n in (1, 2, 3):
        hit = [TEXTS[f] in row[0].texts[:n] for f, row in zip(favourites, chains, strict=True)]
        independent = (np.array(alone[:n]) == favourites).any(axis=0)
        # Three standard errors.
        assert np.mean(hit) == pytest.approx(exact_chain[n - 1], abs=3 * 0.5 / count**0.5)
        assert independent.mean() == pytest.approx(exact_sample[n - 1], abs=3 * 0.5 / count**0.5)
    assert all(set(row[0].texts) == set(TEXTS) for row in chains)


def uniform():
    return Replying(np.full((3, 3), 1 / 3))


def asked(count):
    return ["p|A"] * count


def test_rounds_have_the_law_of_the_matrix_half():
    game = np.array([[0.5, 0.8, 0.3], [0.2, 0.5, 0.9], [0.7, 0.1, 0.5]])
    rows = np.asarray(follower_policy(PreferenceGame(game), beta_follower=0.2)).reshape(3, 3)
    leader = np.array([0.7, 0.2, 0.1])
    law = refine(leader, rows, rounds=4)
    count = 8000
    starts = np.random.default_rng(3).choice(3, size=count, p=leader)
    chains = Refiner(Replying(rows), FORM).chain([group("x", TEXTS[k]) for k in starts], 3, 2)
    for number in range(4):
        texts = [row[0].texts[number] for row in chains]
        shares = [texts.count(t) / count for t in TEXTS]
        assert shares == pytest.approx(law[number].tolist(), abs=4 * 0.5 / count**0.5)
    assert np.abs(law[3] - leader).max() > 0.1, "or the test would see nothing"


# -- verdicts -------------------------------------------------------------------------------


class Asked:
    """Counts what it is asked; has no verdict on pairs with a text that ends in '?'."""

    abstains = True

    def __init__(self):
        self.pairs = []

    def compare(self, prompts, a, b):
        rows = list(zip(prompts, a, b, strict=True))
        self.pairs += rows
        return np.array(
            [np.nan if (y + z).count("?") else len(y) / (len(y) + len(z)) for _, y, z in rows]
        )


def test_wins_over_the_leader_are_paired_with_the_own_beginning():
    chains = [
        Chain([{"role": "user", "content": "q"}], tuple(map(completion, ("a", "bbb", "a")))),
        Chain("r", tuple(map(completion, ("cc", "c?", "cccc")))),
    ]
    oracle = Asked()
    first, second = wins_over_leader(oracle, chains)
    assert first == pytest.approx([0.75, 0.5])
    assert np.isnan(second[0])
    assert second[1] == pytest.approx(4 / 6)
    # Both orders of three pairs; equal texts are not asked; the prompt is plain text.
    assert len(oracle.pairs) == 6
    assert ("q", "bbb", "a") in oracle.pairs
    assert wins_over_leader(oracle, []) == []


def test_the_pick_is_the_best_of_the_chain():
    chains = [
        Chain("x", tuple(map(completion, ("aa", "aaaa", "a")))),
        Chain("x", tuple(map(completion, ("?", "b?", "a?")))),
    ]
    games = chain_games(Asked(), chains)
    assert games[0][1, 0] == pytest.approx(4 / 6)
    assert np.allclose(games[0] + games[0].T, 1.0)
    assert picks(Asked(), chains) == [1, None]
