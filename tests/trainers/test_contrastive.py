"""DPO, IPO and their online forms on an enumerable policy: gradients, solutions, pairs, options."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig

from equilign.errors import ConfigError, DataError
from equilign.games import PreferenceGame
from equilign.games.bradley_terry import fit_bradley_terry
from equilign.oracles import CallableOracle
from equilign.play import play
from equilign.rollout import SamplingConfig, TransformersSampler, completion_logps
from equilign.rules.contrastive import (
    DPO,
    IPO,
    ITERATED_DPO,
    ITERATED_IPO,
    ONLINE_DPO,
    PairLoss,
    Pairs,
)
from equilign.trainers.contrastive import (
    ContrastiveConfig,
    ContrastiveTrainer,
    DPOConfig,
    DPOTrainer,
    IPOConfig,
    IPOTrainer,
    IteratedDPOConfig,
    IteratedDPOTrainer,
    IteratedIPOConfig,
    IteratedIPOTrainer,
    OnlineDPOConfig,
    OnlineDPOTrainer,
)
from tests.enumerable import (
    END,
    RESPONSES,
    A,
    B,
    EnumeratingSampler,
    MatrixOracle,
    exact_logps,
    random_prefs,
    tiny_model,
    tiny_tokenizer,
)

PROMPTS = ["a b", "b a"]
ONLINE_IPO = replace(ONLINE_DPO, name="online-ipo", loss=PairLoss.IPO)
SAMPLED = (ONLINE_DPO, ONLINE_IPO, ITERATED_DPO, ITERATED_IPO)
ANSWERS = ("", " a", " b", " a a", " a b", " b a", " b b")
ANSWER_IDS = ((END,), (A, END), (B, END), (A, A, END), (A, B, END), (B, A, END), (B, B, END))
PLAIN = {
    "weight_decay": 0.0,
    "max_grad_norm": 0.0,
    "save_strategy": "no",
    "use_cpu": True,
    "disable_tqdm": True,
    "seed": 0,
    "logging_strategy": "no",
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
}
SGD = {"optim": "sgd", "learning_rate": 1e-2}


def sampled(tmp_path, rule, games, cls=ContrastiveTrainer, **options):
    """A trainer whose sampler lists every answer with its probability."""
    model, tokenizer = tiny_model(seed=3, spread=0.4), tiny_tokenizer()
    settings = {
        "prompts_per_round": 2,
        "per_device_train_batch_size": 2,
        "pair_selection": "all",
        "labels": "soft",
        **PLAIN,
        **options,
    }
    return cls(
        model,
        ContrastiveConfig(output_dir=str(tmp_path), **settings),
        [{"prompt": p} for p in PROMPTS],
        MatrixOracle(games),
        tokenizer,
        sampler=EnumeratingSampler(model, tokenizer),
        rule=rule,
    )


def given(tmp_path, rows, rule=DPO, cls=ContrastiveTrainer, *, dtype=torch.float64, **options):
    """A trainer on given pairs, all of them in one batch."""
    model = tiny_model(seed=3, spread=0.4, dtype=dtype)
    settings = {"num_rounds": 1, "per_device_train_batch_size": 1000, **PLAIN, **options}
    args = DPOConfig(output_dir=str(tmp_path), **settings)
    kwargs = {"rule": rule} if cls is ContrastiveTrainer else {}
    return cls(model, args, rows, None, tiny_tokenizer(), **kwargs)


def all_logps(model, prompt, answers=RESPONSES, temperature=1.0):
    """By the plainest forward: one answer at a time, no padding, the end token counted."""
    ids, found = tiny_tokenizer()(prompt)["input_ids"], []
    for answer in answers:
        logits = model(torch.tensor([[*ids, *answer]])).logits[0] / temperature
        logps = logits.log_softmax(-1)
        found.append(sum(logps[len(ids) - 1 + t, token] for t, token in enumerate(answer)))
    return torch.stack(found)


def pair_loss(rule, h, p, beta):
    """One pair's loss from the papers, in torch's plainest words."""
    if rule.loss == PairLoss.IPO:
        return p * (h - 1 / (2 * beta)) ** 2 + (1 - p) * (h + 1 / (2 * beta)) ** 2
    return -p * torch.log(torch.sigmoid(beta * h)) - (1 - p) * torch.log(torch.sigmoid(-beta * h))


def rounds(trainer, index=0):
    return [json.loads(line) for line in trainer.round_file(index).read_text().splitlines()]


# -- gradients --------------------------------------------------------------------------------


def check_second_step(trainer, value, rate):
    """The second SGD step, away from the start, is ``-rate`` times the gradient of ``value``."""
    expected, starts = [], []

    class Checking(type(trainer)):
        def start_round(self, index):
            starts.append([p.detach().clone() for p in self.model.parameters()])
            super().start_round(index)

        def training_step(self, model, inputs, *args, **kwargs):
            if self.round_index == 1:
                grads = torch.autograd.grad(value(model, starts), list(model.parameters()))
                expected.extend(zip(model.parameters(), grads, strict=True))
                before.extend(p.detach().clone() for p in model.parameters())
            return super().training_step(model, inputs, *args, **kwargs)

    before = []
    trainer.__class__ = Checking
    trainer.train()
    assert len(expected) == len(before) > 0
    for (parameter, gradient), old in zip(expected, before, strict=True):
        moved = (old - parameter.detach()) / rate
        assert (moved - gradient).norm() <= 1e-4 * gradient.norm() + 1e-12
    assert max(float(g.abs().max()) for _, g in expected) > 1e-3


def at(weights):
    model = tiny_model(seed=3, spread=0.4)
    with torch.no_grad():
        for p, w in zip(model.parameters(), weights, strict=True):
            p.copy_(w)
    return model


@pytest.mark.parametrize("rule", SAMPLED, ids=lambda rule: rule.name)
def test_gradient_of_sampled_pairs_is_that_of_the_population_loss(tmp_path, rule):
    """By enumeration of all ordered pairs of independent draws from the policy."""
    beta = 0.7
    games = {p: random_prefs(seed) for seed, p in enumerate(PROMPTS)}
    trainer = sampled(tmp_path, rule, games, num_rounds=2, beta=beta, **SGD)

    def value(model, starts):
        total = 0.0
        for prompt in PROMPTS:
            logps = all_logps(model, prompt)
            law = logps.detach().exp() / logps.detach().exp().sum()
            ref = all_logps(at(starts[1 if rule.moves_reference else 0]), prompt).detach()
            ratio = logps - ref
            for i in range(len(RESPONSES)):
                for j in range(len(RESPONSES)):
                    one = pair_loss(rule, ratio[i] - ratio[j], games[prompt][i, j], beta)
                    total = total + law[i] * law[j] * one
        return total / len(PROMPTS)

    check_second_step(trainer, value, SGD["learning_rate"])


SOFT_ROWS = [
    {"prompt": "a b", "chosen": " a a", "rejected": "", "chosen_prob": 0.9},
    {"prompt": "a b", "chosen": " b", "rejected": " a b", "chosen_prob": 0.3},
    {"prompt": "b a", "chosen": " b b", "rejected": " b"},
    {"prompt": "b a", "chosen": " a", "rejected": " a b", "chosen_prob": 0.5},
]


@pytest.mark.parametrize("rule", [DPO, IPO], ids=lambda rule: rule.name)
@pytest.mark.parametrize(("normalised", "temperature"), [(False, 1.0), (True, 1.0), (False, 0.7)])
def test_gradient_of_given_pairs(tmp_path, rule, normalised, temperature):
    beta, smoothing = 0.7, 0.1 if rule is DPO else 0.0
    trainer = given(
        tmp_path, SOFT_ROWS, rule, num_rounds=2, prompts_per_round=4, beta=beta,
        label_smoothing=smoothing, length_normalised=normalised, temperature=temperature, **SGD,
    )  # fmt: skip

    def value(model, starts):
        total = 0.0
        for row in SOFT_ROWS:
            ids = [ANSWER_IDS[ANSWERS.index(row[side])] for side in ("chosen", "rejected")]
            ratio = all_logps(model, row["prompt"], ids, temperature)
            ratio = ratio - all_logps(at(starts[0]), row["prompt"], ids, temperature).detach()
            if normalised:
                ratio = ratio / torch.tensor([float(len(i)) for i in ids])
            p = row.get("chosen_prob", 1.0) * (1 - 2 * smoothing) + smoothing
            total = total + pair_loss(rule, ratio[0] - ratio[1], p, beta)
        return total / len(SOFT_ROWS)

    check_second_step(trainer, value, SGD["learning_rate"])


def test_accumulation_changes_nothing(tmp_path):
    """Batch 4 x 1 and batch 1 x 4 make the same step, also with a pair left out."""
    rows = [*SOFT_ROWS[:3], {"prompt": "b a", "chosen": " a a a a", "rejected": " a"}]
    options = {"max_completion_length": 4, "too_long": "drop", "beta": 0.5, **SGD}
    one = given(tmp_path / "a", rows, **options)
    four = given(
        tmp_path / "b", rows, per_device_train_batch_size=1, gradient_accumulation_steps=4,
        **options,
    )  # fmt: skip
    start = [p.detach().clone() for p in one.model.parameters()]
    one.train()
    four.train()
    for a, b, s in zip(one.model.parameters(), four.model.parameters(), start, strict=True):
        torch.testing.assert_close(a - s, b - s, rtol=1e-8, atol=1e-14)
    assert [r["too_long"] for r in sorted(rounds(one), key=lambda r: r["prompt_index"])] == [
        0, 0, 0, 1,
    ]  # fmt: skip


# -- solutions --------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [DPO, IPO], ids=lambda rule: rule.name)
def test_given_pairs_fitted_to_convergence(tmp_path, rule):
    """Answers drawn by a law that is no policy of the model: ``ref exp(score / beta)`` of the
    Bradley-Terry fit under that law, or ``ref exp(P law / tau)``."""
    prefs, copies, beta = random_prefs(4), np.array([3, 1, 1, 2, 1, 1, 1]), 0.6
    rows = [
        {"prompt": "a b", "chosen": ANSWERS[i], "rejected": ANSWERS[j], "chosen_prob": prefs[i, j]}
        for i in range(7)
        for j in range(7)
        for _ in range(copies[i] * copies[j])
        if i < j
    ]
    trainer = given(
        tmp_path, rows, rule, beta=beta, epochs_per_round=400, learning_rate=0.01,
        optim="adamw_torch", lr_scheduler_type="cosine", per_device_train_batch_size=len(rows),
    )  # fmt: skip
    start = all_logps(trainer.model, "a b", ANSWER_IDS).detach().numpy()
    trainer.train()
    moved = all_logps(trainer.model, "a b", ANSWER_IDS).detach().numpy() - start
    law = copies / copies.sum()
    if rule is DPO:
        expected = fit_bradley_terry(prefs * np.outer(law, law)).scores / beta
    else:
        expected = prefs @ law / beta
    np.testing.assert_allclose(moved - moved[0], expected - expected[0], atol=3e-3)
    assert np.ptp(expected) > 0.5


class Recording(ContrastiveTrainer):
    """Keeps the policies at the start of every round."""

    def start_round(self, index):
        self.seen.append(policies(self.model))
        super().start_round(index)


def policies(model):
    ids = {p: tiny_tokenizer()(p)["input_ids"] for p in PROMPTS}
    return {p: np.exp(exact_logps(model, ids[p])) for p in PROMPTS}


@pytest.mark.parametrize(
    "rule",
    [
        ITERATED_DPO,
        ONLINE_DPO,
        pytest.param(ITERATED_IPO, marks=pytest.mark.slow),
        pytest.param(ONLINE_IPO, marks=pytest.mark.slow),
    ],
    ids=lambda rule: rule.name,
)
def test_trainer_follows_the_exact_rule(tmp_path, rule):
    """Three rounds with exact expectations, fitted to convergence: the policies of `play`."""
    beta = 1.2
    games = {p: random_prefs(seed) for seed, p in enumerate(PROMPTS)}
    trainer = sampled(
        tmp_path, rule, games, Recording, beta=beta, num_rounds=3, epochs_per_round=250,
        learning_rate=0.01, optim="adamw_torch", lr_scheduler_type="linear",
    )  # fmt: skip
    trainer.seen = []
    trainer.train()
    seen = [*trainer.seen, policies(trainer.model)]
    for prompt in PROMPTS:
        start = seen[0][prompt] / seen[0][prompt].sum()
        game = PreferenceGame(games[prompt], start)
        exact = play(game, rule, steps=3, start=start, beta=beta).log_policies
        for t in range(4):
            np.testing.assert_allclose(seen[t][prompt], np.exp(exact[t]), atol=2e-3)
        assert np.abs(seen[3][prompt] - seen[0][prompt]).sum() > 0.05
        apart = np.abs(seen[3][prompt] - seen[1][prompt]).sum()
        assert apart > (0.02 if rule.moves_reference else 0.004), "one round does it all?"


# -- what is played ---------------------------------------------------------------------------


def test_a_row_of_given_pairs(tmp_path):
    """Whole answers with one end token, labels oriented, the start model's log-probabilities."""
    trainer = given(tmp_path, SOFT_ROWS, cls=DPOTrainer, **SGD)
    start = tiny_model(seed=3, spread=0.4)
    trainer.train()
    rows = {r["prompt_index"]: r for r in rounds(trainer)}
    assert sorted(rows) == [0, 1, 2, 3]
    row = rows[1]
    assert row["prompt_ids"] == [A, B]
    assert row["completions"] == [" b", " a b"]
    assert row["completion_ids"] == [[B, END], [A, B, END]]
    assert row["pairs"] == [[1, 0]], "the likelier one first"
    assert row["win_probs"] == [0.7]
    assert row["pair_weights"] == [1.0]
    assert row["prefs"] == [[0.5, 0.3], [0.7, 0.5]]
    expected = all_logps(start, "a b", [(B, END), (A, B, END)]).tolist()
    assert row["logps"]["reference"] == pytest.approx(expected, abs=1e-12)
    assert rows[2]["win_probs"] == [1.0]
    assert rows[3]["win_probs"] == [0.5]


