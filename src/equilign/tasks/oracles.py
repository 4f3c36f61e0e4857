"""The judges of the ready-made tasks as oracle specifications.

| kind | options |
|---|---|
| `word-collector` | `words`, `rationality` |
| `constrained-word-collector` | `words`, `rationality` |
| `unique-nouns` | `tagger` (shipped, nltk), `rationality` |
| `prospect` | `of` (a specification that scores), `reference`, `curvature`, `loss_aversion`, `rationality` |
"""  # noqa: E501

from collections.abc import Callable, Mapping
from typing import Any

from equilign.errors import ConfigError
from equilign.oracles import Oracle
from equilign.oracles.build import Builder, Context
from equilign.tasks.unique_nouns import UniqueNouns
from equilign.tasks.utilities import ProspectOracle
from equilign.tasks.word_collector import WordCollector


def _made(
    kind: str, make: Callable[..., Oracle], options: Mapping[str, Any], *known: str
) -> Oracle:
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ConfigError(
            f"oracle of kind {kind!r} has no option {unknown[0]!r}; it has {', '.join(known)}"
        )
    number = next((n for n in _NUMBERS if n in options and not _number(options[n])), None)
    if number is not None:
        raise ConfigError(
            f"oracle of kind {kind!r}: {number} = {options[number]!r}; it must be a number"
        )
    return make(**options)


_NUMBERS = ("rationality", "reference", "curvature", "loss_aversion")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _collector(kind: str, *, constrained: bool) -> Builder:
    def build(options: Mapping[str, Any], context: Context) -> Oracle:
        words = options.get("words")
        if words is not None and not (
            isinstance(words, list) and all(isinstance(word, str) for word in words)
        ):
            raise ConfigError(f"oracle of kind {kind!r}: words = {words!r}; give a list of words")

        def make(**given: Any) -> Oracle:  # noqa: ANN401
            return WordCollector(constrained=constrained, **given)

        return _made(kind, make, options, "words", "rationality")

    return build


def _nouns(options: Mapping[str, Any], context: Context) -> Oracle:
    return _made("unique-nouns", UniqueNouns, options, "tagger", "rationality")


def _prospect(options: Mapping[str, Any], context: Context) -> Oracle:
    if not isinstance(options.get("of"), Mapping):
        raise ConfigError(
            "oracle of kind 'prospect' needs 'of', a specification of an oracle that scores, "
            "such as {kind: word-collector}"
        )
    given = {**options, "of": context.build(options["of"])}
    known = ("of", "reference", "curvature", "loss_aversion", "rationality")
    return _made("prospect", ProspectOracle, given, *known)


TASK_ORACLES: dict[str, Builder] = {
    "word-collector": _collector("word-collector", constrained=False),
    "constrained-word-collector": _collector("constrained-word-collector", constrained=True),
    "unique-nouns": _nouns,
    "prospect": _prospect,
}
"""Kind -> builder, for `equilign.oracles.build.build_oracle`."""
