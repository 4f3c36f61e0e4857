"""`equilign train` as a user runs it: a process, its output, its files, its exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from equilign.cli.main import _exit_code
from equilign.cli.train import assigned, flagged
from equilign.errors import ConfigError
from equilign.files import read_jsonl, write_jsonl
from equilign.models import load_model

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
LAUNCH = Path(__file__).parents[2] / "recipes" / "launch"
JUDGE = """
import numpy as np

def shorter(prompts, answers):
    return -np.array([len(x) for x in answers], dtype=float)

def more_words(prompts, answers):
    return np.array([len(x.split()) for x in answers], dtype=float)
"""
RUN = {
    "oracle": {"kind": "python", "function": "judge.py:shorter"},
    "evaluation": {
        "num_samples": 2,
        "max_prompts": 4,
        "oracle": {"kind": "python", "function": "judge.py:more_words"},
    },
    "args": {
        "num_rounds": 2,
        "prompts_per_round": 8,
        "num_generations": 2,
        "max_completion_length": 12,
        "per_device_train_batch_size": 4,
        "eta": 5.0,
        "learning_rate": "1e-2",
        "optim": "adamw_torch",
        "warmup_steps": 0,
        "logging_steps": 1,
        "use_cpu": True,
    },
}


def command(*arguments):
    return [sys.executable, "-m", "equilign", *map(str, arguments)]


def equilign(*arguments, **options):
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=300,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory, chat_model, prompts_file):
    """A folder with a configuration, its judge and its data."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "judge.py").write_text(JUDGE)
    data = {"train": str(prompts_file), "eval": 0.2}
    values = {"model": str(chat_model), "data": data, **RUN}
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    write_jsonl(
        folder / "pairs.jsonl",
        [
            {"prompt": row["prompt"], "chosen": f"Yes, {i}.", "rejected": f"No, not {i}."}
            for i, row in enumerate(read_jsonl(prompts_file))
        ],
    )
    return folder


@pytest.fixture(scope="module")
def arguments(work):
    return ["train", "sppo", "--config", work / "run.yaml", "--json"]


