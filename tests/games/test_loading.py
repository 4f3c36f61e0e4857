"""Games from files: the same matrix whatever it is written as, and messages when it is none."""

import gzip
import json
import os

import numpy as np
import pytest

from equilign.errors import ConfigError, DataError, EquilignError, PolicyError
from equilign.games.loading import load_data, load_game, read_policy
from equilign.games.measures import condorcet_winner, cyclic_triples
from equilign.games.voting import smith_set, weak_condorcet_winners
from tests.games.real_games import EXPECTED, FOLDER, NAMES, real

PREFS = np.array([[0.5, 0.7, 0.2], [0.3, 0.5, 0.6], [0.8, 0.4, 0.5]])
LABELS = ("first", "the second", "third")
ROWS = "0.5,0.7,0.2\n0.3,0.5,0.6\n0.8,0.4,0.5\n"


@pytest.mark.parametrize(
    ("name", "content", "labels"),
    [
        ("g.csv", ROWS, None),
        ("g.csv", "first,the second,third\n" + ROWS, LABELS),
        ("g.csv", "first,0.5,0.7,0.2\nthe second,.3,.5,.6\nthird,8e-1,0.4,0.5\n", LABELS),
        (
            "g.csv",
            ",first,the second,third\nfirst,0.5,0.7,0.2\nthe second,.3,.5,.6\nthird,.8,.4,.5\n",
            LABELS,
        ),
        ("g.csv", ROWS.replace(",", ";"), None),
        ("g.csv", "0,1,2\n" + ROWS, None),
        ("g.csv", ",0,1,2\n0,0.5,0.7,0.2\n1,.3,.5,.6\n2,.8,.4,.5\n", None),
        ("g.csv", "\n" + ROWS.replace("\n", "\r\n") + "\n\n", None),
        ("g.json", json.dumps(PREFS.tolist()), None),
        ("g.json", json.dumps({"labels": LABELS, "prefs": PREFS.tolist()}), LABELS),
        ("g.json", json.dumps({"margin": (2 * PREFS - 1).tolist()}), None),
        ("g.json", json.dumps({"names": LABELS, "wins": (10 * PREFS).tolist()}), LABELS),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_one_matrix_in_every_form(tmp_path, name, content, labels, zipped):
    path = tmp_path / (name + ".gz" * zipped)
    path.write_bytes(gzip.compress(content.encode()) if zipped else content.encode())
    game = load_game(path)
    np.testing.assert_allclose(game.prefs, PREFS, atol=1e-15)
    assert game.names == (labels or ("0", "1", "2"))


def test_archives(tmp_path):
    path = tmp_path / "g.npz"
    wins = np.round(10 * PREFS) * (1 - np.eye(3))
    np.savez(path, prefs=PREFS, labels=LABELS)
    np.testing.assert_allclose(load_game(path).prefs, PREFS)
    assert load_data(path).wins is None
    np.savez(path, margin=2 * PREFS - 1)
    np.testing.assert_allclose(load_game(path).prefs, PREFS)
    np.savez(path, wins=wins, margin=np.zeros((3, 3)), other=PREFS)
    data = load_data(path)
    np.testing.assert_allclose(data.game.prefs, PREFS)
    np.testing.assert_allclose(data.counts, 10 * (1 - np.eye(3)))
    np.testing.assert_allclose(load_game(f"{path}:other").prefs, PREFS)
    np.testing.assert_allclose(load_game(f"{path}:margin").prefs, 0.5)
    np.savez(path, wins=np.stack([wins, wins.T]), years=["2001", "2002"])
    np.testing.assert_allclose(load_game(f"{path}:2002").prefs, PREFS.T)
    with pytest.raises(DataError, match=r"2 games; take one of them with g.npz:KEY.*2001, 2002"):
        load_game(path)
    with pytest.raises(DataError, match=r"has no '2003'; it has: 2001, 2002"):
        load_game(f"{path}:2003")
    np.save(tmp_path / "g.npy", PREFS)
    np.testing.assert_allclose(load_game(tmp_path / "g.npy").prefs, PREFS)


def test_a_table_of_whole_wins_in_csv_is_counted(tmp_path):
    path = tmp_path / "w.csv"
    path.write_text("a,b\n0,3\n1,0\n")
    data = load_data(path)
    assert data.counts[0, 1] == 4
    assert data.game.prefs[0, 1] == 0.75


def test_names_and_options():
    game = load_game("rock-paper-scissors", beta=0.1, ref=np.array([0.5, 0.25, 0.25]))
    assert game.names == ("rock", "paper", "scissors")
    assert game.beta == 0.1
    assert game.ref[0] == 0.5
    with pytest.raises(PolicyError, match=r"sums to 0.75"):
        load_game("rock-paper-scissors", ref=np.full(3, 0.25))


def test_policies(tmp_path):
    assert read_policy("0.5, 0.25,0.25", LABELS).tolist() == [0.5, 0.25, 0.25]
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"third": 0.2, "first": 0.3, "the second": 0.5}))
    assert read_policy(str(path), LABELS).tolist() == [0.3, 0.5, 0.2]
    path.write_text("[0.1, 0.2, 0.7]")
    assert read_policy(str(path), LABELS).tolist() == [0.1, 0.2, 0.7]
    path.write_text(json.dumps({"third": 1.0}))
    with pytest.raises(DataError, match="one probability to each player; see 'first'"):
        read_policy(str(path), LABELS)
    with pytest.raises(ConfigError, match="'half' is no policy"):
        read_policy("half", LABELS)


