"""Options of a command from the fields of a configuration."""

from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click

Command = Callable[..., None]


def options_of(
    config_class: type, *, arguments: tuple[str, ...] = ()
) -> Callable[[Command], Command]:
    """An option for every field of a dataclass, with the help in its metadata, and its default.

    Args:
        config_class: fields are text, numbers, truth values, any of them or None, or tuples of
            text, which are options to repeat.
        arguments: fields that are given by position in place of by name.
    """
    types = get_type_hints(config_class)

    def add(function: Command) -> Command:
        for f in reversed(fields(config_class)):
            if f.name in arguments:
                continue
            name, text = f"--{f.name.replace('_', '-')}", str(f.metadata["help"])
            known = (types[f.name], *get_args(types[f.name]))
            kind = next((t for t in (bool, int, float) if t in known), str)
            options: dict[str, Any] = {"help": text}
            if f.default is MISSING:
                options["required"] = True
            elif f.default == ():
                options["multiple"] = True
            elif kind is bool:
                options |= {"is_flag": True, "default": f.default}
            else:
                options["default"] = f.default
            if kind is not bool:
                options["type"] = kind
            function = click.option(name, **options)(function)
        for name in reversed(arguments):
            function = click.argument(name)(function)
        return function

    return add


def run_options(folder: str) -> Callable[[Command], Command]:
    """``--output-dir``, ``--resume`` and ``--json`` of a command that runs in a directory.

    Args:
        folder: the directory by default.
    """

    def add(function: Command) -> Command:
        path = click.Path(path_type=Path)
        again = "Go on with the run in the output directory."
        text = "One JSON object on stdout."
        for option in (
            click.option("--json", "as_json", is_flag=True, help=text),
            click.option("--resume", is_flag=True, help=again),
            click.option("--output-dir", type=path, default=Path(folder), help="Run directory."),
        ):
            function = option(function)
        return function

    return add
