"""From the words of a command line to the options of each rule's family."""

import difflib
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from typing import Any

from equilign.errors import ConfigError, EquilignError
from equilign.games import PreferenceGame
from equilign.games.loading import read_policy
from equilign.play.options import PlayOptions, decreasing
from equilign.play.play import FAMILIES
from equilign.rules import RULES, Rule

ALL = "all"
DECREASING = "decreasing"
_NOT_ON_THE_COMMAND_LINE = ("progress",)


def chosen_rules(names: Sequence[str]) -> list[Rule]:
    """The rules of these names, each once; ``all`` stands for every one.

    Raises:
        ConfigError: no such rule; lists those there are.
    """
    rules: dict[str, Rule] = {}
    for name in names:
        if name == ALL:
            rules |= RULES
            continue
        if name not in RULES:
            near = difflib.get_close_matches(name, RULES, n=1)
            hint = f"did you mean {near[0]!r}? There" if near else "there"
            raise ConfigError(f"no rule {name!r}; {hint} are: {', '.join([ALL, *RULES])}")
        rules[name] = RULES[name]
    return list(rules.values())


def settings(texts: Sequence[str]) -> dict[tuple[str, str], str]:
    """``RULE.OPTION=VALUE`` as ``(rule, option): value``.

    Raises:
        ConfigError: it does not look like that.
    """
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        rule, dot, option = key.strip().partition(".")
        if not (equals and dot and rule and option and value.strip()):
            raise ConfigError(
                f"--set {text!r} is not understood; write RULE.OPTION=VALUE, as in mwu.eta=0.1"
            )
        found[rule, option.replace("-", "_")] = value.strip()
    return found


def options_of(
    rules: Sequence[Rule],
    game: PreferenceGame,
    common: Mapping[str, str | int | float],
    own: Mapping[tuple[str, str], str],
) -> dict[str, dict[str, Any]]:
    """The options of every rule, checked before anything is played.

    Args:
        rules: to be played.
        game: what they play; its KL weight is theirs unless they get another.
        common: options for all of them.
        own: options for one of them, over the common ones.

    Raises:
        ConfigError: a rule that is not played, an option that its family has not, or a value
            that is out of range.
    """
    names = [rule.name for rule in rules]
    for name, option in own:
        if name not in names:
            raise ConfigError(
                f"--set {name}.{option}: {name!r} is not played; played are: {', '.join(names)}"
            )
    found = {}
    for rule in rules:
        mine = {option: value for (name, option), value in own.items() if name == rule.name}
        found[rule.name] = _checked(rule, game, {**common, **mine})
    return found


def family_options(rule: Rule) -> dict[str, Field[Any]]:
    """The options that this rule has on the command line, by name."""
    kind = FAMILIES[type(rule)][0]
    return {f.name: f for f in fields(kind) if f.name not in _NOT_ON_THE_COMMAND_LINE}


def _checked(
    rule: Rule, game: PreferenceGame, given: Mapping[str, str | int | float]
) -> dict[str, Any]:
    known = family_options(rule)
    options: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            elsewhere = any(name in family_options(other) for other in RULES.values())
            cure = f". Give it to rules that have it: --set RULE.{name}={value}"
            raise ConfigError(
                f"{rule.name} has no option {name!r}; it has: {', '.join(known)}"
                f"{cure if elsewhere else ''}"
            )
        try:
            options[name] = _value(value, known[name], game)
        except EquilignError as error:
            raise type(error)(f"{rule.name}: {error}") from None
    if options.get("eta") == DECREASING:
        options["eta"] = _decreasing(rule, known["eta"], options.get("beta"), game.beta)
    try:
        made: PlayOptions = FAMILIES[type(rule)][0](**options)
        made.recorded()
    except ConfigError as error:
        raise ConfigError(f"{rule.name}: {error}") from None
    if made.seed < 0:
        raise ConfigError(f"{rule.name}: seed = {made.seed}; it must be >= 0")
    if made.tolerance is not None and not (math.isfinite(made.tolerance) and made.tolerance >= 0):
        raise ConfigError(
            f"{rule.name}: tolerance = {made.tolerance}; a duality gap, finite and >= 0"
        )
    return options


def _value(value: str | int | float, option: Field[Any], game: PreferenceGame) -> Any:  # noqa: ANN401
    """A text as what the option's annotation asks for; numbers are taken as they are."""
    if not isinstance(value, str):
        return value
    kinds = _kinds(option.type)
    if value == DECREASING and option.name == "eta":
        return value
    if str in kinds:  # a start: a word or a policy
        return value if value.isalpha() else read_policy(value, game.names)
    whole = int in kinds
    try:
        return int(value) if whole else float(value)
    except ValueError:
        expected = "whole number" if whole else "number"
        also = ", nor 'decreasing'" if option.name == "eta" else ""
        raise ConfigError(f"{option.name} = {value!r} is no {expected}{also}") from None


def _kinds(annotation: Any) -> tuple[Any, ...]:  # noqa: ANN401 - any annotation
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return typing.get_args(annotation)
    return (annotation,)


def _decreasing(
    rule: Rule, option: Field[Any], own_beta: float | None, game_beta: float
) -> Callable[[int], float]:
    if not any(typing.get_origin(kind) is not None for kind in _kinds(option.type)):
        raise ConfigError(f"{rule.name} takes a constant eta only; give a number")
    beta = game_beta if own_beta is None else own_beta
    if not beta > 0.0:
        raise ConfigError(
            f"{rule.name}: --eta decreasing is 2 / (beta (t + 2)) and needs a KL weight; "
            "give --beta or --rule-beta"
        )
    return decreasing(beta)
