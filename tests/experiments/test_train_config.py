"""The configuration of `equilign train`: files, overrides, checks, and the printed form."""

from pathlib import Path

import pytest
import yaml

from equilign.errors import ConfigError
from equilign.experiments.resolved import resolved_args, resolved_yaml
from equilign.experiments.run_files import TrainDirectory
from equilign.experiments.train_config import (
    make_config,
    parse_override,
    read_config_file,
    resolve,
)
from equilign.experiments.train_job import lora_config, method_args
from equilign.methods import TRAINED

MINIMAL = {"model": "shipped", "data": "shipped", "oracle": {"kind": "restaurant"}}


def config(values=MINIMAL, *pairs, method="sppo", base=Path()):
    return make_config(method, values, [parse_override(k, v) for k, v in pairs], base)


# -- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read --config .*No such file"),
        (b"a: [1, 2\nb: 3", r"is not YAML: line 2"),
        (b"- a\n- b", r"holds \['a', 'b'\]; it must map sections"),
        (b"just text", "holds 'just text'"),
        (b"\xff\xfe\xfa", "no UTF-8"),
    ],
)
def test_a_bad_file_is_refused_in_words(tmp_path, content, words):
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        read_config_file(path)


def test_an_empty_file_says_nothing(tmp_path):
    (tmp_path / "run.yaml").write_text("# nothing\n")
    assert read_config_file(tmp_path / "run.yaml") == {}


# -- sections ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modl": "x"}, "no option 'modl' in the configuration. Did you mean model"),
        ({"model": None}, "no model: say `model: shipped`"),
        ({"model": 3.5j}, "model is"),
        ({"dtype": "int8"}, "dtype is 'int8'; it must be one of float32, bfloat16, float16"),
        ({"data": None}, "data.train is ''; name a data file"),
        ({"data": {"trian": "x"}}, "no option 'trian' in data. Did you mean train"),
        ({"data": {"train": []}}, r"data.train is \[\]"),
        ({"data": {"train": "x", "eval": 1.5}}, r"data.eval = 1.5; a share .* \[0, 1\)"),
        ({"data": 7}, "data is 7; it must map names to options"),
        ({"evaluation": {"num_samples": -1}}, "evaluation.num_samples = -1"),
        ({"evaluation": {"every": 0}}, "evaluation.every = 0"),
        ({"evaluation": {"num_samples": "some"}}, "evaluation.num_samples is 'some'"),
        ({"args": [1]}, r"args is \[1\]; it must be a mapping"),
        ({"oracle": "restaurant"}, "oracle is 'restaurant'; it must be a mapping or null"),
        ({"method": "omwu"}, "of method 'omwu', not of 'sppo'"),
    ],
)
def test_a_bad_section_names_the_key_and_the_cure(change, words):
    with pytest.raises(ConfigError, match=words):
        config({**MINIMAL, **change})


def test_short_forms_mean_their_long_forms():
    found = config({**MINIMAL, "data": ["a", "b"], "peft": True, "evaluation": False})
    assert found.data.train == ["a", "b"]
    assert found.peft == {}
    assert found.evaluation.num_samples == 0
    assert config({**MINIMAL, "peft": False}).peft is None


# -- overrides ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["learning_rate", "learning-rate", "args.learning_rate"])
def test_a_flag_overrides_the_file(name):
    values = {**MINIMAL, "args": {"learning_rate": 1e-3, "eta": 7.0}}
    found = config(values, (name, "1e-5"))
    args = resolved_args(found)
    assert args["learning_rate"] == 1e-5
    assert args["eta"] == 7.0
    assert values["args"]["learning_rate"] == 1e-3


def test_flags_reach_every_section_and_the_last_one_counts():
    found = config(
        MINIMAL,
        ("data.eval", "0.25"),
        ("oracle", "{kind: reward, path: x}"),
        ("oracle.scale", "2"),
        ("peft.r", "4"),
        ("evaluation.max_prompts", "3"),
        ("num_rounds", "2"),
        ("num_rounds", "5"),
    )
    assert found.data.train == "shipped"
    assert found.data.eval == 0.25
    assert found.oracle == {"kind": "reward", "path": "x", "scale": 2}
    assert found.peft == {"r": 4}
    assert found.evaluation.max_prompts == 3
    assert resolved_args(found)["num_rounds"] == 5


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (("data..eval", "x"), "names no option"),
        (("eta", "[1,"), "is not YAML"),
        (("model.size", "3"), "model is 'shipped', which has no options of its own"),
    ],
)
def test_a_bad_flag_is_refused(pair, words):
    with pytest.raises(ConfigError, match=words):
        config(MINIMAL, pair)


