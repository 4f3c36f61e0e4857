"""The configurations in recipes/: each fits its method, and a tiny model goes through each."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from equilign.experiments.train import run_train
from equilign.experiments.train_config import make_config, parse_override, read_config_file
from equilign.experiments.train_job import prepare
from equilign.formats import load_rows, preference_pairs
from equilign.methods import METHODS, TRAINED
from equilign.tasks.prompts import restaurant_prompts

RECIPES = Path(__file__).parents[2] / "recipes"
CONFIGS = sorted((RECIPES / "train").glob("*.yaml"))


def nobody(*args):
    pass


def recipe(method, *pairs):
    path = RECIPES / "train" / f"{method}.yaml"
    overrides = [parse_override(name, value) for name, value in pairs]
    return make_config(method, read_config_file(path), overrides, path.parent)


def test_there_is_one_for_every_method_that_trains():
    assert sorted(p.stem for p in CONFIGS) == sorted(TRAINED)


@pytest.mark.parametrize("method", TRAINED)
def test_it_fits_its_method(method, tmp_path):
    job = prepare(recipe(method), tmp_path / "run", progress=nobody)
    assert job.method is METHODS[method]
    assert job.judge is not None
    assert len(job.data.held_out) == 128
    pairs = job.trainer_class.data_format == "pairs"
    assert len(job.data.rows) == (136 if pairs else 272)
    assert job.args.learning_rate == 1e-4
    # Rounds must not run out of prompts: fresh ones for at least the first two.
    assert job.args.prompts_per_round <= len(job.data.rows)
    text = (RECIPES / "train" / f"{method}.yaml").read_text()
    assert f"equilign train {method} --config recipes/train/{method}.yaml" in text
    for key in ("model", "data", "oracle", "peft", "args.learning_rate"):
        assert f"#   {key} " in text


TINY = (
    ("evaluation.max_prompts", "2"),
    ("evaluation.num_samples", "2"),
    ("num_rounds", "2"),
    ("evaluation.every", "2"),
    ("prompts_per_round", "4"),
    ("chunk_prompts", "4"),
    ("per_device_train_batch_size", "2"),
    ("max_completion_length", "100"),
    ("use_cpu", "true"),
)
FIRST = "sppo"


@pytest.mark.parametrize(
    "method",
    [m if m == FIRST else pytest.param(m, marks=pytest.mark.slow) for m in TRAINED],
)
def test_a_tiny_model_goes_through_it(method, tmp_path, chat_model):
    config = recipe(method, ("model", str(chat_model)), *TINY)
    summary = run_train(config, tmp_path / "run", progress=nobody)
    (row,) = summary["methods"][method]["rounds"]
    assert 0.0 <= row["low"] <= row["win_rate"] <= row["high"] <= 1.0
    assert (tmp_path / "run" / "models" / method / "model.safetensors").exists()
    assert (tmp_path / "run" / "report.html").exists()


def test_the_shipped_pairs_are_on_prompts_that_nobody_evaluates_on():
    pairs = preference_pairs(load_rows(RECIPES / "train" / "restaurant_pairs.jsonl"))
    assert len(pairs) == 136
    align = [p[0]["content"] for p in restaurant_prompts("align")]
    assert [pair.prompt[0]["content"] for pair in pairs] == align[:136]
    assert all(0.5 < pair.chosen_prob <= 1.0 for pair in pairs)


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "deepspeed_zero2"])
def test_accelerate_reads_the_launch_configurations(name):
    found = load_config_from_file(str(RECIPES / "launch" / f"{name}.yaml"))
    expected = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "deepspeed_zero2": "DEEPSPEED"}
    assert found.distributed_type.value == expected[name]
    assert found.mixed_precision == "bf16"
    if name == "fsdp2":
        assert found.fsdp_config["fsdp_version"] == 2
    if name == "deepspeed_zero2":
        assert found.deepspeed_config["zero_stage"] == 2
