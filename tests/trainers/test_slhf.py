"""SLHF: the gradient of both players by enumeration, and mistakes that must be seen."""

import copy
import itertools
import json
import math

import numpy as np
import pytest
import torch
from peft import LoraConfig

from equilign.rollout import Completion, Group, completion_logps
from equilign.trainers import slhf, slhf_loss
from equilign.trainers.players import TwoPlayers
from tests.enumerable import BANDIT, END, TEXTS, MatrixOracle, texts_of
from tests.trainers.two_players import (
    MODES,
    PROMPTS,
    Table,
    build,
    distance,
    flat,
    games,
    ids_of,
    logps_of,
    shake,
    shown,
    token_table,
)

LORA = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "o_proj"], init_lora_weights=False)


def adapter(players):
    return {"peft_config": LORA} if players == "adapters" else {}


def start_of(trainer, follower_reference):
    """Reference log-probabilities, before the players are moved."""
    leads = {p: logps_of(trainer, "leader", ids_of(p)) for p in PROMPTS}
    follows = {
        (p, y): logps_of(
            trainer, "follower", shown(p, y) if follower_reference == "context" else ids_of(p)
        )
        for p in PROMPTS
        for y in TEXTS
    }
    return leads, follows


def objectives(trainer, start, beta_leader, beta_follower, *, pays=True):
    """What the Leader maximises and the Follower minimises, the other player held still."""
    led, followed = 0.0, 0.0
    table = games()
    for p in PROMPTS:
        prefs = torch.tensor(table[p])
        with trainer.playing("leader"):
            log_pi = token_table(trainer.policy, ids_of(p))
        pi, worth = log_pi.exp(), []
        for i, y in enumerate(TEXTS):
            with trainer.playing("follower"):
                log_omega = token_table(trainer.policy, shown(p, y))
            ratio = log_omega - torch.tensor(start[1][p, y])
            omega = log_omega.exp()
            followed = (
                followed + pi[i].detach() * (omega * (prefs[i] + beta_follower * ratio)).sum()
            )
            paid = beta_follower if pays else 0.0
            worth.append((omega * (prefs[i] + paid * ratio)).sum().detach())
        ratio = log_pi - torch.tensor(start[0][p])
        led = led + (pi * (torch.stack(worth) - beta_leader * ratio)).sum()
    return led / len(PROMPTS), followed / len(PROMPTS)


def gradient(value, trainer, role):
    """Of the weights of ``role``, in float64."""
    return flat(torch.autograd.grad(value, trainer.player_weights(role), retain_graph=True))


def exact(tmp_path, players="shared", **options):
    """Relative error of each player's gradient against enumeration; for `shared` of their sum."""
    trainer = build(tmp_path, players=players, kappa=3.0, **adapter(players), **options)
    config = trainer.slhf_config
    start = start_of(trainer, config.follower_reference)
    trainer.start_round(0)
    shake(trainer)
    led, followed = objectives(
        trainer,
        start,
        config.beta_leader,
        config.beta_follower,
        pays=config.leader_pays_follower_kl,
    )
    rows = json.loads(json.dumps(trainer.play_chunk(0, 0, [0, 1]), allow_nan=False))
    loss, metrics = trainer.batch_loss(trainer.policy, rows)
    assert metrics["leader_importance"] == pytest.approx(1.0, abs=1e-6)
    if trainer.pair is None:
        expected = gradient(3.0 * followed - led, trainer, "leader")
        assert float(expected.norm()) > 1e-2
        return [distance(gradient(loss, trainer, "leader"), expected)]
    errors = []
    for role, wanted in (("leader", -led), ("follower", followed)):
        expected = gradient(wanted, trainer, role)
        assert float(expected.norm()) > 1e-3
        errors.append(distance(gradient(loss, trainer, role), expected))
    return errors


@pytest.mark.parametrize("players", MODES)
@pytest.mark.parametrize("reference", ["context", "prompt"])
def test_one_step_is_the_exact_gradient_of_both_players(tmp_path, players, reference):
    assert max(exact(tmp_path, players, follower_reference=reference)) < 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {"leader_pays_follower_kl": False},
        {"baseline": "constant"},
        {"baseline": "constant", "baseline_value": -3.0},
        {"beta_leader": 0.0, "beta_follower": 1.0},
        {"importance_cap": None},
    ],
)
def test_the_gradient_is_exact_for_every_option_that_promises_it(tmp_path, options):
    assert max(exact(tmp_path, **options)) < 1e-6


