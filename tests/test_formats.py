"""Data formats: what is read, what it becomes, and what is refused with which words."""

import gzip
import json
import math
import subprocess
import sys

import datasets
import pytest

from equilign.errors import DataError
from equilign.formats import (
    PreferencePair,
    ScoredGroup,
    answer_pairs,
    as_text,
    load_rows,
    preference_pairs,
    preference_rows,
    prompts_only,
    scored_groups,
)

USER = {"role": "user", "content": "Hi?"}
GOOD = {"role": "assistant", "content": "Hello."}
BAD = {"role": "assistant", "content": "No."}
NAN = float("nan")


def test_no_torch_is_imported():
    code = "import sys, equilign.formats; sys.exit(bool({'torch', 'datasets'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- preference rows ---------------------------------------------------------------------------

STANDARD = {"prompt": "Hi?", "chosen": "Hello.", "rejected": "No."}
CHAT = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (STANDARD, PreferencePair("Hi?", "Hello.", "No.")),
        (CHAT, PreferencePair([USER], "Hello.", "No.")),
        (
            {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
            PreferencePair([USER], "Hello.", "No."),
        ),
        # UltraFeedback's layout: a text prompt, answers that repeat it as a message.
        (
            {"prompt": "Hi?", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
            PreferencePair("Hi?", "Hello.", "No."),
        ),
        ({**STANDARD, "chosen_prob": 0.75}, PreferencePair("Hi?", "Hello.", "No.", 0.75)),
        ({**STANDARD, "chosen_prob": "0.25"}, PreferencePair("Hi?", "Hello.", "No.", 0.25)),
        ({**STANDARD, "chosen_prob": None}, PreferencePair("Hi?", "Hello.", "No.", 1.0)),
        ({**STANDARD, "prompt": [USER]}, PreferencePair([USER], "Hello.", "No.")),
        (
            {"chosen": "The sky is blue.", "rejected": "The sky is green."},
            PreferencePair("The sky is", " blue.", " green."),
        ),
        (
            {"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, GOOD, USER, BAD]},
            PreferencePair([USER, GOOD, USER], "Hello.", "No."),
        ),
        # Equal answers to an implicit prompt are still answers, not part of the prompt.
        (
            {"chosen": [USER, GOOD], "rejected": [USER, GOOD]},
            PreferencePair([USER], *["Hello."] * 2),
        ),
    ],
)
def test_a_preference_row_becomes_a_pair(row, expected):
    assert preference_pairs([row]) == [expected]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "Hi?"}, 'row 1: a preference needs "chosen"'),
        ({**STANDARD, "rejected": None}, 'needs "chosen" and "rejected"'),
        ({**STANDARD, "prompt": "  "}, '"prompt" is empty'),
        ({**STANDARD, "prompt": 3}, '"prompt" is 3'),
        ({**STANDARD, "chosen": 3.5}, '"chosen" is 3.5'),
        ({**STANDARD, "prompt": [{"role": "user"}]}, 'needs a "role" and a "content"'),
        ({**CHAT, "chosen": [USER]}, r'"chosen" must be one assistant message.* 1 \(user\)'),
        ({**CHAT, "rejected": [GOOD, USER, BAD]}, r'"rejected" must be one assistant message'),
        ({"chosen": [USER, GOOD], "rejected": [BAD]}, "begin differently"),
        ({"chosen": "abc", "rejected": "xyz"}, "no common beginning"),
        ({"chosen": "abc", "rejected": "abc"}, "no common beginning"),
        ({"chosen": "abc", "rejected": "abc def"}, "no common beginning"),
        ({**STANDARD, "chosen_prob": 1.2}, r'"chosen_prob" is 1.2; a probability is in \[0, 1\]'),
        ({**STANDARD, "chosen_prob": NAN}, '"chosen_prob" is nan'),
        ({**STANDARD, "chosen_prob": -0.1}, '"chosen_prob" is -0.1'),
        ({**STANDARD, "chosen_prob": True}, '"chosen_prob" is True'),
        ({**STANDARD, "chosen_prob": "much"}, "'much'"),
        ("text", "is no mapping"),
    ],
)
def test_a_malformed_preference_row_is_refused(row, words):
    with pytest.raises(DataError, match=words):
        preference_pairs([row])


