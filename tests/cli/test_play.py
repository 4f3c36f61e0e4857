"""`equilign play`: what it prints, for people and for programs, and what it refuses."""

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from equilign.cli.main import _exit_code
from equilign.games import PreferenceGame, duality_gap
from equilign.play import play
from equilign.rules import RULES

COMAL = np.array([[0.5, 0.1, 0.8], [0.9, 0.5, 0.1], [0.2, 0.9, 0.5]])
START = np.array([0.2, 0.5, 0.3])


def outcome(capsys, *arguments):
    code = _exit_code(["play", *[str(a) for a in arguments]])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def played(capsys, *arguments):
    code, out, err = outcome(capsys, *arguments, "--json")
    assert code == 0, err
    assert out.count("\n") == 1, "one object and nothing else on stdout"

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(out, parse_constant=refuse)


def refused(capsys, *arguments):
    code, out, err = outcome(capsys, *arguments)
    assert code == 2, err
    assert out == ""
    return err


# -- JSON -------------------------------------------------------------------------------------


def test_json_is_what_play_returns(capsys):
    found = played(
        capsys, "comal", "--rules", "omwu", "nash-md", "--steps", 300, "--start", "0.2,0.5,0.3",
        "--beta", 0.1,
    )  # fmt: skip
    game = PreferenceGame(COMAL, beta=0.1)
    assert list(found["rules"]) == ["omwu", "nash-md"]
    for name, rule in found["rules"].items():
        run = play(game, name, steps=300, start=START)
        assert rule["steps"] == run.steps.tolist()
        np.testing.assert_allclose(rule["duality_gap"], run.duality_gap, atol=1e-15)
        np.testing.assert_allclose(rule["average_duality_gap"], run.average_duality_gap, atol=1e-15)
        np.testing.assert_allclose(rule["final_policy"], run.final_policy, atol=1e-12)
        np.testing.assert_allclose(rule["average_policy"], run.average_policy, atol=1e-12)
        assert rule["status"] == "done"
        assert rule["title"] == RULES[name].title
        assert rule["options"]["eta"] == run.options["eta"]
        assert rule["seconds"] >= 0
    best = found["equilibrium"]
    assert best["unique"] is True
    assert duality_gap(game, np.array(best["policy"])) < 1e-9
    assert found["labels"] == ["a", "b", "c"]
    assert found["game"] == "comal"
    assert found["options"]["steps"] == 300
    assert found["options"]["game_beta"] == 0.1
    assert found["seconds"] > 0


def test_distance_and_steps_to(capsys):
    found = played(
        capsys, "comal", "--rules", "omwu", "mwu", "--start", "0.2,0.5,0.3", "--record", 1
    )["rules"]
    gaps = np.array(found["omwu"]["duality_gap"])
    for level, at in found["omwu"]["steps_to"].items():
        assert gaps[at] <= float(level) < gaps[at - 1]
    assert set(found["omwu"]["steps_to"]) == {"0.001", "1e-06"}
    assert found["mwu"]["steps_to"] == {"0.001": None, "1e-06": None}
    off = np.abs(np.array(found["mwu"]["final_policy"]) - np.array([4, 3, 4]) / 11).sum() / 2
    assert found["mwu"]["distance_to_equilibrium"] == pytest.approx(off, abs=1e-9)
    assert found["omwu"]["distance_to_equilibrium"] < 1e-9


def test_distance_is_to_the_set_where_equilibria_are_many(capsys):
    found = played(capsys, "clones", "--rules", "omwu", "--steps", 5000)
    assert found["equilibrium"]["unique"] is False
    rule = found["rules"]["omwu"]
    one = np.abs(np.array(rule["final_policy"]) - found["equilibrium"]["policy"]).sum() / 2
    assert rule["distance_to_equilibrium"] < 1e-6 < 1e-3 < one


