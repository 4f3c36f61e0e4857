"""Matrices from counts, margins, scores, ballots, annotators and records, entry by entry."""

import dataclasses
import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from equilign.errors import ConfigError, DataError, PolicyError, PreferenceMatrixError
from equilign.games import PreferenceGame
from equilign.games.build import wins_from_comparisons, wins_from_rankings
from tests.games.test_bradley_terry import DATA

SEEDED = settings(derandomize=True, deadline=None, max_examples=60)


# -- counts -------------------------------------------------------------------------------


def test_counts_become_shares():
    wins = np.array([[np.inf, 3.0, 0.0], [1.0, 9.0, 2.5], [0.0, 2.5, np.nan]])
    game = PreferenceGame.from_counts(wins, labels=("a", "b", "c"))
    np.testing.assert_array_equal(game.prefs, [[0.5, 0.75, 0.5], [0.25, 0.5, 0.5], [0.5, 0.5, 0.5]])
    assert game.names == ("a", "b", "c")
    assert np.isinf(wins[0, 0]), "the input is left alone, its diagonal not looked at"
    laplace = PreferenceGame.from_counts(wins, prior=1.0)
    np.testing.assert_allclose(laplace.prefs[0], [0.5, 4 / 6, 0.5])
    batch = PreferenceGame.from_counts(np.stack([wins, wins.T]))
    np.testing.assert_array_equal(batch.prefs[1], game.prefs.T)


def test_lists_and_whole_numbers_will_do(without_shape_checks):
    assert PreferenceGame.from_counts([[0, 3], [1, 0]], prior=1).prefs[0, 1] == 4 / 6
    assert PreferenceGame.from_margins([[0, 1], [-1, 0]], sure_win=2).prefs[0, 1] == 0.75
    assert PreferenceGame.from_scores([0, 0]).prefs[0, 1] == 0.5
    mixed = PreferenceGame.from_annotators([[[0.5, 1], [0, 0.5]]], weights=(2,))
    assert mixed.prefs[0, 1] == 1.0


@pytest.mark.parametrize(
    ("wins", "options", "error", "message"),
    [
        ([[0, -1], [1, 0]], {}, DataError, r"wins\[0, 1\] = -1.0; .* Use 0 for a pair"),
        ([[0, 1], [float("nan"), 0]], {}, DataError, r"wins\[1, 0\] = nan"),
        ([[0, 1, 2], [1, 0, 1]], {}, DataError, r"wins has shape \(2, 3\)"),
        ([["x", "y"], ["z", "w"]], {}, PreferenceMatrixError, "wins holds something that is no"),
        ([[0, 1], [1, 0]], {"prior": -1.0}, ConfigError, "prior = -1.0"),
        ([[0, 1], [1, 0]], {"missing": 0.3}, ConfigError, "missing = 0.3"),
        (
            [[0, 1, 0], [1, 0, 0], [0, 0, 0]],
            {"missing": None},
            DataError,
            r"players 0 and 2 were never compared \(2 such pairs\); pass missing=0.5",
        ),
        ([[0, 1], [1, 0]], {"labels": ("a",)}, DataError, "1 labels for 2 responses"),
    ],
)
def test_bad_counts_are_named(wins, options, error, message, without_shape_checks):
    with pytest.raises(error, match=message):
        PreferenceGame.from_counts(np.array(wins), **options)


def test_missing_pairs_name_their_game():
    wins = np.ones((3, 2, 2))
    wins[2] = 0.0
    with pytest.raises(DataError, match=r"players 0 and 1 were never compared in game 2"):
        PreferenceGame.from_counts(wins, missing=None)
    assert PreferenceGame.from_counts(wins, missing=None, prior=1e-3).prefs[2, 0, 1] == 0.5


# -- margins ------------------------------------------------------------------------------


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(1, 6), sure=st.sampled_from([0.5, 1.0, 17.0]))
def test_margins_and_games_are_two_names_of_one_thing(seed, size, sure):
    lower = np.tril(np.random.default_rng(seed).uniform(-1, 1, (size, size)), -1)
    margins = sure * (lower - lower.T)
    game = PreferenceGame.from_margins(margins, sure_win=sure)
    np.testing.assert_allclose(game.margin, margins / (2 * sure), atol=1e-15)
    back = PreferenceGame.from_margins(game.margin)
    np.testing.assert_array_equal(back.prefs, game.prefs)


