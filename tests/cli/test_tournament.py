"""`equilign tournament` as a user runs it: answers, questions, files, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from peft import LoraConfig, get_peft_model

from equilign.cli.main import _exit_code
from equilign.experiments.tournament import contestants, run
from equilign.files import read_jsonl, write_jsonl
from equilign.models import load_model, load_tokenizer
from equilign.oracles import CallableOracle
from equilign.reports.tournament import render_tournament
from equilign.trainers.slhf import SLHFConfig, SLHFTrainer
from tests.rollout.completion_server import CompletionServer

JUDGE = """
import os, time
from pathlib import Path
import numpy as np

class Longer:
    abstains = True

    def compare(self, prompts, a, b):
        with Path(__file__).with_name("log").open("a") as log:
            log.write("".join(f"{p}|{x}|{y}\\n" for p, x, y in zip(prompts, a, b)))
        time.sleep(float(os.environ.get("JUDGE_SECONDS", 0)))
        wins = [(1.0 + len(x)) / (2.0 + len(x) + len(y)) for x, y in zip(a, b)]
        return np.array([np.nan if "mute" in x + y else w for x, y, w in zip(a, b, wins)])
"""


@pytest.fixture
def drawn(monkeypatch):
    """With the page and its figures, which take most of the time of a small tournament."""
    monkeypatch.setattr(run, "render_tournament", render_tournament)


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    def render(results, sheet, folder):
        (folder / "report.html").write_text("page")
        return []

    monkeypatch.setattr(run, "render_tournament", render)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a judge that writes down what it is asked, and three files of answers."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judge.py").write_text(JUDGE)
    (tmp_path / "judge.yaml").write_text("{kind: python, function: 'judge.py:Longer'}")
    for name, text in (("a", "x" * 9), ("b", "y" * 6), ("c", "z" * 3)):
        rows = [
            {"instruction": f"prompt {i}", "output": f"{text} {i % 3}", "generator": name}
            for i in range(8)
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    return tmp_path


def asked(folder):
    path = folder / "log"
    return path.read_text().splitlines() if path.exists() else []


def run_here(capfd, *arguments):
    code = _exit_code(["tournament", *map(str, arguments)])
    out, err = capfd.readouterr()
    assert "Traceback" not in err, err
    return code, out, err


def players(*names):
    return [word for name in names for word in ("--player", name)]


# -- what a run leaves behind ---------------------------------------------------------------


def test_files_only(here, drawn, capfd):
    arguments = [*players("a.json", "b.json", "c.json"), "--oracle", "judge.yaml"]
    code, out, err = run_here(capfd, *arguments, "--output-dir", "run", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found == json.loads((here / "run" / "results.json").read_text())
    assert found["players"] == ["a", "b", "c"]
    rates, low, high = (np.array(found[k]) for k in ("win_rate", "low", "high"))
    assert rates.shape == low.shape == high.shape == (3, 3)
    assert ((low <= rates) & (rates <= high)).all()
    np.testing.assert_allclose(rates + rates.T, 1.0)
    # (1 + 11) / (2 + 11 + 8) in every prompt.
    assert rates[0, 1] == pytest.approx(12 / 21)
    assert found["lottery"] == pytest.approx({"a": 1.0, "b": 0.0, "c": 0.0}, abs=1e-9)
    assert found["bradley_terry"]["ranking"] == ["a", "b", "c"]
    assert found["comparisons"] == {
        "pairs": 24,
        "equal_texts": 0,
        "questions": 48,
        "judged": 24,
        "no_verdict": 0,
    }
    assert found["condorcet_winner"] == "a"
    assert found["order"]["swapped_pairs"] == 0
    assert found["answers"]["a"]["characters"]["mean"] == 11.0
    assert found["answers"]["a"]["tokens"] is None
    assert found["length_controlled"]["win_rate"][0][1] is None  # always longer by the same
    assert len(asked(here)) == 48
    assert "questions to ask: 48 (0 already known)" in err
    for name in found["figures"]:
        assert (here / "run" / name).stat().st_size > 1000
    assert len(found["figures"]) == 6
    assert sorted(p.name for p in (here / "run").iterdir()) == [
        "answers",
        "config.yaml",
        "environment.json",
        "figures",
        "prompts.jsonl",
        "report.html",
        "results.json",
        "verdicts.sqlite",
    ]
    (row, *_) = read_jsonl(here / "run" / "prompts.jsonl")
    assert row["answers"]["c"] == ["zzz 0"]
    assert row["win_rate"][0][1] == pytest.approx(12 / 21)


def test_the_page_again(here, drawn, capfd):
    arguments = [*players("a.json", "b.json", "c.json"), "--oracle", "judge.yaml"]
    assert run_here(capfd, *arguments, "--output-dir", "run")[0] == 0
    first = (here / "run" / "report.html").read_bytes()
    (here / "run" / "report.html").unlink()
    assert _exit_code(["report", "run"]) == 0
    assert capfd.readouterr().out == "run/report.html\n"
    assert (here / "run" / "report.html").read_bytes() == first
    (here / "run" / "prompts.jsonl").write_text('{"prompt": "p", "answers": {}, "win_rate": []}\n')
    assert _exit_code(["report", "run"]) == 2
    assert "does not hold a tournament's prompts" in capfd.readouterr().err


def test_tables_for_people(here, drawn, capfd):
    code, out, err = run_here(capfd, *players("a.json", "b.json"), "--oracle", "judge.yaml")
    assert code == 0, err
    assert "Who beats whom" in out
    assert "Page: runs/tournament/report.html" in out


def test_a_newcomer_asks_only_what_is_new(here, capfd):
    arguments = ["--oracle", "judge.yaml", "--output-dir", "run", "--json"]
    assert run_here(capfd, *players("a.json", "b.json"), *arguments)[0] == 0
    assert len(asked(here)) == 16
    everybody = [*players("a.json", "b.json", "c.json"), *arguments]
    code, out, err = run_here(capfd, *everybody)
    assert (code, out) == (2, "")
    assert "Add --resume" in err
    code, out, err = run_here(capfd, *everybody, "--resume")
    assert code == 0, err
    assert "questions to ask: 32 (16 already known)" in err
    assert len(asked(here)) == len(set(asked(here))) == 16 + 32
    found = json.loads(out)
    assert found["questions"]["asked"] == 32
    fresh = json.loads(run_here(capfd, *everybody[:-1], "--output-dir", "again", "--json")[1])
    for name in ("win_rate", "low", "high", "lottery", "bradley_terry", "cycles", "order"):
        assert found[name] == fresh[name]
    before = len(asked(here))
    code, out, _ = run_here(capfd, *everybody, "--resume")
    assert (code, json.loads(out)) == (0, found)
    assert len(asked(here)) == before
    code, out, _ = run_here(capfd, *players("a.json", "c.json"), *arguments, "--resume")
    assert (code, json.loads(out)["players"], len(asked(here))) == (0, ["a", "c"], before)


def test_answers_in_alpaca_evals_format_play_again(here, capfd):
    arguments = ["--oracle", "judge.yaml", "--json", "--output-dir"]
    assert run_here(capfd, *players("a.json", "b.json"), *arguments, "one")[0] == 0
    rows = json.loads((here / "one" / "answers" / "a.json").read_text())
    assert rows[0] == {"instruction": "prompt 0", "output": "xxxxxxxxx 0", "generator": "a"}
    code, out, err = run_here(
        capfd, *players("one/answers/a.json", "one/answers/b.json"), *arguments, "two"
    )
    assert code == 0, err
    assert json.loads(out)["win_rate"][0][1] == pytest.approx(12 / 21)


def test_no_verdict_is_counted_and_asked_again(here, capfd):
    rows = json.loads((here / "b.json").read_text())
    rows[2]["output"] = "mute"
    (here / "b.json").write_text(json.dumps(rows))
    arguments = [*players("a.json", "b.json"), "--oracle", "judge.yaml", "--output-dir", "run"]
    code, out, err = run_here(capfd, *arguments, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["comparisons"]["no_verdict"] == 1
    assert found["judged_prompts"] == [[8, 7], [7, 8]]
    assert found["questions"]["abstained"] == 2
    assert found["win_rate"][0][1] == pytest.approx(12 / 21)
    code, out, err = run_here(capfd, *arguments, "--json", "--resume")
    assert "questions to ask: 2 (14 already known)" in err
    assert len(asked(here)) == 18


def test_a_judge_that_never_says_anything(here, capfd):
    for name in "ab":
        rows = [{"prompt": "p", "completion": f"mute {name}"}]
        write_jsonl(here / f"{name}.jsonl", rows)
    code, _, err = run_here(
        capfd, *players("a.jsonl", "b.jsonl"), "--oracle", "judge.yaml", "--output-dir", "run"
    )
    assert code == 2
    assert "no pair of answers got a verdict" in err


def test_equal_answers_tie_and_cost_nothing(here, capfd):
    arguments = [*players("one=a.json", "two=a.json"), "--oracle", "judge.yaml", "--json"]
    code, out, err = run_here(capfd, *arguments)
    assert code == 0, err
    found = json.loads(out)
    assert asked(here) == []
    assert found["win_rate"] == [[0.5, 0.5], [0.5, 0.5]]
    assert found["comparisons"]["equal_texts"] == 8


# -- previews -------------------------------------------------------------------------------


def test_dry_run_asks_and_writes_nothing(here, capfd):
    arguments = [*players("a.json", "b.json"), "--oracle", "judge.yaml", "--output-dir", "run"]
    code, out, err = run_here(capfd, *arguments, "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(out) == {
        "players": ["a", "b"],
        "prompts": 8,
        "questions": 16,
        "known": 0,
        "to_ask": 16,
        "exact": True,
        "estimate": None,
    }
    assert asked(here) == []
    assert not (here / "run").exists()
    _, out, _ = run_here(capfd, *arguments, "--dry-run")
    assert out == "questions to ask: 16 (0 already known)\n"


def test_dry_run_with_a_model_is_an_upper_bound(here, capfd, chat_model):
    arguments = [*players("a.json", f"m={chat_model}"), "--oracle", "judge.yaml", "--chat"]
    code, out, err = run_here(capfd, *arguments, "--dry-run", "--json")
    assert code == 0, err
    assert (json.loads(out)["questions"], json.loads(out)["exact"]) == (16, False)


def verdict(path, body, number):
    return {
        "choices": [{"message": {"content": "A"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 1},
    }


def test_a_paid_judge_is_asked_only_with_consent(here, capfd):
    with CompletionServer(verdict) as server:
        spec = {"kind": "llm", "model": "m", "base_url": server.url, "api_key_env": None}
        spec |= {"price_prompt": 1.0, "price_completion": 1.0}
        arguments = [*players("a.json", "b.json"), "--oracle", json.dumps(spec)]
        arguments += ["--output-dir", "run", "--json"]
        code, out, err = run_here(capfd, *arguments, "--dry-run")
        assert code == 0, err
        estimate = json.loads(out)["estimate"]
        assert estimate["models"] == ["m"]
        assert estimate["cost"] == pytest.approx(
            (estimate["prompt_tokens"] + estimate["completion_tokens"]) / 1e6
        )
        for more in ((), ("--max-questions", 15)):
            code, out, err = run_here(capfd, *arguments, *more, "--resume")
            assert (code, out) == (2, "")
            assert "a paid judge would be asked 16 questions; add --yes" in err
            assert "which cost about" in err
        assert server.requests == []
        code, out, err = run_here(capfd, *arguments, "--max-questions", 16, "--resume")
        assert code == 0, err
        assert len(server.requests) == 16
        found = json.loads(out)
        assert found["order"]["swapped"]["share"] == 1.0
        assert found["order"]["first_wins"]["share"] == 1.0
        assert found["win_rate"][0][1] == 0.5
        more = [*players("c.json"), *arguments, "--resume"]
        assert run_here(capfd, *more)[0] == 2
        assert run_here(capfd, *more, "--yes")[0] == 0
        assert len(server.requests) == 16 + 32


def test_a_judge_whose_budget_is_gone_goes_on_with_a_larger_one(here, capfd):
    with CompletionServer(verdict) as server:
        spec = {"kind": "llm", "model": "m", "base_url": server.url, "api_key_env": None}
        arguments = [*players("a.json", "b.json"), "--output-dir", "run", "--json", "--yes"]
        capped = json.dumps({**spec, "max_requests": 6, "concurrency": 1})
        code, _, err = run_here(capfd, *arguments, "--oracle", capped)
        assert code == 2
        assert "the judge's budget is gone (max_requests=6)" in err
        more = json.dumps({**spec, "max_requests": 99})
        code, _, err = run_here(capfd, *arguments, "--oracle", more, "--resume")
        assert code == 0, err
        assert "questions to ask: 10 (6 already known)" in err
        assert len(server.requests) == 16
        other = json.dumps({**spec, "criteria": "Prefer the longer one."})
        code, _, err = run_here(capfd, *arguments, "--oracle", other, "--resume")
        assert code == 2
        assert "criteria" in err


# -- models ---------------------------------------------------------------------------------


def test_models_answer_once_and_their_answers_stay(here, capfd, chat_model, prompts_file):
    warm = f"{{model: {chat_model}, temperature: 1.0}}"
    cold = f"{{model: {chat_model}, temperature: 0, num_samples: 1}}"
    arguments = ["--prompts", prompts_file, "--max-prompts", 6, "--max-new-tokens", 8]
    arguments += ["--oracle", "judge.yaml", "--chunk-size", 4, "--output-dir", "run", "--json"]
    two = players(f"warm={warm}", f"cold={cold}")
    code, out, err = run_here(capfd, *two, *arguments)
    assert code == 0, err
    found = json.loads(out)
    assert found["answers"]["warm"]["tokens"]["mean"] > 0
    assert found["answers"]["cold"]["cut"] is not None
    before = (here / "run" / "answers" / "warm.json").read_bytes()
    rows = json.loads(before)
    assert len(rows) == 6
    assert rows[0]["generator"] == "warm"
    assert not (here / "run" / "partial").exists()
    three = [*two, *players(f"third={{model: {chat_model}, temperature: 1.0}}")]
    code, out, err = run_here(capfd, *three, *arguments, "--resume")
    assert code == 0, err
    assert "warm answers" not in err
    assert "third answers" in err
    assert (here / "run" / "answers" / "warm.json").read_bytes() == before
    third = json.loads((here / "run" / "answers" / "third.json").read_text())
    # The same model with the same settings draws answers of its own.
    assert [r["output"] for r in third] != [r["output"] for r in rows]
    other = players(f"warm={{model: {chat_model}, temperature: 0.5}}", f"cold={cold}")
    code, _, err = run_here(capfd, *other, *arguments, "--resume")
    assert code == 2
    assert "player warm of run is another one" in err
    assert "temperature" in err


def test_an_adapter_and_several_samples(here, capfd, chat_model, prompts_file):
    model = get_peft_model(
        load_model(chat_model),
        LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False),
    )
    model.peft_config["default"].base_model_name_or_path = str(chat_model)
    model.save_pretrained(here / "adapter")
    code, out, err = run_here(
        capfd,
        *players(f"base={chat_model}", f"tuned={{model: {here / 'adapter'}, num_samples: 2}}"),
        *("--prompts", prompts_file, "--max-prompts", 3, "--max-new-tokens", 6, "--json"),
        *("--oracle", "judge.yaml", "--temperature", 0, "--output-dir", "run"),
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["comparisons"]["pairs"] == 3 * 2
    base, tuned = (
        json.loads((here / "run" / "answers" / f"{n}.json").read_text()) for n in ("base", "tuned")
    )
    assert [r["output"] for r in base] != [r["output"] for r in tuned]
    assert [len(r["completions"]) for r in tuned] == [2, 2, 2]


@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_leader_and_follower(here, capfd, chat_model, prompts_file, kind):
    """The pair's answers are the Follower's improvements of the Leader's own answers."""
    args = SLHFConfig(
        output_dir=str(here / "train"),
        players=kind,
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
    trainer = SLHFTrainer(
        load_model(chat_model),
        args,
        read_jsonl(prompts_file)[:4],
        judge,
        load_tokenizer(chat_model),
    )
    saved = here / "saved"
    trainer.save_model(str(saved))
    lead = f"{{model: {saved}, role: leader}}"
    arguments = ["--prompts", prompts_file, "--max-prompts", 3, "--max-new-tokens", 8, "--json"]
    arguments += ["--oracle", "judge.yaml", "--temperature", 0, "--output-dir", "run"]
    code, _, err = run_here(capfd, *players(f"lead={lead}", f"pair={saved}"), *arguments)
    assert code == 0, err
    led, pair = (
        [r["output"] for r in json.loads((here / "run" / "answers" / f"{n}.json").read_text())]
        for n in ("lead", "pair")
    )
    write_jsonl(
        here / "led.jsonl",
        ({**r, "completion": t} for r, t in zip(read_jsonl(prompts_file), led, strict=False)),
    )
    refine = ["refine", "--answers", here / "led.jsonl", "--follower", saved, "--rounds", 1]
    refine += ["--max-new-tokens", 8, "--temperature", 0, "--output-dir", here / "refined"]
    assert _exit_code([str(word) for word in refine]) == 0
    improved = [r["completion"] for r in read_jsonl(here / "refined" / "answers.jsonl")]
    assert pair == improved


def replies(path, body, number):
    return {
        "choices": [{"index": 0, "text": "It is good.", "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 4},
    }


def test_a_model_on_a_server(here, capfd, chat_model):
    with CompletionServer(replies) as server:
        spec = {"model": "big", "url": server.url, "tokenizer": str(chat_model)}
        spec["server"] = {"dialect": "openai"}
        code, out, err = run_here(
            capfd,
            *players("a.json", f"served={json.dumps(spec)}"),
            *("--oracle", "judge.yaml", "--max-new-tokens", 9, "--json", "--output-dir", "run"),
        )
        assert code == 0, err
        assert [b["model"] for b in server.bodies] == ["big"] * 8
    rows = json.loads((here / "run" / "answers" / "served.json").read_text())
    assert {r["output"] for r in rows} == {"It is good."}
    assert json.loads(out)["sources"]["served"] == "big"


# -- stops ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_while_judging_loses_nothing(here, capfd):
    arguments = [*players("a.json", "b.json", "c.json"), "--oracle", "judge.yaml"]
    arguments += ["--output-dir", "run", "--json"]
    rows = [
        {"instruction": f"p {i}", "output": f"{'o' * (i % 7)} {i}", "generator": "g"}
        for i in range(400)
    ]
    for shift, name in enumerate("abc"):
        more = [{**r, "output": f"{r['output']}{'!' * shift}"} for r in rows]
        (here / f"{name}.json").write_text(json.dumps(more))
    process = subprocess.Popen(
        [sys.executable, "-m", "equilign", "tournament", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "JUDGE_SECONDS": "0.5", "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 200
    while len(asked(here)) < 600 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = len(asked(here))
    assert 600 <= first < 2400
    code, out, err = run_here(capfd, *arguments, "--resume")
    assert code == 0, err
    found = json.loads(out)
    # At most the batch under way is asked again.
    assert first - 256 <= found["questions"]["known"]
    assert len(asked(here)) <= 2400 + 256
    assert found["comparisons"]["judged"] == 1200


def test_answers_are_kept_when_the_judge_fails(here, capfd, chat_model, prompts_file):
    (here / "bad.py").write_text("def f(prompt, a, b):\n    return 7\n")
    arguments = [*players(f"m={chat_model}", f"n={chat_model}"), "--prompts", prompts_file]
    arguments += ["--max-prompts", 3, "--max-new-tokens", 5, "--output-dir", "run"]
    spec = "{kind: python, function: 'bad.py:f'}"
    code, _, err = run_here(capfd, *arguments, "--oracle", spec)
    assert code == 2
    assert "a verdict must be Pr(a beats b)" in err
    (here / "bad.py").write_text("def f(prompt, a, b):\n    return 0.7\n")
    code, _, err = run_here(capfd, *arguments, "--oracle", spec, "--resume")
    assert code == 0, err
    assert "m answers" not in err


def test_answers_under_way_go_on_with_the_next_chunk(here, capfd, chat_model, prompts_file):
    """A stop between chunks: the journal is shortened to its first line."""
    arguments = [*players(f"m={chat_model}", "a=c.jsonl"), "--prompts", prompts_file]
    arguments += ["--max-prompts", 6, "--max-new-tokens", 5, "--chunk-size", 2]
    arguments += ["--oracle", "judge.yaml"]
    rows = read_jsonl(prompts_file)[:6]
    write_jsonl(here / "c.jsonl", ({**r, "completion": "ok"} for r in rows))
    assert run_here(capfd, *arguments, "--output-dir", "whole")[0] == 0
    told = []
    original = contestants.derive_seed

    def stop(*parts):
        told.append(parts)
        if len(told) == 3:
            raise KeyboardInterrupt
        return original(*parts)

    contestants.derive_seed = stop
    try:
        assert run_here(capfd, *arguments, "--output-dir", "run")[0] == 1
        (journal,) = (here / "run" / "partial").iterdir()
        assert len(journal.read_text().splitlines()) == 2
        assert run_here(capfd, *arguments, "--output-dir", "run", "--resume")[0] == 0
    finally:
        contestants.derive_seed = original
    assert [parts[-1] for parts in told] == [0, 1, 2, 2]
    whole, again = ((here / d / "answers" / "m.json").read_text() for d in ("whole", "run"))
    assert whole == again


# -- wrong input ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--player", "a.json"], "two players or more; got 1"),
        (players("a.json", "sub/a.json"), "two players are called 'a'"),
        (players("a.json", "empty.json"), "empty.json"),
        (players("a.json", "other.json"), "answers other prompts: 8 of 8"),
        (players("a.json", "x=nowhere.json"), "nowhere.json"),
        (players("a.json", "x=/nowhere/model"), "player x: no model folder at /nowhere/model"),
        (players("a.json", "x=run1"), "player x: "),
        ([*players("a.json", "b.json"), "--prompts", "-"], "is read more than once"),
        ([*players("a.json", "b.json"), "--prompts", "empty.jsonl"], "holds no rows"),
        ([*players("a.json", "b.json"), "--max-prompts", "0"], "max_prompts = 0"),
        ([*players("a.json", "b.json"), "--oracle", "nobody"], "no kind 'nobody'"),
        ([*players("a.json", "b.json"), "--max-questions", "-1"], "-1"),
    ],
)
def test_wrong_input(here, capfd, arguments, message):
    (here / "sub").mkdir()
    (here / "sub" / "a.json").write_text((here / "a.json").read_text())
    (here / "empty.json").write_text("[]")
    (here / "empty.jsonl").write_text("")
    (here / "other.json").write_text('[{"instruction": "another", "output": "o"}]')
    (here / "run1").mkdir()
    (here / "run1" / "config.yaml").write_text("{}")
    code, out, err = run_here(capfd, "--oracle", "judge.yaml", *arguments, "--output-dir", "run")
    assert (code, out) == (2, "")
    assert message in err
    assert not (here / "run").exists()
    assert asked(here) == []


def test_another_runs_folder_is_left_alone(here, capfd):
    (here / "run").mkdir()
    (here / "run" / "notes.txt").write_text("mine")
    arguments = [*players("a.json", "b.json"), "--oracle", "judge.yaml", "--output-dir", "run"]
    code, _, err = run_here(capfd, *arguments)
    assert code == 2
    assert "is not empty and holds no run" in err
    assert asked(here) == []


def test_other_prompts_are_another_tournament(here, capfd):
    arguments = [*players("a.json", "b.json"), "--oracle", "judge.yaml", "--output-dir", "run"]
    assert run_here(capfd, *arguments)[0] == 0
    code, _, err = run_here(capfd, *arguments, "--max-prompts", 3, "--resume")
    assert code == 2
    assert "max_prompts" in err
    held = yaml.safe_load((here / "run" / "config.yaml").read_text())
    assert list(held["players"]) == ["a", "b"]
