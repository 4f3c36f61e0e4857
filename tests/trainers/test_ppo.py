"""PPO: the exact gradient, its critic, and runs that die and go on."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from equilign.errors import ConfigError, ModelError
from equilign.losses import logps as chunked
from equilign.rollout import (
    SamplingConfig,
    TransformersSampler,
    completion_logps,
    completion_token_logps,
)
from equilign.rules.reward_gradient import PPO, regularised_optimum
from equilign.trainers import GameConfig
from equilign.trainers.critic import Critic, CriticLearner
from equilign.trainers.ppo import PPOConfig, PPOTrainer
from equilign.trainers.token_scoring import completion_tokens, output_layer, score_tokens
from tests.enumerable import END, RESPONSES, tiny_model, tiny_tokenizer
from tests.trainers.launch import start
from tests.trainers.scored import (
    FAMILY,
    PROMPTS,
    build,
    distance,
    flat_gradient,
    objective,
    policy_of,
    prompt_ids,
    shake,
    table_rewards,
)
from tests.trainers.test_resume import DieAtStep, Died, metrics, weights

BETA = 0.5
EXACT = {"whiten_advantages": False, "cliprange_value": None}


class PerfectCritic(nn.Module):
    """Knows the expected reward to go of every state there is, by looking the state up."""

    def __init__(self, trainer, start):
        super().__init__()
        self.states, self.worths = [], []
        for p in PROMPTS:
            self.learn(trainer, p, start[p])

    def learn(self, trainer, prompt, ref):
        tokens = completion_tokens(
            trainer.policy, [prompt_ids(prompt)] * len(RESPONSES), RESPONSES,
            pad_id=END, head=output_layer(trainer.policy),
        )  # fmt: skip
        logps = [x[m].detach() for x, m in zip(tokens.logps, tokens.mask, strict=True)]
        law = np.exp([float(x.sum()) for x in logps])
        for i, t in ((0, 0), (1, 1), (4, 1)):  # before any token, after a, after b
            prefix = RESPONSES[i][:t]
            alike = [j for j, r in enumerate(RESPONSES) if r[:t] == prefix and len(r) > t]
            so_far = [float(logps[j][:t].sum()) for j in alike]
            # The reference's share of the prefix, from the whole responses through it.
            ref_so_far = np.log(np.exp(ref[alike]).sum()) if t else 0.0
            worth = [
                table_rewards()[prompt][j] - BETA * (np.log(law[j]) - s - ref[j] + ref_so_far)
                for j, s in zip(alike, so_far, strict=True)
            ]
            self.worths.append(float(np.average(worth, weights=law[alike])))
            self.states.append(tokens.states[i][tokens.mask[i]][t])

    def forward(self, states):
        table = torch.stack(self.states)
        nearest = torch.cdist(states, table.expand(len(states), -1, -1)).argmin(-1)
        return torch.tensor(self.worths, dtype=states.dtype)[nearest]


def ready(trainer):
    start = policy_of(trainer.policy)
    trainer.start_round(0)
    shake(trainer.policy)
    return start


def exact_gradient(trainer, start):
    value = objective(trainer.policy, start, table_rewards(), BETA)
    return flat_gradient(value, trainer.policy)


# -- the gradient ---------------------------------------------------------------------------


@pytest.mark.parametrize(("critic", "lam"), [("zero", 1.0), ("perfect", 0.3), ("perfect", 0.0)])
def test_one_step_is_the_exact_gradient(tmp_path, critic, lam):
    trainer = build(tmp_path, "ppo", lam=lam, **EXACT)
    start = ready(trainer)
    expected = flat_gradient(
        objective(trainer.policy, start, table_rewards(), BETA), trainer.policy
    )
    if critic == "perfect":
        # The critic learns from rows; here it only ever answers.
        perfect = PerfectCritic(trainer, start)
        trainer.learner.values = perfect
        rows = trainer.play_chunk(0, 0, [0, 1])
        trainer.learner.accumulate = lambda loss, batches: None
    else:
        rows = trainer.play_chunk(0, 0, [0, 1])
        assert not np.any(rows[0]["values"][1])
    loss, _ = trainer.batch_loss(trainer.policy, json.loads(json.dumps(rows)))
    assert distance(-flat_gradient(loss, trainer.policy), expected) < 1e-6
    assert float(expected.norm()) > 1e-2


def test_a_useless_critic_with_short_traces_is_biased(tmp_path):
    """The own-token KL gradient: what lam = 1, or a critic, is there to prevent."""
    trainer = build(tmp_path, "ppo", lam=0.0, **EXACT)
    start = ready(trainer)
    expected = flat_gradient(
        objective(trainer.policy, start, table_rewards(), BETA), trainer.policy
    )
    loss, _ = trainer.batch_loss(trainer.policy, trainer.play_chunk(0, 0, [0, 1]))
    assert distance(-flat_gradient(loss, trainer.policy), expected) > 0.05


def test_token_numbers_of_a_row(tmp_path):
    trainer = build(tmp_path, "ppo", lam=0.7, gamma=0.9, missing_eos_penalty=3.0, **EXACT)
    ready(trainer)
    torch.nn.init.normal_(trainer.learner.critic.layers[-1].weight)
    (row,) = trainer.play_chunk(0, 0, [0])
    for i, ids in enumerate(RESPONSES):
        now, ref = row["token_logps"]["current"][i], row["token_logps"]["reference"][i]
        values, advantages = row["values"][i], row["advantages"][i]
        assert len(now) == len(ref) == len(values) == len(advantages) == len(ids)
        rewards = [-BETA * (a - b) for a, b in zip(now, ref, strict=True)]
        rewards[-1] += table_rewards()["a b"][i] - (0.0 if ids[-1] == END else 3.0)
        running, ahead = 0.0, 0.0
        for t in reversed(range(len(ids))):
            running = rewards[t] + 0.9 * ahead - values[t] + 0.9 * 0.7 * running
            ahead = values[t]
            assert advantages[t] == pytest.approx(running, abs=1e-9)
            assert row["targets"][i][t] == pytest.approx(running + values[t], abs=1e-9)
    total = np.log(np.sum(np.exp([math.fsum(x) for x in row["token_logps"]["current"]])))
    assert total == pytest.approx(0.0, abs=1e-6)
    assert np.ptp([v[0] for v in row["values"]]) < 1e-9  # one state before the first token
    assert np.ptp([v[1] for v in row["values"] if len(v) > 1]) > 1e-3


def test_whitened_advantages(tmp_path):
    trainer = build(tmp_path, "ppo")
    ready(trainer)
    rows = trainer.play_chunk(0, 0, [0, 1])
    flat = np.concatenate([a for r in rows for a in r["advantages"]])
    assert flat.mean() == pytest.approx(0.0, abs=1e-9)
    assert flat.std() == pytest.approx(1.0)
    # What the critic learns is in units of reward, whitened or not.
    for row in rows:
        for i, ids in enumerate(RESPONSES):
            logps = row["token_logps"]
            kl = math.fsum(logps["current"][i]) - math.fsum(logps["reference"][i])
            worth = table_rewards()[row["prompt"]][i] - BETA * kl
            assert row["targets"][i][0] == pytest.approx(worth, abs=1e-9)
            assert len(row["targets"][i]) == len(ids)


def test_values_are_clipped_around_those_of_playing(tmp_path):
    """The critic says 0; a value of 1 when played may move by a tenth, so 0.9 is held against 0."""
    trainer = build(tmp_path, "ppo", cliprange_value=0.1)
    ready(trainer)
    (row,) = trainer.play_chunk(0, 0, [0])
    row["values"] = [[1.0] * len(ids) for ids in RESPONSES]
    row["targets"] = [[0.0] * len(ids) for ids in RESPONSES]
    row["weights"] = [0.0, 1.0, *[0.0] * 5]
    _, found = trainer.batch_loss(trainer.policy, [row])
    assert found["value_loss"] == pytest.approx(2 * 0.5 * 0.9**2)


def test_the_critic_does_not_learn_from_responses_without_a_verdict(tmp_path):
    trainer = build(tmp_path, "ppo")
    ready(trainer)
    (row,) = trainer.play_chunk(0, 0, [0])
    row["rewards"][3] = None
    _, before = trainer.batch_loss(trainer.policy, [row])
    row["targets"][3] = [100.0, 100.0]
    _, after = trainer.batch_loss(trainer.policy, [row])
    assert after["value_loss"] == before["value_loss"] > 0.0


def test_clipping_is_per_token(tmp_path):
    """Only the tokens whose own ratio has left the range lose their gradient."""
    trainer = build(tmp_path, "ppo", cliprange=0.1, **EXACT)
    ready(trainer)
    (row,) = trainer.play_chunk(0, 0, [0])
    row["advantages"] = [[1.0] * len(r) for r in RESPONSES]
    row["weights"] = [0.0, 1.0, *[0.0] * 5]
    old = row["token_logps"]["current"][1]
    loss, metrics = trainer.batch_loss(trainer.policy, [row])
    assert metrics["clip_ratio/region_mean"] == 0.0
    assert float(loss.detach()) == pytest.approx(-2.0)
    whole = flat_gradient(loss, trainer.policy)
    old[0] -= 1.0  # the first token's ratio is e now
    loss, metrics = trainer.batch_loss(trainer.policy, [row])
    assert metrics["clip_ratio/region_mean"] == pytest.approx(0.5)
    assert float(loss.detach()) == pytest.approx(-1.1 - 1.0)
    part = flat_gradient(loss, trainer.policy)
    ids = [prompt_ids("a b")]
    logps, _ = completion_token_logps(trainer.policy, ids, [RESPONSES[1]], pad_id=END)
    second = flat_gradient(logps[0, 1], trainer.policy)
    assert distance(-part, second) < 1e-6
    assert distance(part, whole) > 0.1


def test_batch_loss_does_not_depend_on_the_batch(tmp_path):
    trainer = build(tmp_path, "ppo")
    ready(trainer)
    rows = trainer.play_chunk(0, 0, [0, 1])
    rows[0]["prompt_ids"] = [1, 2, 2, 1]
    shake(trainer.policy, seed=1)

    def both(batch):
        trainer.learner.optimizer.zero_grad()
        loss, _ = trainer.batch_loss(trainer.policy, batch)
        return loss.detach(), trainer.learner.critic.layers[-1].bias.grad.clone()

    whole, parts = both(rows), [both([row]) for row in rows]
    torch.testing.assert_close(whole[0], (parts[0][0] + parts[1][0]) / 2, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(whole[1], (parts[0][1] + parts[1][1]) / 2, rtol=1e-6, atol=0.0)


# -- token log-probabilities ----------------------------------------------------------------


@pytest.mark.parametrize("chunk", [64, 2])
def test_token_logps_against_one_forward_pass_each(monkeypatch, chunk):
    monkeypatch.setattr(chunked, "CHUNK_ELEMENTS", 3 * chunk)
    model = tiny_model(seed=2, spread=0.4)
    prompts, completions = [(1,), (2, 1, 1), (1, 2)], [(1, 1, 2, 0), (2,), (0,)]
    found = completion_tokens(
        model, prompts, completions, pad_id=END, temperature=0.7, head=output_layer(model)
    )
    whole = completion_logps(model, prompts, completions, pad_id=END, temperature=0.7)
    torch.testing.assert_close(found.logps.masked_fill(~found.mask, 0.0).sum(1), whole)
    assert not found.states.requires_grad
    for i, (p, c) in enumerate(zip(prompts, completions, strict=True)):
        out = model(torch.tensor([[*p, *c]]), output_hidden_states=True)
        logps = (out.logits[0] / 0.7).log_softmax(-1)
        states = out.hidden_states[-1][0].detach()
        for t, token in enumerate(c):
            at = len(p) - 1 + t
            torch.testing.assert_close(
                found.logps[i][found.mask[i]][t], logps[at, token], rtol=1e-6, atol=1e-6
            )
            torch.testing.assert_close(
                found.states[i][found.mask[i]][t], states[at], rtol=1e-6, atol=1e-6
            )
    assert found.mask.sum(dim=1).tolist() == [4, 1, 1]
    lists, _ = score_tokens(
        model, list(zip(prompts, completions, strict=True)), pad_id=END, temperature=0.7,
        batch_size=2,
    )  # fmt: skip
    for mine, logps, mask in zip(lists, found.logps, found.mask, strict=True):
        np.testing.assert_allclose(mine, logps[mask].detach(), atol=1e-6)


def test_chunked_token_logps_have_the_gradient_of_plain_ones(monkeypatch):
    model = tiny_model(seed=2, spread=0.4)
    gradients = []
    for chunk in (64, 1):
        monkeypatch.setattr(chunked, "CHUNK_ELEMENTS", 3 * chunk)
        logps, mask = completion_token_logps(model, [(1, 2)] * 2, [(1, 0), (2,)], pad_id=END)
        gradients.append(flat_gradient(logps[mask].sum(), model))
    torch.testing.assert_close(*gradients)
    plain = completion_logps(model, [(1, 2)] * 2, [(1, 0), (2,)], pad_id=END)
    torch.testing.assert_close(gradients[0], flat_gradient(plain.sum(), model))


def test_states_of_an_adapted_output_layer():
    model = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["lm_head", "q_proj"]))
    found = completion_tokens(model, [(1,)], [(2, 0)], pad_id=END, head=output_layer(model))
    assert found.states.shape == (1, 2, 24)


# -- the critic -----------------------------------------------------------------------------


@pytest.mark.parametrize("critic", ["mlp", pytest.param("head", marks=pytest.mark.slow)])
def test_runs_converge_to_the_closed_form_and_the_critic_learns(tmp_path, critic):
    trainer = build(
        tmp_path, "ppo", num_rounds=60, learning_rate=0.005, critic=critic,
        critic_learning_rate=0.003,
    )  # fmt: skip
    start = policy_of(trainer.policy)
    trainer.train()
    now = policy_of(trainer.policy)
    for p in PROMPTS:
        goal = np.exp(regularised_optimum(start[p], table_rewards()[p], BETA))
        np.testing.assert_allclose(np.exp(now[p]), goal, atol=0.03)
        assert np.abs(np.exp(start[p]) - goal).max() > 0.1
    foreseen = [r["explained_variance"] for r in trainer.metrics.rows() if r["kind"] == "round"]
    assert foreseen[0] == 0.0
    assert foreseen[-1] > {"mlp": 0.5, "head": 0.2}[critic]


def test_the_critic_starts_at_zero_and_is_the_same_for_a_seed():
    def make(seed):
        torch.manual_seed(int(torch.rand(()) * 1000))
        return Critic(8, "mlp", dtype=torch.float32, seed=seed)

    states = torch.randn(2, 3, 8)
    assert not make(1)(states).any()
    first, again, other = (make(s).layers[0].weight for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert make(1)(states.bfloat16()).dtype == torch.float32


def learner(**options):
    critic = Critic(4, "head", dtype=torch.float64, seed=0)
    settings = {"learning_rate": 0.1, "max_grad_norm": 0.0, "device": torch.device("cpu")}
    held = CriticLearner(critic, **{**settings, **options})
    # AdamW's first step does not show the size of the gradient.
    held.optimizer = torch.optim.SGD(critic.parameters(), lr=0.1)
    return held


def test_accumulation_is_the_mean_of_the_batches():
    states = torch.randn(2, 4, dtype=torch.float64)
    one, two = learner(), learner()
    one.accumulate((one.values(states) - 1.0).square().mean(), 1)
    for row in states:
        two.accumulate((two.values(row) - 1.0).square().mean(), 2)
    for p, q in zip(one.critic.parameters(), two.critic.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
        assert float(p.grad.abs().max()) > 0.1


def test_a_step_uses_the_gradient_once_and_clips_it():
    held = learner(max_grad_norm=1.0)
    held.accumulate(1000.0 * held.values(torch.ones(4, dtype=torch.float64)).sum(), 1)
    held.step()
    after = [p.detach().clone() for p in held.critic.parameters()]
    norm = torch.cat([p.flatten() for p in after]).norm()
    assert float(norm) == pytest.approx(0.1, abs=1e-6)
    held.step()
    assert all(torch.equal(p, q) for p, q in zip(held.critic.parameters(), after, strict=True))


def test_whole_step_with_accumulation(tmp_path):
    """Batch 2 x 1 and batch 1 x 2 make the same step, of the policy and of the critic."""

    def run(folder, batch, parts):
        trainer = build(
            folder, "ppo", num_rounds=1, epochs_per_round=1, optim="sgd", learning_rate=0.1,
            max_grad_norm=0.0, per_device_train_batch_size=batch, lr_scheduler_type="constant",
            gradient_accumulation_steps=parts,
        )  # fmt: skip
        trainer.learner.optimizer = torch.optim.SGD(trainer.learner.critic.parameters(), lr=0.1)
        trainer.train()
        return [
            p.detach() for m in (trainer.policy, trainer.learner.critic) for p in m.parameters()
        ]

    one, two = run(tmp_path / "a", 2, 1), run(tmp_path / "b", 1, 2)
    for p, q in zip(one, two, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)
    assert float(one[-1].abs()) > 1e-3


STATES = torch.tensor([[1.0, 2, 3, 4], [-2.0, 0, 1, 5]], dtype=torch.float64)


def share(held, rank, batches):
    held.accumulate((held.values(STATES[rank]) - rank - 1.0).square(), batches)


def step_of_one():
    held = learner()
    for rank in range(2):
        share(held, rank, 2)
    held.step()
    return held.critic.state_dict()


def test_gradients_are_averaged_over_the_processes(monkeypatch):
    expected, other = step_of_one(), learner()
    share(other, 1, 1)
    theirs = iter([p.grad for p in other.critic.parameters()])
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda g: g.add_(next(theirs)))
    held = learner()
    share(held, 0, 1)
    held.step()
    for name, p in expected.items():
        torch.testing.assert_close(held.critic.state_dict()[name], p)
        assert float(p.abs().max()) > 0.01


def launch(folder, processes, batch):
    start(Path(__file__).parent / "ppo_ranks.py", folder, processes, str(batch))
    return [torch.load(folder / f"state-{rank}.pt") for rank in range(processes)]


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(tmp_path):
    """Policy, critic and the critic's optimiser; the first round to the byte."""
    (one,) = launch(tmp_path / "one", 1, 2)
    first, second = launch(tmp_path / "two", 2, 1)
    assert one.keys() == first.keys()
    for name, p in one.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], p, rtol=2e-4, atol=2e-5)
    rounds = [(tmp_path / f / "rounds" / "ppo-001.jsonl").read_bytes() for f in ("one", "two")]
    assert rounds[0] == rounds[1]


