"""The recipe with the paper's sizes, as far as it goes without GPU and hub."""

import json
from pathlib import Path

import pytest

from equilign.cli.main import _exit_code
from equilign.errors import ConfigError
from equilign.experiments import paper_recipe
from equilign.experiments.sta import paper_scale
from equilign.experiments.train_config import make_config, read_config_file
from equilign.experiments.train_job import method_args
from equilign.trainers.reward_game_config import PAPER, PAPER_SEEDS

RECIPE = Path(__file__).parents[2] / "recipes" / "sta_paper"
GAMES = ("sta-total", "sta-naive", "rlhf", "simultaneous", "reversed", "parl")


def nobody(*args):
    pass


def args_of(name, tmp_path):
    path = RECIPE / f"{name}.yaml"
    here = [(("args", "use_cpu"), True)]
    config = make_config(name, read_config_file(path), here, path.parent)
    return config, method_args(config, tmp_path)


def test_there_is_a_configuration_for_each():
    assert sorted(p.stem for p in RECIPE.glob("*.yaml")) == sorted(paper_scale.METHODS)


@pytest.mark.parametrize("name", paper_scale.METHODS)
def test_configurations_hold_the_papers_values(name, tmp_path):
    config, args = args_of(name, tmp_path)
    assert config.model == "facebook/opt-125m"
    assert config.oracle == {"kind": "word-collector"}
    assert args.optim == "rmsprop"
    assert (args.learning_rate, args.beta, args.seed) == (1e-6, 0.1, PAPER_SEEDS[0])
    assert (args.num_generations, args.max_completion_length) == (4, 75)
    assert args.per_device_train_batch_size == 16
    if name in GAMES:
        shared = set(PAPER) - {"inner_steps", "solver", "cg_iterations", "optim"}
        assert {k: vars(args)[k] for k in shared} == {k: PAPER[k] for k in shared}
        assert args.inner_steps == 5
    if name == "sta-total":
        assert (args.solver, args.cg_iterations) == ("cg", 10)
    if name == "ppo":
        assert (args.reward, args.cliprange, args.epochs_per_round) == ("score", 0.2, 4)


@pytest.mark.parametrize("name", GAMES)
def test_they_are_saved_as_often(name, tmp_path):
    _, args = args_of(name, tmp_path)
    assert args.save_steps == 250 * args.epochs_per_round


def test_it_trains_each_method_with_one_of_the_papers_seeds(monkeypatch, tmp_path):
    ran = []

    def run(config, folder, *, resume, progress):
        ran.append((config.method, config.args["seed"], folder))
        row = {"round": 1, "win_rate": 0.6, "low": 0.5, "high": 0.7, "mean_tokens": 75.0}
        summary = {"methods": {config.method: {"rounds": [row]}}}
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps(summary))
        return summary

    monkeypatch.setattr(paper_scale, "missing", lambda folder: [])
    monkeypatch.setattr("equilign.experiments.train.run_train", run)
    found = paper_scale.run_paper_scale(tmp_path, seed=1, resume=False, progress=nobody)
    assert ran == [(name, 532, tmp_path / name) for name in paper_scale.METHODS]
    assert len(found["tables"][0]["rows"]) == len(paper_scale.METHODS)
    with pytest.raises(ConfigError, match="seed = 5; the paper has 5 seeds, from 0"):
        paper_scale.run_paper_scale(tmp_path, seed=5, resume=False, progress=nobody)


def test_it_says_what_is_missing_and_exits_2(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(paper_recipe, "_cached", lambda name: False)
    folder = tmp_path / "run"
    arguments = ["reproduce", "sta-rlhf", "--scale", "paper", "--output-dir", str(folder)]
    assert _exit_code(arguments) == 2
    out, err = capsys.readouterr()
    said = " ".join(err.split())
    assert out == ""
    for words in ("a GPU", "opt-125m", "recipes/sta_paper", "ultrachat.jsonl", "not run here"):
        assert words in said
    assert "Traceback" not in err
    assert not folder.exists()