def test_paths_of_the_file_start_from_its_folder_and_paths_of_flags_from_here(
    tmp_path, monkeypatch
):
    (tmp_path / "conf").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "conf" / "a.jsonl").write_text("x")
    (tmp_path / "here" / "a.jsonl").write_text("y")
    monkeypatch.chdir(tmp_path / "here")
    base = Path("..", "conf")
    found = config({**MINIMAL, "data": "a.jsonl"}, base=base)
    assert Path(resolve(found.base_dir, found.data.train)).read_text() == "x"
    found = config({**MINIMAL, "data": "a.jsonl"}, ("data", "a.jsonl"), base=base)
    assert Path(resolve(found.base_dir, found.data.train)).read_text() == "y"
    assert resolve(found.base_dir, "org/name") == "org/name"


# -- the method's own options ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"learning_rat": 1}, "no option 'learning_rat' in args. Did you mean learning_rate"),
        ({"learning_rate": "fast"}, "args.learning_rate is 'fast'; it must be a number"),
        ({"num_rounds": 2.5}, "args.num_rounds is 2.5; it must be a whole number"),
        ({"num_rounds": 0}, "args: num_rounds = 0"),
        ({"eta": -1}, "args: eta = -1"),
        ({"lr_scheduler_type": "linaer"}, "transformers refuses these options.*linaer"),
        ({"output_dir": "x"}, "args.output_dir is not set here: use --output-dir"),
        ({"hub_token": "x"}, "HF_TOKEN"),
        ({"resum": True}, "Did you mean --resume"),
    ],
)
def test_bad_method_options(tmp_path, args, words):
    with pytest.raises(ConfigError, match=words):
        method_args(config({**MINIMAL, "args": args}), tmp_path)


def test_method_options_arrive_with_their_types(tmp_path):
    args = {"learning_rate": "1e-6", "num_rounds": "2", "bf16": "false", "report_to": "none"}
    found = method_args(config({**MINIMAL, "args": args}), tmp_path)
    assert (found.learning_rate, found.num_rounds, found.bf16) == (1e-6, 2, False)
    assert found.output_dir == str(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 8}, "no option 'rank' in peft"),
        ({"r": "many"}, "peft.r is 'many'; it must be a whole number"),
        ({"peft_type": "IA3"}, "adapts with LoRA"),
        ({"bias": "some"}, "peft.bias is 'some'; it must be one of none, all, lora_only"),
    ],
)
def test_bad_lora_options(options, words):
    with pytest.raises(ConfigError, match=words):
        lora_config(config({**MINIMAL, "peft": options}))


def test_lora_options_arrive():
    found = lora_config(config({**MINIMAL, "peft": {"r": 4, "target_modules": ["q_proj"]}}))
    assert found.r == 4
    assert found.target_modules == {"q_proj"}
    assert found.task_type == "CAUSAL_LM"
    assert lora_config(config()) is None


# -- printed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", TRAINED)
def test_the_printed_configuration_is_the_configuration(method, tmp_path):
    """Every option is in it, with its help, and reading it back changes nothing."""
    values = {**MINIMAL, "args": {"learning_rate": "3e-5"}, "peft": {"r": 4}}
    first = config(values, method=method)
    text = resolved_yaml(first)
    path = tmp_path / "run.yaml"
    path.write_text(text)
    again = make_config(method, read_config_file(path), [], tmp_path)
    assert resolved_yaml(again) == text
    assert again.base_dir == first.base_dir
    method_args(again, tmp_path)  # transformers takes every printed value
    printed = yaml.safe_load(text)
    assert printed["args"]["learning_rate"] == 3e-5
    assert "hub_token" not in printed["args"]
    lines = text.splitlines()
    for name in ("learning_rate", "num_rounds", "num_train_epochs"):
        place = next(i for i, line in enumerate(lines) if line.startswith(f"  {name}: "))
        assert lines[place - 1].startswith("  # ")


def test_every_option_of_every_method_has_help():
    from equilign.experiments.train_config import option_help

    for method in TRAINED.values():
        _, config_class = method.load()
        missing = [name for name, text in option_help(config_class).items() if not text]
        assert missing == [], method.name


# -- whose run it is ---------------------------------------------------------------------------


def test_a_changed_option_is_named_with_its_place(tmp_path):
    from equilign.errors import RunDirectoryError

    run = TrainDirectory(tmp_path / "run")
    settings = {"model": "a", "args": {"eta": 1.0, "report_to": "none", "new": 1}}
    run.open(settings, resume=False)
    same = {"model": "a", "args": {"eta": 1.0, "report_to": "wandb", "newer": 2}}
    run.open(same, resume=True)
    with pytest.raises(RunDirectoryError, match=r"args\.eta: 1\.0 there, 2\.0 now"):
        run.open({"model": "a", "args": {"eta": 2.0}}, resume=True)
    with pytest.raises(RunDirectoryError, match="model: 'a' there, 'b' now"):
        run.open({"model": "b", "args": {"eta": 1.0}}, resume=True)
    with pytest.raises(RunDirectoryError, match="already holds a run"):
        run.open(settings, resume=False)
