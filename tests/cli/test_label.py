"""`equilign label`: files in, files out, numbers, and mistakes."""

import json

import pytest

from equilign.cli.main import _exit_code
from equilign.formats import load_rows, preference_pairs
from equilign.labelling import LabelStore


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        '{"prompt": "p", "chosen": "a", "rejected": "b", "annotator": "ann"}\n'
        '{"prompt": "p", "chosen": "a", "rejected": "b", "annotator": "bob"}\n'
        '{"prompt": "q", "chosen": "c", "rejected": "d", "annotator": "ann", "chosen_prob": 0.5}\n'
    )
    return path


def run(capsys, *arguments):
    code = _exit_code(["label", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_import_stats_export(pairs, capsys):
    code, out, _ = run(capsys, "import", pairs, "--json")
    assert code == 0
    assert json.loads(out) == {
        **{"answers": 3, "repeated": 0, "kept": 0, "pairs": 2},
        **{"file": str(pairs), "database": "labels.sqlite"},
    }
    assert json.loads(run(capsys, "import", pairs, "--json")[1])["repeated"] == 3
    code, out, _ = run(capsys, "stats", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["answers"], found["comparisons"], found["shared"]) == (3, 2, 1)
    assert found["agreements"] == [{"first": "ann", "second": "bob", "pairs": 1, "share": 1.0}]
    assert found["annotators"]["ann"]["ties"] == 1
    code, out, _ = run(capsys, "export", "out.jsonl", "--json")
    assert json.loads(out)["rows"] == 2
    found = preference_pairs(load_rows("out.jsonl"))
    assert {found[1].chosen, found[1].rejected} == {"c", "d"}
    assert [p.chosen_prob for p in found] == [1.0, 0.5]
    assert (found[0].chosen, found[0].rejected) == ("a", "b")
    assert json.loads(run(capsys, "export", "out.jsonl", "--no-ties", "--json")[1])["rows"] == 1
    run(capsys, "export", "single.jsonl", "--answers")
    assert [r["annotator"] for r in load_rows("single.jsonl")] == ["ann", "bob", "ann"]


def test_numbers_for_a_person(pairs, capsys):
    run(capsys, "import", pairs)
    code, out, _ = run(capsys, "stats")
    assert code == 0
    for words in ("ann", "bob", "Krippendorff", "3 answers to 2 comparisons"):
        assert words in out


def test_a_file_is_as_good_as_serve(pairs, capsys):
    """`equilign label x` is `equilign label serve x`: both complain about the same missing file."""
    for arguments in (["missing.jsonl"], ["serve", "missing.jsonl"]):
        code, _, err = run(capsys, *arguments)
        assert code == 2
        assert "there is no file missing.jsonl" in err
    assert "serve" in run(capsys, "--help")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stats"], "there is no file labels.sqlite"),
        (["export", "x.jsonl"], "there is no file labels.sqlite"),
        (["import", "missing.jsonl"], "there is no file missing.jsonl"),
        (["serve", "--port", "99999"], "--port"),
        (["serve", "--lease", "0"], "lease"),
        (["serve", "--overlap", "0"], "--overlap"),
        (["serve", "--host", "not a host", "--port", "0"], "cannot listen on not a host"),
        (["serve", "--nonsense"], "No such option"),
    ],
)
def test_mistakes(arguments, message, capsys):
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_files_without_pairs(capsys, tmp_path):
    (tmp_path / "same.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "a"}\n')
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "p"}\n')
    code, _, err = run(capsys, "serve", "same.jsonl")
    assert code == 2
    assert "no two different answers" in err
    code, _, err = run(capsys, "serve", "prompts.jsonl")
    assert code == 2
    assert "prompts.jsonl, line 1: two answers are needed" in err


def test_export_options_that_contradict(pairs, capsys):
    run(capsys, "import", pairs)
    code, _, err = run(capsys, "export", "x.jsonl", "--skips")
    assert code == 2
    assert "--answers" in err


def test_a_database_of_another_program(tmp_path, capsys):
    (tmp_path / "labels.sqlite").write_bytes(b"no database at all" * 100)
    code, _, err = run(capsys, "stats")
    assert code == 2
    assert "labels.sqlite" in err
    with pytest.raises(Exception, match="labels"):
        LabelStore("labels.sqlite")
