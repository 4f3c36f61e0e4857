"""`equilign fit-oracle`: its JSON, its text, its messages."""

import json

import pytest

from equilign.cli.main import _exit_code
from equilign.fitting.config import FitConfig
from equilign.oracles.build import build_oracle


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [
        {"prompt": f"prompt {i}", "chosen": f"good {i % 3}", "rejected": f"bad {i % 4}"}
        for i in range(80)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(capfd, *arguments):
    code = _exit_code(["fit-oracle", *map(str, arguments)])
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return code, out, err


QUICK = ("--epochs", 3, "--learning-rate", 0.01)


def test_json_and_nothing_else_on_stdout(capfd, data, tmp_path):
    folder = tmp_path / "run"
    code, out, err = run(capfd, "reward", "--data", data, *QUICK, "--output-dir", folder, "--json")
    assert code == 0, err
    assert out.count("\n") == 1
    found = json.loads(out)
    assert found["kind"] == "reward"
    for name in ("accuracy", "low", "high", "log_loss", "calibration_error"):
        assert isinstance(found["held_out"][name], float)
    assert found["held_out"]["low"] <= found["held_out"]["accuracy"] <= found["held_out"]["high"]
    assert found["comparison"]["other"]["kind"] == "general"
    oracle = build_oracle({"kind": "reward", "path": str(folder)}, tmp_path)
    assert oracle.compare(["prompt 1"], ["good 1"], ["bad 2"])[0] > 0.5


def test_text_and_resume(capfd, data, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    arguments = ["pairwise", "--data", data, *QUICK, "--output-dir", tmp_path / "run"]
    code, out, err = run(capfd, *arguments, "--no-compare")
    assert code == 0, err
    assert "held out: 16 pairs on 16 prompts" in out
    out = " ".join(out.split())
    for words in ("longer wins", "one half, always", "Holds if the interval lies above 50 %"):
        assert words in out
    assert (
        f"Open {tmp_path / 'run' / 'report.html'}" in out.replace("\n", "") or "report.html" in out
    )
    code, out, err = run(capfd, *arguments, "--no-compare")
    assert (code, out) == (2, "")
    assert "--resume" in err
    code, out, err = run(capfd, *arguments, "--resume")
    assert (code, out) == (2, "")
    assert "compare: False there, True now" in err
    code, out, _ = run(capfd, *arguments, "--no-compare", "--resume", "--json")
    assert code == 0
    assert json.loads(out)["comparison"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rewards", "--data", "x"], "no judge of kind 'rewards': reward, pairwise, general"),
        (["reward"], "give the preference pairs to fit on with --data"),
        (["reward", "--data", "nowhere.jsonl"], "there is no file nowhere.jsonl"),
        (["reward", "--data", "x", "--epochs", "0"], "epochs must be at least 1; got 0"),
        (["reward", "--data", "x", "--seed", "-1"], "seed must be at least 0; got -1"),
        (["reward", "--data", "x", "--epoch", "3"], "Did you mean '--epochs'"),
        (["reward", "--data", "x", "--lora"], "give one with --base"),
    ],
)
def test_messages(capfd, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capfd, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_bad_data_and_base(capfd, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capfd, "reward", "--data", data, "--base", "/no/where")
    assert code == 2
    assert "no model folder at /no/where" in err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "few.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n' * 30)
    code, _, err = run(capfd, "reward", "--data", "few.jsonl")
    assert code == 2
    assert "the data have 1 different prompts" in err


def test_every_option_says_what_it_does(capfd):
    code, out, _ = run(capfd, "--help")
    assert code == 0
    plain = " ".join(out.split())
    for name in FitConfig.__dataclass_fields__:
        if name != "kind":
            assert f"--{name.replace('_', '-')}" in plain
