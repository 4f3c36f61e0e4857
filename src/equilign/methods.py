"""Every language-model method by name, importable without torch.

A method is a rule plus a trainer; this table is what the command line, the documentation and the
tests go by. Adding a method adds one entry and no `if` anywhere.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from equilign.errors import ConfigError
from equilign.rules import MIRROR_RULES


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: as on the command line.
        title: as in prose.
        game: what is played.
        paper: where it is from.
        converges_to: what the theory promises.
        maturity: ``verified`` (follows the exact game in a test), ``lightly tested``.
        trainer: ``module:class``.
        config: ``module:class``.
    """

    name: str
    title: str
    game: str
    paper: str
    converges_to: str
    maturity: str
    trainer: str
    config: str

    def load(self) -> tuple[Any, Any]:
        """Trainer and configuration class; imports torch."""
        return _load(self.trainer), _load(self.config)


def _load(where: str) -> Any:  # noqa: ANN401 - a class
    module, name = where.split(":")
    return vars(import_module(module))[name]


def _mirror(name: str, maturity: str) -> Method:
    rule = MIRROR_RULES[name]
    return Method(
        name=name,
        title=rule.title,
        game="the policy plays itself (simultaneous, zero-sum)",
        paper=rule.paper,
        converges_to=rule.converges_to,
        maturity=maturity,
        trainer=f"equilign.trainers.{name}:{rule.title}Trainer",
        config=f"equilign.trainers.{name}:{rule.title}Config",
    )


METHODS: dict[str, Method] = {m.name: m for m in (_mirror("sppo", "verified"),)}


def get_method(name: str) -> Method:
    """The method called ``name``.

    Raises:
        ConfigError: there is none; lists those there are.
    """
    if name not in METHODS:
        raise ConfigError(f"no method {name!r}; there are: {', '.join(sorted(METHODS))}")
    return METHODS[name]