def test_the_row_that_is_wrong_is_named():
    with pytest.raises(DataError, match=r"^row 2: "):
        preference_pairs([STANDARD, {"prompt": "x"}])


# -- scored groups -----------------------------------------------------------------------------

PREFS = [[0.5, 0.9, None], [0.1, 0.5, 0.5], [None, 0.5, 0.5]]
GROUP = {"prompt": "Hi?", "completions": ["a", "b", "c"], "prefs": PREFS}


def test_a_group_expands_to_every_verdict_once_with_the_winner_first():
    swapped = {**GROUP, "prefs": [[0.5, 0.2, 0.7], [0.8, 0.5, 0.4], [0.3, 0.6, 0.5]]}
    assert preference_pairs([swapped]) == [
        PreferencePair("Hi?", "b", "a", 0.8),
        PreferencePair("Hi?", "a", "c", 0.7),
        PreferencePair("Hi?", "c", "b", 0.6),
    ]


def test_masked_pairs_equal_answers_and_unwanted_ties_give_no_pair():
    (group,) = scored_groups([GROUP])
    assert math.isnan(group.prefs[0][2])
    assert group.pairs() == [
        PreferencePair("Hi?", "a", "b", 0.9),
        PreferencePair("Hi?", "b", "c", 0.5),
    ]
    assert group.pairs(ties=False) == [PreferencePair("Hi?", "a", "b", 0.9)]
    twins = ScoredGroup("Hi?", ("a", "a"), ((0.5, 0.5), (0.5, 0.5)))
    assert twins.pairs() == []


def test_a_group_survives_being_written_and_read():
    (group,) = scored_groups([GROUP])
    assert json.loads(json.dumps(group.row())) == GROUP
    (again,) = scored_groups([json.loads(json.dumps(group.row()))])
    assert again.pairs() == group.pairs()


def test_chat_groups_hold_plain_texts():
    row = {**GROUP, "prompt": [USER], "completions": [[GOOD], [BAD], [USER, GOOD]]}
    (group,) = scored_groups([row])
    assert group.completions == ("Hello.", "No.", "Hello.")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": None}, 'needs a "prompt"'),
        ({"prefs": None}, 'needs "prompt", "completions" and "prefs"'),
        ({"completions": ["a"]}, "two or more"),
        ({"prefs": [[0.5, 0.5]]}, "3 lists of 3 probabilities"),
        ({"prefs": [[0.5, 0.9, 0.5], [0.1, 0.5, 0.5], [0.5, 0.5]]}, "3 lists of 3"),
        (
            {"prefs": [[0.5, 0.9, 0.5], [0.3, 0.5, 0.5], [0.5, 0.5, 0.5]]},
            r'"prefs"\[1\]\[0\] is 0.3 and \[0\]\[1\] is 0.9',
        ),
        ({"prefs": [[0.6, 0.9, 0.5], [0.1, 0.5, 0.5], [0.5, 0.5, 0.5]]}, r'"prefs"\[0\]\[0\]'),
        ({"prefs": [[0.5, 1.9, 0.5], [-0.9, 0.5, 0.5], [0.5, 0.5, 0.5]]}, r"prefs\[0\]\[1\]"),
        ({"prefs": [[0.5, 0.9, None], [0.1, 0.5, 0.5], [0.5, 0.5, 0.5]]}, "both null"),
    ],
)
def test_a_malformed_group_is_refused(change, words):
    with pytest.raises(DataError, match=words):
        scored_groups([{**GROUP, **change}])


# -- conversions -------------------------------------------------------------------------------