def test_scored_groups_and_implicit_prompts_are_read(tmp_path):
    rows = [
        {"chosen": "a b a a", "rejected": "a b b"},
        {
            "prompt": "b a",
            "completions": [" a", " b", " a b"],
            "prefs": [[0.5, 0.8, None], [0.2, 0.5, 0.4], [None, 0.6, 0.5]],
        },
    ]
    trainer = given(tmp_path, rows, cls=IPOTrainer, **SGD)
    assert trainer.prompts == ["a b", "b a", "b a"]
    trainer.train()
    played = sorted(rounds(trainer), key=lambda r: r["prompt_index"])
    assert [r["completion_ids"][0] for r in played] == [[A, A, END], [A, END], [A, B, END]]
    assert [r["win_probs"] for r in played] == [[1.0], [0.8], [0.6]]


def test_chat_pairs_go_through_the_template(tmp_path, chat_model):
    """Prompt and answer are the conversation's tokens; the answer ends in one end token."""
    ask = [{"role": "user", "content": "Is it good?"}]
    rows = [
        {
            "prompt": ask,
            "chosen": [{"role": "assistant", "content": "It is good."}],
            "rejected": [{"role": "assistant", "content": "No."}],
        }
    ]
    args = DPOConfig(output_dir=str(tmp_path), **PLAIN)
    trainer = DPOTrainer(str(chat_model), args, rows)
    trainer.start_round(0)
    (row,) = trainer.play_chunk(0, 0, [0])
    ends = trainer.given.ends
    for text, ids in zip(("It is good.", "No."), row["completion_ids"], strict=True):
        whole = trainer.tokenizer.apply_chat_template(
            [*ask, {"role": "assistant", "content": text}], tokenize=False
        )
        seen = trainer.tokenizer.decode(row["prompt_ids"] + ids)
        assert whole.startswith(seen)
        assert seen.index(text) > 0
        assert [t in ends for t in ids] == [False] * (len(ids) - 1) + [True]
    loss, metrics = trainer.batch_loss(trainer.policy, [row])
    assert loss.item() == pytest.approx(np.log(2), rel=1e-4), "the start model is the reference"
    assert metrics["rewards/margins"] == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("labels", ["soft", "hard", "sampled"])
