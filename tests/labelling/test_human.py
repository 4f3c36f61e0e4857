"""People as an oracle: what is asked, how long it waits, what comes back."""

import contextlib
import threading
import time

import numpy as np
import pytest

from equilign.errors import ConfigError, DataError
from equilign.labelling import LabelStore
from equilign.oracles import Human, Oracle, build_oracle, checked_compare, score_groups

from .people import Person, by_length

PROMPTS = ["p", "p", "q"]
A = ["long answer", "mid one", "x"]
B = ["short", "long answer", "yyy"]


@pytest.fixture
def path(quick_folder):
    return quick_folder / "labels.sqlite"


class Crowd:
    """People who answer over the page's server while something waits for them."""

    def __init__(self, store, serve, count=1, choose=by_length):
        self.store = store
        server = serve(store)
        store.note("url", server.url)
        self.done = threading.Event()
        self.people = [Person(f"person {i}", server.port, choose, linger=1e9) for i in range(count)]
        for person in self.people:
            person.most = 10**9
        self.threads = [
            threading.Thread(target=self._work, args=(p,), daemon=True) for p in self.people
        ]

    def _work(self, person):
        original = person.insist

        def insist(path, body):
            if self.done.is_set():
                raise SystemExit
            return original(path, body)

        person.insist = insist
        with contextlib.suppress(SystemExit):
            person.work()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self.done.set()
        for thread in self.threads:
            thread.join(timeout=10)
        assert [p.errors for p in self.people] == [[]] * len(self.people)

    @property
    def answers(self):
        return len(self.store.answers())


def human(path, told=None, **options):
    options = {"poll": 0.01, "tell_every": 0.05, **options}
    return Human(path, tell=(lambda text: None) if told is None else told.append, **options)


def test_it_is_an_oracle_that_abstains(path):
    oracle = human(path)
    assert isinstance(oracle, Oracle)
    assert oracle.abstains
    assert oracle.compare([], [], []).shape == (0,)
    assert oracle.compare(["p"], ["same"], ["same"]).tolist() == [0.5]
    assert oracle.store.standing().wanted == 0, "nobody was asked"


def test_it_waits_for_people_and_returns_their_votes(path, store, serve):
    told = []
    oracle = human(path, told)
    with Crowd(LabelStore(path), serve) as crowd:
        verdicts = checked_compare(oracle, PROMPTS, A, B)
        assert verdicts.tolist() == [1.0, 0.0, 0.0]
        assert crowd.answers == 3
        # The other order is the same question; a rerun asks nothing.
        assert checked_compare(oracle, PROMPTS, B, A).tolist() == [0.0, 1.0, 1.0]
        assert human(path).compare(PROMPTS, A, B).tolist() == [1.0, 0.0, 0.0]
        assert crowd.answers == 3
    assert told[0].startswith("waiting for people: 0 of 3; open http://127.0.0.1:")
    assert told[-1].startswith("people answered 3 of 3 comparisons in ")


def test_groups_are_asked_pair_by_pair_once(path, serve):
    with Crowd(LabelStore(path), serve, count=3) as crowd:
        oracle = human(path, min_answers=2)
        games = score_groups(oracle, ["p", "q"], [["a", "bb", "ccc", "bb"], ["d", "e"]])
        assert crowd.answers == 2 * (3 + 1)
    expected = [[0.5, 0, 0, 0], [1, 0.5, 0, 0.5], [1, 1, 0.5, 1], [1, 0.5, 0, 0.5]]
    np.testing.assert_array_equal(games[0], expected)
    np.testing.assert_array_equal(games[1], [[0.5, 0.5], [0.5, 0.5]])


def test_the_verdict_is_the_share_of_votes(path):
    store = LabelStore(path)
    store.ask([("p", "a", "b")], needed=4, priority=[1])
    for who, choice in (("w", "a"), ("x", "a"), ("y", "b"), ("z", "tie")):
        shown = store.assign(who)
        side = "tie" if choice == "tie" else "left" if shown.left == choice else "right"
        store.answer(who, shown.pair, side, who)
    assert human(path, min_answers=4).compare(["p", "p"], ["a", "b"], ["b", "a"]).tolist() == [
        0.625,
        0.375,
    ]


def test_who_does_not_answer_in_time_gives_no_verdict(path):
    told = []
    oracle = human(path, told, timeout=0.15)
    start = time.monotonic()
    assert np.isnan(oracle.compare(PROMPTS, A, B)).all()
    waited = time.monotonic() - start
    assert waited >= 0.15
    assert "start the page with: equilign label --database" in told[0]
    assert "0 of 3" in told[-1]
    # The other order, and later calls, do not wait for the same again ...
    oracle.timeout = 60.0
    start = time.monotonic()
    assert np.isnan(oracle.compare(PROMPTS, B, A)).all()
    assert time.monotonic() - start < 20.0
    store = LabelStore(path)
    assert store.assign("late") is None, "nobody is asked in vain"
    # ... but use what people say when somebody asks them again.
    store.ask([("q", "x", "yyy")], needed=1, priority=[1])
    shown = store.assign("late")
    store.answer("late", shown.pair, "left" if shown.left == "x" else "right", "k")
    found = oracle.compare(PROMPTS, A, B)
    assert np.isnan(found[:2]).all()
    assert found[2] == 1.0