@pytest.mark.parametrize(
    ("margins", "options", "error", "message"),
    [
        (
            [[0, 0.8], [-0.8, 0]],
            {},
            PreferenceMatrixError,
            r"margins\[0, 1\] = 0.8 is outside \[-0.5, 0.5\]; pass sure_win=1 if",
        ),
        (
            [[0, 9.0], [-9.0, 0]],
            {"sure_win": 5},
            PreferenceMatrixError,
            r"outside \[-5, 5\]; sure_win is the margin of a sure win",
        ),
        (
            [[0, 0.1], [0.1, 0]],
            {},
            PreferenceMatrixError,
            r"worst pair is \(0, 1\): 0.1 and 0.1. For win probabilities use PreferenceGame",
        ),
        ([[0.1]], {}, PreferenceMatrixError, r"worst pair is \(0, 0\)"),
        ([[0, float("nan")], [0, 0]], {}, PreferenceMatrixError, r"margins\[0, 1\] = nan"),
        ([0.0, 0.0], {}, PreferenceMatrixError, r"shape \(2,\)"),
        ([[0.0]], {"sure_win": 0.0}, ConfigError, "sure_win = 0.0"),
    ],
)
def test_bad_margins_are_named(margins, options, error, message, without_shape_checks):
    with pytest.raises(error, match=message):
        PreferenceGame.from_margins(np.array(margins), **options)


# -- scores and annotators ----------------------------------------------------------------


def test_scores():
    game = PreferenceGame.from_scores(np.array([2.0, 0.0, -1.0]), temperature=2.0, labels="abc")
    assert game.prefs[0, 2] == pytest.approx(expit(1.5))
    assert game.prefs[1, 0] == pytest.approx(expit(-1.0))
    batch = PreferenceGame.from_scores(np.array([[1.0, 0.0], [800.0, -800.0]]))
    assert batch.prefs[0, 0, 1] == pytest.approx(expit(1.0))
    assert batch.prefs[1, 0, 1] == 1.0
    for bad, options, error, message in (
        ([0.0, np.inf], {}, DataError, r"scores\[1\] = inf"),
        ([], {}, DataError, r"shape \(0,\)"),
        ([0.0], {"temperature": 0.0}, ConfigError, "temperature = 0.0"),
    ):
        with pytest.raises(error, match=message):
            PreferenceGame.from_scores(np.array(bad), **options)


def test_annotators_are_averaged():
    sure, unsure = np.array([[0.5, 1.0], [0.0, 0.5]]), np.array([[0.5, 0.4], [0.6, 0.5]])
    assert PreferenceGame.from_annotators([sure, unsure]).prefs[0, 1] == pytest.approx(0.7)
    weighted = PreferenceGame.from_annotators([sure, unsure], weights=[3, 1], labels=("a", "b"))
    assert weighted.prefs[0, 1] == pytest.approx(0.85)
    assert weighted.names == ("a", "b")


def test_bad_annotators_are_named(without_shape_checks):
    good = np.full((2, 2), 0.5)
    with pytest.raises(DataError, match="no annotators"):
        PreferenceGame.from_annotators([])
    with pytest.raises(DataError, match=r"annotator 1 has a matrix of shape \(3, 3\)"):
        PreferenceGame.from_annotators([good, np.full((3, 3), 0.5)])
    with pytest.raises(PreferenceMatrixError, match=r"annotator 1: .*\(0, 0\): 0.9 \+ 0.9"):
        PreferenceGame.from_annotators([good, np.full((2, 2), 0.9)])
    for weights, message in (
        ([1.0], r"weights has shape \(1,\); one per annotator"),
        ([1.0, -1.0], r"weights\[1\] = -1.0"),
        ([0.0, 0.0], "all weights are zero"),
    ):
        with pytest.raises(PolicyError, match=message):
            PreferenceGame.from_annotators([good, good], weights=weights)


# -- ballots ------------------------------------------------------------------------------


