"""Fitting on made-up preferences whose law is known."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from transformers.utils import logging as transformers_logging

from equilign.errors import ConfigError, DataError, ModelError, RunDirectoryError
from equilign.fitting import (
    FitConfig,
    Places,
    ScratchSize,
    fit_judge,
    run_fit_oracle,
    split_pairs,
)
from equilign.fitting.bases import scratch_tokenizer
from equilign.fitting.fit import pair_margins
from equilign.fitting.measures import log_losses
from equilign.fitting.trainer import LOSSES, last_whole_checkpoint
from equilign.formats import PreferencePair
from equilign.oracles.base import score_groups
from equilign.oracles.general_preference import load_judge

QUICK = {"learning_rate": 5e-3, "weight_decay": 0.1}
SMALL = ScratchSize(vocabulary=300, width=32, dropout=0.1)
WORDS = [f"w{c}{d}" for c in "abcd" for d in "vwxyz"]


@pytest.fixture(autouse=True)
def _quiet():
    transformers_logging.disable_progress_bar()


def bradley_terry_pairs(number=600, seed=0):
    """Answers of three words; a known score per word. Returns pairs and the known margins."""
    rng = np.random.default_rng(seed)
    worth = rng.normal(0.0, 1.2, len(WORDS))
    pairs, margins = [], []
    for i in range(number):
        a, b = rng.integers(len(WORDS), size=(2, 3))
        margin = worth[a].sum() - worth[b].sum()
        if rng.random() > 1.0 / (1.0 + np.exp(-margin)):
            a, b, margin = b, a, -margin
        texts = [" ".join(WORDS[k] for k in x) for x in (a, b)]
        pairs.append(PreferencePair(f"prompt {i}", *texts))
        margins.append(margin)
    return pairs, dict(zip([p.prompt for p in pairs], margins, strict=True))


def cyclic_pairs(number=400, seed=0, sure=0.9):
    """Stone beats scissors beat paper beats stone, nine times of ten."""
    rng = np.random.default_rng(seed)
    names = ("stone", "scissors", "paper")
    pairs = []
    for i in range(number):
        k = int(rng.integers(3))
        winner, loser = names[k], names[(k + 1) % 3]
        if rng.random() > sure:
            winner, loser = loser, winner
        pairs.append(PreferencePair(f"prompt {i}", f"take {winner}", f"take {loser}"))
    return pairs


def write(path, pairs):
    rows = [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def fitted(config, kind, pairs, folder, **options):
    split = split_pairs(pairs, seed=config.seed)
    places = Places(folder / "judge", folder / "checkpoints", folder / "metrics.jsonl")
    return fit_judge(config, kind, split, places, size=SMALL, **options), split


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "data.jsonl", bradley_terry_pairs(120)[0])


@pytest.fixture(scope="module")
def config(data):
    return FitConfig("reward", (data,), epochs=3, **QUICK)


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, run_fit_oracle(config, folder, size=SMALL)


class TestRecovery:
    @pytest.mark.parametrize("kind", ["reward", "general"])
    def test_known_scores(self, kind, tmp_path):
        """Held-out log-loss close to that of the law itself, far below one half's."""
        pairs, margins = bradley_terry_pairs()
        judge, split = fitted(FitConfig(kind, ("x",), **QUICK), kind, pairs, tmp_path)
        found = log_losses(pair_margins(judge, split.held_out), np.ones(len(split.held_out)))
        law = log_losses(np.array([margins[p.prompt] for p in split.held_out]), 1.0)
        assert law.mean() < 0.5
        assert found.mean() < law.mean() + {"reward": 0.08, "general": 0.13}[kind]
        assert found.mean() > law.mean() - 0.05

    def test_a_pairwise_judge_learns_and_has_no_favourite_place(self, tmp_path):
        pairs = [
            PreferencePair(f"prompt {i}", f"good w{i % 7}", f"bad w{i % 5}") for i in range(300)
        ]
        config = FitConfig("pairwise", ("x",), epochs=8, **QUICK)
        judge, split = fitted(config, "pairwise", pairs, tmp_path)
        x = [p.prompt for p in split.held_out]
        a, b = [p.chosen for p in split.held_out], [p.rejected for p in split.held_out]
        verdicts = judge.compare(x, a, b)
        assert (verdicts > 0.8).mean() > 0.95
        assert (judge.compare(x, a, b) + judge.compare(x, b, a) == 1.0).all()

    def test_cycles_are_learned_by_the_general_judge_alone(self, tmp_path):
        data = write(tmp_path / "data.jsonl", cyclic_pairs())
        config = FitConfig("general", (data,), epochs=12, **QUICK)
        summary = run_fit_oracle(config, tmp_path / "run", size=SMALL)
        found = summary["comparison"]
        assert found["verdict"] is True
        assert found["low"] > 0.1
        assert found["transitive"]["log_loss"] > 0.6
        assert summary["held_out"]["log_loss"] < 0.45  # the law's own: 0.325
        assert found["words"].startswith("Yes: the general preference model")
        game = score_groups(
            load_judge(tmp_path / "run"),
            ["prompt 1"],
            [["take stone", "take scissors", "take paper"]],
        )[0]
        assert game[0, 1] > 0.65
        assert game[1, 2] > 0.65
        assert game[2, 0] > 0.65

    def test_soft_labels_are_matched_not_rounded(self, tmp_path):
        """Every pair is "good" over "bad" by 0.7: the judge must say 0.7, not 1."""
        pairs = [PreferencePair(f"prompt {i}", "good", "bad", 0.7) for i in range(200)]
        judge, _ = fitted(FitConfig("reward", ("x",), epochs=8, **QUICK), "reward", pairs, tmp_path)
        assert judge.compare(["prompt 1"], ["good"], ["bad"])[0] == pytest.approx(0.7, abs=0.04)

    def test_nothing_to_learn(self, tmp_path):
        """Coin flips: no better than chance, and it says so."""
        rng = np.random.default_rng(0)
        pairs = [
            PreferencePair(f"prompt {i}", *(" ".join(rng.choice(WORDS, 3)) for _ in range(2)))
            for i in range(150)
        ]
        data = write(tmp_path / "data.jsonl", pairs)
        config = FitConfig("reward", (data,), compare=False, epochs=4, **QUICK)
        summary = run_fit_oracle(config, tmp_path / "run", size=SMALL)
        assert summary["claims"][0]["holds"] is None
        assert summary["held_out"]["log_loss"] > 0.6
        assert "not distinguishable from chance" in (tmp_path / "run" / "report.html").read_text()


