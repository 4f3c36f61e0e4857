"""Comparisons and answers on disk: lent, answered, taken back, counted once."""

import math
import random
import sqlite3
import time
from collections import Counter

import pytest

from equilign.errors import ConfigError, DataError
from equilign.labelling import LabelStore
from equilign.labelling.store import check_annotator
from equilign.labelling.tables import AnswerConflict, UnknownComparison

from .conftest import questions


def give(store, who, choice="left", key=None):
    shown = store.assign(who)
    key = key or f"{who}-{shown.pair}-{random.random()}"
    assert store.answer(who, shown.pair, choice, key)
    return shown, key


def test_two_people_are_not_shown_the_same_pair(store):
    assert store.add(questions(3)) == 3
    shown = [store.assign(name).pair for name in ("ann", "bob", "cy")]
    assert sorted(shown) == [1, 2, 3]
    assert store.assign("dora") is None
    assert store.assign("ann").pair == shown[0], "a reload shows the same"


def test_a_pair_that_was_left_goes_to_somebody_else(store, monkeypatch):
    store.add(questions(1))
    first = store.assign("ann")
    assert store.assign("bob") is None
    now = time.time()
    monkeypatch.setattr("equilign.labelling.rows.time.time", lambda: now + store.lease + 1.0)
    assert store.assign("bob").pair == first.pair
    # Ann was only slow: what she says is kept all the same.
    assert store.answer("ann", first.pair, "tie", "k")
    assert store.tallies(questions(1))[0].votes == 1


def test_overlap_is_by_different_people(store):
    store.add(questions(2), wanted=2)
    seen = Counter()
    for name in ("ann", "bob", "cy"):
        while (shown := store.assign(name)) is not None:
            store.answer(name, shown.pair, "left", f"{name}{shown.pair}")
            seen[shown.pair] += 1
    assert seen == {1: 2, 2: 2}
    standing = store.standing("ann")
    assert (standing.answered, standing.wanted, standing.mine) == (4, 4, 2)
    store.want(3)
    assert store.standing().wanted == 6
    assert store.assign("cy") is not None


def test_overlap_counts_those_who_are_at_it(store):
    store.add(questions(1), wanted=2)
    assert store.assign("ann") is not None
    assert store.assign("bob") is not None
    assert store.assign("cy") is None


def test_the_same_answer_twice_counts_once(store):
    store.add(questions(2))
    shown = store.assign("ann")
    assert store.answer("ann", shown.pair, "left", "key") is True
    assert store.answer("ann", shown.pair, "left", "key") is False
    assert len(store.answers()) == 1
    with pytest.raises(AnswerConflict, match="another answer"):
        store.answer("ann", shown.pair, "right", "key")
    with pytest.raises(AnswerConflict, match="already"):
        store.answer("ann", shown.pair, "right", "other key")
    assert len(store.answers()) == 1


def test_what_is_unknown_or_not_shown_is_refused(store):
    store.add(questions(1))
    with pytest.raises(UnknownComparison):
        store.answer("ann", 99, "left", "k")
    with pytest.raises(AnswerConflict, match="not shown"):
        store.answer("ann", 1, "left", "k")
    store.assign("ann")
    with pytest.raises(ConfigError, match="one of"):
        store.answer("ann", 1, "both", "k")
    for key in ("", "k" * 129):
        with pytest.raises(ConfigError, match="key"):
            store.answer("ann", 1, "left", key)
    assert store.answers() == []


def test_sides_are_random_and_kept(store):
    store.add(questions(200))
    lefts = []
    for i in range(200):
        shown = store.assign("ann")
        assert store.assign("ann") == shown
        lefts.append(shown.left.startswith("yes"))
        store.answer("ann", shown.pair, "skip", f"s{i}")
    assert 65 < sum(lefts) < 135  # 1/2 within five standard deviations
    again = [store.assign("bob").left.startswith("yes")]
    for i in range(199):
        store.answer("bob", i + 1, "tie", f"b{i}")
        again.append(store.assign("bob").left.startswith("yes"))
    assert again != lefts, "each person has sides of their own"


@pytest.mark.parametrize("choice", ["left", "right", "tie", "skip"])
def test_sides_become_verdicts(store, choice):
    store.add(questions(1))
    shown, _ = give(store, "ann", choice)
    prompt = questions(1)[0][0]
    (tally,) = store.tallies([(prompt, shown.left, shown.right)])
    (turned,) = store.tallies([(prompt, shown.right, shown.left)])
    share = {"left": 1.0, "right": 0.0, "tie": 0.5}.get(choice, math.nan)
    assert tally.votes == turned.votes == (choice != "skip")
    assert tally.skips == (choice == "skip")
    assert tally.share == share or (math.isnan(share) and math.isnan(tally.share))
    if choice != "skip":
        assert turned.share == 1.0 - share


def test_a_skip_is_no_answer_but_final_for_that_person(store):
    store.add(questions(1))
    give(store, "ann", "skip")
    assert store.assign("ann") is None
    assert store.standing("ann").answered == 0
    assert store.standing("ann").mine == 1
    assert store.assign("bob") is not None


def test_undo_takes_the_last_answer_back_and_keeps_it_in_the_history(store):
    store.add(questions(3))
    one, first = give(store, "ann", "left")
    two, second = give(store, "ann", "right")
    assert store.standing("ann").last == second
    with pytest.raises(AnswerConflict, match="last"):
        store.undo("ann", first)
    with pytest.raises(AnswerConflict, match="own"):
        store.undo("bob", second)
    with pytest.raises(UnknownComparison):
        store.undo("ann", "nothing")
    store.assign("ann")  # the third is on her page
    assert store.undo("ann", second) is True
    assert store.undo("ann", second) is False, "the request came twice"
    assert len(store.answers()) == 1
    assert [a.undone is not None for a in store.answers(undone=True)] == [False, True]
    shown = store.assign("ann")
    assert shown == two, "on the same sides"
    assert store.answer("ann", shown.pair, "tie", "again")
    assert store.undo("ann", "again")
    assert store.undo("ann", first)
    assert store.assign("ann").pair == one.pair
    assert store.standing("ann").answered == 0


