"""Options of a tournament."""

from dataclasses import asdict, dataclass, field
from typing import Any

from equilign.errors import ConfigError
from equilign.experiments.refine.config import DTYPES


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True, kw_only=True)
class TournamentConfig:
    """Who plays, on what, and who judges; each attribute's help is what the command line shows.

    Raises:
        ConfigError: an option is out of range.
    """

    player: tuple[str, ...] = field(
        default=(),
        metadata=_help(
            "NAME=SPEC, or SPEC alone; repeat. A model (folder, run directory, checkpoint, "
            "adapter, 'shipped', hub name), a folder with a Leader and a Follower, a file of "
            "answers, or a mapping such as '{model: shipped, temperature: 0.5}'."
        ),
    )
    oracle: str = field(
        metadata=_help(
            "Who judges: a YAML file with a specification, the specification itself "
            "('restaurant', '{kind: reward, path: FOLDER}'), or a fitted judge's folder."
        ),
    )
    prompts: str | None = field(
        default=None,
        metadata=_help(
            "A data file with prompts, or 'shipped'. Default: those of the first file of answers."
        ),
    )
    chat: bool = field(
        default=False, metadata=_help("Turn plain-text prompts into one user message of a chat.")
    )
    max_prompts: int | None = field(default=None, metadata=_help("The first so many only."))
    num_samples: int = field(default=1, metadata=_help("Answers of a model to each prompt."))
    temperature: float = field(default=1.0, metadata=_help("Of the softmax; 0 decodes greedily."))
    top_p: float = field(default=1.0, metadata=_help("Nucleus mass."))
    max_new_tokens: int = field(default=256, metadata=_help("Length limit of an answer."))
    max_prompt_tokens: int | None = field(
        default=None,
        metadata=_help("Length limit of what a model is shown. Default: what its positions leave."),
    )
    batch_size: int = field(default=64, metadata=_help("Answers generated together."))
    chunk_size: int = field(
        default=64, metadata=_help("Prompts answered together; a stop loses at most so many.")
    )
    dtype: str = field(default="float32", metadata=_help(f"Of weights: {', '.join(DTYPES)}."))
    device: str | None = field(
        default=None, metadata=_help("Such as cpu or cuda:1. Default: a GPU if there is one.")
    )
    seed: int = field(default=0, metadata=_help("Seed of everything."))
    download: bool = field(default=False, metadata=_help("Models may be fetched from the hub."))

    def __post_init__(self) -> None:
        least = dict.fromkeys(("num_samples", "max_new_tokens", "batch_size", "chunk_size"), 1) | {
            "seed": 0
        }
        least |= {
            n: 1 for n in ("max_prompts", "max_prompt_tokens") if getattr(self, n) is not None
        }
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"{name} = {getattr(self, name)}; it must be >= {bound}")
        check_sampling({"temperature": self.temperature, "top_p": self.top_p})
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype = {self.dtype!r}; there are: {', '.join(DTYPES)}")

    def settings(self) -> dict[str, Any]:
        """What decides the result, players and judge excepted, as plain values."""
        left_out = ("player", "oracle", "download")
        return {k: v for k, v in asdict(self).items() if k not in left_out}


def check_sampling(options: dict[str, Any]) -> None:
    """Raise if a temperature or a nucleus mass is out of range.

    Raises:
        ConfigError: names the option.
    """
    temperature, top_p = options.get("temperature", 1.0), options.get("top_p", 1.0)
    if not temperature >= 0.0:  # nan is refused, too
        raise ConfigError(f"temperature = {temperature}; it must be >= 0")
    if not 0.0 < top_p <= 1.0:
        raise ConfigError(f"top_p = {top_p}; it must be in (0, 1]")
