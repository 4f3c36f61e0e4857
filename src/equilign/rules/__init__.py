"""The algorithms: one equation each, shared by both halves. No torch here."""

from equilign.rules.comal import COMAL
from equilign.rules.contrastive import (
    DPO,
    IPO,
    ITERATED_DPO,
    ITERATED_IPO,
    ONLINE_DPO,
    ContrastiveRule,
    PairLoss,
    Pairs,
)
from equilign.rules.egpo import EGPO
from equilign.rules.inpo import INPO
from equilign.rules.leader_follower import (
    SLHF,
    STACKELBERG_GDA,
    STACKELBERG_MIRROR,
    LeaderFollowerRule,
)
from equilign.rules.mirror import Closing, MirrorRule, MirrorStage, Slot, Step
from equilign.rules.mmd import MMD
from equilign.rules.mpo import MPO
from equilign.rules.mwu import MWU
from equilign.rules.nash_md import NASH_MD
from equilign.rules.ogda import OGDA
from equilign.rules.omd import OMD, ONLINE_IPO_1
from equilign.rules.omwu import OMWU, OMWU_EXTRAGRADIENT, OMWU_TWO_SEQUENCE
from equilign.rules.onpo import ONPO
from equilign.rules.policy_gradient import NASH_MD_PG, ONLINE_IPO_2, SELF_PLAY_PG
from equilign.rules.reward_game import (
    PARL,
    REVERSED,
    RLHF,
    SIMULTANEOUS,
    STA_NAIVE,
    STA_TOTAL,
    Player,
    RewardGameRule,
)
from equilign.rules.reward_gradient import PPO, REINFORCE, RLOO, RewardRule
from equilign.rules.sppo import SPPO, SPPO_CONSTANT

MIRROR_RULES: dict[str, MirrorRule] = {
    rule.name: rule
    for rule in (
        SPPO,
        SPPO_CONSTANT,
        MWU,
        OMWU,
        OMWU_TWO_SEQUENCE,
        OMWU_EXTRAGRADIENT,
        OGDA,
        ONPO,
        OMD,
        ONLINE_IPO_1,
        INPO,
        NASH_MD,
        MMD,
        MPO,
        EGPO,
        COMAL,
        SELF_PLAY_PG,
        ONLINE_IPO_2,
        NASH_MD_PG,
    )
}
"""Every mirror rule by name: a list that the command line, the trainers and the tests read."""

LEADER_FOLLOWER_RULES: dict[str, LeaderFollowerRule] = {
    rule.name: rule for rule in (STACKELBERG_GDA, STACKELBERG_MIRROR, SLHF)
}
"""Every rule of the sequential game by name."""

REWARD_GAME_RULES: dict[str, RewardGameRule] = {
    rule.name: rule for rule in (STA_NAIVE, STA_TOTAL, SIMULTANEOUS, REVERSED, PARL, RLHF)
}
"""Every rule of the game between policy and reward model by name."""

CONTRASTIVE_RULES: dict[str, ContrastiveRule] = {
    rule.name: rule for rule in (DPO, IPO, ITERATED_DPO, ITERATED_IPO, ONLINE_DPO)
}
"""Every rule that fits labelled pairs by name."""

REWARD_RULES: dict[str, RewardRule] = {rule.name: rule for rule in (REINFORCE, RLOO, PPO)}
"""Every rule that climbs a scalar reward by name; there is no game in them to play on a matrix."""

Rule = MirrorRule | LeaderFollowerRule | RewardGameRule | ContrastiveRule
RULES: dict[str, Rule] = {
    **MIRROR_RULES,
    **LEADER_FOLLOWER_RULES,
    **REWARD_GAME_RULES,
    **CONTRASTIVE_RULES,
}
"""Every rule that can be played on a matrix."""

__all__ = [
    "COMAL",
    "CONTRASTIVE_RULES",
    "DPO",
    "EGPO",
    "INPO",
    "IPO",
    "ITERATED_DPO",
    "ITERATED_IPO",
    "LEADER_FOLLOWER_RULES",
    "MIRROR_RULES",
    "MMD",
    "MPO",
    "MWU",
    "NASH_MD",
    "NASH_MD_PG",
    "OGDA",
    "OMD",
    "OMWU",
    "OMWU_EXTRAGRADIENT",
    "OMWU_TWO_SEQUENCE",
    "ONLINE_DPO",
    "ONLINE_IPO_1",
    "ONLINE_IPO_2",
    "ONPO",
    "PARL",
    "PPO",
    "REINFORCE",
    "REVERSED",
    "REWARD_GAME_RULES",
    "REWARD_RULES",
    "RLHF",
    "RLOO",
    "RULES",
    "SELF_PLAY_PG",
    "SIMULTANEOUS",
    "SLHF",
    "SPPO",
    "SPPO_CONSTANT",
    "STACKELBERG_GDA",
    "STACKELBERG_MIRROR",
    "STA_NAIVE",
    "STA_TOTAL",
    "Closing",
    "ContrastiveRule",
    "LeaderFollowerRule",
    "MirrorRule",
    "MirrorStage",
    "PairLoss",
    "Pairs",
    "Player",
    "RewardGameRule",
    "RewardRule",
    "Rule",
    "Slot",
    "Step",
]
