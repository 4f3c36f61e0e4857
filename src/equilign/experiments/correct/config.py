"""Options of a correction matrix."""

from dataclasses import dataclass, field, fields
from typing import Any

from equilign.errors import ConfigError
from equilign.experiments.refine.config import RefineConfig


def _help(text: str) -> dict[str, str]:
    return {"help": text}


def _as_refine(name: str) -> Any:  # noqa: ANN401 - a dataclass field
    """The option that `equilign refine` has under that name."""
    given = next(f for f in fields(RefineConfig) if f.name == name)
    return field(default=given.default, metadata=given.metadata)


@dataclass(frozen=True, kw_only=True)
class CorrectConfig:
    """Whose answers, who improves them; every attribute's help is what the command line shows.

    Raises:
        ConfigError: nobody leads or follows, somebody is named twice, or a number out of range.
    """

    prompts: str = field(metadata=_help("Prompts: a data file, or 'shipped'."))
    oracle: str = field(
        metadata=_help(
            "Who judges: a YAML file with a specification, the specification itself, or a fitted "
            "judge's folder."
        )
    )
    leader: tuple[str, ...] = field(
        default=(), metadata=_help("Whose answers: a model, as of refine. Repeat.")
    )
    follower: tuple[str, ...] = field(
        default=(), metadata=_help("Who improves them: a model, as of refine. Repeat.")
    )
    num_samples: int = _as_refine("num_samples")
    instruction: str | None = _as_refine("instruction")
    template: str | None = _as_refine("template")
    chat: bool = _as_refine("chat")
    max_prompts: int | None = _as_refine("max_prompts")
    temperature: float = _as_refine("temperature")
    top_p: float = _as_refine("top_p")
    max_new_tokens: int = _as_refine("max_new_tokens")
    max_prompt_tokens: int | None = _as_refine("max_prompt_tokens")
    batch_size: int = _as_refine("batch_size")
    chunk_size: int = _as_refine("chunk_size")
    dtype: str = _as_refine("dtype")
    device: str | None = _as_refine("device")
    seed: int = _as_refine("seed")
    download: bool = _as_refine("download")

    def __post_init__(self) -> None:
        for role in ("leader", "follower"):
            names = getattr(self, role)
            if not names:
                raise ConfigError(f"nobody {role[:-2]}s: give --{role} MODEL, once or more often")
            twice = next((n for n in names if names.count(n) > 1), None)
            if twice is not None:
                raise ConfigError(f"--{role} {twice} is given twice")
        if self.prompts == "-":
            raise ConfigError(
                "--prompts - can be read once only; every pair needs them: give a file"
            )
        self.pair(0, 0)  # its numbers are checked there

    def pair(self, follower: int, leader: int) -> RefineConfig:
        """One round of refinement of a Leader's answers by a Follower.

        The Leader's answers depend on the seed alone, so every Follower is shown the same ones.
        """
        same = {f.name: getattr(self, f.name) for f in fields(self)}
        names = {"leader": self.leader[leader], "follower": self.follower[follower]}
        return RefineConfig(**{**same, **names, "rounds": 1, "keep": "all"})
