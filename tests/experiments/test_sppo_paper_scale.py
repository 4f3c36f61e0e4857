"""The recipe with the paper's sizes, as far as it goes without GPU and hub."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DebertaV2Config

from equilign.experiments.sppo import paper_scale
from equilign.experiments.sppo.contestants import CONTESTANTS
from equilign.experiments.train_config import make_config, read_config_file
from equilign.experiments.train_job import method_args
from equilign.oracles import checked_compare
from equilign.oracles.functions import load_attribute

RECIPE = Path(__file__).parents[2] / "recipes" / "sppo_paper"


def nobody(*args):
    pass


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize("method", [c.method for c in CONTESTANTS])
def test_configurations_hold_the_papers_values(method, tmp_path):
    path = RECIPE / f"{method}.yaml"
    config = make_config(method, read_config_file(path), [], path.parent)
    assert config.model == "mistralai/Mistral-7B-Instruct-v0.2"
    cpu = make_config(
        method,
        read_config_file(path),
        [(("args", "use_cpu"), True), (("args", "bf16"), False)],
        path.parent,
    )
    args = method_args(cpu, tmp_path)
    assert (args.num_rounds, args.num_generations, args.epochs_per_round) == (3, 5, 1)
    assert (args.temperature, args.top_p) == (1.0, 1.0)
    assert args.learning_rate == 5e-7
    assert args.optim == "rmsprop"
    assert args.warmup_steps == 0.1
    assert args.per_device_train_batch_size * 8 == 64
    assert args.prompts_per_round is None, "a third of the prompts in each iteration"
    if method == "sppo":
        assert (args.eta, args.normaliser, args.responses) == (1000.0, "paper", "best_worst")
        assert args.verdicts == "soft"
    else:
        assert (args.pair_selection, args.labels) == ("best_worst", "hard")
    assert load_attribute(config.oracle["function"], RECIPE).__name__ == "PairRM"


class Tokens:
    """A tokenizer of single characters and the three prefixes."""

    prefixes = ("<|source|>", "<|candidate1|>", "<|candidate2|>")

    def convert_tokens_to_ids(self, tokens):
        return [1 + self.prefixes.index(t) for t in tokens]

    def encode(self, text, max_length, truncation):
        assert truncation
        prefix = next(p for p in self.prefixes if text.startswith(p))
        rest = text.removeprefix(prefix)
        ids = [1 + self.prefixes.index(prefix), *(5 + ord(c) % 20 for c in rest)]
        return [*ids[: max_length - 1], 4]

    def pad(self, encoded, return_tensors):
        rows = encoded["input_ids"]
        width = max(map(len, rows))
        return {
            "input_ids": torch.tensor([r + [0] * (width - len(r)) for r in rows]),
            "attention_mask": torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows]),
        }


@pytest.fixture(scope="module")
def judge():
    pairrm = load_attribute("pairrm.py:PairRM", RECIPE)
    network = load_attribute("pairrm.py:PairRanker", RECIPE)
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=4096,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        initializer_range=0.5,
    )
    return pairrm(network(config), Tokens(), batch_size=2)


TEXTS = (["p", "a long prompt", "q"], ["one", "two words", "x"], ["other", "more", "x y z"])


def test_pairrm_is_half_the_difference_of_both_orders(judge):
    prompts, a, b = TEXTS
    left, right = judge.logits(prompts, a, b), judge.logits(prompts, b, a)
    assert np.abs(left + right).max() > 1e-3, "the order matters to the network"
    found = checked_compare(judge, prompts, a, b)
    np.testing.assert_allclose(found, 1.0 / (1.0 + np.exp(-(left - right) / 2.0)))
    np.testing.assert_allclose(found + judge.compare(prompts, b, a), 1.0)
    assert np.abs(found - 0.5).max() > 1e-3


def test_pairrm_batches_and_padding_change_nothing(judge):
    prompts, a, b = TEXTS
    together = judge.logits(prompts, a, b)
    alone = [judge.logits([p], [x], [y])[0] for p, x, y in zip(prompts, a, b, strict=True)]
    np.testing.assert_allclose(together, alone, atol=1e-5)


@torch.no_grad()
def test_pairrm_reads_the_states_at_the_prefixes(judge):
    model, tokenizer = judge.model, judge.tokenizer
    ids = torch.tensor([judge._ids("p", "one", "other")])
    states = model.pretrained_model(ids, torch.ones_like(ids)).last_hidden_state[0]
    source, first, second = (states[ids[0].tolist().index(mark)] for mark in (1, 2, 3))
    assert tokenizer.convert_tokens_to_ids(list(Tokens.prefixes)) == [1, 2, 3]
    score = [float(model.head_layer(torch.cat([source, x])[None])) for x in (first, second)]
    assert judge.logits(["p"], ["one"], ["other"])[0] == pytest.approx(
        score[0] - score[1], abs=1e-5
    )


def test_pairrm_cuts_long_texts_and_keeps_every_part(judge):
    ids = judge._ids("p" * 5000, "a" * 5000, "b" * 5000)
    assert len(ids) == 2048
    assert [ids.count(mark) for mark in (1, 2, 3)] == [1, 1, 1]
    assert ids.index(2) == 1224


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
    assert ran == [(c.method, 4, tmp_path / c.method) for c in CONTESTANTS]
    assert found["tables"][0]["rows"][0] == ["sppo", 1, 0.6, 0.5, 0.7, 300.0]
    assert json.loads((tmp_path / "results.json").read_text()) == found
    paper_scale.run_paper_scale(tmp_path, seed=4, resume=True, progress=nobody)
    assert len(ran) == 3, "finished trainings are kept"