@pytest.fixture(scope="module")
def finished(arguments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, equilign(*arguments, "--output-dir", folder)


# -- what a run leaves behind ------------------------------------------------------------------


def test_json_on_stdout_and_nothing_else(finished):
    folder, result = finished
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["output_dir"] == str(folder)
    assert summary["peak_memory_mb"] > 100
    assert summary["seconds"] > 0
    method = summary["methods"]["sppo"]
    assert method["seconds"] > 0
    assert [r["round"] for r in method["rounds"]] == [1, 2]
    for r in method["rounds"]:
        assert 0.0 <= r["low"] <= r["win_rate"] <= r["high"] <= 1.0
        assert 0.0 <= r["held_out"]["win_rate"] <= 1.0
        assert isinstance(r["kl_nats"], float)
        assert r["loss"] > 0.0
    assert method["final"]["win_rate"] == method["rounds"][1]["win_rate"]
    assert summary["prompts"] == {"train": 38, "evaluation": 4}
    assert "round 2 of 2" in result.stderr


def test_run_directory_is_as_promised(finished, work):
    folder, _ = finished
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["method"] == "sppo"
    assert config["base_dir"] == str(work)
    assert config["args"]["learning_rate"] == 0.01
    assert config["args"]["top_p"] == 1.0  # resolved: defaults are there too
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["torch"]
    assert {r["kind"] for r in read_jsonl(folder / "metrics.jsonl")} == {"round", "step"}
    rounds = [folder / "rounds" / f"sppo-00{n}.jsonl" for n in (1, 2)]
    assert [len(read_jsonl(path)) for path in rounds] == [8, 8]
    trained = {json.dumps(r["prompt"]) for path in rounds for r in read_jsonl(path)}
    start = read_jsonl(folder / "evaluation" / "start.answers.jsonl")
    assert trained.isdisjoint(json.dumps(r["prompt"]) for r in start)
    assert len(list((folder / "checkpoints" / "sppo").glob("checkpoint-*"))) == 2
    assert "SPPO" in (folder / "report.html").read_text()
    assert not list(folder.rglob("*.tmp"))


def test_trackers_are_told_the_win_rates(finished):
    folder, result = finished
    state = json.loads(
        (folder / "checkpoints" / "sppo" / "checkpoint-4" / "trainer_state.json").read_text()
    )
    told = [row["eval_win_rate"] for row in state["log_history"] if "eval_win_rate" in row]
    rounds = json.loads(result.stdout)["methods"]["sppo"]["rounds"]
    assert told == [r["win_rate"] for r in rounds]


def test_the_model_is_an_ordinary_checkpoint_and_differs_from_the_start(finished, chat_model):
    folder, _ = finished
    model = AutoModelForCausalLM.from_pretrained(folder / "models" / "sppo")
    start = load_model(chat_model)
    pairs = zip(model.parameters(), start.parameters(), strict=True)
    assert any((a != b).any() for a, b in pairs)
    assert AutoTokenizer.from_pretrained(folder / "models" / "sppo").chat_template


def test_the_card_tells_what_was_done(finished, chat_model):
    folder, result = finished
    text = (folder / "models" / "sppo" / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["base_model"] == str(chat_model)
    assert {"equilign", "sppo"} <= set(front["tags"])
    last = json.loads(result.stdout)["methods"]["sppo"]["final"]
    cell = f"{last['win_rate']:.3f} ({last['low']:.3f} to {last['high']:.3f})"
    assert f"| 2 | {cell} |" in text
    assert "**Judge**: python judge.py:shorter" in text
    assert "**Held-out judge**: python judge.py:more_words" in text
    assert "arXiv:2405.00675" in text
    assert (
        f"transformers {json.loads(result.stdout)['environment']['packages']['transformers']}"
        in (text)
    )
    options = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert options["args"]["learning_rate"] == 0.01
    assert "top_p" not in options["args"]


def test_win_rates_follow_from_the_answers_on_disk(finished):
    """Both judges' numbers are recomputed from the stored answers in a plain loop."""
    folder, result = finished
    final = json.loads(result.stdout)["methods"]["sppo"]["final"]
    judges = {"shorter": lambda x: -len(x), "more_words": lambda x: len(x.split())}
    found = {}
    for name, score in judges.items():
        means = []
        for new, old in zip(
            read_jsonl(folder / "evaluation" / "sppo-002.answers.jsonl"),
            read_jsonl(folder / "evaluation" / "start.answers.jsonl"),
            strict=True,
        ):
            verdicts = [
                1.0 / (1.0 + np.exp(score(b) - score(a)))
                for a in new["completions"]
                for b in old["completions"]
            ]
            means.append(np.mean(verdicts))
        found[name] = np.mean(means)
    assert final["win_rate"] == pytest.approx(found["shorter"], abs=1e-9)
    assert final["held_out"]["win_rate"] == pytest.approx(found["more_words"], abs=1e-9)
    assert final["win_rate"] > 0.5


def run_here(capsys, *arguments):
    """In this process: quicker, and what is printed and raised is seen all the same."""
    code = _exit_code(["train", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err, err
    return code, out, err


def test_its_own_config_file_runs_it_again(capsys, finished, tmp_path):
    """config.yaml is a configuration: the same run from it, weight by weight."""
    folder, _ = finished
    own, again = folder / "config.yaml", tmp_path / "again"
    code, out, err = run_here(capsys, "sppo", "--config", own, "--output-dir", again)
    assert code == 0, err
    a, b = (load_file(f / "models/sppo/model.safetensors") for f in (folder, again))
    assert all((a[k] == b[k]).all() for k in a)
    assert "SPPO" in out
    assert "held-out judge" in out


def test_a_finished_run_is_shown_again_and_never_overwritten(capsys, finished, arguments):
    folder, first = finished
    code, _, err = run_here(capsys, *arguments[1:], "--output-dir", folder)
    assert code == 2
    assert "already holds a run" in err
    code, out, err = run_here(capsys, *arguments[1:], "--output-dir", folder, "--resume")
    assert code == 0, err
    assert json.loads(first.stdout)["methods"] == json.loads(out)["methods"]


def test_another_run_s_folder_is_refused(capsys, finished, arguments, tmp_path):
    folder, _ = finished
    here = (*arguments[1:], "--output-dir")
    code, _, err = run_here(capsys, *here, folder, "--resume", "--eta", "6")
    assert code == 2
    assert "args.eta: 5.0 there, 6.0 now" in err
    (tmp_path / "mine.txt").write_text("mine")
    code, _, err = run_here(capsys, *here, tmp_path)
    assert code == 2
    assert "is not empty and holds no run" in err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


MOMENTS = {
    "generation of round 1": lambda f: (f / "rounds" / "sppo-001.partial.jsonl").exists(),
    "training of round 1": lambda f: _lines(f / "metrics.jsonl") >= 2,
    "round 2": lambda f: (f / "checkpoints" / "sppo" / "checkpoint-2").exists(),
    "second opinion": lambda f: (f / "evaluation" / "sppo-002.held-out.json").exists(),
}
SLOW = ("generation of round 1", "second opinion", "training of round 1")


@pytest.mark.parametrize(
    "moment", [pytest.param(m, marks=pytest.mark.slow) if m in SLOW else m for m in MOMENTS]
)
def test_killed_and_resumed_ends_the_same(tmp_path, arguments, finished, moment):
    whole, first = finished
    folder = tmp_path / "run"
    process = subprocess.Popen(
        command(*arguments, "--output-dir", folder),
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    limit = time.monotonic() + 200
    while not MOMENTS[moment](folder):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    resumed = equilign(*arguments, "--output-dir", folder, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    a, b = (load_file(f / "models" / "sppo" / "model.safetensors") for f in (whole, folder))
    assert all((a[k] == b[k]).all() for k in a)
    old, new = json.loads(first.stdout), json.loads(resumed.stdout)
    assert old["methods"]["sppo"]["rounds"] == new["methods"]["sppo"]["rounds"]
    assert old["methods"]["sppo"]["examples"] == new["methods"]["sppo"]["examples"]


# -- other shapes of training --------------------------------------------------------------------


def test_an_adapter_is_saved_as_an_adapter(capsys, work, chat_model, tmp_path):
    folder = tmp_path / "run"
    flags = ["--peft", "{r: 2, target_modules: all-linear}", "--num_rounds", 1]
    code, out, err = run_here(
        capsys, "sppo", "--config", work / "run.yaml", "--output-dir", folder, "--json", *flags
    )
    assert code == 0, err
    (row,) = json.loads(out)["methods"]["sppo"]["rounds"]
    from peft import PeftModel

    saved = folder / "models" / "sppo"
    assert (saved / "adapter_model.safetensors").exists()
    assert not (saved / "model.safetensors").exists()
    model = PeftModel.from_pretrained(load_model(chat_model), saved)
    moved = [p for n, p in model.named_parameters() if "lora_B" in n]
    assert moved
    assert any(p.abs().max() > 0 for p in moved)
    front = yaml.safe_load((saved / "README.md").read_text().split("---")[1])
    assert front["library_name"] == "peft"
    # The KL is to the model without its adapter: recomputed with a copy that never had one.
    from equilign.evaluation.callback import load_groups
    from equilign.rollout import score_answers

    groups = load_groups(folder / "evaluation" / "sppo-001.answers.jsonl")
    new, old = (
        np.mean([v for g in score_answers(m, groups, pad_id=0) for v in g])
        for m in (model, load_model(chat_model))
    )
    assert row["kl_nats"] == pytest.approx(new - old, abs=1e-4)


def test_given_pairs_need_no_judge(capsys, work, tmp_path):
    """Offline DPO: nobody compares, so there are no win rates, and the model is there."""
    folder = tmp_path / "run"
    values = yaml.safe_load((work / "run.yaml").read_text())
    args = {k: v for k, v in values["args"].items() if k not in ("eta", "num_generations")}
    values |= {"data": "pairs.jsonl", "oracle": None, "evaluation": None, "args": args}
    (work / "dpo.yaml").write_text(yaml.safe_dump(values))
    code, out, err = run_here(
        capsys, "dpo", "--config", work / "dpo.yaml", "--output-dir", folder, "--json"
    )
    assert code == 0, err
    method = json.loads(out)["methods"]["dpo"]
    assert [r["round"] for r in method["rounds"]] == [1, 2]
    for row in method["rounds"]:
        assert [row[k] for k in ("win_rate", "low", "high", "kl_nats")] == [None] * 4
        assert row["loss"] > 0.0
    assert method["final"]["win_rate"] is None
    assert json.loads(out)["prompts"] == {"train": 48, "evaluation": 0}
    AutoModelForCausalLM.from_pretrained(folder / "models" / "dpo")
    assert "not compared" in (folder / "models" / "dpo" / "README.md").read_text()
    code, out, err = run_here(
        capsys, "dpo", "--config", work / "dpo.yaml", "--output-dir", folder, "--resume"
    )
    assert code == 0, err
    assert "models/dpo" in out.replace("\n", "")


def test_only_some_rounds_are_compared(capsys, work, tmp_path):
    flags = ["--num_rounds", 3, "--evaluation.every", 2, "--prompts_per_round", 2]
    code, out, err = run_here(
        capsys,
        "sppo",
        "--config",
        work / "run.yaml",
        "--output-dir",
        tmp_path / "r",
        *flags,
        "--json",
    )
    assert code == 0, err
    assert [r["round"] for r in json.loads(out)["methods"]["sppo"]["rounds"]] == [2, 3]


def test_dtype_is_that_of_the_saved_weights(capsys, work, tmp_path):
    flags = ["--dtype", "bfloat16", "--num_rounds", 1, "--evaluation", "false"]
    code, _, err = run_here(
        capsys, "sppo", "--config", work / "run.yaml", "--output-dir", tmp_path / "r", *flags
    )
    assert code == 0, err
    weights = load_file(tmp_path / "r" / "models" / "sppo" / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.bfloat16}


@pytest.fixture(scope="module")
def launched(work, tmp_path_factory):
    """What two processes were started with, and what came of it."""
    folder = tmp_path_factory.mktemp("launched") / "run"
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    launch += ["--config_file", str(LAUNCH / "ddp.yaml"), "--num_processes", "2"]
    launch += ["--mixed_precision", "no", "--main_process_port", "0"]
    launch += ["-m", "equilign", "train", "sppo"]
    launch += ["--config", str(work / "run.yaml"), "--output-dir", str(folder), "--json"]
    launch += ["--per_device_train_batch_size", "2", "--chunk_prompts", "2", "--num_rounds", "1"]
    return folder, launch, _launch(launch)


def _launch(arguments):
    return subprocess.run(
        arguments, capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False
    )


def test_two_processes_print_and_write_once(launched):
    folder, _, result = launched
    assert result.returncode == 0, result.stderr[-3000:]
    summary = json.loads(result.stdout)
    assert [r["round"] for r in summary["methods"]["sppo"]["rounds"]] == [1]
    assert result.stderr.count("round 1 of 1: train") == 1
    # Two processes of two prompts each are two steps a round of eight prompts; one would need four.
    steps = [r["step"] for r in read_jsonl(folder / "metrics.jsonl") if r["kind"] == "step"]
    assert steps == [1, 2]
    assert (folder / "models" / "sppo" / "model.safetensors").exists()


@pytest.mark.slow
def test_two_processes_tell_a_mistake_once(launched):
    _, launch, _ = launched
    result = _launch(launch)
    assert result.returncode != 0
    assert result.stderr.count("already holds a run") == 1


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["spo"], "no method 'spo' trains models; there are: "),
        (["ogda"], "no method 'ogda' trains models"),
        (["sppo"], "data.train is ''"),
        (["sppo", "--config", "nowhere.yaml"], "cannot read --config nowhere.yaml"),
        (["sppo", "--config", "bad.yaml"], "is not YAML: line 2"),
        (["sppo", "--config", "unknown.yaml"], "no option 'modle'"),
        (["sppo", "--config", "run.yaml", "--learning_rat", "1"], "Did you mean learning_rate?"),
        (["sppo", "--config", "run.yaml", "--num_rounds", "x"], "args.num_rounds is 'x'"),
        (["sppo", "--config", "run.yaml", "--jsn"], "Did you mean --json?"),
        (["sppo", "--config", "run.yaml", "stray"], "what is 'stray'?"),
        (["sppo", "--config", "run.yaml", "--set", "eta"], "write NAME=VALUE"),
        (["sppo", "--config", "run.yaml", "--oracle", "null"], "SPPO needs a judge"),
        (["sppo", "--config", "run.yaml", "--oracle.kind", "robot"], "no kind 'robot'"),
        (["sppo", "--config", "run.yaml", "--data", "nowhere.jsonl"], "no file nowhere.jsonl"),
        (["sppo", "--config", "run.yaml", "--model", "nowhere"], "no model folder at nowhere"),
        (["sppo", "--config", "run.yaml", "--model", "a/b"], "only with --download"),
        (["sppo", "--config", "run.yaml", "--output-dir", "run.yaml"], "is a file"),
        (["sppo", "--config", "run.yaml", "--peft.rank", "4"], "no option 'rank' in peft"),
        (["dpo", "--config", "run.yaml"], "of method 'sppo', not of 'dpo'"),
        (
            ["dpo", "--model", "shipped", "--data", "shipped"],
            'the shipped prompts, row 1: a preference needs "chosen" and "rejected"',
        ),
        (["egpo", "--config", "odd.yaml"], "must be a multiple of 2"),
        (
            ["sppo", "--config", "run.yaml", "--peft", "{target_modules: [nothing_like_it]}"],
            "peft cannot adapt this model",
        ),
    ],
)
def test_bad_input_is_told_in_words_with_exit_code_2(
    capsys, work, tmp_path, monkeypatch, arguments, message
):
    values = yaml.safe_load((work / "run.yaml").read_text()) | {"method": "sppo"}
    (tmp_path / "judge.py").write_text(JUDGE)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    odd = {**values, "method": "egpo", "args": {**values["args"], "num_rounds": 3}}
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump(odd))
    (tmp_path / "bad.yaml").write_text("model: [a\ndata: b")
    (tmp_path / "unknown.yaml").write_text("modle: shipped\n")
    monkeypatch.chdir(tmp_path)
    code, out, err = run_here(capsys, *arguments)
    assert code == 2
    assert message in err.replace("\n", " ")
    assert out == ""


def test_nothing_is_written_when_the_input_is_wrong(capsys, work, tmp_path):
    folder = tmp_path / "run"
    run_here(capsys, "sppo", "--config", work / "run.yaml", "--output-dir", folder, "--eta", "-1")
    run_here(capsys, "sppo", "--config", work / "run.yaml", "--output-dir", folder, "--model", "x")
    values = yaml.safe_load((work / "run.yaml").read_text())
    values["args"]["num_rounds"] = 3
    (work / "odd.yaml").write_text(yaml.safe_dump(values))
    run_here(capsys, "egpo", "--config", work / "odd.yaml", "--output-dir", folder)
    flags = ["--peft", "{target_modules: [nothing_like_it]}"]
    run_here(capsys, "sppo", "--config", work / "run.yaml", "--output-dir", folder, *flags)
    assert not folder.exists()


# -- flags ---------------------------------------------------------------------------------------


def test_flags_are_pairs():
    flags = ["--eta", "5", "--bf16", "--peft.r=4", "--weight_decay", "-0.1", "--data", "a b.jsonl"]
    assert flagged(flags) == [
        ("eta", "5"),
        ("bf16", "true"),
        ("peft.r", "4"),
        ("weight_decay", "-0.1"),
        ("data", "a b.jsonl"),
    ]
    assert assigned(["a.b=c=d", "e="]) == [("a.b", "c=d"), ("e", "")]
    for bad in (["x"], ["-x", "1"], ["--"]):
        with pytest.raises(ConfigError, match="what is"):
            flagged(bad)


def test_print_config_prints_what_would_run(capsys, work):
    code, out, err = run_here(
        capsys, "sppo", "--config", work / "run.yaml", "--print-config", "--eta", "3"
    )
    assert (code, err) == (0, "")
    printed = yaml.safe_load(out)
    assert printed["args"]["eta"] == 3.0
    assert printed["args"]["num_generations"] == 2
    assert "# Mirror step, nats per unit of win probability." in out
