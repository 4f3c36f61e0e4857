"""One door to every rule on a matrix."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from equilign.errors import ConfigError
from equilign.games import PreferenceGame
from equilign.play.contrastive import ContrastiveOptions, play_contrastive
from equilign.play.leader_follower import LeaderFollowerOptions, play_leader_follower
from equilign.play.mirror import MirrorOptions, play_mirror
from equilign.play.options import PlayOptions
from equilign.play.reward_game import RewardGameOptions, play_reward_game
from equilign.play.trajectory import Trajectory
from equilign.rules import RULES, LeaderFollowerRule, MirrorRule, RewardGameRule, Rule
from equilign.rules.contrastive import ContrastiveRule

FAMILIES: dict[type, tuple[type[PlayOptions], Callable[..., Trajectory]]] = {
    MirrorRule: (MirrorOptions, play_mirror),
    LeaderFollowerRule: (LeaderFollowerOptions, play_leader_follower),
    RewardGameRule: (RewardGameOptions, play_reward_game),
    ContrastiveRule: (ContrastiveOptions, play_contrastive),
}
"""How each family of rules is played, and its options: the only place that tells them apart."""


def play(game: PreferenceGame, rule: str | Rule, **options: Any) -> Trajectory:  # noqa: ANN401
    """Play a rule against itself and record the duality gap.

    Args:
        game: one game, or (mirror rules) a batch played in parallel.
        rule: a name of `equilign.rules.RULES`, or a rule of one's own.
        **options: ``steps, start, record, samples, seed, tolerance, progress`` and those of the
            rule's family: `MirrorOptions`, `LeaderFollowerOptions`, `RewardGameOptions`,
            `ContrastiveOptions`.

    Returns:
        Gaps of the last and of the average policy at the recorded steps, the final policies, and
        how it ended.

    Raises:
        ConfigError: no such rule or option, or a value out of range.
    """
    if isinstance(rule, str):
        if rule not in RULES:
            raise ConfigError(f"no rule {rule!r}; there are: {', '.join(RULES)}")
        rule = RULES[rule]
    kind, player = FAMILIES[type(rule)]
    known = [field.name for field in fields(kind)]
    for name in options:
        if name not in known:
            raise ConfigError(f"{rule.title} has no option {name!r}; it has: {', '.join(known)}")
    return player(game, rule, kind(**options))
