"""The recipe with the paper's sizes, as far as it goes without GPU and hub."""

import json
import runpy
from pathlib import Path

import pytest

from equilign.cli.main import _exit_code
from equilign.experiments import paper_recipe
from equilign.experiments.slhf import paper_scale
from equilign.experiments.train_config import make_config, read_config_file
from equilign.experiments.train_job import method_args

RECIPE = Path(__file__).parents[2] / "recipes" / "slhf_paper"
PREPARE = runpy.run_path(str(RECIPE / "prepare.py"))


def nobody(*args):
    pass


def args_of(name, method, tmp_path):
    path = RECIPE / f"{name}.yaml"
    here = [(("args", "use_cpu"), True), (("args", "bf16"), False)]
    config = make_config(method, read_config_file(path), here, path.parent)
    return config, method_args(config, tmp_path)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize(("name", "method"), [*paper_scale.RECIPE.methods, ("tulu", "slhf")])
def test_configurations_hold_the_papers_values(name, method, tmp_path):
    config, args = args_of(name, method, tmp_path)
    assert args.num_rounds == 1000
    assert args.prompts_per_round == 32
    assert args.temperature == 0.9
    assert not args.reset_optimizer_each_round
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * 8
    assert batch == 32, "one step per round on eight devices"
    if name != "tulu":
        assert config.model == "Qwen/Qwen2.5-0.5B-Instruct"
        assert set(config.oracle["attributes"]) == set(paper_scale.ATTRIBUTES)
        assert (args.learning_rate, args.max_grad_norm) == (1e-5, 200.0)
        assert (config.peft["r"], config.peft["lora_alpha"]) == (64, 128)
        assert (args.max_prompt_length, args.max_completion_length) == (1024, 512)
    if method == "slhf":
        assert (args.beta_leader, args.beta_follower) == (0.001, 0.001)
        assert args.kappa == (2.0 if name == "tulu" else 5.0)
        assert (args.baseline, args.baseline_value) == ("constant", 0.5)
        assert args.players == "shared"
    else:
        assert args.beta == 0.001


RATED = [
    {"prompt": "p", "response": "a", "helpfulness": 4, "verbosity": 3},
    {"prompt": "p", "response": "b", "helpfulness": 2, "verbosity": 1},
    {"prompt": "alone", "response": "c", "helpfulness": 0, "verbosity": 0},
    {"prompt": "q", "response": "d", "helpfulness": 1, "verbosity": 2},
    {"prompt": "q", "response": "e", "helpfulness": 1, "verbosity": 2},
]


def test_pairs_of_each_attribute():
    couples = list(PREPARE["couples"](RATED))
    assert [(a["response"], b["response"]) for a, b in couples] == [("a", "b"), ("d", "e")]
    better = PREPARE["pair"](*couples[0], "helpfulness")
    assert better["chosen"][0]["content"] == "a"
    # Of verbosity less is better.
    shorter = PREPARE["pair"](*couples[0], "verbosity")
    assert shorter["chosen"][0]["content"] == "b"
    assert shorter["prompt"] == [{"role": "user", "content": "p"}]
    assert PREPARE["pair"](*couples[1], "helpfulness") is None
    assert set(PREPARE["ATTRIBUTES"]) == set(paper_scale.ATTRIBUTES)


def test_prompts_are_on_one_side():
    train, held_out = PREPARE["split"]([f"p{i % 50}" for i in range(100)])
    assert (len(train), len(held_out)) == (40, 10)
    assert not set(train) & set(held_out)
    assert PREPARE["split"]([f"p{i}" for i in range(50)])[::-1] == (held_out, train)


def test_it_trains_each_method_when_everything_is_there(monkeypatch, tmp_path):
    ran = []

    def run(config, folder, *, resume, progress):
        ran.append((config.method, config.args["seed"], folder))
        row = {"round": 1, "win_rate": 0.6, "low": 0.5, "high": 0.7, "mean_tokens": 300.0}
        summary = {"methods": {config.method: {"rounds": [row]}}}
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps(summary))
        return summary

    monkeypatch.setattr(paper_scale, "missing", lambda folder: [])
    monkeypatch.setattr("equilign.experiments.train.run_train", run)
    found = paper_scale.run_paper_scale(tmp_path, seed=4, resume=False, progress=nobody)
    names = ["slhf", "rloo", "nash-md-pg"]
    assert ran == [(name, 4, tmp_path / name) for name in names]
    assert found["tables"][0]["rows"][0] == ["slhf", 1, 0.6, 0.5, 0.7, 300.0]
    paper_scale.run_paper_scale(tmp_path, seed=4, resume=True, progress=nobody)
    assert len(ran) == 3, "finished trainings are kept"


def test_it_says_what_is_missing_and_exits_2(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(paper_recipe, "_cached", lambda name: False)
    folder = tmp_path / "run"
    arguments = ["reproduce", "slhf", "--scale", "paper", "--output-dir", str(folder)]
    assert _exit_code(arguments) == 2
    out, err = capsys.readouterr()
    said = " ".join(err.split())
    assert out == ""
    for words in (
        "a GPU",
        "Qwen2.5-1.5B",
        "recipes/slhf_paper",
        "judges/verbosity",
        "not run here",
    ):
        assert words in said
    assert "Traceback" not in err
    assert not folder.exists()
