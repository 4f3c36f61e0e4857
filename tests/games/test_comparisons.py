"""Reading comparisons: every kind of file gives the numbers one would count by hand."""

import gzip
import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equilign.errors import DataError
from equilign.games.comparisons import Comparisons
from equilign.games.loading import load_data, load_game


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def table(comparisons):
    """(winner or tied pair) -> weight, by name."""
    wins = comparisons.wins()
    names = comparisons.players
    return {
        (names[i], names[j]): wins[i, j]
        for i in range(len(names))
        for j in range(len(names))
        if wins[i, j]
    }


ROWS = [
    {"prompt": "p", "chosen": "a", "rejected": "b"},
    {"prompt": "p", "chosen": "b", "rejected": "c", "weight": 2},
    {"prompt": "q", "chosen": "c", "rejected": "a", "tie": True},
    {"prompt": "q", "chosen": "a", "rejected": "b"},
    {"prompt": "q", "chosen": "c", "rejected": "b"},
]
WINS = {("a", "b"): 2.0, ("b", "c"): 2.0, ("c", "a"): 0.5, ("a", "c"): 0.5, ("c", "b"): 1.0}


def test_chosen_and_rejected(tmp_path):
    data = load_data(write(tmp_path / "c.jsonl", ROWS))
    assert table(data.comparisons) == WINS
    assert data.labels == ("a", "b", "c")
    assert data.game.prefs[0, 1] == 1.0
    assert data.game.prefs[1, 2] == pytest.approx(2 / 3)
    assert data.ties[0, 2] == data.ties[2, 0] == 1.0
    assert data.comparisons.total == 6.0
    assert data.comparisons.prompts == ("p", "q")


@pytest.mark.parametrize("ending", [".csv", ".json", ".jsonl.gz", ".csv.gz"])
def test_every_ending_gives_the_same(tmp_path, ending):
    path = tmp_path / f"c{ending}"
    if ending.startswith(".csv"):
        fields = ["prompt", "chosen", "rejected", "weight", "tie"]
        text = ",".join(fields) + "\n"
        text += "".join(",".join(str(row.get(f, "")) for f in fields) + "\n" for row in ROWS)
    elif ending == ".json":
        text = json.dumps(ROWS)
    else:
        text = "".join(json.dumps(row) + "\n" for row in ROWS)
    path.write_bytes(gzip.compress(text.encode()) if ending.endswith("gz") else text.encode())
    assert table(load_data(path).comparisons) == WINS


def test_semicolons_quotes_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text('prompt;chosen;rejected\n"a;b\nc";x;y\n', encoding="utf-8-sig")
    c = load_data(path).comparisons
    assert c.prompts == ("a;b\nc",)
    assert table(c) == {("x", "y"): 1.0}


def test_a_winner_of_two(tmp_path):
    rows = [
        {"model_a": "x", "model_b": "y", "winner": "model_a", "question_id": 7, "judge": "j"},
        {"model_a": "y", "model_b": "x", "winner": "model_b", "question_id": 7, "judge": "j"},
        {"model_a": "y", "model_b": "x", "winner": "tie (bothbad)", "question_id": 8, "judge": "k"},
        {"model_a": "y", "model_b": "x", "winner": "y", "question_id": 8, "judge": "k"},
    ]
    c = load_data(write(tmp_path / "c.jsonl", rows)).comparisons
    assert table(c) == {("x", "y"): 2.5, ("y", "x"): 1.5}
    assert c.annotators == ("j", "k")
    assert c.prompts == ("7", "8")
    assert (c.shown == 1).all()  # model_a is the one shown first
    assert [c.players[i] for i in c.first] == ["x", "y", "y", "y"]


