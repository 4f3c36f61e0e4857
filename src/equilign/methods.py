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
    RULES,
    LeaderFollowerRule,
    MirrorRule,
    RewardGameRule,
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
    RewardGameRule: "a policy and the reward model fitted to its answers (bilevel, general-sum)",
}

_TRAINERS = {"sppo": ("equilign.trainers.sppo:SPPOTrainer", "equilign.trainers.sppo:SPPOConfig")}

_LIGHTLY_TESTED = frozenset({"simultaneous", "reversed", "parl"})
"""Their rounds are checked against independent arithmetic; where they settle is promised nowhere,
or not tested."""


def _method(rule: Rule) -> Method:
    trainer, config = _TRAINERS.get(rule.name, (None, None))
    return Method(
        name=rule.name,
        title=rule.title,
        game=_GAMES[type(rule)],
        paper=rule.paper,
        converges_to=rule.converges_to,
        maturity="lightly tested" if rule.name in _LIGHTLY_TESTED else "verified",
        plays=(MATRIX,) if trainer is None else (MATRIX, LANGUAGE_MODEL),
        trainer=trainer,
        config=config,
    )


METHODS: dict[str, Method] = {name: _method(rule) for name, rule in RULES.items()}
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
