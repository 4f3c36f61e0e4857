"""Reward models as players: what they read, how they are saved, and runs that die and go on."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from equilign.errors import ConfigError, ModelError
from equilign.models import load_tokenizer
from equilign.oracles import CallableOracle, RewardModel
from equilign.rollout import Completion, Group
from equilign.trainers.reward_models import HeadReward, add_lora, classifier_like, text_reward
from equilign.trainers.reward_pairs import PairRule, annotate, replace_ties
from equilign.trainers.reward_player import Annotated, RewardPlayer
from equilign.trainers.reward_side import minus_others
from tests.enumerable import END, tiny_model, tiny_tokenizer
from tests.trainers.launch import start
from tests.trainers.reward_games import FAMILY, build
from tests.trainers.test_resume import DieAtStep, Died, metrics

ROWS = [
    {"prompt": "a b", "prompt_ids": [1, 2], "completions": ["a", "b a", ""],
     "completion_ids": [[1, END], [2, 1], [END]]},
    {"prompt": "b", "prompt_ids": [2], "completions": ["b b", "a", "a a"],
     "completion_ids": [[2, 2], [1, END], [1, 1]]},
]  # fmt: skip


def group(prompt, *texts):
    return Group(prompt, (1,), tuple(Completion((1,), t, True) for t in texts))


class Letters:
    """A utility: how many b; and a judge who is never sure."""

    def score(self, prompts, answers):
        return np.array([float(t.count("b")) if t != "?" else math.nan for t in answers])

    def compare(self, prompts, a, b):
        return 1.0 / (1.0 + np.exp(self.score(prompts, b) - self.score(prompts, a)))

    abstains = True


# -- pairs and labels -----------------------------------------------------------------------


def told(rule, *texts, seed=0, oracle=None):
    (found,) = annotate(oracle or Letters(), [group("x", *texts)], PairRule(*rule), seed)
    return found


def test_best_and_worst_are_the_pair():
    found = told(("best_worst", "utility", "replace"), "b", "bb", "", "bb", "")
    assert found["pairs"] == [[1, 4, 1.0]]
    assert found["utilities"] == [1.0, 2.0, 0.0, 2.0, 0.0]
    soft = told(("best_worst", "soft", "replace"), "b", "bbb", "bb")
    assert soft["pairs"] == [[1, 0, pytest.approx(1.0 / (1.0 + math.exp(-2.0)))]]


def test_ties_have_no_pair_or_half_a_label():
    assert told(("best_worst", "utility", "replace"), "b", "b", "ab")["pairs"] == []
    assert told(("best_worst", "utility", "half"), "b", "b", "ab")["pairs"] == [[0, 2, 0.5]]


def test_answers_without_a_verdict_are_in_no_pair():
    found = told(("best_worst", "soft", "replace"), "?", "b", "bb", "?")
    assert [p[:2] for p in found["pairs"]] == [[2, 1]]
    assert found["utilities"] == [None, 1.0, 2.0, None]
    every = told(("all", "utility", "replace"), "?", "b", "bb")
    assert [p[:2] for p in every["pairs"]] == [[1, 2]]
    assert told(("best_worst", "utility", "replace"), "?", "b")["pairs"] == []


def test_all_pairs_weigh_one_pair_together():
    found = told(("all", "utility", "replace"), "b", "bb", "", "")
    assert sum(found["pair_weights"]) == pytest.approx(1.0)
    labels = {(i, j): p for i, j, p in found["pairs"]}
    assert labels == {(0, 1): 0.0, (0, 2): 1.0, (0, 3): 1.0, (1, 2): 1.0, (1, 3): 1.0, (2, 3): 0.5}


def test_quantal_labels_are_drawn_with_the_oracles_probability():
    rule = ("best_worst", "quantal", "replace")
    draws = [told(rule, "b", "", seed=seed)["pairs"][0][2] for seed in range(2000)]
    assert set(draws) == {0.0, 1.0}
    assert np.mean(draws) == pytest.approx(1.0 / (1.0 + math.exp(-1.0)), abs=0.03)
    assert told(rule, "b", "", seed=7) == told(rule, "b", "", seed=7)


def test_an_oracle_that_only_compares_has_win_rates():
    oracle = CallableOracle(lambda x, a, b: 0.9 if len(a) > len(b) else 0.1)
    found = told(("best_worst", "utility", "replace"), "b", "bbb", "bb", oracle=oracle)
    assert found["pairs"] == [[1, 0, 1.0]]
    assert found["utilities"] == pytest.approx([0.1, 0.9, 0.5])


def test_the_place_of_a_tie_goes_to_another_prompt():
    rows = [{"pairs": [[0, 1, 1.0]]}, {"pairs": []}, {"pairs": [[0, 1, 1.0]]}, {"pairs": []}]
    found = replace_ties(rows, seed=3)
    assert found[1] == found[3] == 0.0
    assert sum(found) == 4.0
    assert min(found[0], found[2]) >= 1.0
    assert {tuple(replace_ties(rows, seed=s)) for s in range(20)} >= {(3, 0, 1, 0), (2, 0, 2, 0)}
    assert replace_ties([{"pairs": []}], seed=0) == [0.0]


def test_a_round_of_ties_moves_nobody_towards_anything(tmp_path):
    flat = CallableOracle(lambda x, a, b: 0.5)
    for samples in ("all", "pair"):
        options = {"policy_samples": samples, "beta": 0.0, "optim": "sgd", "learning_rate": 0.1}
        trainer = build(
            tmp_path / samples, "sta-total", listed=False, oracle=flat, num_rounds=2, **options
        )
        before = {n: p.detach().clone() for n, p in trainer.policy.named_parameters()}
        learning = []
        trainer.policy.register_forward_pre_hook(
            lambda *_, seen=learning: seen.append(torch.is_grad_enabled())
        )
        trainer.train()
        after = dict(trainer.policy.named_parameters())
        assert all(torch.equal(p, after[n]) for n, p in before.items())
        assert any(learning), "under DDP the other processes would wait for this one's pass"


# -- models ---------------------------------------------------------------------------------


def test_same_is_the_policys_trunk_with_a_head_of_zeros():
    policy = tiny_model(seed=2)
    reward = text_reward("same", policy, tiny_tokenizer(), None, 0)
    items = [x for row in reward.encode(ROWS) for x in row]
    assert [x["input_ids"] for x in items[:2]] == [[1, 2, 1, END], [1, 2, 2, 1, END]]
    assert not reward(items).any()
    with torch.no_grad():
        reward.model.score.weight.normal_()
        # The end doubles as padding here: the classifier reads the last token before it.
        states = policy.model(torch.tensor([[1, 2, 2, 1]])).last_hidden_state[0, -1]
        expected = reward.model.score.weight[0] @ states
    torch.testing.assert_close(reward(items)[1], expected)


def test_same_of_an_adapted_policy_is_the_model_underneath():
    plain = tiny_model(seed=2)
    adapted = get_peft_model(tiny_model(seed=2), LoraConfig(r=2, target_modules=["q_proj"]))
    with torch.no_grad():
        for n, p in adapted.named_parameters():
            if "lora_" in n:
                p.normal_()
    one, two = (classifier_like(m, END, 0).state_dict() for m in (plain, adapted))
    assert one.keys() == two.keys()
    assert all(torch.equal(p, two[n]) for n, p in one.items())


def test_head_is_linear_in_the_start_models_states(tmp_path):
    trainer = build(tmp_path, "sta-naive", listed=False, reward_model="head",
                    generation_batch_size=2)  # fmt: skip
    function = trainer.players["reward"].function
    assert isinstance(function, HeadReward)
    trainer.start_round(0)
    start = {p: function.encode(ROWS) for p in "x"}["x"]
    with torch.no_grad():
        for p in trainer.policy.parameters():
            p.add_(0.1)
    again = function.encode(ROWS)  # the policy has moved, the trunk has not
    for old, new in zip(start, again, strict=True):
        torch.testing.assert_close(torch.stack(old), torch.stack(new))
    with trainer.references.playing("reference"), torch.no_grad():
        states = trainer.policy.model(torch.tensor([[1, 2, 2, 1]])).last_hidden_state[0, -1]
    torch.testing.assert_close(again[0][1], states)


def classifier(tokenizer, **options):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64,
        **{"bos_token_id": None, "num_labels": 1, **options},
    )  # fmt: skip
    return LlamaForSequenceClassification(config)


def test_a_reward_model_of_another_vocabulary_reads_the_text(tmp_path):
    """The policy has three tokens, the reward model four thousand, and both see one text."""
    tokenizer = load_tokenizer("shipped")
    folder = tmp_path / "judge"
    classifier(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    trainer = build(tmp_path / "run", "sta-total", listed=False, num_rounds=2, learning_rate=0.01,
                    reward_model=str(folder), oracle=Letters())  # fmt: skip
    function = trainer.players["reward"].function
    text = tokenizer.decode(function.encode(ROWS)[0][1]["input_ids"])
    assert "a b" in text
    assert "b a" in text
    before = [p.detach().clone() for p in function.parameters()]
    trainer.train()
    assert any(not torch.equal(p, q) for p, q in zip(before, function.parameters(), strict=True))


def test_the_tokenizer_of_another_model_is_refused():
    tokenizer = load_tokenizer("shipped")
    with pytest.raises(ModelError, match="3 token embeddings, but its tokenizer has 4096"):
        text_reward(classifier(tiny_tokenizer()), None, tokenizer, tokenizer, 0)
    with pytest.raises(ModelError, match="needs reward_tokenizer"):
        text_reward(classifier(tokenizer), None, tokenizer, None, 0)
    with pytest.raises(ModelError, match="one output, this classifier has 2"):
        text_reward(classifier(tokenizer, num_labels=2), None, tokenizer, tokenizer, 0)


def test_what_is_saved_is_a_reward_model(tmp_path):
    torch.manual_seed(0)
    trainer = build(tmp_path / "run", "sta-naive", listed=False, num_rounds=2, oracle=Letters(),
                    learning_rate=0.01, reward_learning_rate=0.05, reward_lora_rank=2)  # fmt: skip
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    judge = RewardModel.from_pretrained(tmp_path / "saved" / "reward")
    function = trainer.players["reward"].function
    with torch.no_grad():
        expected = function([x for row in function.encode(ROWS) for x in row]).numpy()
    found = judge.score([r["prompt"] for r in ROWS for _ in range(3)],
                        [t for r in ROWS for t in r["completions"]])  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected) > 1e-3


# -- the response ---------------------------------------------------------------------------


def player_of(function):
    return RewardPlayer(function, learning_rate=0.1, optim="sgd", ridge=0.01, max_grad_norm=0.0,
                        batch_size=64, device=torch.device("cpu"))  # fmt: skip


def response(function, solver, labels=None, **options):
    """With labels that leave no residual by default: there the exact Hessian is Gauss-Newton's."""
    player = player_of(function)
    items = function.encode(ROWS)
    if labels is None:
        r = player.rewards(items)
        labels = [1.0 / (1.0 + math.exp(d)) for d in (r[0][1] - r[0][0], r[1][0] - r[1][2])]
    batch = Annotated(items, [[(0, 1, labels[0])], [(2, 0, labels[1])]], [[1.0], [1.0]], [1.0, 1.0])
    shares = [[1 / 6] * 3] * 2
    settings = {"damping": 0.5, "iterations": 80, **options}
    _, found = player.response(batch, shares, solver=solver, **settings)
    return found


