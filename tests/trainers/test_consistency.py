"""A language-model trainer on an enumerable policy follows the exact tabular rule."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from equilign.errors import ConfigError
from equilign.games import PreferenceGame, duality_gap
from equilign.play import exact_feedback, log_normalise, mirror_step, play, start_slots
from equilign.rules import MIRROR_RULES, OGDA, Closing, Slot, Step
from equilign.trainers import MirrorConfig, MirrorTrainer
from equilign.trainers.slots import StagePlan
from tests.enumerable import (
    BANDIT,
    EnumeratingSampler,
    MatrixOracle,
    exact_logps,
    random_prefs,
    texts_of,
    tiny_model,
    tiny_tokenizer,
)

PROMPTS = ["a b", "b a"]  # not "a": repeated tokens alone are one state to rotary attention
STEPS = 3
FAST = ("sppo", "omwu", "inpo", "nash-md", "mpo", "egpo")
"""One rule per kind of equation; the rest differ in weights, or in the name."""
FITTED = [
    pytest.param(n, marks=() if n in FAST else pytest.mark.slow)
    for n, r in MIRROR_RULES.items()
    if r.closing == Closing.NORMALISE
]
GRADIENTS = [n for n, r in MIRROR_RULES.items() if r.closing == Closing.GRADIENT]


def build(tmp_path, rule, games, cls=MirrorTrainer, **options):
    model, tokenizer = tiny_model(seed=3, spread=0.4), tiny_tokenizer()
    settings = {
        "prompts_per_round": 2,
        "per_device_train_batch_size": 2,
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 0,
        "logging_strategy": "no",
        **options,
    }
    return cls(
        model,
        MirrorConfig(output_dir=str(tmp_path), **settings),
        [{"prompt": p} for p in PROMPTS],
        MatrixOracle(games),
        tokenizer,
        sampler=EnumeratingSampler(model, tokenizer),
        rule=rule,
    )


class Recording(MirrorTrainer):
    """Keeps the policies at the start of every step."""

    def start_round(self, index):
        if self.stages.at(index)[1] == 0:
            self.seen.append(policies(self.model))
        super().start_round(index)


def policies(model):
    ids = {p: tiny_tokenizer()(p)["input_ids"] for p in PROMPTS}
    return {p: np.exp(exact_logps(model, ids[p])) for p in PROMPTS}


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        *(pytest.param(*p.values, "pairs", marks=p.marks) for p in FITTED),
        pytest.param("sppo", "pointwise", marks=pytest.mark.slow),
        ("inpo", "pointwise"),
    ],
)
def test_trainer_follows_the_exact_rule(tmp_path, name, loss):
    """Steps with exact expectations, fitted to convergence: the same policies as on a matrix."""
    follow(tmp_path, name, loss, eta=1.2)


@pytest.mark.parametrize(
    ("name", "eta"),
    [
        ("inpo", 4.0),
        pytest.param("nash-md", 4.0, marks=pytest.mark.slow),
        pytest.param("egpo", 4.0, marks=pytest.mark.slow),
        pytest.param("mmd", 8.0, marks=pytest.mark.slow),
    ],
)
def test_also_where_the_reference_weighs_more_than_the_policy(tmp_path, name, eta):
    """Training then begins at the reference, while the answers are still the policy's."""
    rule, step = MIRROR_RULES[name], Step(eta=eta, beta=0.2)
    assert StagePlan(rule, step).begins_at(0) == Slot.REFERENCE
    follow(tmp_path, name, "pairs", eta=eta)


def follow(tmp_path, name, loss, eta):
    rule, step = MIRROR_RULES[name], Step(eta=eta, beta=0.2, inner_steps=2)
    games = {p: random_prefs(seed) for seed, p in enumerate(PROMPTS)}
    trainer = build(
        tmp_path, rule, games, Recording,
        eta=step.eta, beta=step.beta, inner_steps=2, loss=loss, normaliser="estimated",
        num_rounds=STEPS * len(rule.stages), epochs_per_round=250, learning_rate=0.01,
        optim="adamw_torch",
    )  # fmt: skip
    trainer.seen = []
    trainer.train()
    seen = [*trainer.seen, policies(trainer.model)]
    assert len(seen) == STEPS + 1
    for p in PROMPTS:
        feedback = exact_feedback(PreferenceGame(games[p]))
        start = log_normalise(np.log(seen[0][p]))
        slots = start_slots(start, start)
        for t, played in enumerate(seen[1:]):
            slots = mirror_step(rule, slots, feedback, step)
            if rule.moves_reference and (t + 1) % step.inner_steps == 0:
                slots[Slot.REFERENCE] = slots[Slot.CURRENT]
            np.testing.assert_allclose(played[p], np.exp(slots[Slot.CURRENT]), atol=2e-3)
        assert np.abs(seen[-1][p] - seen[0][p]).sum() > 0.05, "it would pass without training"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rounds", "eta", "beta", "gap"),
    [
        ("omwu", 25, 2.5, 0.0, (0.0, 0.03)),
        ("mwu", 25, 2.5, 0.0, (0.3, 1.0)),
        ("egpo", 24, 1.5, 0.3, (0.0, 1e-4)),
        ("inpo", 12, 1.5, 0.3, (0.0, 1e-4)),
    ],
)
def test_whole_runs_end_where_the_rule_ends(tmp_path, name, rounds, eta, beta, gap):
    """On a bandit of one token: OMWU reaches the Nash equilibrium itself, multiplicative weights
    stay away from it, the regularised rules reach the regularised equilibrium."""
    prefs = np.array([[0.5, 0.1, 0.8], [0.9, 0.5, 0.1], [0.2, 0.9, 0.5]])
    rule = MIRROR_RULES[name]
    trainer = build(
        tmp_path, rule, {p: prefs for p in PROMPTS}, eta=eta, beta=beta, loss="pairs",
        num_rounds=rounds, epochs_per_round=120, learning_rate=0.02, optim="adamw_torch",
    )  # fmt: skip
    trainer.sampler = EnumeratingSampler(trainer.model, trainer.tokenizer, BANDIT)
    trainer._oracle = MatrixOracle({p: prefs for p in PROMPTS}, texts_of(BANDIT))
    start = bandit(trainer.model)
    trainer.train()
    end = bandit(trainer.model)
    for p in PROMPTS:
        game = PreferenceGame(prefs, start[p], beta) if beta else PreferenceGame(prefs)
        steps = rounds // len(rule.stages)
        exact = play(game, name, steps=steps, eta=eta, start=start[p], beta=beta)
        np.testing.assert_allclose(end[p], exact.final_policy, atol=0.02)
        reached = duality_gap(game, end[p])
        assert gap[0] <= reached <= gap[1], "not where the theory says"
        assert duality_gap(game, start[p]) > 0.01