def test_enough_goes_on_without_the_rest(path, serve):
    store = LabelStore(path)

    def only_q(shown):
        return "skip" if shown["prompt"] == "p" else "left" if shown["left"] == "x" else "right"

    with Crowd(store, serve, choose=only_q):
        verdicts = human(path, enough=0.3).compare(PROMPTS, A, B)
    assert np.isnan(verdicts[:2]).all()
    assert verdicts[2] == 1.0


def test_skips_are_told(path, serve):
    told = []
    with Crowd(LabelStore(path), serve, choose=lambda shown: "skip"):
        verdicts = human(path, told, timeout=2.0).compare(PROMPTS, A, B)
    assert np.isnan(verdicts).all()
    assert any("(3 skipped by somebody)" in line for line in told)


def test_a_budget_asks_the_most_informative(path, serve):
    texts = ["a", "bb", "ccc", "dddd"]
    with Crowd(LabelStore(path), serve) as crowd:
        oracle = human(path, budget=2)
        (game,) = score_groups(oracle, ["p"], [texts])
        assert crowd.answers == 2
        seen = ~np.isnan(game) & ~np.eye(4, dtype=bool)
        # Two pairs of four fresh answers that share none; everything else has no verdict.
        assert seen.sum(axis=1).tolist() == [1, 1, 1, 1]
        # A rerun of the same call asks no more than the budget; a greater one the rest.
        np.testing.assert_array_equal(score_groups(human(path, budget=2), ["p"], [texts])[0], game)
        assert crowd.answers == 2
        (more,) = score_groups(human(path, budget=5), ["p"], [texts])
        assert crowd.answers == 5
    assert np.isnan(more).sum() == 2
    known = ~np.isnan(game)
    np.testing.assert_array_equal(more[known], game[known])


def test_answers_of_a_run_that_was_stopped_are_not_asked_again(path, serve):
    class Stopped(Exception):
        pass

    def stop(message):
        raise Stopped

    first = Human(path, tell=stop, poll=0.01)
    with pytest.raises(Stopped):
        first.compare(PROMPTS, A, B)
    with Crowd(LabelStore(path), serve) as crowd:
        deadline = time.monotonic() + 30
        while crowd.answers < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert crowd.answers == 3, "the questions stay while the run is down"
    told = []
    assert human(path, told).compare(PROMPTS, A, B).tolist() == [1.0, 0.0, 0.0]
    assert told == []


def test_an_answer_taken_back_is_waited_for_again(path):
    """Of two answers one is taken back before the second is there: the call goes on waiting."""
    store, told = LabelStore(path), []
    found = []
    oracle = human(path, told)
    waiting = threading.Thread(
        target=lambda: found.append(oracle.compare(["p", "q"], ["a", "c"], ["b", "d"]))
    )
    waiting.start()
    for key in ("first", "second"):
        while (shown := store.assign("ann")) is None:
            time.sleep(0.01)
        if key == "first":
            store.answer("ann", shown.pair, "tie", key)
            time.sleep(0.1)
            store.undo("ann", key)
            other = store.assign("bob")
            store.answer("bob", other.pair, "tie", "bob's")
            time.sleep(0.3)
            assert found == [], "one of two is not enough"
        else:
            store.answer("ann", shown.pair, "tie", key)
    waiting.join(timeout=30)
    assert found[0].tolist() == [0.5, 0.5]


def test_answers_from_a_file_count(path):
    store = LabelStore(path)
    chat = [{"role": "user", "content": "p"}]
    store.add([(chat, "a", "b")])
    shown = store.assign("ann")
    store.answer("ann", shown.pair, "left" if shown.left == "a" else "right", "k")
    assert human(path).compare(["p"], ["b"], ["a"]).tolist() == [0.0]


def test_from_a_specification(path):
    oracle = build_oracle({"kind": "human", "database": path.name, "timeout": 5}, path.parent)
    assert isinstance(oracle, Human)
    assert oracle.store.path == path
    assert oracle.timeout == 5
    with pytest.raises(ConfigError, match="database"):
        build_oracle({"kind": "human"}, path.parent)
    with pytest.raises(ConfigError, match="min_answers"):
        build_oracle({"kind": "human", "database": "x", "min_answer": 2}, path.parent)


@pytest.mark.parametrize(
    "option",
    [
        {"min_answers": 0},
        {"min_answers": 1.5},
        {"min_answers": True},
        {"enough": 0.0},
        {"enough": 1.1},
        {"enough": "all"},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"budget": 0},
        {"budget": "9"},
        {"poll": 0},
    ],
)
def test_bad_options(path, option):
    with pytest.raises(ConfigError, match=next(iter(option))):
        Human(path, **option)


def test_a_file_that_is_none(quick_folder):
    (quick_folder / "x.txt").write_text("hello, this is a text and not a database" * 50)
    with pytest.raises(DataError):
        Human(quick_folder / "x.txt")
