"""The configuration of `equilign train`: sections, defaults, help, and what a file may say."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from equilign.errors import ConfigError
from equilign.experiments.options import check_options, unknown_key
from equilign.games.records import excerpt

SHIPPED = "shipped"
STORIES = "stories"
PROMPT_SETS = (SHIPPED, STORIES)
"""Names of the package's own prompts: restaurants, and beginnings of stories."""
SECTIONS = ("model", "tokenizer", "dtype", "data", "oracle", "peft", "evaluation", "args")
"""What a configuration consists of; `METHOD`'s own options are in ``args``."""
_BESIDE = ("method", "base_dir", "output_dir")
_PATHS = {("model",), ("tokenizer",), ("data",), ("data", "train"), ("data", "eval")}


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True)
class DataConfig:
    """The data section.

    Raises:
        ConfigError: no file, or a share that is none.
    """

    train: str | list[str] = field(
        default="",
        metadata=_help(
            "Data file or folder, or a list of them; 'shipped' for the package's own prompts "
            "(restaurants), 'stories' for its beginnings of stories."
        ),
    )
    eval: str | list[str] | float | None = field(
        default=None,
        metadata=_help(
            "Held-out prompts: files, or a share of the prompts in `train` that are then not "
            "trained on. Default: 0.1, or the package's own held-out prompts for 'shipped' and "
            "'stories'."
        ),
    )
    split: str = field(
        default="train", metadata=_help("Split of `train`, where a folder holds several.")
    )
    eval_split: str = field(
        default="test", metadata=_help("Split of `eval`, where a folder holds several.")
    )
    chat: bool = field(
        default=False, metadata=_help("Turn plain-text prompts into one user message of a chat.")
    )

    def __post_init__(self) -> None:
        if not self.train or not all(isinstance(x, str) and x for x in _listed(self.train)):
            raise ConfigError(
                f"data.train is {excerpt(self.train)}; name a data file, a list of them, or "
                "'shipped' for the prompts that come with equilign (data: FILE says the same)"
            )
        if isinstance(self.eval, float) and not 0.0 <= self.eval < 1.0:
            raise ConfigError(f"data.eval = {self.eval}; a share of the prompts is in [0, 1)")