def test_sequential_rules_are_measured_in_their_game(capsys):
    found = played(
        capsys, "comal", "--rules", "stackelberg-mirror", "--steps", 4000, "--beta", 0.1
    )["rules"]["stackelberg-mirror"]
    np.testing.assert_allclose(found["final_policy"], (0.216, 0.216, 0.569), atol=1e-3)
    assert found["distance_to_equilibrium"] < 1e-6
    assert found["duality_gap"][-1] < 1e-6 < 0.01 < found["simultaneous_gap"]
    assert np.array(found["follower"]).shape == (3, 3)


def test_the_distance_of_sequential_rules_is_total_variation(capsys):
    found = played(
        capsys, "comal", "--rules", "stackelberg-gda", "--steps", 0, "--beta", 0.1,
        "--start", "uniform",
    )["rules"]["stackelberg-gda"]  # fmt: skip
    assert found["distance_to_equilibrium"] == pytest.approx(0.5692 - 1 / 3, abs=1e-3)


def test_all_plays_every_rule(capsys):
    found = played(capsys, "full-support", "--rules", "all", "--steps", 20, "--game-option", "n=4")
    assert list(found["rules"]) == list(RULES)
    for rule in found["rules"].values():
        assert rule["steps"][-1] == 20
        assert sum(rule["final_policy"]) == pytest.approx(1.0)


def test_a_pull_of_the_rules_own_shows_its_floor(capsys):
    """--rule-beta pulls while gaps stay those of the game; --beta changes the game too."""
    arguments = ["comal", "--rules", "egpo", "--steps", 2000]
    free = played(capsys, *arguments)["rules"]["egpo"]
    pulled = played(capsys, *arguments, "--rule-beta", 0.1)["rules"]["egpo"]
    game = played(capsys, *arguments, "--beta", 0.1)["rules"]["egpo"]
    assert free["duality_gap"][-1] < 1e-9
    assert pulled["duality_gap"][-1] == pytest.approx(0.0245, abs=1e-3)
    assert game["duality_gap"][-1] < 1e-9
    np.testing.assert_allclose(pulled["final_policy"], (0.3371, 0.2835, 0.3794), atol=1e-4)
    np.testing.assert_allclose(game["final_policy"], pulled["final_policy"], atol=1e-8)


def test_options_of_one_rule_win(capsys):
    found = played(
        capsys, "comal", "--rules", "mwu,omwu", "--eta", 0.5, "--set", "mwu.eta=0.25",
        "--set", "omwu.start=0.2,0.5,0.3", "--steps", 3,
    )["rules"]  # fmt: skip
    assert found["mwu"]["options"]["eta"] == 0.25
    assert found["omwu"]["options"]["eta"] == 0.5
    run = play(PreferenceGame(COMAL), "omwu", steps=3, eta=0.5, start=START)
    np.testing.assert_allclose(found["omwu"]["final_policy"], run.final_policy)


def test_decreasing_steps(capsys):
    arguments = ["comal", "--rules", "nash-md", "--steps", 5000, "--beta", 0.1]
    falling = played(capsys, *arguments, "--eta", "decreasing")["rules"]["nash-md"]
    constant = played(capsys, *arguments, "--eta", 1)["rules"]["nash-md"]
    assert falling["options"]["eta"] == "schedule"
    assert falling["duality_gap"][-1] < 1e-6 < 1e-5 < constant["duality_gap"][-1]


def test_inner_steps_reach_the_rules_that_have_them(capsys):
    few, many = (
        played(
            capsys, "comal", "--rules", "comal", "--rule-beta", 0.1, "--inner-steps", inner
        )["rules"]["comal"]
        for inner in (1, 50)
    )  # fmt: skip
    assert many["duality_gap"][-1] < 1e-5 < 0.1 < few["duality_gap"][-1]
    assert many["options"]["inner_steps"] == 50


