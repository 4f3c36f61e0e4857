"""Options of a measurement of distances."""

from dataclasses import dataclass, field, fields
from typing import Any

from equilign.errors import ConfigError
from equilign.experiments.refine.config import RefineConfig
from equilign.experiments.tournament.config import TournamentConfig
from equilign.experiments.tournament.specs import Entry, PlayerSpec, check_names, read_player

START = "start"
"""The start model's name in messages."""
_OPTION = "--model"
_SAME = (
    *("prompts", "chat", "max_prompts", "num_samples", "max_new_tokens", "max_prompt_tokens"),
    *("batch_size", "chunk_size", "dtype", "device", "seed", "download"),
)
_FIXED = ("temperature", "top_p")
_OTHERS = ("max_new_tokens", "num_samples")


def _help(text: str) -> dict[str, str]:
    return {"help": text}


def _as_refine(name: str) -> Any:  # noqa: ANN401 - a dataclass field
    """The option that `equilign refine` has under that name."""
    given = next(f for f in fields(RefineConfig) if f.name == name)
    return field(default=given.default, metadata=given.metadata)


@dataclass(frozen=True, kw_only=True)
class KLConfig:
    """Who is how far from whom; every attribute's help is what the command line shows.

    There is no temperature and no top-p: the estimators are unbiased at 1 and 1 alone.

    Raises:
        ConfigError: an option is out of range.
    """

    model: tuple[str, ...] = field(
        default=(),
        metadata=_help(
            "NAME=SPEC, or SPEC alone; repeat. A model (folder, run directory, checkpoint, "
            "adapter, 'shipped', hub name), a folder with a Leader and a Follower, or a mapping "
            "such as '{leader: MODEL, follower: MODEL}'."
        ),
    )
    start: str = field(metadata=_help("The model that they are compared with, given alike."))
    prompts: str = field(metadata=_help("Prompts: a data file, or 'shipped'."))
    num_samples: int = field(default=2, metadata=_help("Answers of a model to each prompt."))
    chat: bool = _as_refine("chat")
    max_prompts: int | None = _as_refine("max_prompts")
    max_new_tokens: int = _as_refine("max_new_tokens")
    max_prompt_tokens: int | None = _as_refine("max_prompt_tokens")
    batch_size: int = field(default=64, metadata=_help("Answers generated, and read, together."))
    chunk_size: int = field(
        default=64, metadata=_help("Prompts worked on together; a stop loses at most so many.")
    )
    dtype: str = _as_refine("dtype")
    device: str | None = _as_refine("device")
    seed: int = _as_refine("seed")
    download: bool = _as_refine("download")

    def __post_init__(self) -> None:
        self.sampling()  # its numbers are checked there

    def sampling(self) -> TournamentConfig:
        """The same as options of a tournament, whose players answer in the same way."""
        same = {name: getattr(self, name) for name in _SAME}
        return TournamentConfig(oracle="none", temperature=1.0, top_p=1.0, **same)

    def settings(self) -> dict[str, Any]:
        """What decides the result, models excepted, as plain values."""
        return {f: getattr(self, f) for f in _SAME if f != "download"}


def read_models(config: KLConfig) -> list[Entry]:
    """The models of the options.

    Raises:
        ConfigError: there is none, two have one name, or a specification is none of a model here.
    """
    if not config.model:
        raise ConfigError(f"which models? Give {_OPTION} NAME=SPEC, once or more often")
    entries = [read_player(text, _OPTION) for text in config.model]
    check_names(entries, _OPTION)
    for entry in entries:
        _check(entry)
    return entries


def start_entry(config: KLConfig) -> Entry:
    """The start model as a player."""
    return Entry(START, PlayerSpec(model=config.start, role="leader"))


def _check(entry: Entry) -> None:
    spec, where = entry.spec, f"{_OPTION} {entry.name}"
    if spec.answers is not None:
        raise ConfigError(
            f"{where}: {spec.answers} is a file of answers; its writer's probabilities are needed. "
            "Give the model"
        )
    if spec.url is not None:
        raise ConfigError(
            f"{where}: a server does not tell whole distributions of tokens; give the model's "
            "folder, or its name on the hub with --download"
        )
    given = spec.sampling()
    if fixed := next((n for n in _FIXED if n in given), None):
        raise ConfigError(
            f"{where}: {fixed} cannot be set; the estimators are unbiased at temperature 1 and "
            "top_p 1 alone"
        )
    if other := next((n for n in _OTHERS if n in given), None):
        option = other.replace("_", "-")
        raise ConfigError(f"{where}: {other} is the same for all models; give --{option}")
    if spec.rounds != 1:
        raise ConfigError(f"{where}: rounds = {spec.rounds}; the Follower is asked once here")
