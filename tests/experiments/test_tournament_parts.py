"""The parts of a tournament: specifications, prompts and answers, questions, packing."""

import json

import numpy as np
import pytest

from equilign.errors import ConfigError, DataError, RunDirectoryError
from equilign.experiments.tournament.answers import (
    Answer,
    Shelf,
    alpaca_rows,
    read_answers,
    read_prompts,
)
from equilign.experiments.tournament.config import TournamentConfig
from equilign.experiments.tournament.judging import (
    ask,
    make_schedule,
    paid_judges,
    per_prompt,
    preview,
    recorded,
    unwritten,
)
from equilign.experiments.tournament.specs import PlayerSpec, read_player, read_players
from equilign.files import write_jsonl
from equilign.oracles import CallableOracle


def config(*players, **options):
    return TournamentConfig(player=tuple(map(str, players)), oracle="restaurant", **options)


def file_of(path, rows, column="completion"):
    write_jsonl(path, [{"prompt": p, column: a} for p, a in rows])
    return path


# -- specifications ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "spec"),
    [
        ("shipped", "shipped", PlayerSpec(model="shipped")),
        ("start=shipped", "start", PlayerSpec(model="shipped")),
        ("runs/sppo", "sppo", PlayerSpec(model="runs/sppo")),
        ("Qwen/Qwen2.5-0.5B", "Qwen2.5-0.5B", PlayerSpec(model="Qwen/Qwen2.5-0.5B")),
        ("theirs.jsonl.gz", "theirs", PlayerSpec(answers="theirs.jsonl.gz")),
        ("a/b.json", "b", PlayerSpec(answers="a/b.json")),
        ("x=a/b=c.json", "x", PlayerSpec(answers="a/b=c.json")),
        ("runs/lr=1", "lr=1", PlayerSpec(model="runs/lr=1")),
        (
            "cold={model: shipped, temperature: 0.3, num-samples: 2}",
            "cold",
            PlayerSpec(model="shipped", temperature=0.3, num_samples=2),
        ),
        (
            "pair={leader: a, follower: b, rounds: 3}",
            "pair",
            PlayerSpec(leader="a", follower="b", rounds=3),
        ),
        (
            "big={model: big, url: 'http://h/v1', server: {timeout: 3}}",
            "big",
            PlayerSpec(model="big", url="http://h/v1", server={"timeout": 3}),
        ),
    ],
)
def test_players_as_written(text, name, spec):
    entry = read_player(text)
    assert (entry.name, entry.spec) == (name, spec)


def test_a_path_that_exists_is_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1").mkdir()
    assert read_player("lr=1").spec.model == "lr=1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x=", "nothing stands after the name"),
        ("x={model: shipped, temprature: 1}", "Did you mean temperature"),
        ("x={model: shipped", "is not YAML"),
        ("x={}", "one of: answers"),
        ("x={model: a, answers: b.json}", "answers and model"),
        ("x={leader: a}", "leader and follower go together"),
        ("x={model: a, tokenizer: b}", "add url"),
        ("x={leader: a, follower: b, url: 'http://h/v1'}", "add model"),
        ("x={answers: b.json, temperature: 1}", "no effect on a file"),
        ("x={model: a, temperature: -1}", "temperature = -1.0; it must be >= 0"),
        ("x={model: a, top_p: 0}", "top_p = 0.0"),
        ("x={model: a, num_samples: 0}", "num_samples = 0"),
        ("x={model: a, rounds: 0}", "rounds = 0"),
        ("x={model: a, role: boss}", "one of pair, leader"),
        ("/".join(("..", "x={model: a}")), "--player"),
        (".=shipped", "cannot be a player's name"),
        ("a\x1b=shipped", "cannot be a player's name"),
        (f"{'n' * 61}=shipped", "cannot be a player's name"),
    ],
)
def test_players_that_are_none(text, message):
    with pytest.raises(ConfigError, match=message):
        read_player(text)


@pytest.mark.parametrize(
    ("players", "message"),
    [
        ((), "two players or more; got 0"),
        (("shipped",), "two players or more; got 1"),
        (("a/x", "b/x"), "two players are called 'x' .a/x and b/x."),
        (("X=a", "x=b"), "two players are called"),
    ],
)
def test_too_few_players_or_two_of_one_name(players, message):
    with pytest.raises(ConfigError, match=message):
        read_players(config(*players))