def test_samples_depend_on_the_seed_and_on_nothing_else(capsys):
    arguments = ["comal", "--rules", "omwu", "--samples", 4, "--steps", 30, "--start", "uniform"]
    runs = [played(capsys, *arguments, "--seed", seed)["rules"]["omwu"] for seed in (1, 1, 2)]
    assert runs[0]["final_policy"] == runs[1]["final_policy"] != runs[2]["final_policy"]
    assert runs[0]["options"]["samples"] == 4


def test_starts(capsys, tmp_path):
    path = tmp_path / "start.json"
    path.write_text(json.dumps({"a": 0.2, "b": 0.5, "c": 0.3}))
    shared = ["comal", "--rules", "mwu", "--steps", 0]
    ref = ["--ref", "0.6,0.3,0.1"]
    for words, expected in (
        (["--start", "uniform"], [1 / 3] * 3),
        (["--start", "reference", *ref], [0.6, 0.3, 0.1]),
        (["--start", path], START),
        (["--start", "0.2,0.5,0.3"], START),
    ):
        found = played(capsys, *shared, *words)["rules"]["mwu"]
        np.testing.assert_allclose(found["final_policy"], expected, rtol=1e-12)
        assert found["steps"] == [0]


def test_tolerance_and_record(capsys):
    found = played(
        capsys, "comal", "--rules", "ogda", "mwu", "--tolerance", 1e-6, "--record", 10,
        "--steps", 200,
    )["rules"]  # fmt: skip
    assert found["ogda"]["status"] == "converged"
    assert found["ogda"]["duality_gap"][-1] <= 1e-6 < found["ogda"]["duality_gap"][-2]
    assert found["mwu"]["status"] == "done"
    assert found["mwu"]["steps"] == list(range(0, 201, 10))


def test_a_diverging_run_says_so_and_is_no_error(capsys):
    arguments = ["comal", "--rules", "omwu", "mwu", "--set", "omwu.eta=1e308", "--steps", 50]
    rules = played(capsys, *arguments)["rules"]
    assert rules["omwu"]["status"] == "diverged"
    assert rules["omwu"]["steps"][-1] < 50
    assert rules["mwu"]["status"] == "done"
    code, out, _ = outcome(capsys, *arguments)
    assert code == 0
    assert "diverged" in out
    assert "smaller step size" in " ".join(out.split())


def test_infinite_gaps_are_null(capsys):
    arguments = ["comal", "--rules", "mwu", "--ref", "1,0,0", "--beta", "0.1", "--steps", 3]
    found = played(capsys, *arguments)["rules"]["mwu"]
    assert found["duality_gap"] == [None] * 4
    _, out, _ = outcome(capsys, *arguments)
    assert re.search(r"mwu +done +3 +inf", out)


def test_progress_goes_to_stderr(capsys):
    code, _, err = outcome(capsys, "comal", "--rules", "mwu", "sta-naive", "--json", "--steps", 5)
    assert code == 0
    assert err.split() == ["mwu", "sta-naive"]


# -- games from files -------------------------------------------------------------------------


def test_matrix_and_comparisons_files(capsys, tmp_path):
    matrix = tmp_path / "m.csv"
    matrix.write_text("\n".join(",".join(map(str, row)) for row in COMAL))
    found = played(capsys, matrix, "--rules", "ogda", "--steps", 300)
    np.testing.assert_allclose(found["rules"]["ogda"]["final_policy"], np.array([4, 3, 4]) / 11)
    archive = tmp_path / "m.npz"
    np.savez(archive, prefs=COMAL)
    assert played(capsys, archive, "--rules", "ogda", "--steps", 300)["labels"] == ["0", "1", "2"]


@pytest.fixture
def odd_game(tmp_path):
    """Names that would colour a terminal, close a tag, or be a formula."""
    path = tmp_path / "odd.json"
    names = ["[bold red]x[/]", "\x1b[2J\u202ey", "$a_b$ <b>&amp;</b>"]
    path.write_text(json.dumps({"labels": names, "prefs": COMAL.tolist()}))
    return path, names