def test_labels_of_given_pairs(tmp_path, labels):
    rows = [{"prompt": "a b", "chosen": " a", "rejected": " b", "chosen_prob": 0.7}] * 200
    trainer = given(tmp_path, rows, cls=DPOTrainer, labels=labels, **SGD)
    trainer.train()
    found = [(r["pairs"][0], r["win_probs"][0]) for r in rounds(trainer)]
    if labels == "sampled":
        won = [pair == [0, 1] for pair, prob in found if prob == 1.0]
        assert len(won) == 200
        assert 0.6 < np.mean(won) < 0.8
        chunks = {tuple(won[start : start + 32]) for start in range(0, 192, 32)}
        assert len(chunks) == 6, "every chunk has draws of its own"
    else:
        assert found == [([0, 1], 0.7 if labels == "soft" else 1.0)] * 200


class Shy:
    """Has no verdict on anything that holds the letter of a prompt."""

    abstains = True

    def compare(self, prompts, a, b):
        return np.array(
            [
                np.nan if "b b" in (x, y) else 1 / (1 + np.exp(y.count("b") - x.count("b")))
                for x, y in zip(a, b, strict=True)
            ]
        )


def online(tmp_path, cls, config, oracle, **options):
    model, tokenizer = tiny_model(seed=1, dtype=torch.float32, spread=0.3), tiny_tokenizer()
    args = config(
        output_dir=str(tmp_path),
        **{
            "num_rounds": 2,
            "prompts_per_round": 4,
            "num_generations": 6,
            "max_completion_length": 2,
            "per_device_train_batch_size": 2,
            "learning_rate": 0.01,
            **{k: v for k, v in PLAIN.items() if k != "logging_strategy"},
            "logging_steps": 1,
            **options,
        },
    )
    data = [{"prompt": p} for p in ["a b", "b a", "a a b", "b b a"]]
    sampler = TransformersSampler(model, tokenizer, SamplingConfig(max_new_tokens=2))
    return cls(model, args, data, oracle, tokenizer, sampler=sampler)