def test_full_ballots():
    """Condorcet's own: three voters, a cycle."""
    game = PreferenceGame.from_rankings([("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b")])
    assert game.names == ("a", "b", "c")
    third = 1 / 3
    np.testing.assert_allclose(
        game.prefs, [[0.5, 2 * third, third], [third, 0.5, 2 * third], [2 * third, third, 0.5]]
    )
    weighted = PreferenceGame.from_rankings([("a", "b"), ("b", "a")], weights=[3, 1])
    assert weighted.prefs[0, 1] == 0.75


@pytest.mark.parametrize(
    ("unranked", "pair_cd", "pair_ac"),
    [("last", (0.5, 0.5), (1.0, 0.0)), ("uncounted", (0, 0), (1, 0)), ("unknown", (0, 0), (0, 0))],
)
def test_ballots_that_leave_some_out(unranked, pair_cd, pair_ac):
    wins, labels = wins_from_rankings(
        [[("a", "b")]], labels=("a", "b", "c", "d"), unranked=unranked
    )
    assert labels == ("a", "b", "c", "d")
    assert (wins[0, 1], wins[1, 0]) == (0.5, 0.5), "tied on the ballot"
    assert (wins[2, 3], wins[3, 2]) == pair_cd
    assert (wins[0, 2], wins[2, 0]) == pair_ac
    assert (np.diag(wins) == 0.0).all()
    game = PreferenceGame.from_rankings(
        [[["a", "b"]], ["c"]], labels=("a", "b", "c", "d"), unranked=unranked
    )
    assert game.prefs[0, 2] == 0.5


@SEEDED
@given(data=st.data(), unranked=st.sampled_from(["last", "uncounted", "unknown"]))
def test_ballots_against_pair_by_pair_counting(data, unranked):
    names = ["a", "b", "c", "d"]
    ballots, weights = [], []
    for _ in range(data.draw(st.integers(1, 5))):
        order = data.draw(st.permutations(names))[: data.draw(st.integers(0, 4))]
        groups, rest = [], list(order)
        while rest:
            k = data.draw(st.integers(1, len(rest)))
            groups.append(rest[0] if k == 1 else tuple(rest[:k]))
            rest = rest[k:]
        ballots.append(groups)
        weights.append(data.draw(st.integers(1, 4)))
    wins, _ = wins_from_rankings(ballots, weights, labels=names, unranked=unranked)
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            want = 0.0
            for ballot, weight in zip(ballots, weights, strict=True):
                place = {x: r for r, g in enumerate(ballot) for x in (g if len(g) > 1 else (g,))}
                if a == b or (unranked == "unknown" and not {a, b} <= set(place)):
                    continue
                if unranked == "uncounted" and a not in place and b not in place:
                    continue
                ra, rb = place.get(a, 99), place.get(b, 99)
                want += weight * (1.0 if ra < rb else 0.5 if ra == rb else 0.0)
            assert wins[i, j] == pytest.approx(want, abs=1e-12)


def test_the_minneapolis_ballots_give_the_recorded_table():
    file = np.load(DATA / "minneapolis2013" / "game.npz")
    names = [str(x) for x in file["names"]]
    with gzip.open(DATA / "minneapolis2013" / "ballots.csv.gz", "rt", encoding="utf-8") as lines:
        rows = [line.strip().split(",") for line in lines][1:]
    ballots = [[names[int(i)] for i in row[1:] if i] for row in rows]
    wins, labels = wins_from_rankings(
        ballots, [int(row[0]) for row in rows], labels=names, unranked="uncounted"
    )
    assert list(labels) == names
    np.testing.assert_allclose(wins, file["wins"], atol=1e-6)


def test_the_debian_ballots_give_the_recorded_tables():
    """Character k of a vote is the rank of option k; ``-`` is unranked, below every ranked one."""
    elections = json.loads((DATA / "debian_dpl" / "ballots.json").read_text(encoding="utf-8"))
    for election in elections:
        names, rankings = election["options"], []
        for vote in election["ballots"]:
            ranks = sorted({r for r in vote if r != "-"})
            rankings.append(
                [[n for n, r in zip(names, vote, strict=True) if r == rank] for rank in ranks]
            )
        file = np.load(DATA / "debian_dpl" / str(election["year"]) / "game.npz")
        wins, labels = wins_from_rankings(
            rankings, list(election["ballots"].values()), labels=names
        )
        order = [labels.index(str(x)) for x in file["names"]]
        np.testing.assert_allclose(wins[np.ix_(order, order)], file["wins"], atol=1e-9)


