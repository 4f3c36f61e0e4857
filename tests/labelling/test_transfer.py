"""Answers out and in, in TRL's preference format."""

import json

import pytest

from equilign.diagnosis import diagnose
from equilign.errors import DataError
from equilign.formats import load_rows, preference_pairs
from equilign.games.loading import load_data
from equilign.labelling import LabelStore
from equilign.labelling.transfer import answer_rows, import_rows, pair_rows

CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]


@pytest.fixture
def voted(store):
    store.add([(CHAT, "Hi!", "What?"), ("plain", "a", "b"), ("tied", "c", "d")], wanted=3)
    said = {"ann": ["Hi!", "a", "c"], "bob": ["Hi!", "a", "d"], "cy": ["What?", None, None]}
    for who, choices in said.items():
        for _ in choices:
            shown = store.assign(who)
            choice = choices[shown.pair - 1]
            side = "skip" if choice is None else "left" if shown.left == choice else "right"
            store.answer(who, shown.pair, side, f"{who}-{shown.pair}", 2.0)
    return store


def test_one_row_per_pair(voted):
    rows = pair_rows(voted)
    assert [r["chosen_prob"] for r in rows] == [pytest.approx(2 / 3), 1.0, 0.5]
    assert [r["votes"] for r in rows] == [3, 2, 2]
    assert rows[0]["prompt"] == CHAT
    assert rows[0]["chosen"] == [{"role": "assistant", "content": "Hi!"}]
    assert rows[0]["annotator"] == "ann, bob, cy"
    # A data set is all chat or all plain text.
    assert rows[1]["prompt"] == [{"role": "user", "content": "plain"}]
    assert rows[1]["chosen"] == [{"role": "assistant", "content": "a"}]
    pairs = preference_pairs(rows)  # what trainers read
    assert [p.chosen_prob for p in pairs] == [r["chosen_prob"] for r in rows]
    assert len(pair_rows(voted, ties=False)) == 2


def test_one_row_per_answer_comes_back_as_it_was(voted, tmp_path, quick_folder):
    rows = answer_rows(voted)
    assert len(rows) == 7
    assert len(answer_rows(voted, skips=True)) == 9
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in answer_rows(voted, skips=True)))
    other = LabelStore(quick_folder / "other.sqlite")
    done = import_rows(other, load_rows(path))
    assert (done.answers, done.repeated, done.kept, done.pairs) == (7, 0, 0, 3)
    again = import_rows(other, load_rows(path))
    assert (again.answers, again.repeated, again.pairs) == (0, 7, 0)

    def what(store):
        return [
            (*(x.key, x.prompt, x.a, x.b, x.annotator), *(x.value, x.weight, x.a_left, x.seconds))
            for x in store.answers() if x.value is not None
        ]  # fmt: skip

    assert what(other) == what(voted)
    assert pair_rows(other)[0]["votes"] == 3
    assert other.standing("ann").last is None, "what was imported is not for undo"
    other.close()


def test_what_is_exported_can_be_diagnosed(voted, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in answer_rows(voted)))
    data = load_data(path)
    assert data.comparisons.annotators == ("ann", "bob", "cy")
    assert len(data.comparisons) == 7
    assert (data.comparisons.shown != 0).all()
    assert diagnose(data, bootstrap=20).verdict


def test_plain_preference_rows(store):
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "b", "rejected": "a"},
        {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_prob": 0.75, "votes": 4},
        {"prompt": "p", "chosen": "a", "rejected": "a"},
        {"prompt": "q", "chosen": "x", "rejected": "y", "annotator": "dora", "tie": True},
    ]
    done = import_rows(store, rows, annotator="crowd")
    assert (done.answers, done.pairs) == (5, 2), "the same row twice in a file is two votes"
    p, q = store.tallies([("p", "a", "b"), ("q", "x", "y")])
    assert (p.votes, p.share) == (7, pytest.approx((2 + 0 + 4 * 0.75) / 7))
    assert (q.votes, q.share) == (1, 0.5)
    crowd = {"crowd", "crowd #2", "crowd #3", "crowd #4"}
    assert {a.annotator for a in store.answers()} == {*crowd, "dora"}
    assert import_rows(store, rows, annotator="crowd").repeated == 5
    assert store.tallies([("p", "b", "a")])[0].share == pytest.approx(1 - 5 / 7)


def test_a_chat_that_an_oracle_asked_about_as_text_is_exported_as_the_chat(store):
    text = "system: Be kind.\nuser: Hello"
    store.ask([(text, "a", "b")], needed=1, priority=[1])
    assert store.add([(CHAT, "a", "b")]) == 0
    shown = store.assign("ann")
    assert shown.prompt == text
    store.answer("ann", shown.pair, "left", "k")
    assert pair_rows(store)[0]["prompt"] == CHAT


def test_an_answer_of_the_same_person_stays(voted):
    row = {"prompt": "plain", "chosen": "b", "rejected": "a", "annotator": "ann"}
    assert import_rows(voted, [row]).kept == 1
    assert voted.tallies([("plain", "a", "b")])[0].share == 1.0


def test_groups_give_one_answer_per_pair(store):
    prefs = [[0.5, 1.0, None], [0.0, 0.5, 0.3], [None, 0.7, 0.5]]
    done = import_rows(store, [{"prompt": "p", "completions": ["a", "b", "c"], "prefs": prefs}])
    assert done.answers == 2
    assert store.tallies([("p", "c", "b")])[0].share == pytest.approx(0.7)


@pytest.mark.parametrize("votes", [0, -1, 1.5, "many", None, 10**9])
def test_bad_votes_change_nothing(store, votes):
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "a", "rejected": "b", "votes": votes},
    ]
    with pytest.raises(DataError, match=r'row 2: "votes"'):
        import_rows(store, rows)
    assert store.answers() == []


def test_a_bad_row_is_named(store, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n\n{"prompt": "p"}\n')
    with pytest.raises(DataError, match=r"bad.jsonl, line 3"):
        import_rows(store, load_rows(path))
    assert store.answers() == []