@pytest.mark.parametrize("selection", ["best_worst", "random", "all"])
def test_pairs_without_a_verdict_are_left_out_and_counted(tmp_path, selection):
    trainer = online(
        tmp_path, IteratedDPOTrainer, IteratedDPOConfig, Shy(), pair_selection=selection,
        pairs_per_prompt=3 if selection == "random" else 1,
    )  # fmt: skip
    trainer.train()
    missing = 0
    for index in range(2):
        for row in rounds(trainer, index):
            texts = row["completions"]
            assert row["no_verdict"] + row["tied"] + len(row["pairs"]) == {
                "best_worst": 1, "random": 3, "all": 15,
            }[selection]  # fmt: skip
            missing += row["no_verdict"]
            for i, j in row["pairs"]:
                assert "b b" not in (texts[i], texts[j])
                assert texts[i] != texts[j]
                assert row["logps"]["reference"][i] is not None
            for i, text in enumerate(texts):
                for j, other in enumerate(texts):
                    known = text == other or "b b" not in (text, other)
                    assert (row["prefs"][i][j] is not None) == known
    assert missing > 0 or selection == "best_worst"
    logged = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    counts = [r["pairs_no_verdict"] for r in logged if r["kind"] == "round"]
    assert sum(counts) == missing


def test_nothing_but_ties_trains_nothing(tmp_path):
    """An oracle that sees no difference leaves the weights alone, and nothing crashes."""
    oracle = CallableOracle(lambda prompt, a, b: 0.5)
    trainer = online(tmp_path, IteratedIPOTrainer, IteratedIPOConfig, oracle)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    assert all(r["pairs"] == [] and r["tied"] == 1 for r in rounds(trainer))
    for old, new in zip(before, trainer.model.parameters(), strict=True):
        assert torch.equal(old, new)