def gpt2():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=3, n_embd=16, n_layer=1, n_head=2, n_positions=32, num_labels=1,
                        pad_token_id=0, eos_token_id=0, bos_token_id=None)  # fmt: skip
    return GPT2ForSequenceClassification(config)


@pytest.mark.parametrize("kind", ["llama", "lora", "gpt2"])
def test_both_solvers_go_through_real_models(kind):
    tokenizer = tiny_tokenizer()
    if kind == "gpt2":
        function = text_reward(gpt2(), None, tokenizer, tokenizer, 0)
    else:
        function = text_reward("same", tiny_model(seed=2), tokenizer, None, 0)
        with torch.no_grad():
            function.model.score.weight.normal_(generator=torch.Generator().manual_seed(0))
    if kind == "lora":
        add_lora(function, 2, 0)
    function = function.double()
    exact, near = response(function, "cg", damping=5.0), response(function, "woodbury", damping=5.0)
    assert not exact.solution.negative_curvature
    # Llama's norms and rotations are computed in float32 whatever the weights.
    torch.testing.assert_close(near.along, exact.along, rtol=1e-3, atol=1e-5)
    assert float(exact.along.norm()) > 1e-3
    other = response(function, "cg", [1.0, 0.0], damping=5.0)
    bent = response(function, "woodbury", [1.0, 0.0], damping=5.0)
    assert float((other.along - bent.along).norm()) > 1e-3, "and only there"
    assert all(p.grad is None for p in function.parameters())


