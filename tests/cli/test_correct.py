"""`equilign correct` as a user runs it: the matrix, its files, a stop, mistakes."""

import json
import shutil

import numpy as np
import pytest

from equilign.cli.main import _exit_code
from equilign.errors import ConfigError
from equilign.experiments.correct.config import CorrectConfig
from equilign.experiments.correct.run import run_correct
from equilign.files import read_jsonl
from equilign.models import load_model

JUDGE = """
def shorter(prompt, a, b):
    return (1 + len(b)) / (2 + len(a) + len(b))
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory, chat_model):
    """A judge, and a second model."""
    import torch

    folder = tmp_path_factory.mktemp("correct")
    (folder / "judge.py").write_text(JUDGE)
    (folder / "judge.yaml").write_text("{kind: python, function: 'judge.py:shorter'}")
    shutil.copytree(chat_model, folder / "other")
    model = load_model(chat_model)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    model.save_pretrained(folder / "other")
    return folder


def arguments(work, chat_model, prompts_file, out):
    return [
        *("correct", "--prompts", prompts_file, "--max-prompts", 5, "--max-new-tokens", 8),
        *("--leader", chat_model, "--leader", work / "other", "--follower", work / "other"),
        *("--follower", chat_model, "--num-samples", 2, "--oracle", work / "judge.yaml"),
        *("--output-dir", out),
    ]


def run_here(capfd, *given):
    code = _exit_code([*map(str, given)])
    out, err = capfd.readouterr()
    assert "Traceback" not in err, err
    return code, out, err


def test_the_matrix_follows_from_the_answers(capfd, work, chat_model, prompts_file, tmp_path):
    given = arguments(work, chat_model, prompts_file, tmp_path / "run")
    code, out, err = run_here(capfd, *given, "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["followers"] == [str(work / "other"), str(chat_model)]
    assert np.shape(summary["win_rate"]) == (2, 2)
    shown = {}
    for f in (1, 2):
        for leader in (1, 2):
            rows = read_jsonl(tmp_path / "run" / "pairs" / f"{f}-{leader}" / "answers.jsonl")
            rates, led = [], []
            for row in rows:
                # Two chains of two answers each: shown, replied, shown, replied.
                a, reply_a, b, reply_b = row["completions"]
                led.append((a, b))
                pairs = ((a, reply_a), (b, reply_b))
                rates.append(np.mean([(1 + len(x)) / (2 + len(x) + len(y)) for x, y in pairs]))
            assert summary["win_rate"][f - 1][leader - 1] == pytest.approx(np.mean(rates))
            shown[f, leader] = led
    # Every Follower is shown the same answers; the Leaders' differ.
    assert shown[1, 1] == shown[2, 1] != shown[1, 2] == shown[2, 2]
    low, high, win = (np.array(summary[k]) for k in ("low", "high", "win_rate"))
    assert ((low < win) & (win < high)).all()
    assert len(summary["mean_tokens"]["leaders"]) == 2
    assert all((tmp_path / "run" / name).stat().st_size > 1000 for name in summary["figures"])
    code, out, err = run_here(capfd, *given, "--resume")
    assert code == 0, err
    assert f"{win[0][1]:.3f}" in out
    code, _, err = run_here(capfd, *given)
    assert code == 2
    assert "Add --resume" in err


def test_a_stop_between_pairs_repeats_nothing(work, chat_model, prompts_file, tmp_path):
    config = CorrectConfig(
        prompts=str(prompts_file),
        oracle=str(work / "judge.yaml"),
        leader=(str(chat_model),),
        follower=(str(chat_model), str(work / "other")),
        max_prompts=2,
        max_new_tokens=6,
    )

    class Stop(Exception):
        pass

    def stopping(stage, number, done, total):
        if number == 2:
            raise Stop

    with pytest.raises(Stop):
        run_correct(config, tmp_path / "run", progress=stopping)
    first = tmp_path / "run" / "pairs" / "1-1" / "answers.jsonl"
    before = first.stat().st_mtime_ns
    stages = []
    summary = run_correct(
        config, tmp_path / "run", resume=True, progress=lambda *call: stages.append(call)
    )
    assert first.stat().st_mtime_ns == before
    assert not [c for c in stages if c[1] == 1 and c[0] == "judging"]
    whole = run_correct(config, tmp_path / "whole", progress=lambda *call: None)
    assert summary["win_rate"] == whole["win_rate"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"leader": ()}, "nobody leads"),
        ({"follower": ()}, "nobody follows"),
        ({"leader": ("a", "b", "a")}, "--leader a is given twice"),
        ({"prompts": "-"}, "give a file"),
        ({"num_samples": 0}, "num_samples = 0"),
    ],
)
def test_options_that_make_no_matrix(given, message):
    with pytest.raises(ConfigError, match=message):
        CorrectConfig(
            **{"prompts": "p", "oracle": "o", "leader": ("a",), "follower": ("b",)} | given
        )


def test_a_model_that_is_not_there_is_told_first(capfd, work, chat_model, prompts_file, tmp_path):
    given = [*arguments(work, chat_model, prompts_file, tmp_path / "run"), "--follower", "/nowhere"]
    code, _, err = run_here(capfd, *given)
    assert code == 2
    assert "/nowhere" in err
    assert not (tmp_path / "run").exists()