def prefer_b(prompt, a, b):
    return 1 / (1 + np.exp(a.count("a") - b.count("a") + b.count("b") - a.count("b")))


def score(model, row, k):
    ids = tuple(row["prompt_ids"])
    answer = [tuple(row["completion_ids"][k])]
    return completion_logps(model, [ids], answer, pad_id=END).item()


@pytest.mark.parametrize(
    ("cls", "config", "moves"),
    [
        (IteratedDPOTrainer, IteratedDPOConfig, True),
        (IteratedIPOTrainer, IteratedIPOConfig, True),
        (OnlineDPOTrainer, OnlineDPOConfig, False),
    ],
)
@pytest.mark.parametrize("lora", [False, True])
def test_the_reference_moves_only_where_it_must(tmp_path, cls, config, moves, lora):
    models = []

    class Keeping(cls):
        def start_round(self, index):
            models.append({n: p.detach().clone() for n, p in self.policy.named_parameters()})
            super().start_round(index)

    peft = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    trainer = online(tmp_path, Keeping, config, CallableOracle(prefer_b))
    if lora:
        inner, tokenizer = tiny_model(seed=1, dtype=torch.float32, spread=0.3), tiny_tokenizer()
        data = [{"prompt": p} for p in ["a b", "b a", "a a b", "b b a"]]
        trainer = Keeping(
            inner, trainer.args, data, CallableOracle(prefer_b), tokenizer, peft_config=peft
        )
    trainer.train()
    own = {n: p.detach().clone() for n, p in trainer.policy.named_parameters()}
    assert any(not torch.equal(models[0][n], models[1][n]) for n in own), "nothing was trained"
    trainer.policy.load_state_dict(models[1 if moves else 0], strict=False)
    row = next(r for r in rounds(trainer, 1) if r["pairs"])
    ref = [row["logps"]["reference"][k] for k in row["pairs"][0]]
    assert ref == pytest.approx([score(trainer.policy, row, k) for k in row["pairs"][0]], abs=1e-5)
    trainer.policy.load_state_dict(models[0 if moves else 1], strict=False)
    other = [score(trainer.policy, row, k) for k in row["pairs"][0]]
    assert np.abs(np.subtract(other, ref)).max() > 1e-4


