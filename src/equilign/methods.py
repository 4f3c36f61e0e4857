"""Every method by name, importable without torch.

A method is a rule, and for a language model a trainer; this table is what the command line, the
documentation and the tests go by. A rule becomes a method by being listed in `equilign.rules`;
one that trains language models adds a line to `_TRAINERS`. There is no `if` on a name anywhere.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from equilign.errors import ConfigError
from equilign.rules import (
    REWARD_RULES,
    RULES,
    ContrastiveRule,
    LeaderFollowerRule,
    MirrorRule,
    RewardGameRule,
    RewardRule,
    Rule,
)

MATRIX, LANGUAGE_MODEL = "matrix", "language model"


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: as on the command line.
        title: as in prose.
        game: what is played.
        paper: where it is from.
        converges_to: what the theory promises.
        maturity: ``verified`` (its step and its limit are tested on matrices, and a trainer
            follows the exact rule), ``lightly tested``.
        plays: where it can be played: ``matrix``, ``language model``.
        trainer: ``module:class``; None where it does not train language models.
        config: ``module:class``, likewise.
    """

    name: str
    title: str
    game: str
    paper: str
    converges_to: str
    maturity: str
    plays: tuple[str, ...]
    trainer: str | None = None
    config: str | None = None

    def load(self) -> tuple[Any, Any]:
        """Trainer and configuration class; imports torch.

        Raises:
            ConfigError: the method plays matrices only.
        """
        if self.trainer is None or self.config is None:
            raise ConfigError(
                f"{self.title} plays matrices only: equilign play GAME --rules {self.name}. "
                f"Language models are trained by: {', '.join(TRAINED)}"
            )
        return _load(self.trainer), _load(self.config)


def _load(where: str) -> Any:  # noqa: ANN401 - a class
    module, name = where.split(":")
    return vars(import_module(module))[name]


_GAMES: dict[type, str] = {
    MirrorRule: "the policy plays itself (simultaneous, zero-sum)",
    LeaderFollowerRule: "a Leader answers, a Follower sees it and replies (sequential, zero-sum)",
    ContrastiveRule: "none: a policy fitted to labelled pairs of answers (a baseline)",
    RewardRule: "none: a policy climbs a scalar reward (a baseline)",
    RewardGameRule: "a policy and the reward model fitted to its answers (bilevel, general-sum)",
}

_TRAINERS = {
    "sppo": "sppo:SPPO",
    "mwu": "mirror_family:MWU",
    "omwu": "mirror_family:OMWU",
    "onpo": "mirror_family:ONPO",
    "omd": "mirror_family:OMD",
    "online-ipo-1": "mirror_family:OnlineIPO1",
    "online-ipo-2": "mirror_family:OnlineIPO2",
    "inpo": "mirror_family:INPO",
    "nash-md": "mirror_family:NashMD",
    "nash-md-pg": "mirror_family:NashMDPG",
    "self-play-pg": "mirror_family:SelfPlayPG",
    "mmd": "mirror_family:MMD",
    "mpo": "mirror_family:MPO",
    "egpo": "mirror_family:EGPO",
    "comal": "mirror_family:COMAL",
    "dpo": "contrastive:DPO",
    "ipo": "contrastive:IPO",
    "iterated-dpo": "contrastive:IteratedDPO",
    "iterated-ipo": "contrastive:IteratedIPO",
    "online-dpo": "contrastive:OnlineDPO",
    "reinforce": "reward_gradient:Reinforce",
    "rloo": "reward_gradient:RLOO",
    "ppo": "ppo:PPO",
    "sta-naive": "reward_game:STANaive",
    "sta-total": "reward_game:STATotal",
    "simultaneous": "reward_game:Simultaneous",
    "reversed": "reward_game:Reversed",
    "parl": "reward_game:PARL",
    "rlhf": "reward_game:RLHF",
    "slhf": "slhf:SLHF",
}
"""Name -> module of `equilign.trainers` and the class names without Trainer and Config."""

_LIGHTLY_TESTED = frozenset({"simultaneous", "reversed", "parl"})
"""Their rounds are checked against independent arithmetic; where they settle is promised nowhere,
or not tested."""


def _method(rule: Rule | RewardRule) -> Method:
    where = _TRAINERS.get(rule.name)
    trained = f"equilign.trainers.{where}" if where else None
    plays = (MATRIX,) if rule.name in RULES else ()
    return Method(
        name=rule.name,
        title=rule.title,
        game=_GAMES[type(rule)],
        paper=rule.paper,
        converges_to=rule.converges_to,
        maturity="lightly tested" if rule.name in _LIGHTLY_TESTED else "verified",
        plays=plays if trained is None else (*plays, LANGUAGE_MODEL),
        trainer=trained and f"{trained}Trainer",
        config=trained and f"{trained}Config",
    )


METHODS: dict[str, Method] = {
    name: _method(rule) for name, rule in {**RULES, **REWARD_RULES}.items()
}
"""Name -> method: every rule of `equilign.rules`."""

TRAINED: dict[str, Method] = {m.name: m for m in METHODS.values() if m.trainer is not None}
"""Those that train language models."""


def get_method(name: str) -> Method:
    """The method called ``name``.

    Raises:
        ConfigError: there is none; lists those there are.
    """
    if name not in METHODS:
        raise ConfigError(f"no method {name!r}; there are: {', '.join(sorted(METHODS))}")
    return METHODS[name]
