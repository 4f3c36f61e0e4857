"""Options of a command from the fields of its configuration."""

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, get_args, get_type_hints

import click


def options_of(config_class: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:  # noqa: ANN401
    """A decorator: an option for every field of a dataclass, with the field's help and default."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        types = get_type_hints(config_class)
        for f in reversed(fields(config_class)):
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
        return function

    return decorate