def bandit(model):
    policies = {}
    for p in PROMPTS:
        weights = np.exp(exact_logps(model, tiny_tokenizer()(p)["input_ids"], BANDIT))
        policies[p] = weights / weights.sum()
    return policies


@pytest.mark.parametrize("name", GRADIENTS)
def test_policy_gradient_is_the_exact_gradient(tmp_path, name):
    """One SGD step moves the weights along the gradient of the game's value, by enumeration."""
    one_gradient_step(tmp_path, name, eta=0.7)


def test_also_where_the_reference_weighs_more_in_the_gradient(tmp_path):
    one_gradient_step(tmp_path, GRADIENTS[0], eta=3.0)


def one_gradient_step(tmp_path, name, eta):
    beta, mixture, rate = 0.3, 0.4, 1e-2
    games = {p: random_prefs(seed) for seed, p in enumerate(PROMPTS)}
    trainer = build(
        tmp_path, MIRROR_RULES[name], games, Recording,
        eta=eta, beta=beta, mixture=mixture, num_rounds=2, optim="sgd", learning_rate=rate,
        lr_scheduler_type="constant", warmup_steps=0,
    )  # fmt: skip
    # Away from the reference, so that the KL term has a gradient.
    trainer.seen, second = [], {}

    def value(model, start):
        total = 0.0
        for p in PROMPTS:
            ids = tiny_tokenizer()(p)["input_ids"]
            logps = all_logps(model, ids)
            current = logps.detach()
            reference = torch.tensor(np.log(start[p]))
            mix = (1 - mixture) * current + mixture * reference
            opponent = mix.softmax(0) if name == "nash-md-pg" else current.softmax(0)
            pi = logps.exp()
            payoff = torch.tensor(games[p]) @ opponent
            total = total + (pi * (payoff - beta * (logps - reference))).sum()
        return total / len(PROMPTS)

    class Checking(type(trainer)):
        def training_step(self, model, inputs, *args, **kwargs):
            if self.round_index == 1:
                start = self.seen[0]
                gradient = torch.autograd.grad(value(model, start), list(model.parameters()))
                second["expected"] = [g.clone() for g in gradient]
                second["before"] = [p.detach().clone() for p in model.parameters()]
            return super().training_step(model, inputs, *args, **kwargs)

    trainer.__class__ = Checking
    trainer.train()
    for g, old, new in zip(
        second["expected"], second["before"], trainer.model.parameters(), strict=True
    ):
        torch.testing.assert_close(new.detach() - old, rate * g, rtol=1e-4, atol=1e-9)
    assert max(float(g.abs().max()) for g in second["expected"]) > 1e-3


def all_logps(model, ids):
    from equilign.rollout import completion_logps
    from tests.enumerable import END, RESPONSES

    return completion_logps(model, [tuple(ids)] * len(RESPONSES), RESPONSES, pad_id=END)


def test_what_cannot_be_trained_is_said(tmp_path):
    games = {p: random_prefs(0) for p in PROMPTS}
    with pytest.raises(ConfigError, match="OGDA can be played on a matrix only"):
        build(tmp_path, OGDA, games)
    with pytest.raises(ConfigError, match="num_rounds = 3; a step of EGPO takes 2 rounds"):
        build(tmp_path, MIRROR_RULES["egpo"], games, num_rounds=3, beta=0.1, eta=1.0)

    class Plain:
        def sample(self, prompts, num_samples, seed):
            return []

    trainer = build(tmp_path, MIRROR_RULES["nash-md"], games, beta=0.1, eta=1.0)
    trainer.sampler = Plain()
    with pytest.raises(ConfigError, match="Plain has no sample_mixture"):
        trainer._check_rule()


def test_the_step_is_made_from_the_options(tmp_path):
    games = {p: random_prefs(0) for p in PROMPTS}
    rule = replace(MIRROR_RULES["comal"], name="mine")
    trainer = build(tmp_path, rule, games, eta=0.5, beta=0.2, mixture=0.3, inner_steps=4)
    assert trainer.step == Step(0.5, 0.2, 0.3, 4)
    assert trainer.method == "mine"