def test_every_chunk_of_every_round_has_a_seed_of_its_own(tmp_path):
    oracle = CallableOracle(prefer_b)
    trainer = online(tmp_path, OnlineDPOTrainer, OnlineDPOConfig, oracle, chunk_prompts=2)
    seeds, inner = [], trainer.sampler

    class Watching:
        def sample(self, prompts, num_samples, seed):
            seeds.append(seed)
            return inner.sample(prompts, num_samples, seed)

    trainer.sampler = Watching()
    trainer.train()
    assert len(seeds) == len(set(seeds)) == 4


def test_metrics_have_trls_meaning(tmp_path):
    """Sums over tokens, times beta, at the second step of a run, for IPO with means too."""
    trainer = given(
        tmp_path, SOFT_ROWS[:3], cls=IPOTrainer, num_rounds=2, prompts_per_round=3, beta=0.3,
        length_normalised=True, logging_strategy="steps", logging_steps=1, **SGD,
    )  # fmt: skip
    start = tiny_model(seed=3, spread=0.4)
    second = {}

    class Looking(type(trainer)):
        def training_step(self, model, inputs, *args, **kwargs):
            if self.round_index == 1:
                for row in inputs["rows"]:
                    (i, j), name = row["pairs"][0], row["prompt_index"]
                    second[name] = [(score(m, row, i), score(m, row, j)) for m in (model, start)]
            return super().training_step(model, inputs, *args, **kwargs)

    trainer.__class__ = Looking
    trainer.train()
    now, ref = (np.array([second[k][m] for k in sorted(second)]) for m in (0, 1))
    rewards = 0.3 * (now - ref)
    logged = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    found = next(r for r in logged if r["kind"] == "step" and r["step"] == 2)
    expected = {
        "rewards/chosen": rewards[:, 0].mean(),
        "rewards/rejected": rewards[:, 1].mean(),
        "rewards/margins": (rewards[:, 0] - rewards[:, 1]).mean(),
        "rewards/accuracies": (rewards[:, 0] > rewards[:, 1]).mean(),
        "logps/chosen": now[:, 0].mean(),
        "logps/rejected": now[:, 1].mean(),
    }
    assert len(second) == 3
    assert {k: found[k] for k in expected} == pytest.approx(expected, rel=1e-9)