def test_pairs_become_rows_in_the_prompt_s_own_form():
    text, chat = preference_rows(
        [PreferencePair("Hi?", "a", "b"), PreferencePair([USER], "a", "b")]
    )
    assert text == {"prompt": "Hi?", "chosen": "a", "rejected": "b", "chosen_prob": 1.0}
    assert chat["prompt"] == [USER]
    assert chat["chosen"] == [{"role": "assistant", "content": "a"}]
    assert chat["rejected"] == [{"role": "assistant", "content": "b"}]


@pytest.mark.parametrize("prompt", ["Hi?", [USER]])
@pytest.mark.parametrize("conversational", [True, False, None])
def test_rows_read_back_as_the_same_pair(prompt, conversational):
    pair = PreferencePair(prompt, "a", "b", 0.7)
    (row,) = preference_rows([pair], conversational=conversational)
    assert isinstance(row["prompt"], list) == (
        isinstance(prompt, list) if conversational is None else conversational
    )
    (again,) = preference_pairs([row])
    assert (again.chosen, again.rejected, again.chosen_prob) == ("a", "b", 0.7)
    assert as_text(again.prompt) == "Hi?"


def test_a_chat_of_several_turns_never_becomes_plain_text():
    with pytest.raises(DataError, match=r"3 messages \(user, assistant, user\)"):
        preference_rows([PreferencePair([USER, GOOD, USER], "a", "b")], conversational=False)
    with pytest.raises(DataError, match="1 messages"):
        as_text([{"role": "system", "content": "Be kind."}])


def test_trl_reads_our_rows_as_we_do():
    """TRL's own classification and prompt extraction, where it is installed."""
    data_utils = pytest.importorskip("trl.data_utils")
    rows = preference_rows([PreferencePair("Hi?", "a", "b"), PreferencePair([USER], "a", "b")])
    assert not data_utils.is_conversational(rows[0])
    assert data_utils.is_conversational(rows[1])
    for row in (
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    ):
        theirs = data_utils.maybe_extract_prompt(dict(row))
        (ours,) = preference_pairs([row])
        assert ours.prompt == theirs["prompt"]
        (same,) = preference_pairs([theirs])
        assert same == ours


def test_prompts_only_keeps_the_columns_that_are_no_answers():
    rows = [
        {"prompt": "Hi?", "answer": 42},
        {**STANDARD, "chosen_prob": 0.9, "source": "x"},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {**GROUP, "id": 7},
    ]
    assert prompts_only(rows) == [
        {"prompt": "Hi?", "answer": 42},
        {"prompt": "Hi?", "source": "x"},
        {"prompt": [USER]},
        {"prompt": "Hi?", "id": 7},
    ]
    with pytest.raises(DataError, match='row 1: there is no "prompt"; it has question'):
        prompts_only([{"question": "Hi?"}])


# -- files -------------------------------------------------------------------------------------

ROWS = [{**CHAT, "chosen_prob": 0.75}, {**CHAT, "chosen_prob": 1.0}]


def _jsonl(rows):
    return "".join(json.dumps(r) + "\n\n" for r in rows)


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.json", "x.json.gz"])
def test_json_files(tmp_path, name):
    text = (_jsonl(ROWS) if "jsonl" in name else json.dumps(ROWS)).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert load_rows(path) == ROWS
    assert [p.chosen_prob for p in preference_pairs(load_rows(path))] == [0.75, 1.0]


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_csv_files(tmp_path, name):
    text = b'prompt,chosen,rejected,chosen_prob\n"Hi, you?",Hello.,No.,0.75\nHi?,a,b,\n'
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert preference_pairs(load_rows(path)) == [
        PreferencePair("Hi, you?", "Hello.", "No.", 0.75),
        PreferencePair("Hi?", "a", "b", 1.0),
    ]