class TestRun:
    def test_what_a_run_directory_holds(self, run, config):
        folder, summary = run
        names = {p.name for p in folder.iterdir()}
        assert {"judge", "compared", "config.yaml", "environment.json", "metrics.jsonl"} <= names
        assert {"summary.json", "verdicts.json", "report.html", "figures"} <= names
        assert json.loads((folder / "summary.json").read_text()) == json.loads(json.dumps(summary))
        assert yaml.safe_load((folder / "config.yaml").read_text())["kind"] == "reward"
        figures = {p.name for p in (folder / "figures").iterdir()}
        assert {"reliability.svg", "reliability.png", "learning-curve.svg"} <= figures
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for kind in ("reward", "general"):
            after = [r for r in rows if r["method"] == kind and r["kind"] == "validation"]
            assert [r["epoch"] for r in after] == [1.0, 2.0, 3.0]

    def test_the_judge_gives_the_reported_verdicts(self, run):
        folder, summary = run
        judge = load_judge(folder)
        rows = json.loads((folder / "verdicts.json").read_text())
        x, a, b = ([r[k] for r in rows] for k in ("prompt", "chosen", "rejected"))
        margins = judge.margins(x, a, b)
        np.testing.assert_allclose(margins, [r["logits"]["reward"] for r in rows], atol=1e-5)
        assert summary["held_out"]["accuracy"] == pytest.approx((margins > 0).mean())
        assert summary["held_out"]["log_loss"] == pytest.approx(
            log_losses(margins, 1.0).mean(), abs=1e-5
        )
        assert judge.config.scale == summary["scale"] != 1.0

    def test_held_out_prompts_are_not_trained_on(self, run, config):
        folder, summary = run
        rows = json.loads((folder / "verdicts.json").read_text())
        split = split_pairs(bradley_terry_pairs(120)[0], seed=0)
        assert {r["prompt"] for r in rows} == {p.prompt for p in split.held_out}
        assert summary["data"]["pairs"] == {"train": 84, "validation": 12, "held_out": 24}

    def test_again(self, run, config, tmp_path):
        """Same seed, same judge, bit for bit; --resume on a finished run trains nothing."""
        folder, summary = run
        again = run_fit_oracle(config, tmp_path / "again", size=SMALL)
        assert again["held_out"] == summary["held_out"]
        before = (folder / "judge" / "model.safetensors").stat().st_mtime_ns
        resumed = run_fit_oracle(config, folder, resume=True, size=SMALL)
        assert (folder / "judge" / "model.safetensors").stat().st_mtime_ns == before
        assert resumed["held_out"] == summary["held_out"]
        assert resumed["seconds"] == summary["seconds"]

    @pytest.mark.parametrize("torn", [False, True])
    def test_a_broken_off_fit_goes_on(self, run, config, tmp_path, torn):
        """Killed in the second epoch, maybe while writing: the same judge bit for bit."""

        class KilledError(Exception):
            pass

        def kill(stage, number, done, total):
            if done == 5:
                raise KilledError

        folder = tmp_path / "run"
        with pytest.raises(KilledError):
            run_fit_oracle(config, folder, progress=kill, size=SMALL)
        checkpoints = folder / "checkpoints" / "reward"
        assert last_whole_checkpoint(checkpoints).name == "checkpoint-3"
        if torn:
            shutil.copytree(checkpoints / "checkpoint-3", checkpoints / "checkpoint-6")
            (checkpoints / "checkpoint-6" / "trainer_state.json").write_text('{"cut": ')
        with pytest.raises(RunDirectoryError, match="--resume"):
            run_fit_oracle(config, folder, size=SMALL)
        resumed = run_fit_oracle(config, folder, resume=True, size=SMALL)
        assert resumed["held_out"] == run[1]["held_out"]
        assert resumed["curves"] == run[1]["curves"]
        for name in ("judge", "compared/general"):
            ours, theirs = (f / name / "model.safetensors" for f in (folder, run[0]))
            assert ours.read_bytes() == theirs.read_bytes()
        assert not any(checkpoints.parent.glob("*"))

    def test_other_data_are_another_run(self, run, data, tmp_path):
        shutil.copytree(run[0], tmp_path / "run")
        copy = tmp_path / "data.jsonl"
        write(copy, bradley_terry_pairs(121)[0])
        config = FitConfig("reward", (data, str(copy)), epochs=3, **QUICK)
        with pytest.raises(RunDirectoryError, match="there, "):
            run_fit_oracle(config, tmp_path / "run", resume=True, size=SMALL)

    def test_accumulated_steps_are_the_same_steps(self, data, tmp_path):
        """Batches of 28 pairs in one piece, or in pieces of 7."""
        judges = []
        for micro in (None, 7):
            config = FitConfig(
                "reward", (data,), epochs=1, batch_size=28, micro_batch_size=micro, **QUICK
            )
            size = ScratchSize(vocabulary=300, width=32, dropout=0.0)
            split = split_pairs(bradley_terry_pairs(120)[0], seed=0)
            folder = tmp_path / str(micro)
            places = Places(folder / "judge", folder / "checkpoints", folder / "metrics.jsonl")
            judges.append(fit_judge(config, "reward", split, places, size=size))
        one, two = (pair_margins(j, split.held_out) for j in judges)
        np.testing.assert_allclose(one, two, atol=1e-3)
        assert np.abs(one).max() > 0.1