@pytest.mark.parametrize(
    ("rankings", "options", "error", "message"),
    [
        ([], {}, DataError, "no rankings"),
        ([("a", "b"), "ab"], {}, DataError, "ballot 1 is the text 'ab'"),
        ([("a", "b", "a")], {}, DataError, "ballot 0 ranks 'a' twice"),
        ([("a", ("b", "a"))], {}, DataError, "ballot 0 ranks 'a' twice"),
        ([("a", 3)], {}, DataError, "ballot 0 names 3"),
        ([("a", "")], {}, DataError, "ballot 0 names ''"),
        ([("a",), ("x",)], {"labels": ("a", "b")}, DataError, "ballot 1 names 'x'.*are: a, b"),
        ([("a", "b")], {"unranked": "first"}, ConfigError, "'first'; there are: last, uncounted"),
        ([("a", "b")], {"weights": [1.0, 2.0]}, PolicyError, "one per ballot"),
        ([("a", "b")], {"weights": [-2.0]}, PolicyError, r"weights\[0\] = -2.0"),
    ],
)
def test_bad_ballots_are_named(rankings, options, error, message, without_shape_checks):
    with pytest.raises(error, match=message):
        PreferenceGame.from_rankings(rankings, **options)


# -- records ------------------------------------------------------------------------------


def test_records():
    records = iter(
        [("a", "b"), ["a", "b", 2], ("b", "a", 1.0), ("c", "a", 4, 0.5), ("a", "c", 1, 0.9)]
    )
    wins, labels = wins_from_comparisons(records)
    assert labels == ("a", "b", "c")
    np.testing.assert_allclose(wins, [[0, 3, 2.9], [1, 0, 0], [2.1, 0, 0]])
    game = PreferenceGame.from_comparisons([("a", "b"), ("b", "c")], labels=("c", "b", "a"))
    np.testing.assert_array_equal(game.prefs, [[0.5, 0, 0.5], [1, 0.5, 0], [0.5, 1, 0.5]])
    with pytest.raises(DataError, match="players 0 and 2 were never compared"):
        PreferenceGame.from_comparisons([("a", "b"), ("b", "c")], missing=None)
    smooth = PreferenceGame.from_comparisons([("a", "b")], prior=1.0)
    assert smooth.prefs[0, 1] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("ab", "record 1 is 'ab'; needed: "),
        (("a",), r"record 1 is \('a',\); needed: \(winner, loser\)"),
        (("a", "b", 1, 1, 1), "record 1 is"),
        (7, "record 1 is 7"),
        (("a", "a"), "record 1 compares 'a' with itself"),
        (("a", None), "record 1 names None"),
        (("a", "b", "tie"), "record 1 has 'tie' where a number belongs"),
        (("a", "b", True), "record 1 has True where a number belongs"),
        (("a", "b", -1), "record 1 has weight -1.0"),
        (("a", "b", 1, 1.5), "share of 1.5; it must be in .* 0.5 for a tie"),
        (("a", "b", float("nan")), "record 1 has weight nan"),
    ],
)
def test_bad_records_are_named(record, message, without_shape_checks):
    with pytest.raises(DataError, match=message):
        PreferenceGame.from_comparisons([("a", "b"), record])


def test_no_records_and_unknown_labels():
    with pytest.raises(DataError, match="no comparisons"):
        PreferenceGame.from_comparisons([])
    with pytest.raises(DataError, match="record 0 names 'x', which is no label; there are: a, b"):
        PreferenceGame.from_comparisons([("x", "b")], labels=("a", "b"))


def test_a_constructed_game_takes_a_reference_afterwards():
    game = PreferenceGame.from_scores(np.array([1.0, 0.0]))
    leaning = dataclasses.replace(game, ref=np.array([0.2, 0.8]), beta=0.3)
    assert leaning.beta == 0.3
    np.testing.assert_array_equal(leaning.prefs, game.prefs)
