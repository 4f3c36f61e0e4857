"""`equilign reproduce`: parsing, output, exit codes."""

import json

import pytest

from equilign.cli import main
from equilign.cli.main import _exit_code
from equilign.experiments import reproduce as registry
from equilign.experiments.reproduce import Paper

CLAIM = {"claim": "Water is wet.", "holds": None, "evidence": "1 of 2. Rule: x.", "source": "paper"}


def run_fake(output_dir, *, scale, seed, resume, progress):
    progress("a part", 0, 1, 1)
    return {
        "paper": "fake",
        "scale": scale,
        "seed": seed,
        "resume": resume,
        "claims": [CLAIM],
        "tables": [],
        "figures": [],
        "seconds": 1.5,
        "peak_memory_mb": 2.0,
        "output_dir": str(output_dir),
    }


@pytest.fixture(autouse=True)
def fake_paper(monkeypatch):
    entry = ("equilign.cli.reproduce", "Run a paper's experiments again.")
    monkeypatch.setitem(main.COMMANDS, "reproduce", entry)
    paper = Paper("fake", "A paper", "doi:1", f"{__name__}:run_fake")
    monkeypatch.setitem(registry.PAPERS, "fake", paper)


def test_json_on_stdout_and_nothing_else(capsys, tmp_path):
    arguments = ["reproduce", "fake", "--scale", "tiny", "--seed", "5", "--json", "--resume"]
    assert _exit_code([*arguments, "--output-dir", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert summary["claims"] == [CLAIM]
    assert (summary["scale"], summary["seed"], summary["resume"]) == ("tiny", 5, True)
    assert summary["output_dir"] == str(tmp_path)
    assert "a part" in err


def test_text_says_the_verdict_and_where_the_page_is(capsys):
    assert _exit_code(["reproduce", "fake"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "undecided" in out
    assert "report.html" in out
    assert "runs/fake" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "no paper 'nonsense'; there are: omwu, sppo, slhf, sta-rlhf, fake"),
        (["omwu", "--scale", "huge"], "no scale 'huge'"),
        (["omwu", "--seed", "-1"], "seed = -1"),
        ([], "PAPER"),
    ],
)
def test_bad_input_is_named_and_exits_2(capsys, arguments, message):
    assert _exit_code(["reproduce", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


def test_help_lists_the_scales(capsys):
    assert _exit_code(["reproduce", "--help"]) == 0
    out = capsys.readouterr().out
    assert "quick" in out
    assert "full" in out
