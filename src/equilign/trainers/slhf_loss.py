"""What every response of a sequential game is worth to its player, and a player's loss on them."""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from equilign.losses.leader_follower import (
    KLGradient,
    importance_weights,
    kl_coefficients,
    leader_payoff,
    listed_advantages,
    player_loss,
    sampled_advantages,
)
from equilign.trainers.players import ROLES, Role
from equilign.trainers.rounds import Row
from equilign.trainers.slhf_config import SLHFConfig
from equilign.trainers.slhf_rows import fill, law, log_ratios, nullable, sides, table


def value(rows: Sequence[Row], listed: Mapping[Role, bool], args: SLHFConfig) -> None:
    """Give every response its advantage: what it is worth to its player, minus a baseline.

    Args:
        rows: with verdicts and log-probabilities.
        listed: whether a player's responses are all there are, with their probabilities, rather
            than independent samples.
        args: options.
    """
    wins, weights = (table(rows, "follower", name) for name in ("wins", "weights"))
    paid = args.beta_follower if args.leader_pays_follower_kl else 0.0
    ratios = log_ratios(rows, "follower")
    worth: dict[Role, Tensor] = {
        "leader": leader_payoff(wins, weights, ratios, beta_follower=paid),
        "follower": 1.0 - wins,
    }
    for role in ROLES:
        cut = 1.0 - table(rows, role, "finished")
        reward = worth[role] - args.missing_eos_penalty * cut
        if args.baseline == "constant":
            advantages = reward - args.baseline_value
        elif listed[role]:
            advantages = listed_advantages(reward, table(rows, role, "weights"))
        else:
            advantages = sampled_advantages(reward, fallback=args.baseline_value)
        fill(rows, role, "advantages", nullable(advantages.flatten().tolist()))


def side_loss(
    rows: Sequence[Row], role: Role, logps: Tensor, mask: Tensor, args: SLHFConfig
) -> tuple[Tensor, dict[str, float], bool]:
    """A player's loss: mean over prompts, responses without a verdict as zeros.

    Args:
        rows: a batch.
        role: whose loss.
        logps: of the tokens of its responses, in the order of `responses`, nats (grad).
        mask: which they are.
        args: options.

    Returns:
        The loss, metrics, and whether it can have a gradient at all.
    """
    ref = torch.zeros_like(logps)
    tokens = [x for side in sides(rows, role) for one in side["ref_logps"] for x in one]
    ref[mask] = logps.new_tensor(tokens)
    old = table(rows, role, "logps").flatten().to(logps)
    advantage = table(rows, role, "advantages").flatten().to(logps)
    weights = (law(rows, role).flatten() / len(rows)).to(logps)
    weights = weights.masked_fill(advantage.isnan(), 0.0)
    advantage = advantage.nan_to_num(nan=0.0)
    beta = args.beta_leader if role == "leader" else args.beta_follower
    cap = math.inf if args.importance_cap is None else args.importance_cap
    rho = importance_weights(logps.sum(dim=1), old, cap=cap)
    coefficients = kl_coefficients(logps, ref, mask, kind=cast(KLGradient, args.kl_gradient))
    loss = player_loss(logps, advantage, coefficients, rho, beta=beta)
    pull = (weights * rho)[:, None] * (beta * coefficients - advantage[:, None])
    seen = weights.sum().clamp(min=1e-30)
    metrics = {
        "importance": float((weights * rho).sum() / seen),
        "capped_share": float((weights * (rho >= cap)).sum() / seen),
    }
    return (weights * loss).sum(), metrics, bool((pull * mask != 0.0).any())