@dataclass(frozen=True)
class EvaluationConfig:
    """The evaluation section.

    Raises:
        ConfigError: a negative number.
    """

    num_samples: int = field(
        default=4,
        metadata=_help(
            "Answers per held-out prompt, from the start model and after every round; 0: none."
        ),
    )
    every: int = field(
        default=1, metadata=_help("Compare after every so many rounds, and after the last.")
    )
    max_prompts: int | None = field(
        default=None, metadata=_help("At most so many held-out prompts.")
    )
    oracle: dict[str, Any] | None = field(
        default=None,
        metadata=_help(
            "A second judge, which is not trained against; a specification like `oracle`."
        ),
    )

    def __post_init__(self) -> None:
        if self.num_samples < 0:
            raise ConfigError(f"evaluation.num_samples = {self.num_samples}; it must be >= 0")
        if self.every < 1:
            raise ConfigError(f"evaluation.every = {self.every}; it must be >= 1")
        if self.max_prompts is not None and self.max_prompts < 1:
            raise ConfigError(f"evaluation.max_prompts = {self.max_prompts}; it must be >= 1")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All of a training; everything here decides the result and is written to config.yaml."""

    method: str = field(default="", metadata=_help("As in `equilign methods`."))
    model: str = field(
        default="",
        metadata=_help("Model folder, 'shipped', or a name on the hub (with --download)."),
    )
    tokenizer: str | None = field(
        default=None, metadata=_help("Tokenizer folder or name; the model's by default.")
    )
    dtype: Literal["float32", "bfloat16", "float16"] = field(
        default="float32",
        metadata=_help("Of the weights; for mixed precision keep float32 and set args.bf16."),
    )
    data: DataConfig = field(metadata=_help("What is trained on."))
    oracle: dict[str, Any] | None = field(
        default=None,
        metadata=_help("Who judges: `kind` and that kind's options; see the oracles page."),
    )
    peft: dict[str, Any] | None = field(
        default=None, metadata=_help("Options of peft.LoraConfig; null trains all weights.")
    )
    evaluation: EvaluationConfig = field(
        default_factory=EvaluationConfig,
        metadata=_help("How the start model is compared with."),
    )
    args: dict[str, Any] = field(
        default_factory=dict, metadata=_help("Options of the method and of transformers.")
    )
    base_dir: str = field(
        default=".", metadata=_help("Folder that relative paths in this file start from.")
    )

    def settings(self) -> dict[str, Any]:
        """As plain nested values; a file with them is the same configuration."""
        return copy.deepcopy(asdict(self))


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def read_config_file(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: unreadable, no YAML (names the line), or no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read --config {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--config {path} is no UTF-8 text") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"--config {path} is not YAML: {_yaml_problem(error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"--config {path} holds {excerpt(values)}; it must map sections to options: "
            f"{', '.join(SECTIONS)}"
        )
    return {str(key): value for key, value in values.items()}


def _yaml_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return str(error)


# -- overrides -----------------------------------------------------------------------------


def parse_override(key: str, text: str) -> tuple[tuple[str, ...], Any]:
    """``learning_rate``, ``1e-5`` as a place in the configuration and a value.

    A key whose first part is no section is an option of the method: ``learning-rate`` means
    ``args.learning_rate``. Paths are taken from the current folder.

    Raises:
        ConfigError: an empty key, or a value that is no YAML.
    """
    place = tuple(part.replace("-", "_") for part in key.split("."))
    if not all(place):
        raise ConfigError(f"{key!r} names no option; write SECTION.NAME=VALUE or NAME=VALUE")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{key} = {text!r} is not YAML: {_yaml_problem(error)}") from None
    if place[0] not in SECTIONS:
        place = ("args", *place)
    if place in _PATHS:
        value = _from_here(value)
    return place, value


def _from_here(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, list):
        return [_from_here(item) for item in value]
    if isinstance(value, str) and value not in PROMPT_SETS and Path(value).expanduser().exists():
        return str(Path(value).expanduser().absolute())
    return value


def apply_override(values: dict[str, Any], place: tuple[str, ...], value: Any) -> None:  # noqa: ANN401
    """Put ``value`` at ``place``.

    Raises:
        ConfigError: something on the way there holds no options.
    """
    here = values
    for depth, part in enumerate(place[:-1]):
        inner = here.get(part)
        if inner is None:
            inner = {}
        if not isinstance(inner, dict):
            raise ConfigError(
                f"{'.'.join(place)}: {'.'.join(place[: depth + 1])} is {excerpt(inner)}, which has "
                "no options of its own"
            )
        here[part] = inner
        here = inner
    here[place[-1]] = value


# -- checking ------------------------------------------------------------------------------


def make_config(
    method: str, values: Mapping[str, Any], overrides: list[tuple[tuple[str, ...], Any]], base: Path
) -> TrainConfig:
    """The configuration of a method from a file's values and the overrides in order.

    Args:
        method: its name.
        values: as `read_config_file` gives them.
        overrides: as `parse_override` gives them.
        base: the folder of the file.

    Raises:
        ConfigError: an unknown or mistyped key, a missing section, or another method's file.
    """
    merged = _normalised(values)
    for place, value in overrides:
        apply_override(merged, place, value)
        if len(place) == 1:
            merged = _normalised(merged)
    named = merged.get("method", method)
    if named != method:
        raise ConfigError(f"the configuration is of method {named!r}, not of {method!r}")
    base_dir = merged.get("base_dir")
    if base_dir is not None and not isinstance(base_dir, str):
        raise ConfigError(f"base_dir is {excerpt(base_dir)}; it must be a folder")
    given = {k: v for k, v in merged.items() if k not in _BESIDE and v is not None}
    typed = check_options(TrainConfig, _sections(given), "the configuration")
    if not typed.get("model"):
        raise ConfigError(
            "no model: say `model: shipped` for the one that comes with equilign, a folder, or a "
            "name on the hub"
        )
    return TrainConfig(
        **typed,
        method=method,
        base_dir=str((base / base_dir).absolute() if base_dir else base.absolute()),
    )


def _normalised(values: Mapping[str, Any]) -> dict[str, Any]:
    """Short forms written out: a path as data, ``peft: true``, ``evaluation: false``."""
    merged = copy.deepcopy(dict(values))
    for key in merged:
        if key not in (*SECTIONS, *_BESIDE):
            raise unknown_key(key, (*SECTIONS, *_BESIDE), "the configuration")
    if isinstance(merged.get("data"), str | list):
        merged["data"] = {"train": merged["data"]}
    if isinstance(merged.get("peft"), bool):
        merged["peft"] = {} if merged["peft"] else None
    if merged.get("evaluation") is False:
        merged["evaluation"] = {"num_samples": 0}
    return merged


def _sections(given: Mapping[str, Any]) -> dict[str, Any]:
    """The sections that are dataclasses, checked; the others as they are."""
    found = dict(given)
    for name, kind in {"data": DataConfig, "evaluation": EvaluationConfig}.items():
        section = found.get(name, {})
        if not isinstance(section, Mapping):
            raise ConfigError(f"{name} is {excerpt(section)}; it must map names to options")
        found[name] = kind(**check_options(kind, section, name))
    return found


def resolve(base_dir: str, path: str) -> str:
    """A path of the configuration as a path; names that are no files stay as they are."""
    if path in PROMPT_SETS:
        return path
    found = Path(base_dir) / Path(path).expanduser()
    return str(found) if found.exists() else path


def option_help(config_class: type) -> dict[str, str]:
    """Help of every field, by name."""
    return {f.name: " ".join(str(f.metadata.get("help", "")).split()) for f in fields(config_class)}
