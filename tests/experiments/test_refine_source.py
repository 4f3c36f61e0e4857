"""Reading prompts and answers: formats, streams, and messages for bad lines."""

import gzip
import io
import json
import sys

import pytest

from equilign.errors import ConfigError, DataError
from equilign.experiments.refine.config import RefineConfig
from equilign.experiments.refine.run import oracle_spec
from equilign.experiments.refine.source import Source, fingerprint

CHAT = [{"role": "user", "content": "q"}]


def rows_of(tmp_path, *rows, name="x.jsonl", **options):
    path = tmp_path / name
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return list(Source(str(path), **{"answered": True, **options}))


@pytest.mark.parametrize(
    ("row", "prompt", "answers"),
    [
        ({"prompt": "q", "completion": "a"}, "q", ("a",)),
        ({"prompt": "q", "completion": ""}, "q", ("",)),
        ({"prompt": "q", "completions": ["a", "b"]}, "q", ("a", "b")),
        ({"instruction": "q", "output": "a"}, CHAT, ("a",)),
        ({"prompt": CHAT, "completion": [{"role": "assistant", "content": "a"}]}, CHAT, ("a",)),
        ({"prompt": CHAT, "output": "a"}, CHAT, ("a",)),
    ],
)
def test_formats(tmp_path, row, prompt, answers):
    (found,) = rows_of(tmp_path, {**row, "id": 3, "note": None})
    assert (found.prompt, found.answers) == (prompt, answers)
    assert found.columns["id"] == 3
    assert not {"completion", "completions", "output", "note"} & set(found.columns)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: '{' is not JSON"),
        ("[1]", "line 2: [1] is no JSON object"),
        ('{"text": "x"}', 'line 2: there is no "prompt"; the row has text'),
        ('{"prompt": "q"}', "line 2: there is no answer to refine"),
        ('{"prompt": "q", "completion": null}', "line 2: there is no answer to refine"),
        ('{"prompt": " ", "completion": "a"}', 'line 2: "prompt" is empty'),
        ('{"prompt": "q", "completion": 3}', 'line 2: "completion" is 3'),
        ('{"prompt": "q", "completions": []}', 'line 2: "completions" is []'),
        ('{"prompt": "q", "completions": "a"}', "line 2: \"completions\" is 'a'"),
        ('{"instruction": 3, "output": "a"}', 'line 2: "instruction" is 3'),
        ('{"prompt": [{"role": "user"}], "completion": "a"}', 'line 2: "prompt" holds'),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "q", "completion": "a"}\n' + line + "\n")
    with pytest.raises(DataError) as error:
        list(Source(str(path), answered=True))
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_nothing_and_nowhere(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("\n\n")
    with pytest.raises(DataError, match="holds no rows"):
        list(Source(str(path), answered=False))
    with pytest.raises(DataError, match="there is no file"):
        list(Source(str(tmp_path / "y.jsonl"), answered=False))
    path.write_bytes(b'{"prompt": "\xff"}\n')
    with pytest.raises(DataError, match="no UTF-8 text"):
        list(Source(str(path), answered=False))


def test_prompts_of_every_kind_of_row(tmp_path):
    rows = [
        {"prompt": "q", "completion": "old"},
        {"instruction": "i", "dataset": "d"},
        {"chosen": "same start, a", "rejected": "same start, b"},
    ]
    found = rows_of(tmp_path, *rows, answered=False, chat=True)
    assert [r.prompt[0]["content"] for r in found] == ["q", "i", "same start,"]
    assert all(r.answers == () for r in found)
    assert dict(found[1].columns) == {"instruction": "i", "dataset": "d"}
    assert [r.alpaca for r in found] == [False, True, False]


def test_other_files_and_compressed_ones(tmp_path):
    (tmp_path / "x.csv").write_text("prompt,completion\nq,a\nr,b\n")
    assert [r.answers for r in Source(str(tmp_path / "x.csv"), True)] == [("a",), ("b",)]
    with gzip.open(tmp_path / "x.jsonl.gz", "wt") as file:
        file.write('{"prompt": "q", "completion": "a"}\n')
    (row,) = Source(str(tmp_path / "x.jsonl.gz"), True)
    assert row.answers == ("a",)
    (tmp_path / "bad.jsonl.gz").write_text("plain")
    with pytest.raises(DataError, match="not compressed"):
        list(Source(str(tmp_path / "bad.jsonl.gz"), True))
    assert len(list(Source("shipped", False, limit=3))) == 3


class Pipe(io.RawIOBase):
    """Bytes that come line by line; says how many lines were taken."""

    def __init__(self, lines):
        self.lines, self.taken = iter(lines), 0

    def readable(self):
        return True

    def readinto(self, buffer):
        line = next(self.lines, b"")
        self.taken += bool(line)
        buffer[: len(line)] = line
        return len(line)


def test_stdin_is_read_as_it_comes_and_stays_open(monkeypatch):
    pipe = Pipe(json.dumps({"prompt": f"p{i}"}).encode() + b"\n" for i in range(5))
    stream = io.TextIOWrapper(io.BufferedReader(pipe))
    monkeypatch.setattr(sys, "stdin", stream)
    source = Source("-", answered=False)
    assert not source.again
    rows = iter(source)
    assert next(rows).prompt == "p0"
    assert pipe.taken <= 2
    assert [r.prompt for r in rows] == ["p1", "p2", "p3", "p4"]
    assert not stream.buffer.closed


def test_the_fingerprint_sees_prompts_answers_and_columns(tmp_path):
    row = {"prompt": "q", "completion": "a", "id": 1}
    variants = [row, {**row, "prompt": "r"}, {**row, "completion": "b"}, {**row, "id": 2}]
    assert len({fingerprint(rows_of(tmp_path, v)) for v in variants}) == 4
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n")
    seen = []
    count, digest = Source(str(path), True).scan(seen.append)
    assert (count, len(seen)) == (2, 2)
    assert digest != Source(str(path), True, limit=1).scan(seen.append)[1]


# -- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "who answers first?"),
        ({"leader": "L"}, "--leader needs --prompts"),
        ({"leader": "L", "prompts": "p", "answers": "a"}, "both say who answers first"),
        ({"answers": "a", "prompts": "p"}, "--prompts does not go with --answers"),
        ({"answers": "a", "num_samples": 2}, "--num-samples does not go with --answers"),
        ({"answers": "a", "compare": True, "oracle": "x"}, "--compare does not go with"),
        ({"answers": "a", "leader_url": "u"}, "--leader-url does not go with --answers"),
        ({"answers": "a", "keep": "first"}, "keep = 'first'; there are: last, all, best"),
        ({"answers": "a", "keep": "best"}, "--keep best needs a judge"),
        ({"leader": "L", "prompts": "p", "compare": True}, "--compare needs a judge"),
        ({"answers": "a", "rounds": 0}, "rounds = 0; it must be >= 1"),
        ({"answers": "a", "temperature": float("nan")}, "temperature = nan"),
        ({"answers": "a", "top_p": 0.0}, "top_p = 0.0; it must be in (0, 1]"),
        ({"answers": "a", "max_prompts": 0}, "max_prompts = 0"),
        ({"answers": "a", "dtype": "int8"}, "dtype = 'int8'"),
        ({"answers": "a", "follower_tokenizer": "t"}, "add --follower-url"),
        ({"answers": "a", "follower_option": ("x=1",)}, "add --follower-url"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ConfigError) as error:
        RefineConfig(follower="F", **options)
    assert message in str(error.value)


def test_what_an_oracle_is_called(tmp_path):
    assert oracle_spec(None)[0] is None
    assert oracle_spec("restaurant")[0] == {"kind": "restaurant"}
    assert oracle_spec("{kind: reward, path: x}")[0] == {"kind": "reward", "path": "x"}
    file = tmp_path / "judge.yaml"
    for text in ("{kind: reward, path: x}", "model: m\noracle: {kind: reward, path: x}"):
        file.write_text(text)
        assert oracle_spec(str(file)) == ({"kind": "reward", "path": "x"}, tmp_path)
    folder = tmp_path / "fitted" / "judge"
    folder.mkdir(parents=True)
    (folder / "equilign_judge.json").write_text('{"kind": "general"}')
    wanted = {"kind": "general", "path": str(tmp_path / "fitted")}
    assert oracle_spec(str(tmp_path / "fitted"))[0] == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "is no specification"),
        ("{kind: [", "is not YAML"),
        ("/nowhere.yaml", "cannot read --config /nowhere.yaml"),
        (".", "is a folder without equilign_judge.json"),
    ],
)
def test_no_oracle_at_all(text, message):
    with pytest.raises(ConfigError) as error:
        oracle_spec(text)
    assert message in str(error.value)
