"""Every option of a training with its value, as plain values and as commented YAML."""

import dataclasses
import enum
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from equilign.experiments.options import check_options
from equilign.experiments.train_config import (
    DataConfig,
    EvaluationConfig,
    TrainConfig,
    option_help,
)
from equilign.experiments.train_job import NOT_OPTIONS
from equilign.methods import get_method

_WIDTH = 98


def resolved_args(config: TrainConfig) -> dict[str, Any]:
    """The method's options: those given, and every other one with its default."""
    _, config_class = get_method(config.method).load()
    values = {
        f.name: _default(f)
        for f in dataclasses.fields(config_class)
        if f.init and f.name not in NOT_OPTIONS
    }
    values |= {str(key).replace("-", "_"): value for key, value in config.args.items()}
    # Defaults take their fields' types too, so that what is printed reads back as the same.
    typed = check_options(config_class, values, "args", instead=NOT_OPTIONS)
    return {name: plain(value) for name, value in typed.items()}


def _default(field: "dataclasses.Field[Any]") -> Any:  # noqa: ANN401
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def plain(value: Any) -> Any:  # noqa: ANN401
    """A value as YAML has it."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    return value


def resolved_yaml(config: TrainConfig) -> str:
    """The configuration with every option, its help as a comment above it."""
    _, config_class = get_method(config.method).load()
    settings = config.settings()
    helps = option_help(TrainConfig)
    sections = {"data": DataConfig, "evaluation": EvaluationConfig}
    lines = list(_lines("method", settings["method"], helps["method"], 0))
    for name in helps:
        if name in ("method", "args"):
            continue
        if name in sections:
            lines += ["", *_comment(helps[name], 0), f"{name}:"]
            inner = option_help(sections[name])
            for key, value in settings[name].items():
                lines += _lines(key, value, inner[key], 2)
        else:
            lines += ["", *_lines(name, settings[name], helps[name], 0)]
    lines += ["", *_comment(f"{helps['args']}", 0), "args:"]
    inner = option_help(config_class)
    for key, value in resolved_args(config).items():
        lines += _lines(key, value, inner[key], 2)
    return "\n".join(lines) + "\n"


def _comment(text: str, indent: int) -> Iterator[str]:
    pad = " " * indent
    for line in textwrap.wrap(text, _WIDTH - indent):
        yield f"{pad}# {line}"


def _lines(key: str, value: Any, text: str, indent: int) -> Iterator[str]:  # noqa: ANN401
    yield from _comment(text, indent)
    for line in yaml.safe_dump({key: plain(value)}, sort_keys=False).splitlines():
        yield " " * indent + line