# -- prompts and answers -------------------------------------------------------------------


def test_files_are_matched_by_prompt_wherever_it_stands(tmp_path):
    a = file_of(tmp_path / "a.jsonl", [("p", "1"), ("q", "2"), ("p", "3")])
    b = file_of(tmp_path / "b.jsonl", [("r", "9"), ("q", "8"), ("p", "7")])
    entries = read_players(config(a, b))
    prompts = read_prompts(config(a, b), entries)
    assert prompts.texts == ("p", "q", "p")
    texts = [[row[0].text for row in read_answers(e, prompts)] for e in entries]
    assert texts == [["1", "2", "3"], ["7", "8", "7"]]


def test_a_chat_and_plain_text_are_the_same_prompt(tmp_path):
    chat = [{"role": "user", "content": "p"}]
    a = file_of(tmp_path / "a.jsonl", [(chat, "1")])
    (tmp_path / "b.json").write_text('[{"instruction": "p", "output": "2", "generator": "g"}]')
    entries = read_players(config(a, tmp_path / "b.json"))
    prompts = read_prompts(config(a), entries)
    assert read_answers(entries[1], prompts) == ((Answer("2"),),)


def test_several_answers_to_a_prompt(tmp_path):
    a = file_of(tmp_path / "a.jsonl", [("p", ["1", "2"])], "completions")
    entries = read_players(config(a, "shipped"))
    prompts = read_prompts(config(a), entries)
    (row,) = read_answers(entries[0], prompts)
    assert [x.text for x in row] == ["1", "2"]
    (alpaca,) = alpaca_rows("a", prompts, (row,))
    assert alpaca == {
        "instruction": "p",
        "output": "1",
        "generator": "a",
        "completions": ["1", "2"],
    }


def test_other_prompts_are_refused_with_the_first(tmp_path):
    a = file_of(tmp_path / "a.jsonl", [("p", "1"), ("q", "2")])
    b = file_of(tmp_path / "b.jsonl", [("p", "7")])
    entries = read_players(config(a, b))
    with pytest.raises(DataError, match=r"player b. answers other prompts: 1 of 2 .*line 2: 'q'"):
        read_answers(entries[1], read_prompts(config(a), entries))


def test_prompts_must_come_from_somewhere():
    entries = read_players(config("x=shipped", "y=shipped"))
    with pytest.raises(DataError, match="which prompts"):
        read_prompts(config("x=shipped", "y=shipped"), entries)


def test_shelf_gives_back_and_refuses_others(tmp_path):
    a = file_of(tmp_path / "a.jsonl", [("p", "1"), ("q", "2")])
    prompts = read_prompts(config(a), read_players(config(a, "shipped")))
    answers = ((Answer("x \ud800", 3, True),), (Answer("y", 4, False),))
    shelf = Shelf(tmp_path / "run")
    assert shelf.held("m", {"seed": 0}) is None
    shelf.put("m", {"seed": 0}, alpaca_rows("m", prompts, answers))
    rows = json.loads(shelf.path("m").read_text())
    assert rows[1] == {
        "instruction": "q",
        "output": "y",
        "generator": "m",
        "tokens": [4],
        "finished": [False],
    }
    held = shelf.held("m", {"seed": 0})
    assert held[1] == answers[1]
    with pytest.raises(RunDirectoryError, match="seed: 0 there, 1 now"):
        shelf.held("m", {"seed": 1})
    shelf.path("m").write_text("[{}]")
    with pytest.raises(RunDirectoryError, match="cannot read"):
        shelf.held("m", {"seed": 0})


# -- questions -----------------------------------------------------------------------------


def texts(*rows):
    return tuple(tuple(Answer(t) for t in row) for row in rows)


PLAYERS = [
    texts(["aa"], ["b", "bbb"]),
    texts(["aa"], ["cc"]),
    texts(["d"], ["b"]),
]


def by_length(prompt, a, b):
    """A judge with a bias for the first place."""
    return min(1.0, (1 + len(a)) / (2 + len(a) + len(b)) + 0.1)