@pytest.mark.parametrize("kind", ["own_token_k1", "own_token_k3"])
def test_the_authors_kl_is_another_gradient(tmp_path, kind):
    assert min(exact(tmp_path, "separate", kl_gradient=kind)) > 1e-3


# -- samples --------------------------------------------------------------------------------


class Drawn:
    """Given answers: ``leads`` of the Leader to every prompt, ``follows`` to each of them."""

    def __init__(self, leads, follows):
        self.leads, self.follows = leads, follows

    def sample(self, prompts, num_samples, seed):
        leads = len(ids_of(prompts[0])) == 2
        chosen = self.leads if leads else [f for group in self.follows for f in group]
        return [
            Group(p, ids_of(p), tuple(answer(i) for i in c))
            for p, c in zip(prompts, chosen, strict=True)
        ]


def answer(i):
    return Completion(BANDIT[i], texts_of(BANDIT)[i], BANDIT[i] == (END,))


def draws(size):
    return itertools.product(range(len(BANDIT)), repeat=size)


@pytest.mark.parametrize(
    ("leads", "follows"),
    [
        (2, 1),
        (1, 2),
        pytest.param(2, 2, marks=pytest.mark.slow),
        pytest.param(3, 1, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("baseline", ["leave_one_out", "constant"])
def test_samples_are_unbiased_over_all_draws(tmp_path, leads, follows, baseline):
    """The mean gradient over every draw of one prompt's game, each with its probability."""
    torch.manual_seed(1)
    prefs, texts = games(3), texts_of(BANDIT)
    trainer = build(
        tmp_path, model=Table(), oracle=MatrixOracle(prefs, texts), responses=BANDIT,
        players="separate", baseline=baseline, num_generations=leads,
        num_follower_generations=follows, chunk_prompts=1, importance_cap=None,
    )  # fmt: skip
    p = PROMPTS[0]
    ref = logps_of(trainer, "leader", ids_of(p), BANDIT)
    refs = [logps_of(trainer, "follower", shown(p, y), BANDIT) for y in texts]
    trainer.start_round(0)
    shake(trainer, size=0.5)
    with trainer.playing("leader"):
        log_pi = token_table(trainer.policy, ids_of(p), BANDIT)
    with trainer.playing("follower"):
        log_omega = torch.stack([token_table(trainer.policy, shown(p, y), BANDIT) for y in texts])
    game = torch.tensor(prefs[p])
    worth = game + 0.2 * (log_omega - torch.tensor(np.array(refs)))
    paid = (log_omega.exp() * worth).sum(dim=1)
    led = (log_pi.exp() * (paid.detach() - 0.3 * (log_pi - torch.tensor(ref)))).sum()
    followed = (log_pi.exp().detach() * paid).sum()
    law, reply = log_pi.exp().tolist(), log_omega.exp().tolist()
    mean, total = 0.0, 0.0
    for ys in draws(leads):
        for flat_zs in draws(leads * follows):
            zs = [flat_zs[i * follows : (i + 1) * follows] for i in range(leads)]
            chance = math.prod(law[y] for y in ys) * math.prod(
                reply[y][z] for y, group in zip(ys, zs, strict=True) for z in group
            )
            total += chance
            if chance > 0.0:
                trainer.sampler = Drawn([ys], [zs])
                loss, _ = trainer.batch_loss(trainer.policy, trainer.play_chunk(0, 0, [0]))
                mean = mean + chance * loss
    assert total == pytest.approx(1.0)
    for role, wanted in (("leader", -led), ("follower", followed)):
        expected = gradient(wanted, trainer, role)
        assert float(expected.norm()) > 1e-3
        assert distance(gradient(mean, trainer, role), expected) < 1e-6


def test_later_steps_of_a_round_count_by_their_ratio(tmp_path):
    """On a round's old samples the gradient is still that of the policy there is now."""
    trainer = build(tmp_path, players="separate", importance_cap=None)
    start = start_of(trainer, "context")
    trainer.start_round(0)
    shake(trainer)
    rows = trainer.play_chunk(0, 0, [0, 1])
    with torch.no_grad():  # the Leader alone: the Follower's replies still fit it
        noise = torch.Generator().manual_seed(3)
        for p in trainer.player_weights("leader"):
            p.add_(0.05 * torch.randn(p.shape, generator=noise, dtype=p.dtype))
    led, _ = objectives(trainer, start, 0.3, 0.2)
    loss, metrics = trainer.batch_loss(trainer.policy, rows)
    expected = gradient(-led, trainer, "leader")
    assert distance(gradient(loss, trainer, "leader"), expected) < 1e-6
    assert metrics["leader_capped_share"] == 0.0
    trainer.args.importance_cap = 1.0
    capped, metrics = trainer.batch_loss(trainer.policy, rows)
    assert distance(gradient(capped, trainer, "leader"), expected) > 1e-3
    assert 0.1 < metrics["leader_capped_share"] < 0.9
    assert metrics["leader_importance"] < 1.0


# -- mistakes -------------------------------------------------------------------------------


def own_token_kl(patch):
    right = slhf_loss.kl_coefficients
    patch.setattr(slhf_loss, "kl_coefficients", lambda *a, kind: right(*a, kind="own_token_k1"))


def leader_tokens_in_the_followers_loss(patch):
    right = slhf.completion_token_logps

    def more(model, prompts, completions, **options):
        logps, mask = right(model, prompts, completions, **options)
        if len(prompts[0]) > 2:
            said = [p[2:] for p in prompts]
            extra = completion_logps(model, [p[:2] for p in prompts], said, pad_id=END)
            first = mask.long().argmax(dim=1, keepdim=True)
            logps = logps.scatter_add(1, first, (extra - extra.detach())[:, None])
        return logps, mask

    patch.setattr(slhf, "completion_token_logps", more)


def bonus_of_the_followers_kl_left_out(patch):
    right = slhf_loss.leader_payoff
    patch.setattr(
        slhf_loss, "leader_payoff", lambda *a, beta_follower: right(*a, beta_follower=0.0)
    )


def follower_climbs(patch):
    right = slhf_loss.listed_advantages

    def swapped(reward, weights):
        found = right(reward, weights)
        return -found if reward.dim() == 3 else found

    patch.setattr(slhf_loss, "listed_advantages", swapped)


def kappa_ignored(patch):
    def without(self):
        args = copy.copy(self.args)
        args.kappa = 1.0
        return args

    patch.setattr(slhf.SLHFTrainer, "slhf_config", property(without))


def ratio_differentiated(patch):
    right = slhf_loss.player_loss

    def more(logps, advantage, coefficients, importance, *, beta):
        ratio = (logps - logps.detach()).sum(dim=1).exp()
        return right(logps, advantage, coefficients, importance * ratio, beta=beta)

    patch.setattr(slhf_loss, "player_loss", more)


def end_token_left_out(patch):
    right = slhf_loss.player_loss

    def short(logps, advantage, coefficients, importance, *, beta):
        cut = torch.cat([logps[:, :-1], logps[:, -1:].detach()], dim=1)
        return right(cut, advantage, coefficients, importance, beta=beta)

    patch.setattr(slhf_loss, "player_loss", short)


def leader_weights_forgotten(patch):
    right = slhf_loss.law

    def even(rows, role):
        found = right(rows, role)
        return (
            found / found.sum(dim=-1, keepdim=True) / found.shape[1] if found.dim() > 2 else found
        )

    patch.setattr(slhf_loss, "law", even)


def reference_of_the_other_context(patch):
    right = slhf.responses
    patch.setattr(
        slhf,
        "responses",
        lambda rows, role, *, original_prompt=None: right(
            rows, role, original_prompt=original_prompt is not None
        ),
    )


MISTAKES = [
    own_token_kl,
    leader_tokens_in_the_followers_loss,
    bonus_of_the_followers_kl_left_out,
    follower_climbs,
    kappa_ignored,
    ratio_differentiated,
    end_token_left_out,
    leader_weights_forgotten,
    reference_of_the_other_context,
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.__name__)
def test_mistake_is_seen(tmp_path, monkeypatch, mistake):
    mistake(monkeypatch)
    assert max(exact(tmp_path)) > 1e-3


def test_a_forward_pass_of_the_wrong_player_is_seen(tmp_path, monkeypatch):
    right = TwoPlayers.playing
    monkeypatch.setattr(TwoPlayers, "playing", lambda self, role: right(self, "leader"))
    trainer = build(tmp_path, players="separate")
    trainer.start_round(0)
    rows = trainer.play_chunk(0, 0, [0, 1])
    loss, _ = trainer.batch_loss(trainer.policy, rows)
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        gradient(loss, trainer, "follower")