def test_the_policy_never_feels_the_critic(tmp_path):
    """A value loss of any size leaves the policy's gradient as it is."""
    trainer = build(tmp_path, "ppo")
    ready(trainer)
    rows = trainer.play_chunk(0, 0, [0, 1])
    first = flat_gradient(trainer.batch_loss(trainer.policy, rows)[0], trainer.policy)
    for row in rows:
        row["targets"] = [[1e6] * len(t) for t in row["targets"]]
    loss, found = trainer.batch_loss(trainer.policy, rows)
    assert torch.equal(flat_gradient(loss, trainer.policy), first)
    assert all(p.grad is None for p in trainer.policy.parameters())
    assert found["value_loss"] > 1e6


# -- runs that die and go on ----------------------------------------------------------------


def make(folder, name, *, callbacks=(), lora=False, **options):
    torch.manual_seed(0)
    model = tiny_model(seed=1, dtype=torch.float32, spread=0.5)
    if lora:
        model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "up_proj"]))
    settings = {
        "num_rounds": 8,
        "epochs_per_round": 2,
        "per_device_train_batch_size": 1,
        "save_strategy": "epoch",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "chunk_prompts": 1,
        "num_generations": 3,
        "learning_rate": 0.01,
        "seed": 5,
        **options,
    }
    sampler = TransformersSampler(model, tiny_tokenizer(), SamplingConfig(max_new_tokens=2))
    return build(folder, name, model=model, sampler=sampler, callbacks=list(callbacks), **settings)