def npz(**arrays):
    def write(path):
        np.savez(path, **arrays)

    return write


BAD = [
    ("missing.csv", None, "there is no file"),
    ("missing.npz", None, "there is no file"),
    ("folder.csv", "folder", "is a folder; name a file in it"),
    ("g.txt", "0.5", "unknown ending .txt; readable are .csv"),
    ("g", "0.5", "unknown ending (none)"),
    ("g.csv", "", "is empty"),
    ("g.json", " \n", "is empty"),
    ("g.jsonl", "\n\n", "is empty"),
    ("g.csv", b"\xff\xfe\x00\x01", "is no UTF-8 text: byte 0 is 0xff"),
    ("g.jsonl", b"\x80abc", "is no UTF-8 text"),
    ("g.csv.gz", b"not gzip", "damaged or not compressed"),
    ("g.csv.gz", gzip.compress(b"0.5,0.5\n" * 999)[:-20], "damaged or not compressed"),
    ("g.npz", b"rubbish", "no readable NumPy file"),
    ("g.npz", b"", "no readable NumPy file"),
    ("g.npy", b"\x93NUMPYrubbish", "no readable NumPy file"),
    ("g.npz", npz(names=np.array(["a"])), "a game needs an array"),
    ("g.npz", npz(prefs=np.full((2, 3), 0.5)), "prefs has shape (2, 3); a game needs a square"),
    ("g.npz", npz(prefs=PREFS, names=np.array(["a", "b"])), "names has shape (2,); 3 players"),
    ("g.npz", npz(prefs=np.array([["x", "y"], ["z", "w"]])), "not numbers"),
    ("g.npz", npz(prefs=np.array([object()])), "no readable NumPy file"),
    ("g.csv", "0.5,0.5,0.5\n0.5,0.5,0.5\n", "has 2 rows and 3 columns of numbers"),
    ("g.csv", "0.5,0.5\n0.5\n", "line 2: 1 entries, but line 1 has 2"),
    ("g.csv", "0.5,0.5\n0.5,x\n", "line 2: 'x' in column 2 is no number"),
    ("g.csv", "0.5,\n,0.5\n", "line 1: '' in column 2 is no number"),
    ("g.csv", "0.5,0.6\n0.5,0.5\n", "worst pair is (0, 1): 0.6 + 0.5"),
    ("g.csv", "0.5,nan\n0.5,0.5\n", "prefs[0, 1] = nan is no probability"),
    ("g.csv", "0.5,1.5\n-0.5,0.5\n", "prefs[0, 1] = 1.5 is no probability"),
    ("g.csv", "0.5\n", "one player only"),
    ("g.csv", "a,a\n0.5,0.5\n0.5,0.5\n", "labels 0 and 1 are both 'a'"),
    ("g.csv", ",b\n0.5,0.5\n0.5,0.5\n", "label 0 is ''"),
    ("g.csv", "a,b\na,0.5,0.5\nc,0.5,0.5\n", "rows and columns must be the same players"),
    ("g.csv", "prompt,answer\np,x\n", "line 2: 'x' in column 2 is no number. A matrix"),
    ("g.csv", '"a\n', "has 0 rows"),
    ("g.csv", "prompt,chosen,rejected\n", "has a header, but no rows"),
    ("g.csv", "chosen,rejected,chosen\na,b,c\n", "two columns are named 'chosen'"),
    ("g.csv", "prompt,chosen,rejected\np,a\n", "line 2: 2 fields, but the header names 3"),
    ("g.csv", "prompt,chosen,rejected\np,,b\n", 'line 2: "chosen" is missing; it must be text'),
    ("g.csv", "model_a,model_b,winner\na,b,c\n", "line 2: \"winner\" is 'c'; it must be model_a"),
    ("g.csv", "player_a,player_b,wins_a\na,b,1\n", "a column wins_a but no wins_b"),
    ("g.csv", "player_a,player_b,wins_a,wins_b\na,b,-1,0\n", "line 2: \"wins_a\" is '-1'"),
    ("g.csv", "player_a,player_b,wins_a,wins_b\na,b,0,0\n", "no comparison of two different"),
    ("g.csv", "chosen,rejected\na,a\n", "no comparison of two different players"),
    ("g.json", "{", "line 1: not JSON"),
    ("g.json", "[" * 200_000, "JSON that cannot be read"),
    ("g.json", "1" * 5000, "JSON that cannot be read"),
    ("g.json", "7", "holds 7; a game is"),
    ("g.json", '{"labels": ["a", "b"]}', "a game is"),
    ("g.json", '{"prefs": []}', "prefs is []; it must be a list of rows"),
    ("g.json", "[[0.5, 0.5]]", "prefs has 1 rows, but row 0 has 2 entries"),
    ("g.json", '[[0.5, "x"], [0.5, 0.5]]', "prefs[0, 1] is 'x', no number"),
    ("g.json", "[[0.5, NaN], [0.5, 0.5]]", "prefs[0, 1] = nan is no probability"),
    ("g.json", '{"prefs": [[0.5, 0.5], [0.5, 0.5]], "labels": ["a"]}', "1 labels for 2"),
    ("g.json", '{"prefs": [[0.5, 0.5], [0.5, 0.5]], "labels": "ab"}', "labels is 'ab'"),
    ("g.json", '{"wins": [[0, -1], [1, 0]]}', "wins[0, 1] = -1.0"),
    ("g.json", '{"wins": [[0, 0], [0, 0]]}', "all wins are zero"),
    ("g.json", '[{"chosen": "a", "rejected": "b"}, 3]', "record 2 is 3, no object"),
    ("g.jsonl", '{"chosen": "a"}\n', "has the columns chosen; comparisons need"),
    ("g.jsonl", '{"prompt": "p", "completion": "x", "label": true}\n', "comparisons need chosen"),
    ("g.jsonl", '{"chosen": "a", "rejected": "b"}\nnot json\n', "line 2: 'not json' is not JSON"),
    ("g.jsonl", "[1]\n", "line 1: '[1]' is no JSON object"),
    ("g.jsonl", '{"chosen": "a", "rejected": null}\n', 'line 1: "rejected" is missing'),
    ("g.jsonl", '{"chosen": "a", "rejected": 1.5}\n', 'line 1: "rejected" is 1.5; it must be'),
    ("g.jsonl", '{"chosen": [{"role": "user"}], "rejected": [1]}\n', "not a list of messages"),
    ("g.jsonl", '{"chosen": "a", "rejected": "b", "tie": "maybe"}\n', "must be true or false"),
    ("g.jsonl", '{"chosen": "a", "rejected": "b", "weight": -1}\n', "must be a number >= 0"),
    ("g.jsonl", '{"chosen": "a", "rejected": "b", "position": "up"}\n', "shown first or second"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD, ids=range(len(BAD)))
def test_bad_files_are_named_with_the_place(tmp_path, name, content, message):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif callable(content):
        content(path)
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(EquilignError) as error:
        load_data(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 450


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path):
    path = tmp_path / "g.csv"
    path.write_text(ROWS)
    path.chmod(0)
    with pytest.raises(DataError, match=r"cannot read .*Permission denied"):
        load_data(path)


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_hundred_thousand_bad_lines_give_one_short_message(tmp_path, ending):
    path = tmp_path / f"g.{ending}"
    good = '{"chosen": "a", "rejected": "b"}\n' if ending == "jsonl" else "prompt,chosen,rejected\n"
    path.write_text(good + "x" * 500 + "\n" + "y\n" * 99_999)
    with pytest.raises(DataError) as error:
        load_data(path)
    message = str(error.value)
    assert f"{path}, line 2: " in message
    assert "100000 of 10000" in message
    assert len(message) < len(str(path)) + 300


def test_unknown_name_lists_the_games():
    with pytest.raises(DataError, match=r"no file and no game 'rock'; the games are: rock-paper"):
        load_game("rock")


@pytest.mark.parametrize("name", NAMES)
def test_real_games(name):
    """Size, cycles and winners as an independent program found them."""
    data, expected = real(name), EXPECTED[name]
    prefs, names = data.game.prefs, data.labels
    assert len(names) == expected["n"]
    assert data.wins.sum() == pytest.approx(expected["comparisons"])
    assert int((data.counts > 0).sum()) // 2 == expected["pairs_observed"]
    assert cyclic_triples(prefs) == expected["cyclic_triples"]
    winner = condorcet_winner(prefs)
    assert (None if winner is None else names[winner]) == expected["condorcet_winner"]
    assert sorted(names[i] for i in weak_condorcet_winners(prefs)) == sorted(expected["weak_cw"])
    assert sorted(names[i] for i in smith_set(prefs)) == sorted(expected["smith"])


def test_verdicts_of_both_orders_become_comparisons():
    """The counts that the folder's README states."""
    c = real("qlora_oa7").comparisons
    assert len(c) == 38_544
    assert ((c.score == 1).sum(), (c.score == 0).sum(), (c.score == 0.5).sum()) == (
        18_875,
        14_043,
        5_626,
    )
    assert len(c.prompts) == 953
    with np.load(FOLDER / "qlora_oa7" / "game.npz") as arrays:
        np.testing.assert_array_equal(c.wins(), arrays["wins"])


def test_ballots_give_the_stored_wins():
    """The ballots in the folder, counted anew, are the matrix in the folder."""
    from equilign.games.build import wins_from_rankings

    elections = json.loads((FOLDER / "debian_dpl" / "ballots.json").read_text())
    for election in elections:
        options = election["options"]
        rankings, weights = [], []
        for vote, number in election["ballots"].items():
            ranks = {}
            for option, rank in zip(options, vote, strict=True):
                ranks.setdefault(int(rank) if rank != "-" else 99, []).append(option)
            rankings.append([tuple(ranks[r]) for r in sorted(ranks)])
            weights.append(number)
        wins, labels = wins_from_rankings(rankings, weights, labels=options)
        data = real(f"debian_dpl/{election['year']}")
        assert labels == data.labels
        np.testing.assert_array_equal(wins, data.wins)