def test_names_are_data_and_nothing_else(capsys, odd_game):
    path, names = odd_game
    code, out, err = outcome(capsys, path, "--steps", 5)
    assert code == 0
    assert "\x1b" not in out + err
    assert "\u202e" not in out
    assert "[bold red]x[/]" in out
    assert r"\x1b[2J\u202ey" in out
    code, out, _ = outcome(capsys, path, "--steps", 5, "--json")
    assert "\x1b" not in out
    assert json.loads(out)["labels"] == names


def test_a_hostile_file_name(capsys, tmp_path, odd_game):
    path = tmp_path / "[red]\x1b[31m.json"
    path.write_text(odd_game[0].read_text())
    code, out, _ = outcome(capsys, path, "--steps", 5)
    assert code == 0
    assert "\x1b" not in out
    assert "[red]" in out.replace("\n", "")


# -- tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 120])
def test_table_without_a_terminal(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = outcome(capsys, "comal", "--rules", "all", "--steps", 100)
    assert code == 0
    assert "\x1b" not in out
    assert max(len(line) for line in out.splitlines()) <= width
    rows = {line.split()[0]: line for line in out.splitlines() if line and line.split()}
    for name in RULES:
        assert f"\n{name} " in out, "a name is cut"
        assert "…" not in rows[name]
    assert re.search(r"\nomwu +done +100 +0\.\d{3} +0\.\d{3} .* [▁▂▃▄▅▆▇█]+", out)
    assert "comal: 3 responses, KL weight 0" in out
    assert "0.364 a, 0.364 c, 0.273 b" in out


def test_table_says_when_nothing_pulls(capsys):
    def remark(*arguments):
        return " ".join(outcome(capsys, "comal", "--steps", 3, *arguments)[1].split())

    assert "plain self-play: omd, comal." in remark("--rules", "mwu,omwu,omd,comal,egpo")
    assert "plain self-play" not in remark("--rules", "mwu,omwu,egpo")
    assert "plain self-play" not in remark("--rules", "omd", "--rule-beta", "0.1")
    assert "not unique" in " ".join(outcome(capsys, "clones", "--steps", 3)[1].split())


def test_ascii_terminals(capsys, monkeypatch):
    import io
    import sys

    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert _exit_code(["play", "comal", "--rules", "ogda"]) == 0
    stream.flush()
    row = next(x for x in stream.buffer.getvalue().decode("ascii").splitlines() if "ogda" in x)
    assert "#" in row
    assert "_" in row


def test_default_rules(capsys):
    assert list(played(capsys, "comal", "--steps", 3)["rules"]) == ["mwu", "omwu"]
    found = played(capsys, "comal", "ogda", "--steps", 3)
    assert list(found["rules"]) == ["ogda"]


def test_listing(capsys):
    code, out, _ = outcome(capsys, "--list")
    assert code == 0
    assert all(re.search(rf"(^|\n){name} ", out) for name in RULES)
    assert "inner_steps = 10" in " ".join(out.split())
    assert "kappa = 1.0" in " ".join(out.split())
    code, out, _ = outcome(capsys, "--list", "--json")
    rules = json.loads(out)["rules"]
    assert list(rules) == list(RULES)
    assert rules["omwu"]["options"]["mixture"] == 0.125
    assert rules["omwu"]["options"]["eta"] is None
    assert "progress" not in rules["omwu"]["options"]


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'GAME'"),
        (["comal", "--rules", "omwuu"], "no rule 'omwuu'; did you mean 'omwu'? There are: all, "),
        (["comal", "--rules", "zzz"], "no rule 'zzz'; there are: all, sppo, "),
        (["nosuchgame"], "there is no file and no game 'nosuchgame'; the games are: rock"),
        (["/nowhere/game.csv"], "there is no file /nowhere/game.csv"),
        (["comal", "--eta", "0"], "mwu: eta = 0.0; it must be finite and > 0"),
        (["comal", "--eta", "-1"], "eta = -1.0; it must be finite and > 0"),
        (["comal", "--eta", "nan"], "eta = nan; it must be finite and > 0"),
        (["comal", "--eta", "fast"], "eta = 'fast' is no number, nor 'decreasing'"),
        (["comal", "--eta", "decreasing"], "give --beta or --rule-beta"),
        (
            ["comal", "--rules", "stackelberg-gda", "--rule-beta", "1", "--eta", "decreasing"],
            "stackelberg-gda takes a constant eta only",
        ),
        (
            ["comal", "--rules", "sta-naive", "--eta", "1"],
            "sta-naive has no option 'eta'; it has: steps, start, record, samples, seed, "
            "tolerance, learning_rate, reward_learning_rate, inner_steps, beta, ridge. Give it to "
            "rules that have it: --set RULE.eta=1",
        ),
        (["comal", "--rules", "stackelberg-gda", "--inner-steps", "2"], "has no option 'inner_s"),
        (["comal", "--set", "mwu.speed=1"], "mwu has no option 'speed'; it has: steps, start, "),
        (["comal", "--set", "ogda.eta=1"], "'ogda' is not played; played are: mwu, omwu"),
        (["comal", "--set", "eta=1"], "--set 'eta=1' is not understood; write RULE.OPTION=VALUE"),
        (["comal", "--set", "mwu.eta="], "is not understood"),
        (["comal", "--set", "mwu.eta=much"], "mwu: eta = 'much' is no number"),
        (["comal", "--set", "mwu.steps=1.5"], "mwu: steps = '1.5' is no whole number"),
        (["comal", "--set", "mwu.seed=-1"], "mwu: seed = -1; it must be >= 0"),
        (["comal", "--set", "mwu.progress=1"], "mwu has no option 'progress'"),
        (["comal", "--steps", "-1"], "steps = -1; at least 0"),
        (["comal", "--steps", "many"], "'many' is not a valid integer"),
        (["comal", "--seed", "-1"], "-1 is not in the range"),
        (["comal", "--samples", "0"], "samples = 0; at least 1"),
        (["comal", "--record", "0"], "record = 0; record every 1 or more steps"),
        (["comal", "--inner-steps", "0"], "inner_steps = 0"),
        (["comal", "--tolerance", "nan"], "tolerance = nan; a duality gap, finite and >= 0"),
        (["comal", "--tolerance", "-1"], "tolerance = -1.0; a duality gap"),
        (["comal", "--beta", "-1"], "beta = -1.0; the KL weight must be finite and >= 0"),
        (["comal", "--rule-beta", "nan"], "beta = nan; a KL weight must be finite and >= 0"),
        (["comal", "--start", "nowhere"], "start = 'nowhere'; random, uniform, reference, or a"),
        (["comal", "--start", "0.5,0.5"], "probabilities"),
        (["comal", "--start", "0.5,0.6,0.1"], "policy sums to 1.2, not 1"),
        (["comal", "--start", "gone.json"], "there is no file gone.json"),
        (["comal", "--ref", "0.5,0.6,0.1"], "policy sums to 1.2, not 1"),
        (["comal", "--plot", "run.pdf"], "--plot run.pdf: a picture ends in .png or .svg"),
        (["comal", "--plot", "run"], "--plot run: a picture ends in .png or .svg"),
        (["comal", "--game-option", "n=4"], "has no option 'n'"),
        (["comal", "--color", "red"], "No such option '--color'"),
    ],
)
def test_message_and_exit_code(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_one_player(capsys, tmp_path):
    path = tmp_path / "one.csv"
    path.write_text("0.5\n")
    err = refused(capsys, path)
    assert str(path) in err
    assert "one player only" in err


def test_everything_is_checked_before_anything_is_played(capsys):
    err = refused(capsys, "comal", "--rules", "omwu", "mwu", "--set", "mwu.eta=0")
    assert err.startswith("equilign: mwu: eta = 0.0"), "omwu was played first"


def test_messages_do_not_drive_the_terminal(capsys):
    for arguments in (
        ["comal", "--rules", "\x1b[2J"],
        ["\x1b[2Jgame"],
        ["comal", "--set", "\x1b[2J.a=1"],
        ["comal", "--plot", "\x1b[2J.pdf"],
        ["comal", "--eta", "\x1b[2J"],
    ):
        err = refused(capsys, *arguments)
        assert "\x1b" not in err
        assert r"\x1b[2J" in err


# -- pictures ---------------------------------------------------------------------------------


def texts(path):
    tree = ElementTree.parse(path)
    return ["".join(e.itertext()) for e in tree.iter("{http://www.w3.org/2000/svg}text")]


def test_svg_holds_names_rules_and_panels(capsys, tmp_path, odd_game):
    path, names = odd_game
    picture = tmp_path / "new" / "run.svg"
    code, _, err = outcome(
        capsys, path, "--rules", "omwu", "mwu", "--steps", 300, "--plot", picture
    )
    assert code == 0
    assert f"wrote {picture}" in err
    found = texts(picture)
    for text in ("omwu", "mwu", "equilibrium", "start", "last policy (solid)", "0.36", "0.001"):
        assert text in found, text
    assert names[0] in found
    assert names[2][:14] in [text[:14] for text in found], "a formula or an entity was read"
    assert not any("mathdefault" in text or "\x1b" in text for text in found)


def test_pictures_of_small_and_large_games(capsys, tmp_path):
    """The path over the simplex is for three responses; many are cut to what is played."""
    for n, steps in ((2, 3), (3, 20), (10, 200), (60, 20)):
        picture = tmp_path / f"{n}.svg"
        code, _, err = outcome(
            capsys, "random", "--game-option", f"n={n}", "--steps", steps, "--plot", picture,
            "--rules", "mwu,omwu,stackelberg-mirror,rlhf",
        )  # fmt: skip
        assert code == 0, err
        found = texts(picture)
        assert ("paths; star: equilibrium" in found) == (n == 3)
        assert ("12 others" in found) == (n == 60)


def test_the_same_run_gives_the_same_bytes(capsys, tmp_path):
    contents = []
    for name in ("a.svg", "b.svg"):
        outcome(capsys, "comal", "--steps", 30, "--plot", tmp_path / name)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


def test_png_and_hard_cases(capsys, tmp_path):
    """Divergence at once, infinite gaps, no step at all, and gaps of exactly zero."""
    for k, arguments in enumerate(
        (
            ["comal", "--set", "omwu.eta=1e308", "--steps", 200],
            ["comal", "--rules", "mwu", "--ref", "1,0,0", "--beta", 0.1, "--steps", 200],
            ["comal", "--steps", 0],
            ["all-ties", "--start", "uniform", "--steps", 200],
        )
    ):
        picture = tmp_path / f"{k}.png"
        code, _, err = outcome(capsys, *arguments, "--plot", picture)
        assert code == 0, err
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_unwritable_pictures(capsys, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.png").mkdir()
    err = refused(capsys, "comal", "--plot", tmp_path / "file" / "run.png")
    assert "is no folder" in err
    assert "is a folder" in refused(capsys, "comal", "--plot", tmp_path / "folder.png")
    assert (tmp_path / "file").read_text() == "mine"


def test_results_are_not_lost_with_the_picture(capsys):
    code, out, err = outcome(capsys, "comal", "--steps", 3, "--json", "--plot", "/proc/no.png")
    assert code == 2
    assert "cannot write /proc/no.png" in err
    assert list(json.loads(out)["rules"]) == ["mwu", "omwu"]
