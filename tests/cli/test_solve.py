"""`equilign solve`: its JSON, its table, its picture."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from equilign.cli.main import _exit_code
from tests.games.real_games import source


def run(capsys, *arguments):
    code = _exit_code(["solve", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert err == ""
    return out


def run_json(capsys, *arguments):
    out = run(capsys, *arguments, "--json")
    assert out.count("\n") == 1
    return json.loads(out)


KEYS = {"concept", "labels", "policy", "value", "duality_gap", "unique", "status", "notes"}


def test_nash_of_a_named_game(capsys):
    found = run_json(capsys, "comal")
    assert set(found) == KEYS
    np.testing.assert_allclose(found["policy"], np.array([4, 3, 4]) / 11, atol=1e-12)
    assert found["value"] == pytest.approx(0.5)
    assert found["duality_gap"] <= 1e-12
    assert (found["unique"], found["status"], found["concept"]) == (True, "optimal", "nash")
    assert len(found["labels"]) == 3


def test_a_kl_weight_and_a_reference(capsys, tmp_path):
    wanted = [0.4321, 0.3376, 0.2303]  # known for a cycle and this reference
    options = ("rock-paper-scissors", "--beta", 0.1, "--ref")
    np.testing.assert_allclose(
        run_json(capsys, *options, "0.6,0.1,0.3")["policy"], wanted, atol=1e-4
    )
    path = tmp_path / "ref.json"
    path.write_text(json.dumps({"paper": 0.1, "rock": 0.6, "scissors": 0.3}))
    np.testing.assert_allclose(run_json(capsys, *options, path)["policy"], wanted, atol=1e-4)


def test_stackelberg_gives_the_followers_answers(capsys):
    found = run_json(
        capsys, "comal", "--concept", "stackelberg", "--beta", 0.1, "--beta-follower", 0.1
    )
    assert set(found) == KEYS | {"follower"}
    np.testing.assert_allclose(found["policy"], [0.216, 0.216, 0.569], atol=1e-3)
    np.testing.assert_allclose(np.sum(found["follower"], axis=1), 1.0)
    out = run(capsys, "comal", "--concept", "stackelberg", "--beta", 0.1)
    assert "the follower's answer" in out


def test_no_condorcet_winner_is_null_not_nan(capsys):
    out = run(capsys, "rock-paper-scissors", "--concept", "condorcet", "--json")
    found = json.loads(out)
    assert "NaN" not in out
    assert (found["status"], found["value"], found["policy"]) == ("none", None, [0, 0, 0])
    assert "status none" in run(capsys, "rock-paper-scissors", "--concept", "condorcet")


def test_a_file_of_comparisons_is_pooled(capsys, tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("chosen,rejected\nb,a\nb,a\na,b\nb,c\n")
    found = run_json(capsys, path)
    assert found["labels"] == ["a", "b", "c"]
    assert found["policy"] == pytest.approx([0, 1, 0])


def test_selection_and_other_options(capsys):
    vertex = run_json(capsys, "all-ties", "--selection", "vertex")
    centre = run_json(capsys, "all-ties", "--option", "selection=center")
    assert max(vertex["policy"]) == pytest.approx(1.0)
    assert max(centre["policy"]) < 0.9
    assert vertex["unique"] is False
    against = run_json(
        capsys, "rock-paper-scissors", "--concept", "best-response", "--option", "opponent=1,0,0"
    )
    assert against["policy"] == pytest.approx([0, 1, 0])


def test_options_of_a_named_game(capsys):
    assert len(run_json(capsys, "rotational", "--game-option", "n=7")["labels"]) == 7


def test_real_game(capsys):
    out = run(capsys, source("soccer10"))
    assert "agent1" in out
    assert "0.5217" in out
    assert "7 more are never played" in out


def test_list(capsys):
    out = run(capsys, "--list")
    assert "rock-paper-scissors" in out
    assert "stackelberg" in out
    found = json.loads(run(capsys, "--list", "--json"))
    assert found["games"]["comal"]["about"]
    assert {"nash", "stackelberg", "bradley-terry", "condorcet"} <= set(found["concepts"])


@pytest.mark.parametrize("ending", ["png", "svg"])
@pytest.mark.parametrize("concept", ["nash", "stackelberg"])
def test_picture(capsys, tmp_path, ending, concept):
    path = tmp_path / "new" / f"p.{ending}"
    run(capsys, "comal", "--concept", concept, "--beta", 0.1, "--plot", path)
    if ending == "png":
        assert path.read_bytes().startswith(b"\x89PNG")
    else:
        ET.fromstring(path.read_text())
    first = path.read_bytes()
    run(capsys, "comal", "--concept", concept, "--beta", 0.1, "--plot", path)
    assert path.read_bytes() == first  # the same bytes every time


def test_names_from_a_file_cannot_drive_the_terminal_or_the_picture(capsys, tmp_path):
    names = ["\x1b[2Jevil\u202e", "[bold red]markup[/]", "$x^2$ <b>&", "模" * 300, "_hidden"]
    prefs = np.full((5, 5), 0.5)
    path = tmp_path / "g.json"
    path.write_text(json.dumps({"labels": names, "prefs": prefs.tolist()}))
    out = run(capsys, path, "--plot", tmp_path / "p.svg")
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert r"\x1b[2Jevil\u202e" in out
    assert "[bold red]markup[/]" in out
    assert max(map(len, out.splitlines())) < 200
    text = (tmp_path / "p.svg").read_text()
    ET.fromstring(text)
    assert "$x^2$ &lt;b&gt;&amp;" in text
    assert "_hidden" in text
    raw = run(capsys, path, "--json")
    assert raw.isascii()
    assert json.loads(raw)["labels"] == names
