"""`equilign refine` as a user runs it: a process, its output, its files, its exit code."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from peft import LoraConfig, get_peft_model

from equilign.cli.main import _exit_code
from equilign.experiments.refine.config import RefineConfig
from equilign.experiments.refine.players import Players
from equilign.files import read_jsonl, write_json, write_jsonl
from equilign.models import load_model, load_tokenizer
from equilign.oracles import CallableOracle
from equilign.rollout.follower import INSTRUCTION, FollowerPrompt
from equilign.trainers.slhf import SLHFConfig, SLHFTrainer
from tests.rollout.completion_server import CompletionServer

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
JUDGE = """
def shorter(prompt, a, b):
    return (1 + len(b)) / (2 + len(a) + len(b))
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory, chat_model, prompts_file):
    """A folder with a judge and answers."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "judge.py").write_text(JUDGE)
    (folder / "judge.yaml").write_text("{kind: python, function: 'judge.py:shorter'}")
    rows = read_jsonl(prompts_file)[:5]
    write_jsonl(
        folder / "answers.jsonl",
        ({**r, "completion": f"It is in area {i}.", "id": i} for i, r in enumerate(rows)),
    )
    return folder


@pytest.fixture(scope="module")
def arguments(work, chat_model, prompts_file):
    return [
        *("refine", "--prompts", prompts_file, "--max-prompts", 10),
        *("--leader", chat_model, "--follower", chat_model, "--rounds", 2, "--chunk-size", 4),
        *("--max-new-tokens", 12, "--oracle", work / "judge.yaml", "--compare", "--json"),
    ]


def command(*arguments):
    return [sys.executable, "-m", "equilign", *map(str, arguments)]


def equilign(*arguments):
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(arguments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, equilign(*arguments, "--output-dir", folder)


def run_here(capfd, *arguments):
    """In this process: quicker, and what is printed and raised is seen all the same."""
    code = _exit_code(["refine", *map(str, arguments)])
    out, err = capfd.readouterr()
    assert "Traceback" not in err, err
    return code, out, err


# -- what a run leaves behind ---------------------------------------------------------------


def test_json_on_stdout_and_nothing_else(finished):
    folder, result = finished
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary == json.loads((folder / "summary.json").read_text())
    assert [r["round"] for r in summary["rounds"]] == [1, 2]
    for r in summary["rounds"]:
        assert 0.0 <= r["low"] <= r["win_rate_vs_leader"] <= r["high"] <= 1.0
        assert r["mean_tokens"] > 0.0
        assert {"unchanged_share", "too_long_share", "empty_share", "cut_share"} <= set(r)
    assert (summary["prompts"], summary["chains"]) == (10, 10)
    assert summary["follower_prompt"]["instruction"] == INSTRUCTION
    assert set(summary["compare"]["players"]) == {"last", "pick", "best_of_n", "mean"}
    assert summary["peak_memory_mb"] > 100
    assert summary["seconds"] > 0
    for name in summary["figures"]:
        assert (folder / name).stat().st_size > 1000
    assert len(summary["figures"]) == 6
    assert "refined" in result.stderr


def test_run_directory_is_as_promised(finished, chat_model, work):
    folder, _ = finished
    assert sorted(p.name for p in folder.iterdir()) == [
        "answers.jsonl",
        "config.yaml",
        "environment.json",
        "figures",
        "summary.json",
    ]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["follower"] == str(chat_model)
    assert config["oracle"] == {"kind": "python", "function": "judge.py:shorter"}


def test_win_rates_follow_from_the_answers(finished, arguments, capfd, tmp_path):
    """All answers of the same chains, kept in a second run, judged in a plain loop."""
    folder, _ = finished
    here = [*arguments[1:], "--keep", "all", "--output-dir", tmp_path / "all"]
    code, out, err = run_here(capfd, *here)
    assert code == 0, err
    lines = read_jsonl(tmp_path / "all" / "answers.jsonl")
    last = read_jsonl(folder / "answers.jsonl")
    assert [r["completions"][2] for r in lines] == [r["completion"] for r in last]
    for number, row in enumerate(json.loads(out)["rounds"], 1):
        wins = []
        for line in lines:
            a, b = len(line["completions"][number]), len(line["completions"][0])
            wins.append(0.5 if line["completions"][number] == line["completions"][0] else
                        (1 + b) / (2 + a + b))  # fmt: skip
        assert row["win_rate_vs_leader"] == pytest.approx(np.mean(wins))


def test_a_finished_run_is_shown_again_and_never_overwritten(finished, arguments, capfd):
    folder, first = finished
    code, out, err = run_here(capfd, *arguments[1:], "--output-dir", folder)
    assert (code, out) == (2, "")
    assert "already holds a run" in err
    code, out, err = run_here(capfd, *arguments[1:], "--output-dir", folder, "--resume")
    assert code == 0, err
    assert json.loads(out) == json.loads(first.stdout)
    other = [*arguments[1:], "--rounds", 3, "--output-dir", folder, "--resume"]
    code, _, err = run_here(capfd, *other)
    assert code == 2
    assert "rounds: 2 there, 3 now" in err


MOMENTS = {
    "first chunk": lambda f: any((f / "partial").glob("*")),
    "second chunk": lambda f: any(p.stat().st_size for p in f.glob("answers.jsonl")),
}


@pytest.mark.parametrize(
    "moment", ["second chunk", pytest.param("first chunk", marks=pytest.mark.slow)]
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
    assert not (folder / "summary.json").exists()
    resumed = equilign(*arguments, "--output-dir", folder, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert (folder / "answers.jsonl").read_bytes() == (whole / "answers.jsonl").read_bytes()
    old, new = json.loads(first.stdout), json.loads(resumed.stdout)
    for name in ("rounds", "picked", "compare", "leader"):
        assert old[name] == new[name]


# -- streams ----------------------------------------------------------------------------------


def test_stdin_to_stdout(capfd, monkeypatch, work, chat_model, tmp_path):
    raw = (work / "answers.jsonl").read_bytes()
    options = ("--follower", chat_model, "--rounds", 1, "--max-new-tokens", 8, "--chunk-size", 2)
    code, _, err = run_here(
        capfd, "--answers", work / "answers.jsonl", *options, "--output-dir", tmp_path / "file"
    )
    assert code == 0, err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    piped = ("--answers", "-", *options, "--stdout", "--output-dir", tmp_path / "pipe")
    code, out, err = run_here(capfd, *piped)
    assert code == 0, err
    assert out == (tmp_path / "file" / "answers.jsonl").read_text()
    assert [json.loads(line)["id"] for line in out.splitlines()] == [0, 1, 2, 3, 4]
    # Resumed, everything is printed again, and nobody needs to be asked.
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    monkeypatch.setattr(Players, "sampler", None)
    assert run_here(capfd, *piped, "--resume")[:2] == (0, out)
    for old, new in ((b"area 0", b"area 9"), (b"name[", b"name[The ")):
        other = io.TextIOWrapper(io.BytesIO(raw.replace(old, new, 1)))
        monkeypatch.setattr(sys, "stdin", other)
        code, _, err = run_here(capfd, *piped, "--resume")
        assert code == 2
        assert "stdin has another row at stdin, line 1" in err


# -- players ----------------------------------------------------------------------------------


def replies(path, body, number):
    return {"choices": [{"text": f" reply {number} {i}", "finish_reason": "stop"}
                        for i in range(body["n"])]}  # fmt: skip


def test_leader_and_follower_on_servers(capfd, chat_model, prompts_file, tmp_path):
    tokenizer = load_tokenizer(chat_model)
    with CompletionServer(replies) as leader, CompletionServer(replies) as follower:
        code, _, err = run_here(
            capfd,
            *("--prompts", prompts_file, "--max-prompts", 2, "--rounds", 2),
            *("--leader", "big", "--leader-url", leader.url, "--leader-tokenizer", chat_model),
            *("--leader-option", "dialect=openai", "--instruction", "Now better."),
            *("--follower", "small", "--follower-url", follower.url),
            *("--follower-tokenizer", chat_model, "--output-dir", tmp_path / "run"),
            *("--max-new-tokens", 9),
        )
        assert code == 0, err
        assert [b["model"] for b in leader.bodies] == ["big"] * 2
        assert "return_token_ids" not in leader.bodies[0]
        assert leader.bodies[0]["max_tokens"] == 9
        assert [b["model"] for b in follower.bodies] == ["small"] * 4
        shown = [tokenizer.decode(b["prompt"]) for b in follower.bodies]
    assert all("Now better." in text for text in shown)
    # Each is shown the answer before: the Leader's first, its own then.
    assert all("reply" in text for text in shown)
    kept = [r["completion"] for r in read_jsonl(tmp_path / "run" / "answers.jsonl")]
    assert sorted(kept) == [" reply 2 0", " reply 3 0"]


def adapter(chat_model, folder, seed):
    import torch

    torch.manual_seed(seed)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(load_model(chat_model), config).save_pretrained(str(folder))


@pytest.fixture(scope="module")
def two_adapters(tmp_path_factory, chat_model):
    """As SLHFTrainer saves two adapters."""
    folder = tmp_path_factory.mktemp("adapters")
    for seed, role in enumerate(("leader", "follower")):
        adapter(chat_model, folder / role, seed)
    FollowerPrompt("Schöner, bitte.").save(folder / "follower")
    return folder


def test_adapters_of_one_base_share_it_and_play_their_own_part(chat_model, two_adapters):
    config = RefineConfig(
        leader=str(two_adapters), follower=str(two_adapters), prompts="x", max_new_tokens=12
    )
    players = Players(config)
    assert players.form().instruction == "Schöner, bitte."
    prompts = [[{"role": "user", "content": "name[Aromi], food[Thai]"}]] * 2
    leader, follower = players.leader().open(), players.follower().open()
    bare = Players(RefineConfig(leader=str(chat_model), follower="f", prompts="x",
                                max_new_tokens=12))  # fmt: skip
    plain = bare.leader().open()
    found = [s.sample(prompts, 2, 0) for s in (leader, follower, plain)]
    assert len(players.models) == 1
    texts = [[c.ids for g in groups for c in g.completions] for groups in found]
    assert texts[0] != texts[1] != texts[2] != texts[0]
    # Whoever else has played: each is as if alone.
    for groups, sampler in zip(found[:2], (leader, follower), strict=True):
        assert sampler.sample(prompts, 2, 0) == groups
    base = players._player("leader", str(chat_model), None, None, ()).open()
    assert len(players.models) == 1
    assert base.sample(prompts, 2, 0) == found[2]


def test_a_run_directory_is_its_model(chat_model, two_adapters, tmp_path, capfd, work):
    run = tmp_path / "slhf"
    (run / "models").mkdir(parents=True)
    (run / "config.yaml").write_text("method: slhf\n")
    shutil.copytree(two_adapters, run / "models" / "slhf")
    common = ("--answers", work / "answers.jsonl", "--rounds", 1, "--max-new-tokens", 8)
    for name, follower in (("a", run), ("b", two_adapters)):
        code, _, err = run_here(
            capfd, *common, "--follower", follower, "--output-dir", tmp_path / name
        )
        assert code == 0, err
    a, b = (read_jsonl(tmp_path / n / "answers.jsonl") for n in "ab")
    assert [r["completion"] for r in a] == [r["completion"] for r in b]
    assert "Schöner" in (tmp_path / "a" / "summary.json").read_text()
    (run / "models" / "other").mkdir()
    code, _, err = run_here(capfd, *common, "--follower", run, "--output-dir", tmp_path / "c")
    assert code == 2
    assert "name one model's folder" in err


@pytest.mark.parametrize("players", ["shared", "separate", "adapters"])
def test_what_the_trainer_saves_is_understood(capfd, chat_model, prompts_file, tmp_path, players):
    args = SLHFConfig(
        output_dir=str(tmp_path / "training"),
        players=players,
        num_rounds=1,
        prompts_per_round=2,
        num_generations=2,
        max_completion_length=8,
        per_device_train_batch_size=2,
        follower_instruction="Do better.",
        disable_tqdm=True,
        use_cpu=True,
    )
    judge = CallableOracle(lambda prompt, a, b: (1 + len(b)) / (2 + len(a) + len(b)))
    adapter = LoraConfig(r=2, target_modules="all-linear") if players == "adapters" else None
    trainer = SLHFTrainer(
        load_model(chat_model),
        args,
        read_jsonl(prompts_file)[:4],
        judge,
        load_tokenizer(chat_model),
        peft_config=adapter,
    )
    trainer.save_model(str(tmp_path / "saved"))
    code, out, err = run_here(
        capfd,
        *("--prompts", prompts_file, "--max-prompts", 2, "--max-new-tokens", 8, "--json"),
        *("--leader", tmp_path / "saved", "--follower", tmp_path / "saved"),
        *("--output-dir", tmp_path / "run"),
    )
    assert code == 0, err
    assert json.loads(out)["follower_prompt"]["instruction"] == "Do better."


def test_plain_text_prompts_use_the_template(capfd, caplog, chat_model, tmp_path):
    write_jsonl(tmp_path / "p.jsonl", [{"prompt": "Ask", "completion": "Say"}])
    tokenizer = load_tokenizer(chat_model)
    with CompletionServer(replies) as server:
        code, _, err = run_here(
            capfd,
            *(
                "--answers",
                tmp_path / "p.jsonl",
                "--rounds",
                1,
                "--template",
                "<{answer}> {prompt}",
            ),
            *("--follower", chat_model, "--follower-url", server.url),
            *("--output-dir", tmp_path / "run"),
        )
        assert code == 0, err
        assert caplog.text.count("with --chat they become user messages") == 1
        text = tokenizer.decode(server.bodies[0]["prompt"], skip_special_tokens=True)
    assert text.replace(" ", "") == "<Say>Ask"


# -- what goes wrong ----------------------------------------------------------------------------


def test_mistakes_are_told_before_anything_is_written(capfd, chat_model, work, tmp_path):
    write_jsonl(tmp_path / "chat.jsonl", [{"prompt": [{"role": "user", "content": "q"}]}])
    write_jsonl(tmp_path / "long.jsonl", [{"prompt": "q"}, {"prompt": "word " * 600}])
    (tmp_path / "bad.jsonl").write_text('{"prompt": "q"}\nx\n')
    bare = tmp_path / "bare"
    shutil.copytree(chat_model, bare)
    (bare / "chat_template.jinja").unlink()
    damaged = tmp_path / "damaged"
    shutil.copytree(chat_model, damaged)
    (damaged / "follower_prompt.json").write_text("{")
    strict = tmp_path / "strict"
    shutil.copytree(chat_model, strict)
    (strict / "chat_template.jinja").write_text(
        "{% if messages | length > 1 %}{{ raise_exception('one turn only') }}{% endif %}"
        "{{ messages[0]['content'] }}"
    )
    gone = tmp_path / "gone"
    gone.mkdir()
    write_json(gone / "adapter_config.json", {"base_model_name_or_path": "/nowhere/base"})
    chat, long, bad = (tmp_path / f"{n}.jsonl" for n in ("chat", "long", "bad"))
    cases = [
        ((chat, chat_model, bare), "no chat template"),
        ((chat, bare, chat_model), "no chat template"),
        ((chat, chat_model, strict), "refuses a conversation of user, assistant, user: one turn"),
        ((chat, chat_model, damaged), "follower_prompt.json is not a follower prompt"),
        ((chat, chat_model, gone), "no model folder at /nowhere/base"),
        ((chat, chat_model, "/nowhere"), "no model folder at /nowhere"),
        ((long, chat_model, chat_model), "long.jsonl, line 2: the prompt has"),
        ((bad, chat_model, chat_model), "bad.jsonl, line 2: 'x' is not JSON"),
        ((chat, chat_model, chat_model, "--max-new-tokens", 600), "leaves no room for a prompt"),
        ((chat, chat_model, chat_model, "--template", "{prompt}"), "must show {answer}"),
        ((chat, chat_model, chat_model, "--oracle", "rewrd"), "Did you mean 'reward'"),
        ((chat, chat_model, chat_model, "--device", "cuda:77"), "device = 'cuda:77'"),
        ((chat, chat_model, chat_model, "--stdout", "--json"), "both write to stdout"),
        ((chat, chat_model, chat_model, "--follower-url", "u", "--follower-option", "timeot=1"),
         "Did you mean timeout?"),
        ((chat, chat_model, chat_model, "--follower-url", "u", "--follower-option", "timeout"),
         "write NAME=VALUE"),
        ((chat, chat_model, "big", "--follower-url", "http://x/v1"), "give --follower-tokenizer"),
    ]  # fmt: skip
    for (prompts, leader, follower, *more), message in cases:
        code, out, err = run_here(
            capfd,
            *("--prompts", prompts, "--leader", leader, "--follower", follower),
            *("--max-new-tokens", 20, "--output-dir", tmp_path / "out", *more),
        )
        assert (code, out) == (2, ""), (message, err)
        assert message in err
        assert not (tmp_path / "out").exists(), message


def test_every_option_says_what_it_does(capfd):
    code, out, _ = run_here(capfd, "--help")
    assert code == 0
    plain = " ".join(out.split())
    for name, field in RefineConfig.__dataclass_fields__.items():
        assert f"--{name.replace('_', '-')}" in plain
        assert field.metadata["help"]


def test_a_table_for_people(capfd, chat_model, work, tmp_path):
    code, out, err = run_here(
        capfd,
        *("--answers", work / "answers.jsonl", "--follower", chat_model, "--rounds", 1),
        *("--oracle", work / "judge.yaml", "--keep", "best", "--max-new-tokens", 8),
        *("--output-dir", tmp_path / "run"),
    )
    assert code == 0, err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert f"{summary['rounds'][0]['win_rate_vs_leader']:.3f}" in out
    assert f"{summary['picked']['win_rate_vs_leader']:.3f}" in out
    assert "5 chains on 5 prompts" in out