def test_everybody_plays_everybody_once_in_both_orders():
    schedule = make_schedule(["p", "q"], PLAYERS)
    assert len(schedule) == 3 + (2 + 2 + 1)
    asked = list(schedule.questions())
    assert ("p", "aa", "aa") not in asked
    assert asked.count(("p", "aa", "d")) == asked.count(("p", "d", "aa")) == 2
    assert ("q", "b", "b") not in asked


def test_verdicts_and_win_rates_as_in_a_plain_loop():
    schedule = make_schedule(["p", "q"], PLAYERS)
    told = []
    verdicts = ask(schedule, CallableOracle(by_length), lambda *call: told.append(call))
    assert told[-1] == (12, 12)
    wins = per_prompt(schedule, verdicts.win, 2, 3)
    for p in range(2):
        for i in range(3):
            for j in range(3):
                games = [
                    0.5
                    if x.text == y.text
                    else (by_length("", x.text, y.text) + 1 - by_length("", y.text, x.text)) / 2
                    for x in PLAYERS[i][p]
                    for y in PLAYERS[j][p]
                ]
                expected = 0.5 if i == j else np.mean(games)
                assert wins[p, i, j] == pytest.approx(expected), (p, i, j)


class Silent:
    """Says nothing where an answer is "d" and shown first."""

    abstains = True

    def compare(self, prompts, a, b):
        return np.array([np.nan if x == "d" else 0.25 for x in a])


def test_half_a_pair_is_no_verdict():
    schedule = make_schedule(["p"], [texts(["d"]), texts(["e"]), texts(["f"])])
    verdicts = ask(schedule, Silent(), lambda *call: None)
    np.testing.assert_array_equal(np.isnan(verdicts.win), [True, True, False])
    wins = per_prompt(schedule, verdicts.win, 1, 3)
    assert np.isnan(wins[0, 0, 1])
    assert np.isnan(wins[0, 1, 0])
    assert wins[0, 1, 2] == wins[0, 2, 1] == 0.5


def test_preview_counts_what_is_stored(tmp_path):
    spec = {"kind": "tabular"}
    oracle = recorded(CallableOracle(by_length), spec, tmp_path, tmp_path)
    two = make_schedule(["p", "q"], PLAYERS[:2])
    assert preview(two, None, spec, None).plain() == {
        "questions": 4,
        "known": 0,
        "to_ask": 4,
        "exact": True,
        "estimate": None,
    }
    ask(two, oracle, lambda *call: None)
    found = preview(make_schedule(["p", "q"], PLAYERS), oracle, spec, None)
    # New: aa-d on p; bbb-b and cc-b on q. The pair b-cc of the first two is known already.
    assert (found.questions, found.known, found.to_ask) == (8, 4, 4)
    assert found.words() == "questions to ask: 4 (4 already known)"


def test_answers_that_are_not_there_yet_give_an_upper_bound():
    schedule = make_schedule(["p", "q"], [PLAYERS[1], unwritten(2, 3, "new")])
    found = preview(schedule, None, {}, 400)
    assert (found.questions, found.exact) == (12, False)
    assert found.words().startswith("questions to ask: at most 12 (0")


LLM = {"kind": "llm", "model": "m", "price_prompt": 2.0, "price_completion": 10.0}


def test_estimate_of_a_paid_judge():
    nested = {"kind": "ensemble", "members": {"a": LLM, "b": [{"kind": "restaurant"}]}}
    (judge,) = paid_judges(nested)
    assert judge.model == "m"
    assert paid_judges({"kind": "restaurant"}) == []
    schedule = make_schedule(["p"], [texts(["x" * 100]), texts(["y" * 300])])
    found = preview(schedule, None, nested, None).estimate
    shown = len(judge.prompt.render("p", "x" * 100, "y" * 300))
    tokens = round(shown / 4 * 2)
    assert found["prompt_tokens"] == tokens
    assert found["completion_tokens"] == 2 * 16
    assert found["cost"] == pytest.approx((2.0 * tokens + 10.0 * 32) / 1e6)
    guess = preview(make_schedule(["p"], [texts(["x"]), unwritten(1, 1, "n")]), None, LLM, 4000)
    assert guess.estimate["prompt_tokens"] > 2 * 1000