def test_solvers_agree_to_rounding_on_a_head(tmp_path):
    trainer = build(tmp_path, "sta-naive", listed=False, reward_model="head",
                    model=tiny_model(seed=3))  # fmt: skip
    function = trainer.players["reward"].function
    with torch.no_grad():
        function.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    labels = [1.0, 0.3]
    exact, near = (response(function, solver, labels) for solver in ("cg", "woodbury"))
    torch.testing.assert_close(near.along, exact.along, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(near.gain, exact.gain, rtol=1e-8, atol=1e-10)
    assert float(exact.along.abs().max()) > 1e-3


# -- runs that die and go on ----------------------------------------------------------------


def state(trainer):
    found = {n: p.detach().clone() for n, p in trainer.policy.named_parameters()}
    for name, player in trainer.players.items():
        found |= {f"{name}.{n}": p.detach().clone() for n, p in player.trainable.items()}
        for i, moments in player.optimizer.state_dict()["state"].items():
            found |= {f"{name}.adam.{i}.{n}": torch.as_tensor(v) for n, v in moments.items()}
    return found


def make(folder, name, *, lora=False, callbacks=(), **options):
    torch.manual_seed(0)
    model = tiny_model(seed=1, dtype=torch.float32, spread=0.5)
    if lora:
        model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "up_proj"]))
        options["reward_lora_rank"] = 2
    settings = {"num_rounds": 6, "inner_steps": 2, "save_strategy": "epoch", "chunk_prompts": 1,
                "logging_strategy": "steps", "logging_steps": 1, "learning_rate": 0.01,
                "reward_learning_rate": 0.01, "fit_batches": 2, "seed": 5, **options}  # fmt: skip
    return build(folder, name, listed=False, model=model, oracle=Letters(),
                 callbacks=list(callbacks), **settings)  # fmt: skip


