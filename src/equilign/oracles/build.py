"""Oracles from a specification, as it stands in a YAML file.

| kind | options |
|---|---|
| `reward`, `pairwise`, `general` | `path` (folder or hub name), and the judge's own |
| `ensemble` | `members` (name -> specification), `weights` |
| `panel` | `attributes` (name -> specification that scores, or a function), `weights` |
| `python` | `function` ("module:name" or "file.py:name"), `returns`, `scale` |
| `llm` | as `equilign.oracles.llm_judge.LLMJudge` |
| `human` | as `equilign.oracles.Human` |
| `tabular` | `game` (name, file or matrix) or `games` (prompt -> game), `texts` |

Any of them may have `cache`, a SQLite file that keeps every verdict. Paths are relative to the file
that holds the specification.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from equilign.errors import ConfigError, EquilignError
from equilign.oracles.base import Oracle, ScoredOracle
from equilign.oracles.ensemble import Ensemble
from equilign.oracles.functions import oracle_from_function
from equilign.oracles.panel import Attribute, Panel
from equilign.oracles.tabular import TabularOracle

Options = Mapping[str, Any]
Builder = Callable[[Options, "Context"], Oracle]
"""Makes an oracle from a specification without its ``kind`` and ``cache``."""


@dataclass(frozen=True)
class Context:
    """What a builder needs beside its options.

    Attributes:
        base: folder that relative paths start from.
        extra: further kinds.
    """

    base: Path
    extra: Mapping[str, Builder] = field(default_factory=dict)

    def build(self, spec: Options) -> Oracle:
        """The oracle of a nested specification."""
        return build_oracle(spec, self.base, self.extra)

    def place(self, path: str) -> Path:
        """A path of the specification, relative to `base`."""
        given = Path(path).expanduser()
        return given if given.is_absolute() else self.base / given


def build_oracle(spec: Options, base: Path, extra: Mapping[str, Builder] | None = None) -> Oracle:
    """The oracle that a specification describes.

    Args:
        spec: ``kind``, that kind's options, and maybe ``cache``.
        base: folder that relative paths start from.
        extra: further kinds, name -> builder; the oracles of a task, say.

    Raises:
        ConfigError: an unknown kind or option (with the nearest names), or one that is missing
            or malformed.
        ModelError: a judge that cannot be loaded.
    """
    context = Context(Path(base), {} if extra is None else extra)
    if not isinstance(spec, Mapping):
        raise ConfigError(f"an oracle is given as a mapping with a 'kind'; got {spec!r}")
    builders = {**KINDS, **context.extra}
    kind = spec.get("kind")
    if kind not in builders:
        raise ConfigError(f"oracle: {_unknown('kind', kind, builders)}")
    options = {k: v for k, v in spec.items() if k not in ("kind", "cache")}
    oracle = builders[kind](options, context)
    cache = spec.get("cache")
    return oracle if cache is None else _cached(oracle, spec, str(cache), context)


def _cached(oracle: Oracle, spec: Options, cache: str, context: Context) -> Oracle:
    from equilign.oracles.cache import CachedOracle

    key = spec_key({k: v for k, v in spec.items() if k != "cache"}, context.base)
    made: Oracle = CachedOracle(oracle, context.place(cache), key)
    return made


def spec_key(spec: Options, base: Path) -> str:
    """A name of the judge that a specification describes, the content of its files included.

    Files of up to 32 MB count whole, larger ones with their size, beginning and end.
    """
    found: list[str] = []

    def visit(value: Any) -> None:  # noqa: ANN401
        if isinstance(value, Mapping):
            for item in value.values():
                visit(item)
        elif isinstance(value, list):
            for item in value:
                visit(item)
        elif isinstance(value, str) and 0 < len(value) < 1000 and "\n" not in value:
            name = value.rpartition(":")[0] or value  # "file.py:function"
            found.extend(_fingerprint(base / Path(name).expanduser()))

    visit(spec)
    text = json.dumps([spec, found], sort_keys=True, default=str)
    return f"{spec.get('kind')}-{blake2b(text.encode(), digest_size=12).hexdigest()}"


_WHOLE = 32_000_000


def _fingerprint(path: Path) -> list[str]:
    if path.is_file():
        files = [path]
    elif (path / "config.json").is_file() or (path / "judge" / "config.json").is_file():
        folder = path if (path / "config.json").is_file() else path / "judge"
        files = sorted(p for p in folder.iterdir() if p.is_file())
    else:
        return []
    return [f"{p.name} {file_digest(p)}" for p in files]


def file_digest(path: Path) -> str:
    """Of a file's content; of one above 32 MB, of its size, beginning and end."""
    size = path.stat().st_size
    digest = blake2b(str(size).encode(), digest_size=12)
    with path.open("rb") as handle:
        if size <= _WHOLE:
            digest.update(handle.read())
        else:
            digest.update(handle.read(_WHOLE // 2))
            handle.seek(-_WHOLE // 2, 2)
            digest.update(handle.read())
    return digest.hexdigest()


def _unknown(what: str, name: object, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    names = sorted(known)
    near = get_close_matches(str(name), names, n=2)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    missing = f"no {what} is given" if name is None else f"there is no {what} {name!r}"
    return f"{missing}.{hint} There are: {', '.join(names)}"


def _check(kind: str, options: Options, required: tuple[str, ...], others: tuple[str, ...]) -> None:
    known = (*required, *others)
    for name in options:
        if name not in known:
            raise ConfigError(
                f"oracle of kind {kind!r}: {_unknown('option', name, (*known, 'cache'))}"
            )
    missing = [name for name in required if options.get(name) is None]
    if missing:
        raise ConfigError(f"oracle of kind {kind!r} needs {', '.join(map(repr, missing))}")


# -- the kinds -----------------------------------------------------------------------------

_JUDGE = (
    "dtype",
    "device",
    "batch_size",
    "allow_download",
    "prompt_format",
    "scale",
    "max_length",
    "template",
)


def _judge(kind: str) -> Builder:
    def build(options: Options, context: Context) -> Oracle:
        _check(kind, options, ("path",), _JUDGE)
        from equilign.oracles.general_preference import JUDGES, judge_folder

        path = context.place(str(options["path"]))
        source = str(judge_folder(path)) if path.exists() else str(options["path"])
        rest = {k: v for k, v in options.items() if k != "path"}
        judge: Oracle = JUDGES[kind].from_pretrained(source, **rest)
        return judge

    return build


def _named_specs(kind: str, name: str, options: Options) -> Mapping[str, Any]:
    value = options[name]
    if isinstance(value, list):
        value = {str(i): item for i, item in enumerate(value, 1)}
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(
            f"oracle of kind {kind!r}: {name!r} must map names to specifications; got {value!r}"
        )
    return {str(k): v for k, v in value.items()}


def _ensemble(options: Options, context: Context) -> Oracle:
    _check("ensemble", options, ("members",), ("weights",))
    members = _named_specs("ensemble", "members", options)
    return Ensemble({n: context.build(s) for n, s in members.items()}, options.get("weights"))


def _panel(options: Options, context: Context) -> Oracle:
    _check("panel", options, ("attributes",), ("weights",))
    attributes = []
    for name, spec in _named_specs("panel", "attributes", options).items():
        nested = {"kind": "python", "function": spec} if isinstance(spec, str) else spec
        oracle = context.build(nested)
        if not isinstance(oracle, ScoredOracle):
            raise ConfigError(
                f"attribute {name!r} of the panel only compares; a panel needs something that "
                "scores each answer: a reward model, or a function of (prompts, answers)"
            )
        learned = nested.get("kind") == "reward"
        attributes.append(Attribute(name, oracle.score, kind="learned" if learned else "rule"))
    return Panel(attributes, options.get("weights") or {})


def _python(options: Options, context: Context) -> Oracle:
    _check("python", options, ("function",), ("returns", "scale"))
    rest = {k: v for k, v in options.items() if k != "function"}
    return oracle_from_function(str(options["function"]), context.base, **rest)


def _llm(options: Options, context: Context) -> Oracle:
    from equilign.oracles.llm_judge import LLMJudge

    # The judge checks its own options, which are many; a clock is for its tests.
    if options.get("model") is None:
        raise ConfigError("oracle of kind 'llm' needs 'model'")
    if "clock" in options:
        raise ConfigError("oracle of kind 'llm': there is no option 'clock'")
    return LLMJudge(**options)


def _human(options: Options, context: Context) -> Oracle:
    from equilign.oracles.human import Human

    _check("human", options, ("database",), ("min_answers", "enough", "timeout", "budget", "poll"))
    rest = {k: v for k, v in options.items() if k != "database"}
    return Human(context.place(str(options["database"])), **rest)


def _tabular(options: Options, context: Context) -> Oracle:
    from equilign.games import PreferenceGame

    _check("tabular", options, (), ("game", "games", "texts"))
    if (options.get("game") is None) == (options.get("games") is None):
        raise ConfigError("oracle of kind 'tabular' needs 'game', or 'games' with one per prompt")

    def game(value: Any) -> PreferenceGame:  # noqa: ANN401
        if isinstance(value, str):
            from equilign.games.loading import load_game

            path = context.place(value)
            return load_game(path if path.exists() else value)
        try:
            return PreferenceGame(np.asarray(value, dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise (
                error
                if isinstance(error, EquilignError)
                else ConfigError(
                    f"oracle of kind 'tabular': {value!r} is no matrix of win probabilities"
                )
            ) from error

    games = options.get("games")
    made = game(options["game"]) if games is None else {str(p): game(g) for p, g in games.items()}
    first = next(iter(made.values())) if isinstance(made, dict) else made
    texts = options.get("texts") or first.labels
    if texts is None:
        raise ConfigError("oracle of kind 'tabular': the game has no labels, so give 'texts'")
    return TabularOracle([str(t) for t in texts], made)


KINDS: dict[str, Builder] = {
    "reward": _judge("reward"),
    "pairwise": _judge("pairwise"),
    "general": _judge("general"),
    "ensemble": _ensemble,
    "panel": _panel,
    "python": _python,
    "llm": _llm,
    "human": _human,
    "tabular": _tabular,
}
"""Kind -> builder."""