def test_an_answer_taken_back_may_not_come_again_by_its_key(store):
    store.add(questions(1))
    shown, key = give(store, "ann")
    store.undo("ann", key)
    assert store.answer("ann", shown.pair, "left", key) is False
    assert store.standing().answered == 0


def test_undo_keeps_the_pair_for_that_person(store):
    store.add(questions(1))
    _, key = give(store, "ann")
    store.undo("ann", key)
    assert store.assign("bob") is None
    assert store.assign("ann") is not None


def test_both_orders_and_copies_are_one_pair(store):
    assert store.add([("p", "a", "b"), ("p", "b", "a"), ("p", "a", "a"), ("q", "a", "b")]) == 2
    assert store.add([("p", "a", "b")]) == 0
    chat = [{"role": "user", "content": "p"}]
    assert store.add([(chat, "b", "a")]) == 0, "an oracle sees the plain text of a chat"


def test_questions_that_somebody_waits_for_come_first(store):
    store.add(questions(5))
    waiting = [("w", "a", "b"), ("w", "a", "c"), ("w", "b", "c")]
    store.ask(waiting, needed=1, priority=[1.0, 3.0, 2.0])
    assert store.standing().wanted == 8
    shown = []
    for i in range(4):
        one = store.assign("ann")
        shown.append({one.left, one.right})
        store.answer("ann", one.pair, "tie", str(i))
    assert shown[:3] == [{"a", "c"}, {"b", "c"}, {"a", "b"}]
    assert shown[3] == set(questions(1)[0][1:])


def test_questions_nobody_waits_for_any_more_are_not_shown(store):
    store.add(questions(1))
    waiting = [questions(1)[0], ("w", "a", "b"), ("w", "a", "c")]
    store.ask(waiting, needed=2, priority=[0, 2, 1])
    give(store, "ann")
    store.stop_asking(waiting)
    assert store.standing().wanted == 2  # what is answered, and what a file wants
    shown, _ = give(store, "ann")
    assert shown.prompt == "prompt 0"
    assert store.assign("ann") is None
    store.ask([("w", "a", "c")], needed=1, priority=[0])
    assert store.assign("ann") is not None, "until they are asked again"


def test_any_text_is_kept(store):
    texts = ["\ud800 half", "nul \x00 bell", "😀 <b>", "", "long" * 50_000]
    pairs = [("p", "plain", text) for text in texts]
    assert store.add(pairs) == 5
    assert store.add(pairs) == 0
    for _ in pairs:
        shown, _ = give(store, "ann")
        assert "plain" in (shown.left, shown.right)
    assert [t.votes for t in store.tallies(pairs)] == [1] * 5


def test_everything_is_there_after_a_restart(store):
    store.add(questions(2))
    shown, key = give(store, "ann")
    store.note("question", "Which is kinder?")
    store.close()
    again = LabelStore(store.path)
    assert again.note("question") == "Which is kinder?"
    assert [a.key for a in again.answers()] == [key]
    assert again.standing("ann").last == key
    assert again.assign("ann").pair != shown.pair
    again.close()


def test_random_work_keeps_its_books(store):
    """Whatever people do: sums equal the answers, nobody answers twice, nothing is overfull."""
    rng = random.Random(0)
    store.add(questions(12), wanted=2)
    names, keys = ["ann", "bob", "cy"], []
    for step in range(400):
        who = rng.choice(names)
        if rng.random() < 0.25:
            last = store.standing(who).last
            if last is not None:
                store.undo(who, last)
            continue
        shown = store.assign(who)
        if shown is None:
            continue
        choice = rng.choice(["left", "right", "tie", "skip"])
        store.answer(who, shown.pair, choice, f"k{step}")
        keys.append(f"k{step}")
    answers = store.answers()
    assert len({(a.pair, a.annotator) for a in answers}) == len(answers)
    assert {a.key for a in store.answers(undone=True)} == set(keys)
    with store.file.reading() as connection:
        books = connection.execute("SELECT id, votes, points FROM pairs").fetchall()
    for pair, votes, points in books:
        values = [a.value for a in answers if a.pair == pair and a.value is not None]
        assert (votes, points) == (len(values), sum(values))
        assert votes <= 2


def test_names():
    assert check_annotator("  Ann   Lee ") == "Ann Lee"
    for bad in ("", "   ", "a" * 65, "bell\x07", None, 3, ["ann"], "\u202eann"):
        with pytest.raises(ConfigError, match="name"):
            check_annotator(bad)


def test_other_files_are_not_touched(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(DataError, match="another program"):
        LabelStore(path)
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"not a database" * 100)
    with pytest.raises(DataError, match="comparisons"):
        LabelStore(broken)
    from equilign.oracles.database import Database

    Database(tmp_path / "verdicts.sqlite").close()
    with pytest.raises(DataError, match="another program"):
        LabelStore(tmp_path / "verdicts.sqlite")


@pytest.mark.parametrize("lease", [0.0, -1.0, math.inf, math.nan])
def test_bad_lease(tmp_path, lease):
    with pytest.raises(ConfigError, match="lease"):
        LabelStore(tmp_path / "x.sqlite", lease=lease)


def test_wanting_nothing_is_refused(store):
    for act in (lambda: store.add(questions(1), wanted=0), lambda: store.want(0)):
        with pytest.raises(ConfigError, match="at least one"):
            act()
