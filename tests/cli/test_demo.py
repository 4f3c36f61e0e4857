"""`equilign demo` as a user runs it: a process, its output, its files, its exit code."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from equilign.files import read_jsonl
from equilign.models import load_model, load_tokenizer

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(*arguments):
    return [sys.executable, "-c", "from equilign.cli.main import run; run()", *map(str, arguments)]


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
def arguments(chat_model, prompts_file):
    return ["demo", "--model", chat_model, "--prompts", prompts_file, "--rounds", "2", "--json"]


@pytest.fixture(scope="module")
def finished(arguments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, equilign(*arguments, "--output-dir", folder)


def test_json_on_stdout_and_nothing_else(finished):
    folder, result = finished
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["output_dir"] == str(folder)
    assert summary["peak_memory_mb"] > 100
    rounds = summary["methods"]["sppo"]["rounds"]
    assert [r["round"] for r in rounds] == [1, 2]
    for r in rounds:
        assert 0.0 <= r["low"] <= r["win_rate"] <= r["high"] <= 1.0
        assert r["kl_nats"] == pytest.approx(r["kl_nats"])
        assert r["cycles"]["prompts"] == 16
    assert summary["prompts"] == {"train": 32, "evaluation": 16}
    assert "round 2 of 2" in result.stderr


def test_run_directory_is_as_promised(finished):
    folder, _ = finished
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["methods"] == ["sppo"]
    assert config["rounds"] == 2
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["torch"]
    rows = read_jsonl(folder / "metrics.jsonl")
    assert {r["kind"] for r in rows} == {"round", "step"}
    assert sorted(p.name for p in (folder / "rounds").iterdir()) == [
        "sppo-001.jsonl",
        "sppo-002.jsonl",
    ]
    played = read_jsonl(folder / "rounds" / "sppo-001.jsonl")
    assert len(played) == 32
    assert len(played[0]["completions"]) == 5
    assert len(list((folder / "checkpoints" / "sppo").glob("checkpoint-*"))) == 2
    page = (folder / "report.html").read_text()
    assert "SPPO" in page
    assert not list(folder.rglob("*.tmp"))


def test_trained_model_loads_and_differs_from_the_start(finished, chat_model):
    folder, _ = finished
    trained, start = load_model(folder / "models" / "sppo"), load_model(chat_model)
    pairs = zip(trained.parameters(), start.parameters(), strict=True)
    assert any((a != b).any() for a, b in pairs)
    assert load_tokenizer(folder / "models" / "sppo").chat_template


def test_summary_numbers_follow_from_the_files(finished):
    """The win rate is recomputed from the stored answers with the panel, in a plain loop."""
    from equilign.tasks.restaurant_panel import restaurant_panel

    folder, result = finished
    panel = restaurant_panel()

    def answers(name):
        return read_jsonl(folder / "evaluation" / f"{name}.answers.jsonl")

    means = []
    for new, old in zip(answers("sppo-002"), answers("start"), strict=True):
        text = new["prompt"][0]["content"]
        verdicts = [
            float(panel.compare([text], [a], [b])[0])
            for a in new["completions"]
            for b in old["completions"]
        ]
        means.append(sum(verdicts) / len(verdicts))
    final = json.loads(result.stdout)["methods"]["sppo"]["final"]
    assert final["win_rate"] == pytest.approx(sum(means) / len(means), abs=1e-9)


def test_finished_run_is_not_overwritten(finished, arguments):
    folder, first = finished
    again = equilign(*arguments, "--output-dir", folder)
    assert again.returncode == 2
    assert "already holds a run" in again.stderr
    assert "--resume" in again.stderr
    resumed = equilign(*arguments, "--output-dir", folder, "--resume")
    assert resumed.returncode == 0
    a, b = json.loads(first.stdout), json.loads(resumed.stdout)
    assert a["methods"]["sppo"]["rounds"] == b["methods"]["sppo"]["rounds"]


def test_resume_with_other_options_is_refused(finished, arguments):
    folder, _ = finished
    result = equilign(*arguments, "--output-dir", folder, "--resume", "--seed", "3")
    assert result.returncode == 2
    assert "seed: 0 there, 3 now" in result.stderr


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


MOMENTS = {
    "start answers": lambda f: (f / "config.yaml").exists(),
    "generation of round 1": lambda f: (f / "rounds" / "sppo-001.partial.jsonl").exists(),
    "training of round 1": lambda f: (
        (f / "rounds" / "sppo-001.jsonl").exists() and _lines(f / "metrics.jsonl") >= 1
    ),
    "writing a checkpoint": lambda f: (f / "checkpoints" / "sppo" / ".partial").exists(),
    "round 2": lambda f: (f / "checkpoints" / "sppo" / "checkpoint-4").exists(),
    "saving the model": lambda f: (f / "models").exists(),
}


FAST = ("writing a checkpoint",)


@pytest.mark.parametrize(
    "moment", [pytest.param(m, marks=() if m in FAST else pytest.mark.slow) for m in MOMENTS]
)
def test_killed_and_resumed_ends_bit_identical(tmp_path, arguments, finished, moment):
    whole, _ = finished
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
    assert a.keys() == b.keys()
    assert all((a[k] == b[k]).all() for k in a)
    for name in ("sppo-001.jsonl", "sppo-002.jsonl"):
        assert (folder / "rounds" / name).read_bytes() == (whole / "rounds" / name).read_bytes()
    old, new = (json.loads((f / "summary.json").read_text()) for f in (whole, folder))
    assert old["methods"]["sppo"]["rounds"] == new["methods"]["sppo"]["rounds"]


def test_full_disk_loses_nothing_and_can_be_resumed(tmp_path, arguments, finished):
    """A real limit of the operating system, smaller than a checkpoint, larger than a round."""
    whole, _ = finished
    folder = tmp_path / "run"
    limited = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000)); "
        "from equilign.cli.main import run; run()"
    )
    result = subprocess.run(
        [sys.executable, "-c", limited, *map(str, arguments), "--output-dir", str(folder)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=300,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert "no space left" in result.stderr
    assert "--resume" in result.stderr
    assert "Traceback" not in result.stderr
    name = "rounds/sppo-001.jsonl"
    assert (folder / name).read_bytes() == (whole / name).read_bytes()
    resumed = equilign(*arguments, "--output-dir", folder, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    file = "models/sppo/model.safetensors"
    assert (folder / file).read_bytes() == (whole / file).read_bytes()


def test_too_little_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    from equilign.errors import RunDirectoryError
    from equilign.runs import RunDirectory

    usage = shutil.disk_usage(tmp_path)._replace(free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(RunDirectoryError, match="10 MB of free disk space and this run needs"):
        RunDirectory(tmp_path / "run").open({"seed": 0}, resume=False, need_mb=500)
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.fixture(scope="module")
def several(chat_model, prompts_file, tmp_path_factory):
    """One method of each kind: one round a step, two, many small ones, and given pairs."""
    folder = tmp_path_factory.mktemp("several") / "run"
    arguments = ["demo", "--methods", "sppo", "egpo", "rloo", "dpo", "--model", chat_model]
    arguments += ["--prompts", prompts_file, "--rounds", "1", "--json", "--output-dir", folder]
    return folder, equilign(*arguments)


def test_methods_of_every_kind_are_compared_on_one_page(several):
    folder, result = several
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert list(summary["methods"]) == ["sppo", "egpo", "rloo", "dpo"]
    for name, method in summary["methods"].items():
        (row,) = method["rounds"]
        assert row["round"] == 1
        assert row["loss"] == pytest.approx(row["loss"])
        assert 0.0 <= row["low"] <= row["win_rate"] <= row["high"] <= 1.0
        card = (folder / "models" / name / "README.md").read_text()
        assert f"| 1 | {row['win_rate']:.3f} " in card
    page = (folder / "report.html").read_text()
    assert all(m["title"] in page for m in summary["methods"].values())
    options = yaml.safe_load((folder / "config.yaml").read_text())["options"]
    assert options["sppo"]["eta"] != options["egpo"].get("learning_rate")
    assert "beta" in options["egpo"]
    assert "eta" not in options["dpo"]


def test_every_method_sees_as_many_prompts_in_a_round_of_the_demo(several):
    """Thirty-two prompts: one round of 32, two of 16, seventeen of one, and 32 given pairs."""
    folder, _ = several
    sizes = {
        name: [len(read_jsonl(p)) for p in sorted((folder / "rounds").glob(f"{name}-*.jsonl"))]
        for name in ("sppo", "egpo", "rloo", "dpo")
    }
    assert sizes == {"sppo": [32], "egpo": [16, 16], "rloo": [1] * 17, "dpo": [32]}
    pairs = read_jsonl(folder / "evaluation" / "start-pairs.jsonl")
    assert all(0.5 < r["chosen_prob"] <= 1.0 for r in pairs)


def test_the_methods_end_at_different_models(several):
    folder, _ = several
    weights = [
        load_file(folder / "models" / name / "model.safetensors")
        for name in ("sppo", "egpo", "rloo", "dpo")
    ]
    for i, one in enumerate(weights):
        for other in weights[i + 1 :]:
            assert any((one[k] != other[k]).any() for k in one)