def test_winner_and_loser(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("winner,loser,tie\nx,y,\ny,x,true\n")
    assert table(load_data(path).comparisons) == {("x", "y"): 1.5, ("y", "x"): 0.5}


def test_players_may_be_called_a_and_b(tmp_path):
    rows = [
        {"model_a": "b", "model_b": "a", "winner": "a"},
        {"model_a": "b", "model_b": "a", "winner": "model_a"},
        {"model_a": "x", "model_b": "y", "winner": "B"},
    ]
    c = load_data(write(tmp_path / "c.jsonl", rows)).comparisons
    assert table(c) == {("a", "b"): 1.0, ("b", "a"): 1.0, ("y", "x"): 1.0}


def test_positions(tmp_path):
    rows = [
        {"chosen": "x", "rejected": "y", "position": "first"},
        {"chosen": "x", "rejected": "y", "position": "second"},
        {"chosen": "x", "rejected": "y", "position": "rejected"},
        {"chosen": "x", "rejected": "y", "position": None},
    ]
    c = load_data(write(tmp_path / "c.jsonl", rows)).comparisons
    assert c.shown.tolist() == [1, -1, -1, 0]


def test_counts_of_pairs(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("player_a,player_b,wins_a,wins_b,ties\nx,y,3,1,2\ny,z,0,4,\n")
    c = load_data(path).comparisons
    assert table(c) == {("x", "y"): 4.0, ("y", "x"): 2.0, ("z", "y"): 4.0}
    assert c.ties()[0, 1] == 2.0
    assert c.total == 10.0


def test_texts_belong_to_their_prompt(tmp_path):
    rows = [
        {"prompt": "1 + 1?", "chosen": "2", "rejected": "3"},
        {"prompt": "2 + 2?", "chosen": "4", "rejected": "3"},
        {"prompt": "2 + 2?", "chosen": "four", "rejected": "4"},
    ]
    path = write(tmp_path / "c.jsonl", rows)
    data = load_data(path)
    assert data.game is None
    assert not data.comparisons.pooled
    assert len(data.labels) == 5  # "3" twice: an answer to each prompt
    games = {p: g for p, g in data.comparisons.by_prompt()}
    assert [len(g.players) for g in games.values()] == [2, 3]
    with pytest.raises(DataError, match=r"answers to 2 different prompts.*chosen_model"):
        load_game(path)
    named = load_data(path, players="names")
    assert named.labels == ("2", "3", "4", "four")


def test_authors_of_texts_are_the_players(tmp_path):
    rows = [
        {
            "prompt": f"p{i}",
            "chosen": f"text {i}",
            "rejected": f"other {i}",
            "chosen_model": "m",
            "rejected_model": "n",
        }
        for i in range(3)
    ]
    assert table(load_data(write(tmp_path / "c.jsonl", rows)).comparisons) == {("m", "n"): 3.0}


def test_chat_messages_with_the_prompt_inside(tmp_path):
    user = {"role": "user", "content": "hi"}

    def say(text):
        return [user, {"role": "assistant", "content": text}]

    rows = [
        {"chosen": say("hello"), "rejected": say("what")},
        {"chosen": say("hello"), "rejected": say("no")},
        {"chosen": [{"role": "user", "content": "bye"}, say("x")[1]],
         "rejected": [{"role": "user", "content": "bye"}, say("y")[1]]},
    ]  # fmt: skip
    c = load_data(write(tmp_path / "c.jsonl", rows)).comparisons
    assert len(c.prompts) == 2
    assert not c.pooled
    assert len(c.players) == 5


def test_self_comparisons_are_left_out_and_said(tmp_path):
    rows = [{"chosen": "a", "rejected": "b"}, {"chosen": "a", "rejected": "a"}]
    data = load_data(write(tmp_path / "c.jsonl", rows))
    assert len(data.comparisons) == 1
    assert "1 rows compare a player with itself" in data.notes[0]


@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_pooling_adds_up_and_does_not_depend_on_the_order_of_rows(tmp_path_factory, random, size):
    rows = [
        dict(zip(("chosen", "rejected"), random.sample("abcd", 2), strict=True))
        | {"tie": random.random() < 0.3, "weight": random.randint(1, 3)}
        for _ in range(size)
    ]
    path = tmp_path_factory.mktemp("c") / "c.jsonl"
    first = load_data(write(path, rows))
    random.shuffle(rows)
    second = load_data(write(path, rows))
    np.testing.assert_array_equal(first.wins, second.wins)
    assert first.labels == second.labels
    assert first.wins.sum() == pytest.approx(sum(row["weight"] for row in rows))
    tied = sum(row["weight"] for row in rows if row["tie"])
    assert first.ties.sum() / 2 == pytest.approx(tied)


def test_games_of_prompts_add_up_to_the_pool(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(300):
        a, b = rng.choice(5, 2, replace=False)
        rows.append({"prompt": int(rng.integers(9)), "chosen": int(a), "rejected": int(b)})
    c = load_data(write(tmp_path / "c.jsonl", rows), players="names").comparisons
    total = np.zeros((5, 5))
    for number, game in c.by_prompt():
        here = c.subset(c.prompt == number)
        np.testing.assert_array_equal(game.wins, here.wins()[np.ix_(game.players, game.players)])
        total[np.ix_(game.players, game.players)] += game.wins
    np.testing.assert_array_equal(total, c.wins())
    assert len(list(c.by_prompt(least=6))) == 0


def test_two_hundred_thousand_rows_take_seconds(tmp_path):
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 40, (200_000, 2))
    path = tmp_path / "c.csv"
    lines = (f"p{i // 50},m{a},m{b}" for i, (a, b) in enumerate(pairs.tolist()))
    path.write_text("prompt,chosen,rejected\n" + "\n".join(lines))
    start = time.perf_counter()
    data = load_data(path)
    assert time.perf_counter() - start < 10.0  # about 0.6 s here
    assert data.comparisons.total == (pairs[:, 0] != pairs[:, 1]).sum()


def comparisons(**changed):
    given = {
        "first": np.array([0, 1]), "second": np.array([1, 2]), "score": np.array([1.0, 0.5]),
        "weight": np.ones(2), "shown": np.zeros(2, int), "prompt": np.array([-1, 0]),
        "annotator": np.full(2, -1), "attribute": np.full(2, -1), "players": ("a", "b", "c"),
        "prompts": ("p",),
    } | changed  # fmt: skip
    return Comparisons(**given)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"second": np.array([1, 3])}, "second needs 2 numbers between 0 and 2"),
        ({"second": np.array([0, 2])}, "compared with itself"),
        ({"score": np.array([1.0, 1.5])}, "score must lie in"),
        ({"weight": np.array([1.0, 0.0])}, "weight must be positive"),
        ({"prompt": np.array([0, 1])}, "prompt needs 2 numbers between -1 and 0"),
    ],
)
def test_bad_arrays_are_named(changed, message):
    comparisons()
    with pytest.raises(DataError, match=message):
        comparisons(**changed)