def state(trainer):
    found = weights(trainer)
    if isinstance(trainer, PPOTrainer):
        learned = trainer.learner
        found |= {f"critic.{n}": p.clone() for n, p in learned.critic.state_dict().items()}
        for i, moments in learned.optimizer.state_dict()["state"].items():
            found |= {f"adam.{i}.{n}": torch.as_tensor(v).clone() for n, v in moments.items()}
    return found


@pytest.mark.parametrize(
    ("name", "lora"), [("ppo", False), ("ppo", True), ("rloo", False), ("reinforce", True)]
)
def test_four_and_four_rounds_are_eight(tmp_path, name, lora):
    whole = make(tmp_path / "a", name, lora=lora)
    before = state(whole)
    whole.train()
    expected = state(whole)
    with pytest.raises(Died):
        make(tmp_path / "b", name, lora=lora, callbacks=[DieAtStep(4 * 4 + 1)]).train()
    resumed = make(tmp_path / "b", name, lora=lora)
    assert resumed.last_checkpoint().endswith("checkpoint-16")
    if name == "ppo":  # nothing may come from what the resumed trainer happens to hold
        nn.init.normal_(resumed.learner.critic.layers[0].weight)
    resumed.train(resume_from_checkpoint=True)
    found = state(resumed)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[n], expected[n]) for n in expected)
    assert metrics(tmp_path / "b") == metrics(tmp_path / "a")
    for path in sorted((tmp_path / "a" / "rounds").iterdir()):
        assert (tmp_path / "b" / "rounds" / path.name).read_bytes() == path.read_bytes()
    moved = [n for n in before if not torch.equal(before[n], expected[n])]
    assert any("critic" in n for n in moved) == (name == "ppo")
    assert any("lora" in n or "proj" in n for n in moved)