class TestBases:
    @pytest.mark.parametrize("lora", [False, True])
    def test_a_language_model_becomes_a_judge(self, chat_model, tmp_path, lora):
        """Whole or as an adapter: the result is one plain checkpoint in the model's chat format."""
        pairs = [PreferencePair(f"prompt {i}", "good", "bad") for i in range(40)]
        config = FitConfig(
            "reward", ("x",), base=str(chat_model), lora=lora, epochs=3, learning_rate=1e-2
        )
        judge, split = fitted(config, "reward", pairs, tmp_path)
        assert judge.text.prompt_format == "chat"
        assert not (tmp_path / "judge" / "adapter_config.json").exists()
        assert pair_margins(judge, split.held_out).min() > 0.5

    def test_an_adapter_changes_more_than_the_head(self, chat_model, tmp_path):
        from equilign.models import load_model

        pairs = [PreferencePair(f"prompt {i}", "good", "bad") for i in range(40)]
        config = FitConfig(
            "general", ("x",), base=str(chat_model), lora=True, epochs=3, learning_rate=1e-2
        )
        judge, _ = fitted(config, "general", pairs, tmp_path)
        start = dict(load_model(chat_model).named_parameters())
        name = "model.layers.0.self_attn.q_proj.weight"
        assert (judge.model.get_parameter(name) - start[name]).abs().max() > 1e-4
        same = "model.embed_tokens.weight"
        torch.testing.assert_close(judge.model.get_parameter(same), start[same], rtol=0, atol=0)

    def test_missing_base(self, tmp_path):
        pairs = [PreferencePair(f"prompt {i}", "good", "bad") for i in range(20)]
        config = FitConfig("reward", ("x",), base=str(tmp_path / "nowhere"))
        with pytest.raises(ModelError, match=r"no model folder at .*nowhere"):
            fitted(config, "reward", pairs, tmp_path)

    def test_a_tokenizer_of_the_data_reads_everything(self):
        made = scratch_tokenizer(["hello there", "hello you"] * 5, SMALL)
        text = "Zoë 日本 \x00 🙂 hello"
        assert made.decode(made(text, add_special_tokens=False)["input_ids"]).strip() == text
        assert len(made(" hello", add_special_tokens=False)["input_ids"]) == 1

    def test_divergence_is_told(self, tmp_path):
        pairs = [PreferencePair(f"prompt {i}", "good", "bad") for i in range(40)]
        config = FitConfig("reward", ("x",), learning_rate=1e38, epochs=3)
        with pytest.raises(ModelError, match=r"smaller --learning-rate"):
            fitted(config, "reward", pairs, tmp_path)


