"""SLHF: the gradient of both players by enumeration, and mistakes that must be seen."""

import json

import pytest
import torch
from peft import LoraConfig

from tests.enumerable import TEXTS
from tests.trainers.two_players import (
    MODES,
    PROMPTS,
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
