import gzip
import json
from itertools import chain
from pathlib import Path

import pytest

from equilign.errors import ConfigError, DataError
from equilign.fitting.sources import dialogue, load_pairs, soft_pair
from equilign.fitting.split import prompt_unit, split_pairs
from equilign.formats import PreferencePair

DATA = Path(__file__).resolve().parents[2] / "data"


def write(path, *rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


class TestSources:
    def test_several_annotators(self, tmp_path):
        row = {"instruction": "Do", "input": "this", "response_1": "A", "response_2": "B"}
        path = write(
            tmp_path / "x.jsonl",
            {**row, "human": [1, 1, 2]},
            {**row, "input": "", "human": [2, 0, 2]},
            {**row, "response_2": True, "human": [0, 0, 0]},
        )
        assert load_pairs(path) == [
            PreferencePair("Do\n\nthis", "A", "B", pytest.approx(2 / 3)),
            PreferencePair("Do", "B", "A", pytest.approx(5 / 6)),
            PreferencePair("Do\n\nthis", "A", "True", 0.5),
        ]

    @pytest.mark.parametrize(
        ("grade", "expected"),
        [
            (2, ("A", "B", 1.0)),
            (1, ("A", "B", 0.75)),
            (0, ("A", "B", 0.5)),
            (-1, ("B", "A", 0.75)),
            (-2, ("B", "A", 1.0)),
        ],
    )
    def test_graded(self, tmp_path, grade, expected):
        row = {"prompt": "p", "response_1": "A", "response_2": "B", "preference": grade}
        assert load_pairs(write(tmp_path / "x.jsonl", row)) == [PreferencePair("p", *expected)]

    def test_rankings(self, tmp_path):
        replies = [{"rank": 1, "text": "B"}, {"rank": 0, "text": "A"}, {"rank": 1, "text": "C"}]
        row = {"messages": [{"role": "user", "content": "p", "id": 3}], "replies": replies}
        prompt = [{"role": "user", "content": "p"}]
        assert load_pairs(write(tmp_path / "x.jsonl", row)) == [
            PreferencePair(prompt, "A", "B", 1.0),
            PreferencePair(prompt, "A", "C", 1.0),
            PreferencePair(prompt, "B", "C", 0.5),
        ]

    def test_rated_attributes(self, tmp_path):
        row = {
            "prompt": "p",
            "a": "A",
            "b": "B",
            "margin": {"x": 0.5, "y": -1.0, "z": 0.0, "w": -2},
        }
        expected = [PreferencePair("p", "B", "A", pytest.approx(1 - 1.5 / 4))]
        assert load_pairs(write(tmp_path / "x.jsonl", row)) == expected

    def test_dialogues(self, tmp_path):
        text = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Human: who?\n\nAssistant:"
        row = {"prompt": text, "chosen": "A", "rejected": "B"}
        assert load_pairs(write(tmp_path / "x.jsonl", row))[0].prompt == [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Human: who?"},
        ]
        with pytest.raises(ValueError, match="open 'Assistant:'"):
            dialogue("\n\nHuman: Hi")

    def test_preference_format(self, tmp_path):
        row = {"prompt": "p", "chosen": "A", "rejected": "B", "chosen_prob": 0.7}
        assert load_pairs(write(tmp_path / "x.jsonl", row)) == [PreferencePair("p", "A", "B", 0.7)]

    def test_a_malformed_row_is_named(self, tmp_path):
        row = {"prompt": "p", "response_1": "A", "response_2": "B", "preference": 1}
        path = write(tmp_path / "x.jsonl", row, {**row, "preference": 7})
        with pytest.raises(DataError, match=r"x\.jsonl, line 2: .*graded.*KeyError\(7\)"):
            load_pairs(path)

    def test_equal_answers_say_nothing(self, tmp_path):
        row = {"prompt": "p", "chosen": "A", "rejected": "A"}
        with pytest.raises(DataError, match="no pair of two different answers"):
            load_pairs(write(tmp_path / "x.jsonl", row))

    def test_folder_with_one_file(self, tmp_path):
        row = {"prompt": "p", "chosen": "A", "rejected": "B"}
        (tmp_path / "README.md").write_text("text")
        (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
        assert len(load_pairs(tmp_path)) == 1
        write(tmp_path / "y.jsonl", row)
        with pytest.raises(DataError, match=r"x\.jsonl\.gz.*Name the file|y\.jsonl"):
            load_pairs(tmp_path)

    @pytest.mark.parametrize(
        ("name", "pairs", "prompts", "ties"),
        [
            ("pairs/hh_harmless", 821, 776, 0),
            ("pairs/llmbar", 425, 328, 0),
            ("pairs/oasst_ranked", 674, 84, 0),
            ("pairs/pandalm", 759, 133, 55),
            ("pairs/tulu_human", 845, 249, 247),
            ("ratings/nlg_restaurant_hotel/pairs.jsonl.gz", 948, 868, 114),
        ],
    )
    def test_shipped_data(self, name, pairs, prompts, ties):
        """Rows as in the READMEs, less pairs of equal answers (33 of Tulu's)."""
        found = load_pairs(DATA / name)
        assert len(found) == pairs
        assert len({prompt_unit(p.prompt) for p in found}) == prompts
        assert sum(p.chosen_prob == 0.5 for p in found) == ties
        assert all(p.chosen_prob >= 0.5 for p in found)


def test_soft_pair_puts_the_likelier_winner_first():
    assert soft_pair("p", "A", "B", 0.25) == PreferencePair("p", "B", "A", 0.75)
    assert soft_pair("p", "A", "B", 0.5) == PreferencePair("p", "A", "B", 0.5)


class TestSplit:
    pairs = tuple(PreferencePair(f"prompt {i % 40}", f"a{i}", f"b{i}") for i in range(200))

    def test_no_prompt_on_two_sides_and_nothing_lost(self):
        split = split_pairs(self.pairs, seed=3)
        parts = (split.train, split.validation, split.held_out)
        units = [{prompt_unit(p.prompt) for p in part} for part in parts]
        assert [len(u) for u in units] == [28, 4, 8]
        assert not units[0] & units[1] | units[0] & units[2] | units[1] & units[2]
        assert sorted(chain(*parts), key=str) == sorted(self.pairs, key=str)

    def test_seed(self):
        assert split_pairs(self.pairs, seed=3) == split_pairs(self.pairs, seed=3)
        assert split_pairs(self.pairs, seed=3) != split_pairs(self.pairs, seed=4)
        shuffled = split_pairs(self.pairs[::-1], seed=3)
        assert set(shuffled.held_out) == set(split_pairs(self.pairs, seed=3).held_out)

    def test_the_same_prompt_in_other_words(self):
        """Case, spaces, and later turns do not make another prompt."""
        chat = [{"role": "user", "content": " Hello  THERE"}, {"role": "assistant", "content": "x"}]
        assert prompt_unit(chat) == prompt_unit("hello there")

    def test_errors(self):
        with pytest.raises(DataError, match="9 different prompts"):
            split_pairs(self.pairs[:9], seed=0)
        for shares in ((0.0, 0.1), (0.9, 0.1), (0.2, -0.1)):
            with pytest.raises(ConfigError, match="shares"):
                split_pairs(self.pairs, seed=0, held_out=shares[0], validation=shares[1])