CASES = {
    "total": ("sta-total", {}, 4),
    "total-lora": ("sta-total", {"lora": True, "labels": "quantal"}, 4),
    "simultaneous-head": ("simultaneous", {"reward_model": "head"}, 4),
    "reversed-in-the-middle": ("reversed", {"save_strategy": "steps", "save_steps": 1}, 6),
    "rlhf": ("rlhf", {}, 3),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_died_ends_like_one_that_did_not(tmp_path, case):
    name, options, step = CASES[case]
    whole = make(tmp_path / "a", name, **options)
    before = state(whole)
    whole.train()
    expected = state(whole)
    with pytest.raises(Died):
        make(tmp_path / "b", name, callbacks=[DieAtStep(step)], **options).train()
    resumed = make(tmp_path / "b", name, **options)
    with torch.no_grad():  # nothing may come from what the resumed trainer happens to hold
        for player in resumed.players.values():
            for p in player.trainable.values():
                p.add_(1.0)
    resumed.train(resume_from_checkpoint=True)
    found = state(resumed)
    assert found.keys() == expected.keys()
    assert [n for n in expected if not torch.equal(found[n], expected[n])] == []
    assert metrics(tmp_path / "b") == metrics(tmp_path / "a")
    moved = [n for n in before if not torch.equal(before[n], expected[n])]
    assert any(n.startswith("reward.") for n in moved)
    assert any(not n.startswith("reward.") for n in moved)


@pytest.mark.parametrize(
    ("method", "lora"),
    [
        ("sta-total", "false"),
        pytest.param("sta-total", "true", marks=pytest.mark.slow),
        pytest.param("reversed", "false", marks=pytest.mark.slow),
    ],
)
def test_two_ranks_are_one_rank(tmp_path, method, lora):
    """Same first round to the byte; both players' weights up to the order of summation."""
    script = Path(__file__).parent / "reward_ranks.py"
    options = (f'method="{method}"', f"lora={lora}", "num_rounds=2", "prompts_per_round=4")
    start(script, tmp_path / "one", 1, "per_device_train_batch_size=4", *options)
    start(script, tmp_path / "two", 2, "per_device_train_batch_size=2", *options)
    rounds = [
        (tmp_path / n / "rounds" / f"{method}-001.jsonl").read_bytes() for n in ("one", "two")
    ]
    assert rounds[0] == rounds[1]
    one, two = (torch.load(tmp_path / n / "state.pt", weights_only=True) for n in ("one", "two"))
    assert one.keys() == two.keys()
    begin = state(make(tmp_path / "start", method, lora=lora == "true"))
    moved = [n for n in begin if not torch.equal(begin[n], one[n])]
    assert any(n.startswith("reward.") for n in moved)
    assert any(not n.startswith("reward.") for n in moved)
    for name in moved:
        # Weights move by hundredths; Adam makes much of the rounding of the smallest gradients.
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4)