@pytest.mark.parametrize("kind", list(LOSSES))
def test_training_and_judging_agree_on_the_margin(kind):
    """The margin that is trained is the one that the judge's class makes of the same outputs."""
    from equilign.fitting.trainer import PairCollator, PairDataset
    from equilign.oracles.general_preference import JUDGES
    from tests.oracles.tiny_judges import decoder, tokenizer

    labels = 4 if kind == "general" else 1
    judge = JUDGES[kind](decoder(labels), tokenizer("chat"))
    pairs = [PreferencePair("a b", "good", "bad c d", 0.8), PreferencePair("c", "long", "e")]
    rows = PairDataset(pairs, judge.text, kind)
    batch = PairCollator(judge.pad_id)([rows[0], rows[1]])
    target = batch.pop("labels")
    with torch.no_grad():
        out = judge.model(**batch).logits
    losses, margins = LOSSES[kind](out[:2], out[2:], target.double())
    expected = pair_margins(judge, tuple(pairs))
    np.testing.assert_allclose(margins.numpy(), expected, atol=1e-10)
    if kind != "pairwise":
        np.testing.assert_allclose(losses.numpy(), log_losses(expected, target.numpy()), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "rewards"}, r"no judge of kind 'rewards': reward, pairwise, general"),
        ({"data": ()}, "--data"),
        ({"dtype": "float8"}, "float32, bfloat16; got 'float8'"),
        ({"prompt_format": "poem"}, "chat, pair, plain"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be positive"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0"),
        ({"lora": True}, "give one with --base"),
        ({"batch_size": 32, "micro_batch_size": 5}, "multiple"),
        ({"max_length": 3}, "max_length must be at least 8"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        FitConfig(**{"kind": "reward", "data": ("x",), **options})


def test_missing_data(tmp_path):
    config = FitConfig("reward", (str(tmp_path / "nowhere.jsonl"),))
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        run_fit_oracle(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
