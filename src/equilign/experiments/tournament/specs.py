"""Contestants as a user writes them: ``NAME=SPEC``."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from equilign.errors import ConfigError
from equilign.experiments.options import check_options
from equilign.experiments.tournament.config import TournamentConfig, check_sampling
from equilign.text import visible

FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Endings of files of answers, each but the last also with .gz."""
_LONGEST = 60
_SAMPLING = ("temperature", "top_p", "max_new_tokens", "num_samples")


@dataclass(frozen=True, kw_only=True)
class PlayerSpec:
    """Who answers; exactly one of ``answers``, ``model`` and ``leader`` with ``follower``.

    Attributes:
        answers: a file with prompts and answers.
        model: as ``--leader`` of `equilign refine`; a folder with a Leader and a Follower is
            both of them.
        role: ``pair`` lets a Follower that is there improve the answers; ``leader`` does not.
        leader: who answers first.
        follower: who improves its answers.
        rounds: how often the Follower improves an answer.
        url: the model is on this OpenAI-compatible server (.../v1).
        tokenizer: of a model on a server; its name by default.
        server: further options of the server, such as ``api_key_env``.
        instruction: what the Follower is asked; as it was trained, by default.
        template: the Follower's prompt where prompts are plain text.
        temperature: in place of the tournament's, as the next three.
        top_p: nucleus mass.
        max_new_tokens: length limit.
        num_samples: answers to each prompt.
    """

    answers: str | None = None
    model: str | None = None
    role: Literal["pair", "leader"] = "pair"
    leader: str | None = None
    follower: str | None = None
    rounds: int = 1
    url: str | None = None
    tokenizer: str | None = None
    server: dict[str, Any] = field(default_factory=dict)
    instruction: str | None = None
    template: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_new_tokens: int | None = None
    num_samples: int | None = None

    def __post_init__(self) -> None:
        given = [n for n in ("answers", "model", "leader") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ConfigError(
                "a player is one of: answers (a file), model, or leader with follower; got "
                f"{' and '.join(given) or 'none of them'}"
            )
        if (self.leader is None) != (self.follower is None):
            raise ConfigError("leader and follower go together; a model alone is given as model")
        if self.url is None and (self.server or self.tokenizer):
            raise ConfigError("tokenizer and server are for a model on a server: add url")
        if self.url is not None and self.model is None:
            raise ConfigError("url is for a model on a server: add model, its name there")
        if self.rounds < 1:
            raise ConfigError(f"rounds = {self.rounds}; it must be >= 1")
        own = self.sampling()
        if self.answers is not None and own:
            raise ConfigError(f"{next(iter(own))} has no effect on a file of answers")
        for name in ("max_new_tokens", "num_samples"):
            if own.get(name, 1) < 1:
                raise ConfigError(f"{name} = {own[name]}; it must be >= 1")
        check_sampling(own)

    def sampling(self) -> dict[str, Any]:
        """What it says of how answers are drawn."""
        found = {name: getattr(self, name) for name in _SAMPLING}
        return {name: value for name, value in found.items() if value is not None}

    def settings(self) -> dict[str, Any]:
        """What was said, without what was not."""
        blank = PlayerSpec(model="")
        return {k: v for k, v in asdict(self).items() if v != getattr(blank, k)}


@dataclass(frozen=True)
class Entry:
    """A player with its name.

    Attributes:
        name: in all results; also of its file.
        spec: who it is.
    """

    name: str
    spec: PlayerSpec

    @property
    def source(self) -> str:
        """Where the answers come from, in a word."""
        s = self.spec
        if s.leader is not None:
            return f"{s.leader} improved by {s.follower}"
        return str(s.answers or s.model)


def read_players(config: TournamentConfig) -> list[Entry]:
    """The players of the options.

    Raises:
        ConfigError: fewer than two, two of one name, or a specification that is none.
    """
    if len(config.player) < 2:
        raise ConfigError(
            f"a tournament needs two players or more; got {len(config.player)}. Give --player "
            "NAME=SPEC for each, such as --player start=shipped --player sppo=runs/sppo"
        )
    entries = [read_player(text) for text in config.player]
    check_names(entries)
    return entries


def read_player(text: str, option: str = "--player") -> Entry:
    """One ``NAME=SPEC``, or a SPEC that is named after what it is.

    Args:
        text: what the user wrote.
        option: after which option.

    Raises:
        ConfigError: it is malformed; says where.
    """
    name, spec_text = _split(text)
    where = f"{option} {text!r}"
    if not spec_text.strip():
        raise ConfigError(f"{where}: nothing stands after the name; write NAME=SPEC")
    try:
        spec = PlayerSpec(**_options(spec_text.strip(), where))
    except ConfigError as error:
        message = str(error)
        raise ConfigError(message if message.startswith("--") else f"{where}: {message}") from None
    return Entry(_check_name(name or _named_after(spec), where), spec)


def _split(text: str) -> tuple[str, str]:
    head, sign, tail = text.partition("=")
    path = Path(text).expanduser()
    is_path = any(c in head for c in "/\\{:") or (len(text) < 1000 and path.exists())
    return ("", text) if not sign or is_path else (head.strip(), tail)


def _options(text: str, where: str) -> dict[str, Any]:
    if not text.startswith("{"):
        return {"answers" if is_answers_file(text) else "model": text}
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {error}") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: write a mapping, such as '{{model: shipped, top_p: 0.9}}'")
    return check_options(PlayerSpec, values, "player")


def is_answers_file(text: str) -> bool:
    """Whether a word names a data file rather than a model."""
    path = Path(text).expanduser()
    return text.removesuffix(".gz").endswith(FILES) and not path.is_dir()


def _named_after(spec: PlayerSpec) -> str:
    what = str(spec.answers or spec.model or spec.follower)
    name = Path(what).expanduser().name or what
    if spec.answers is not None:
        name = name.removesuffix(".gz")
        return name.removesuffix(Path(name).suffix)
    return name


def _check_name(name: str, where: str) -> str:
    bad = not name or len(name) > _LONGEST or visible(name, newlines=False) != name
    if bad or name.startswith(".") or any(c in name for c in '/\\"<>|*?:'):
        raise ConfigError(
            f"{where}: {name!r} cannot be a player's name; write NAME=SPEC with a name of up to "
            f"{_LONGEST} characters that a file can have"
        )
    return name


def check_names(entries: Sequence[Entry], option: str = "--player") -> None:
    """Raise if two players have one name.

    Raises:
        ConfigError: names both.
    """
    seen: dict[str, Entry] = {}
    for entry in entries:
        # Files of some systems do not tell upper from lower case.
        other = seen.setdefault(entry.name.casefold(), entry)
        if other is not entry:
            raise ConfigError(
                f"two players are called {entry.name!r} ({other.source} and {entry.source}); "
                f"give each a name of its own: {option} NAME=SPEC"
            )
