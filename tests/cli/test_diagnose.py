"""`equilign diagnose`: its JSON, its text, its picture."""

import json
import xml.etree.ElementTree as ET

import pytest

from equilign.cli.main import _exit_code
from tests.games.real_games import source


def run(capsys, *arguments):
    code = _exit_code(["diagnose", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert err == ""
    return out


def arena(path, wins, repeats):
    """Both orders of every pair on every prompt, the same verdicts ``repeats`` times."""
    rows = [
        {"prompt": f"p{k}", "model_a": x, "model_b": y, "winner": w, "annotator": f"j{k % 3}"}
        for k in range(repeats)
        for a, b in wins
        for x, y, w in ((a, b, "model_a"), (b, a, "model_b"))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_json(capsys, tmp_path):
    path = arena(tmp_path / "c.jsonl", ["ab", "bc", "ca"], 20)
    out = run(capsys, path, "--json", "--bootstrap", "50")
    assert out.count("\n") == 1
    found = json.loads(out)
    assert found["comparisons"] == 120
    assert found["players"] == ["a", "b", "c"]
    assert found["condorcet_winner"] is None
    assert found["smith_set"] == ["a", "b", "c"]
    assert {k: found["cycles"][k] for k in ("count", "significant", "triples")} == {
        "count": 1,
        "significant": 1,
        "triples": 1,
    }
    assert found["cycles"]["examples"][0]["players"] == ["a", "b", "c"]
    assert found["lottery"] == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    assert found["bradley_terry"]["worst_loss"] == pytest.approx(0.5)
    assert found["bradley_terry"]["worst_loss_margin"] == pytest.approx(1.0)
    assert found["bradley_terry"]["p_value"] == pytest.approx(1 / 51)
    assert found["verdict"] == "game"
    assert found["recommendation"].startswith("A game changes the answer.")
    assert found["position_bias"]["first_share"] == pytest.approx(0.5)
    assert found["prompts"]["with_cycle"] == 20
    assert found["annotators"]["count"] == 3


def test_the_recommendation_comes_first(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    out = run(capsys, source("qlora_oa7"), "--bootstrap", "20")
    assert out.startswith("A reward model is enough.")
    for words in ("38,544 comparisons of 7 players", "Condorcet winner", "gpt-4", "shown first",
                  "single prompts", "15.7%"):  # fmt: skip
        assert words in out
    assert max(map(len, out.splitlines())) <= 100
    out = run(capsys, source("soccer10"), "--bootstrap", "20")
    assert out.startswith("A game changes the answer.")
    assert "Clearest: agent1 > agent8 > agent7 > agent1" in " ".join(out.split())
    out = run(capsys, source("epl_seasons/2013-14"), "--bootstrap", "20")
    assert out.startswith("Too little data to tell.")


def test_options(capsys):
    loose = run(capsys, source("soccer10"), "--tolerance", "0.12", "--json", "--bootstrap", "20")
    assert json.loads(loose)["verdict"] == "reward model"
    first, second = (
        run(capsys, source("pandalm5"), "--json", "--seed", seed, "--bootstrap", "30")
        for seed in (3, 3)
    )
    assert first == second


def test_texts_of_prompts(capsys, tmp_path):
    path = tmp_path / "c.jsonl"
    rows = [{"prompt": f"p{k}", "chosen": f"a{k}", "rejected": f"b{k}"} for k in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(capsys, path).startswith("Too little data to tell.")
    found = json.loads(run(capsys, path, "--json"))
    assert (found["players"], found["number_of_players"], found["pooled"]) == (None, 60, False)
    assert json.loads(run(capsys, path, "--json", "--players", "names"))["pooled"]


@pytest.mark.parametrize("game", ["rrps43", "pandalm5", "epl_seasons/2010-11"])
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_picture(capsys, tmp_path, game, ending):
    path = tmp_path / f"p.{ending}"
    out = run(capsys, source(game), "--bootstrap", "20", "--plot", path)
    assert out.rstrip().endswith(str(path)) or str(path) in out.replace("\n", "")
    if ending == "png":
        assert path.read_bytes().startswith(b"\x89PNG")
    else:
        text = path.read_text()
        ET.fromstring(text)
        assert "Who beats whom" in text


def test_names_cannot_drive_the_terminal(capsys, tmp_path):
    evil = "\x1b[31m[bold]\u202e" + "x" * 5000
    path = tmp_path / "c.jsonl"
    rows = [{"chosen": evil, "rejected": name} for name in ("$a$", "<i>") for _ in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = run(capsys, path, "--bootstrap", "20", "--plot", tmp_path / "p.svg")
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "[bold]" in out
    assert len(out) < 5000
    ET.fromstring((tmp_path / "p.svg").read_text())