def test_parquet_and_folders_of_datasets(tmp_path):
    whole = datasets.Dataset.from_list(ROWS)
    whole.to_parquet(tmp_path / "x.parquet")
    whole.save_to_disk(tmp_path / "one")
    both = {"train": whole, "test": whole.select([0])}
    datasets.DatasetDict(both).save_to_disk(tmp_path / "two")
    assert load_rows(tmp_path / "x.parquet") == ROWS
    assert load_rows(tmp_path / "one") == ROWS
    assert load_rows(tmp_path / "two") == ROWS
    assert load_rows(tmp_path / "two", "test") == ROWS[:1]
    with pytest.raises(DataError, match="no split 'dev'; there are: train, test"):
        load_rows(tmp_path / "two", "dev")
    assert preference_pairs(whole) == preference_pairs(ROWS)


def test_columns_that_only_other_rows_have_are_absent(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"prompt": "a", "n": 0}\n{"prompt": "b", "m": null}\n')
    assert load_rows(tmp_path / "x.jsonl") == [{"prompt": "a", "n": 0}, {"prompt": "b"}]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("no.jsonl", None, "there is no file .*no.jsonl"),
        ("no.xyz", None, "there is no file"),
        ("x.txt", b"a", "x.txt: a data file ends in .jsonl"),
        ("x.jsonl", b"", "x.jsonl is empty"),
        ("x.jsonl", b'{"prompt": "a"}\n{"prompt": ', "line 2: .*is not JSON"),
        ("x.jsonl", b'["a"]\n', "line 1: .*no JSON object"),
        ("x.json", b'{"prompt": "a"}', "must be a list of objects"),
        ("x.json", b'[{"prompt": "a"}, 3]', "row 2: 3 is no JSON object"),
        ("x.json", b"[]", "holds no rows"),
        ("x.jsonl.gz", b"plain", "not compressed by gzip"),
        ("x.csv", b"prompt,chosen\na\n", "line 2: 1 fields"),
        ("x.jsonl", b"\xff\xfe", "no UTF-8"),
        ("x.parquet", b"not parquet", "no Parquet file"),
    ],
)
def test_bad_files_are_refused_in_words(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        load_rows(path)


def test_a_folder_that_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(DataError, match="no folder written by save_to_disk"):
        load_rows(tmp_path)


def test_messages_name_the_line_of_the_file(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(STANDARD) + "\n\n" + '{"prompt": "x"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl, line 3: a preference needs"):
        preference_pairs(load_rows(path))
    (tmp_path / "y.json").write_text('[{"prompt": ""}]')
    with pytest.raises(DataError, match=r'y\.json, row 1: "prompt" is empty'):
        prompts_only(load_rows(tmp_path / "y.json"))


def test_answer_pairs_of_every_format():
    prefs = [[0.5, None, 1.0], [None, 0.5, 0.2], [0.0, 0.8, 0.5]]
    chat = [{"role": "user", "content": "p"}]
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_prob": 0.1},
        {"prompt": "p", "chosen": "a", "rejected": "a"},
        {"prompt": "p", "completions": ["a", "b", "a", "c"]},
        {"prompt": chat, "completions": ["x", "y", "z"], "prefs": prefs},
        {"chosen": "p. a", "rejected": "p. b"},
    ]
    assert answer_pairs(rows) == [
        ("p", "a", "b"),
        *[("p", "a", "b"), ("p", "a", "c"), ("p", "b", "c")],
        *[(chat, "x", "y"), (chat, "x", "z"), (chat, "y", "z")],
        ("p.", " a", " b"),
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p"},
        {"prompt": "p", "completions": ["a"]},
        {"prompt": "p", "completions": "ab"},
        {"completions": ["a", "b"]},
        {"prompt": "p", "chosen": "a"},
    ],
)
def test_rows_without_two_answers(row):
    with pytest.raises(DataError, match="row 2"):
        answer_pairs([{"prompt": "p", "chosen": "a", "rejected": "b"}, row])
