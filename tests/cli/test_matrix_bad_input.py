"""Wrong games and data: one clear message, exit code 2, nothing on stdout, nothing written."""

import json
import time

import pytest

from equilign.cli.main import _exit_code

COMMANDS = ("solve", "diagnose")
GOOD = "0.5,0.7,0.2\n0.3,0.5,0.6\n0.8,0.4,0.5\n"


def outcome(capsys, *arguments):
    code = _exit_code([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert out == ""
    return code, err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("g.csv", "", "is empty"),
        ("g.csv", "0.5,0.5,0.1\n0.5,0.5,0.2\n", "2 rows and 3 columns"),
        ("g.csv", "0.5,0.9\n0.5,0.5\n", "worst pair is (0, 1)"),
        ("g.csv", "0.5,nan\nnan,0.5\n", "prefs[0, 1] = nan"),
        ("g.csv", "0.5,2\n-1,0.5\n", "prefs[0, 1] = 2.0 is no probability"),
        ("g.csv", "0.5\n", "at least two"),
        ("g.csv", "a,\n0.5,0.5\n0.5,0.5\n", "label 1 is ''"),
        ("g.csv", b"\x00\xff\xfe\x80", "is no UTF-8 text"),
        ("g.npz", b"PK\x03\x04rubbish", "no readable NumPy file"),
        ("g.json", "{}", "a game is"),
        ("g.jsonl", '{"prompt": 1}\n', "comparisons need chosen"),
        ("g.txt", "x", "unknown ending .txt"),
        (None, None, "there is no file"),
    ],
)
def test_bad_files(capsys, tmp_path, monkeypatch, command, name, content, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / (name or "missing.csv")
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = sorted(tmp_path.iterdir())
    for extra in ([], ["--json"], ["--plot", tmp_path / "p.png"]):
        code, err = outcome(capsys, command, path, *extra)
        assert code == 2
        assert str(path) in err
        assert message in err
        assert err.count("\n") <= 3
        assert len(err) < 700
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder(capsys, tmp_path, command):
    code, err = outcome(capsys, command, tmp_path)
    assert code == 2
    assert f"{tmp_path} is a folder" in err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_flood_of_bad_lines(capsys, tmp_path, command, ending):
    path = tmp_path / f"c.{ending}"
    path.write_text("prompt,chosen,rejected\n" * (ending == "csv") + "\x1b[31mbad\n" * 100_000)
    start = time.perf_counter()
    code, err = outcome(capsys, command, path)
    assert time.perf_counter() - start < 10.0
    assert code == 2
    assert f"line {2 if ending == 'csv' else 1}: " in err
    assert "100000 of 100000 lines are wrong" in err
    assert len(err) < 600
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["solve"], "name a game or a file; `equilign solve --list`"),
        (["diagnose"], "Missing argument 'FILE'"),
        (["solve", "rock"], "no game 'rock'; the games are: rock-paper-scissors"),
        (["solve", "comal", "--concept", "nsh"], "no concept 'nsh'; there are: nash"),
        (["solve", "comal", "--beta", "-1"], "beta = -1.0; the KL weight"),
        (["solve", "comal", "--beta", "nan"], "beta = nan"),
        (["solve", "comal", "--beta", "much"], "'much' is not a valid float"),
        (["solve", "comal", "--ref", "0.5,0.5"], "2 probabilities for 3 players"),
        (["solve", "comal", "--ref", "0.5,0.5,0.5"], "sums to 1.5"),
        (["solve", "comal", "--ref", "half"], "'half' is no policy"),
        (["solve", "comal", "--ref", "no.json"], "there is no file no.json"),
        (["solve", "comal", "--beta-follower", "1"], "'nash' has no option 'beta_follower'"),
        (["solve", "comal", "--selection", "best"], "selection = 'best'; there are"),
        (["solve", "comal", "--option", "x"], "write it as NAME=VALUE"),
        (["solve", "comal", "--option", "x=1"], "has no option 'x'"),
        (["solve", "comal", "--game-option", "x=1"], "has no option 'x'"),
        (["solve", "comal", "--plot", "p.bmp"], "a picture ends in .png or .svg"),
        (["diagnose", "comal", "--plot", "p"], "a picture ends in .png or .svg"),
        (["diagnose", "comal", "--bootstrap", "3"], "bootstrap = 3; a p-value needs"),
        (["diagnose", "comal", "--tolerance", "7"], "tolerance = 7.0; it must lie"),
        (["diagnose", "comal", "--seed", "-3"], "seed = -3; it must be >= 0"),
        (["diagnose", "comal", "--players", "all"], "'all' is not one of"),
        (["diagnose", "comal", "--jsn"], "No such option '--jsn'"),
    ],
)
def test_bad_options(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, err = outcome(capsys, *arguments)
    assert code == 2
    assert any(part in err for part in message.split("|"))
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "d.png").mkdir()
    (tmp_path / "file").write_text("mine")
    for path, message in (
        (tmp_path / "d.png", "is a folder"),
        (tmp_path / "file" / "p.png", "is no folder"),
    ):
        for command in COMMANDS:
            code, err = outcome(capsys, command, "comal", "--plot", path)
            assert code == 2
            assert message in err
    assert (tmp_path / "file").read_text() == "mine"


def test_answers_of_prompts_have_no_one_game(capsys, tmp_path):
    path = tmp_path / "c.jsonl"
    rows = [{"prompt": f"p{k}", "chosen": f"a{k}", "rejected": f"b{k}"} for k in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, err = outcome(capsys, "solve", path)
    assert code == 2
    assert "answers to 5 different prompts" in err
    code, err = outcome(capsys, "diagnose", path, "--plot", tmp_path / "p.png")
    assert code == 2
    assert "no pooled game to draw" in err


def test_several_games_in_one_file(capsys):
    from tests.games.real_games import FOLDER

    for command in COMMANDS:
        code, err = outcome(capsys, command, FOLDER / "epl_seasons" / "seasons.npz")
        assert code == 2
        assert "take one of them with seasons.npz:KEY" in err
        code, err = outcome(capsys, command, f"{FOLDER / 'epl_seasons' / 'seasons.npz'}:1066")
        assert code == 2
        assert "has no '1066'" in err