# -- options and errors -----------------------------------------------------------------------


def test_too_long_is_an_error_that_names_the_pair(tmp_path):
    rows = [*SOFT_ROWS, {"prompt": "b a", "chosen": " a a a a", "rejected": " a"}]
    words = r"pair 5 \('b a'\): its longer answer has 5 tokens, more than max_completion_length = 4"
    with pytest.raises(DataError, match=words):
        given(tmp_path, rows, max_completion_length=4)
    words = r"pair 1 \('a b'\): its prompt has 2 tokens, more than max_prompt_length = 1.*'drop'"
    with pytest.raises(DataError, match=words):
        given(tmp_path, rows, max_prompt_length=1)
    trainer = given(tmp_path, rows, max_completion_length=4, too_long="drop", **SGD)
    trainer.train()
    for row in rounds(trainer):
        assert bool(row["pairs"]) != bool(row["too_long"])
        assert all(len(ids) <= 4 for ids in row["completion_ids"]) or row["too_long"]


def test_what_contradicts_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"label_smoothing = 0.1: IPO has none"):
        given(tmp_path, SOFT_ROWS, IPO, label_smoothing=0.1)
    with pytest.raises(ConfigError, match="OnlineDPOTrainer needs an oracle"):
        online(tmp_path, OnlineDPOTrainer, OnlineDPOConfig, None)
    with pytest.raises(DataError, match='a preference needs "chosen" and "rejected"'):
        given(tmp_path, [{"prompt": "a b"}])


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("beta", 0.0, r"beta = 0.0; the KL weight must be > 0"),
        ("label_smoothing", 0.5, r"label_smoothing = 0.5; it must be in \[0, 0.5\)"),
        ("labels", "firm", r"labels = 'firm'; use one of 'hard', 'sampled', 'soft'"),
        ("pair_selection", "top", r"pair_selection = 'top'; use one of 'best_worst', 'random'"),
        ("pairs_per_prompt", 0, r"pairs_per_prompt = 0; it must be >= 1"),
        ("too_long", "cut", r"too_long = 'cut'; use one of 'error', 'drop'"),
    ],
)
def test_bad_options(tmp_path, option, value, words):
    with pytest.raises(ConfigError, match=words):
        ContrastiveConfig(output_dir=str(tmp_path), **{option: value})


@pytest.mark.parametrize(
    ("cls", "config", "rule"),
    [
        (DPOTrainer, DPOConfig, DPO),
        (IPOTrainer, IPOConfig, IPO),
        (IteratedDPOTrainer, IteratedDPOConfig, ITERATED_DPO),
        (IteratedIPOTrainer, IteratedIPOConfig, ITERATED_IPO),
        (OnlineDPOTrainer, OnlineDPOConfig, ONLINE_DPO),
    ],
)
def test_thin_classes(tmp_path, cls, config, rule):
    assert cls.rule is rule
    fixed = rule.pairs == Pairs.OFFLINE
    assert cls.needs_oracle == (not fixed)
    assert cls.data_format == ("pairs" if fixed else "prompts")
    args = config(output_dir=str(tmp_path))
    assert args.beta == 0.1
    assert args.learning_rate == 5e-7
    assert args.num_generations == (2 if rule is ONLINE_DPO else 5)
    assert args.length_normalised is False