def test_the_baseline_of_responses_is_the_mean_of_other_prompts():
    responses = torch.tensor([[1.0, 3.0], [5.0, 9.0], [-2.0, 4.0]])
    law = torch.tensor([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]])
    found = minus_others(responses, law)
    means = [(7.0 - 2.0) / 2, (2.0 - 2.0) / 2, (2.0 + 7.0) / 2]
    torch.testing.assert_close(found, responses - torch.tensor(means)[:, None])
    assert torch.equal(minus_others(responses[:1], law[:1]), responses[:1]), "there is no other"


def test_a_round_subtracts_it_once(tmp_path):
    """Two runs from the same seed: with the baseline, and what it should make of those without."""
    worth = {}
    for baseline in ("none", "mean"):
        options = {"num_rounds": 1, "num_generations": 8, "prompts_per_round": 4}
        options |= {"per_device_train_batch_size": 4, "baseline": baseline}
        trainer = make(tmp_path / baseline, "sta-total", **options)
        trainer.train()
        worth[baseline] = [
            torch.tensor([w[k] for w in trainer._worth]) for k in ("responses", "law")
        ]
    raw, law = worth["none"]
    assert float(raw.abs().max()) > 1e-6
    torch.testing.assert_close(worth["mean"][0], minus_others(raw, law), rtol=1e-4, atol=1e-7)


def test_a_checkpoint_of_another_reward_model_is_refused(tmp_path):
    head = HeadReward(3, lambda rows: [], torch.float32)
    player = player_of(head)
    with pytest.raises(ModelError, match="no such reward model"):
        player.load(tmp_path / "reward.pt")
    player.save(tmp_path / "reward.pt")
    with pytest.raises(ModelError, match="another reward model"):
        player_of(HeadReward(4, lambda rows: [], torch.float32)).load(tmp_path / "reward.pt")


def test_a_frozen_reward_cannot_play(tmp_path):
    head = HeadReward(3, lambda rows: [], torch.float32)
    head.requires_grad_(False)
    with pytest.raises(ModelError, match="no trainable weights"):
        player_of(head)
    with pytest.raises(ConfigError, match="reward models of text"):
        build(tmp_path, "sta-naive", listed=False, reward_model="head", reward_lora_rank=2)


def test_both_players_learn_with_adapters(tmp_path):
    trainer = make(tmp_path, "sta-total", lora=True, num_rounds=2)
    before = state(trainer)
    trainer.train()
    moved = [n for n, p in state(trainer).items() if n in before and not torch.equal(p, before[n])]
    assert all("lora_" in n or "score" in n for n in moved), moved
    assert any(n.startswith("reward.") and "lora_" in n for n in moved)
    assert any(not n.startswith("reward.") for n in moved)


@pytest.mark.parametrize("name", FAMILY)
def test_sampled_answers_gain_utility(tmp_path, name):
    """The oracle counts letters b; answers have two at most."""
    trainer = build(
        tmp_path, name, listed=False, oracle=Letters(), num_rounds=60 if name == "parl" else 30,
        inner_steps=3, learning_rate=0.01, optim="adamw_torch", reward_learning_rate=0.02,
        beta=0.02, num_generations=8, fit_batches=8, prompts_per_round=4,
        per_device_train_batch_size=4,
    )  # fmt: skip
    trainer.train()
    found = [row["utility"] for row in metrics(tmp_path) if row["kind"] == "round"]
    assert found[0] < 1.0
    assert np.mean(found[-5:]) > 1.7