def test_resume_in_the_middle_of_a_round(tmp_path):
    """The critic's values in the round's file are those of playing, not of the resumed critic."""
    steps = {"save_strategy": "steps", "save_steps": 1, "num_rounds": 2}
    whole = make(tmp_path / "a", "ppo", **steps)
    whole.train()
    with pytest.raises(Died):
        make(tmp_path / "b", "ppo", callbacks=[DieAtStep(7)], **steps).train()
    resumed = make(tmp_path / "b", "ppo", **steps)
    assert resumed.last_checkpoint().endswith("checkpoint-6")
    resumed.train(resume_from_checkpoint=True)
    expected = state(whole)
    assert all(torch.equal(p, expected[n]) for n, p in state(resumed).items())


def test_a_checkpoint_without_its_critic_is_refused(tmp_path):
    held = learner()
    with pytest.raises(ModelError, match="without a critic"):
        held.load(tmp_path)
    held.save(tmp_path)
    other = CriticLearner(
        Critic(5, "head", dtype=torch.float64, seed=0),
        learning_rate=0.1, max_grad_norm=0.0, device=torch.device("cpu"),
    )  # fmt: skip
    with pytest.raises(ModelError, match="another shape"):
        other.load(tmp_path)


# -- options --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.1}, "gamma = 1.1; it must be in [0, 1]"),
        ({"lam": -0.1}, "lam = -0.1"),
        ({"cliprange": 0.0}, "cliprange = 0.0; it must be > 0"),
        ({"cliprange": None}, "cliprange = None"),
        ({"cliprange_value": 0.0}, "cliprange_value = 0.0"),
        ({"critic": "tower"}, "use 'mlp' or 'head'"),
        ({"critic_learning_rate": 0.0}, "critic_learning_rate"),
        ({"beta": -0.1}, "beta = -0.1"),
    ],
)
def test_bad_options_name_themselves(tmp_path, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        PPOConfig(output_dir=str(tmp_path), use_cpu=True, **options)


@pytest.mark.parametrize("name", FAMILY)
def test_every_option_has_help_and_is_read(name):
    source = "".join(p.read_text() for p in Path("src/equilign").rglob("*.py"))
    config = FAMILY[name][1]
    inherited = GameConfig.__dataclass_fields__
    for field in config.__dataclass_fields__.values():
        if field.name not in inherited:
            assert field.metadata.get("help"), field.name
            assert re.search(rf"(?:args|config)\.{field.name}\b", source), field.name


def test_the_trainer_carries_its_rule():
    assert PPOTrainer.rule is PPO
