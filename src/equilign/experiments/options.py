"""Values from YAML and from the command line as the typed fields of a dataclass."""

import dataclasses
import difflib
import enum
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from equilign.errors import ConfigError
from equilign.games.records import excerpt

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_MOST_NAMES = 40


class NoFit(Exception):
    """A value that is not of a type."""


def unknown_key(
    key: str, allowed: Iterable[str], where: str, instead: Mapping[str, str] | None = None
) -> ConfigError:
    """The error for a key that does not exist: it names the closest one, and those there are.

    Args:
        key: what was written.
        allowed: the keys there are, the likeliest first.
        where: the section, for messages.
        instead: keys that are set elsewhere, and how.
    """
    elsewhere = instead or {}
    names = list(allowed)
    wanted = key.replace("-", "_")
    if wanted in elsewhere:
        return ConfigError(f"{where}.{wanted} is not set here: use {elsewhere[wanted]}")
    close = difflib.get_close_matches(wanted, [*names, *elsewhere], n=1, cutoff=0.6)
    hint = f" Did you mean {elsewhere.get(close[0], close[0])}?" if close else ""
    shown = ", ".join(names[:_MOST_NAMES])
    more = f", and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    place = f" in {where}" if where else ""
    return ConfigError(f"there is no option {key!r}{place}.{hint} Allowed: {shown}{more}")


def field_types(config_class: type) -> dict[str, Any]:
    """Type of every field that may be given, by name."""
    hints = get_type_hints(config_class)
    return {f.name: hints[f.name] for f in dataclasses.fields(config_class) if f.init}


def check_options(
    config_class: type,
    values: Mapping[str, Any],
    where: str,
    *,
    instead: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """``values`` with the types that the fields of ``config_class`` have.

    Numbers may be written as text (YAML reads ``1e-6`` as text), and so may true and false.

    Args:
        config_class: a dataclass.
        values: by field.
        where: the section, for messages.
        instead: fields (and likely mistakes for them) that are set elsewhere, and how.

    Raises:
        ConfigError: a field that does not exist, or a value of another type; names the key, what
            was seen, and what is allowed.
    """
    elsewhere = instead or {}
    kinds = field_types(config_class)
    # A class's own fields come after those that it inherits.
    known = {name: kinds[name] for name in reversed(kinds) if name not in elsewhere}
    found = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise unknown_key(str(key), known, where, elsewhere)
        try:
            found[name] = _coerce(value, known[name])
        except NoFit:
            raise ConfigError(
                f"{where}.{name} is {excerpt(value)}; it must be {type_words(known[name])}"
            ) from None
    return found


def type_words(kind: Any) -> str:  # noqa: ANN401 - any annotation
    """A type in words."""
    if kind in _NAMES:
        return _NAMES[kind]
    if kind is type(None):
        return "null"
    origin = get_origin(kind)
    if _is_union(kind):
        return " or ".join(dict.fromkeys(type_words(k) for k in get_args(kind)))
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in kind)
    if origin is list or kind is list:
        return "a list"
    if origin in (dict, Mapping) or kind is dict:
        return "a mapping"
    if origin is tuple:
        return "a list"
    return f"a {kind.__name__}" if isinstance(kind, type) else str(kind)


def _is_union(kind: Any) -> bool:  # noqa: ANN401
    return get_origin(kind) in (Union, types.UnionType)


def _coerce(value: Any, kind: Any) -> Any:  # noqa: ANN401, C901 - one branch per kind
    if kind is Any:
        return value
    if _is_union(kind):
        return _coerce_union(value, get_args(kind))
    if kind is type(None):
        if value is None or value == "null":
            return None
        raise NoFit
    if kind is bool:
        return _coerce_bool(value)
    if kind is int:
        return _coerce_number(value, int)
    if kind is float:
        return _coerce_number(value, float)
    if kind is str:
        return _coerce_str(value)
    origin = get_origin(kind)
    if origin is Literal:
        if value in get_args(kind):
            return value
        raise NoFit
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        if isinstance(value, str) and value in {member.value for member in kind}:
            return value
        raise NoFit
    return _coerce_container(value, kind, origin)


def _coerce_bool(value: Any) -> bool:  # noqa: ANN401
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    raise NoFit


def _coerce_number(value: Any, kind: type) -> Any:  # noqa: ANN401
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise NoFit
    if kind is int and isinstance(value, float):
        raise NoFit
    try:
        return kind(value)
    except (ValueError, OverflowError):
        raise NoFit from None


def _coerce_str(value: Any) -> str:  # noqa: ANN401
    # A name may look like a number to YAML.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise NoFit
    return str(value)


def _coerce_union(value: Any, kinds: tuple[Any, ...]) -> Any:  # noqa: ANN401
    # Text comes last: a number written as text is a number wherever a number is allowed.
    order = {type(None): 1, bool: 1, int: 2, float: 3, str: 5}
    exact = type(value) if not isinstance(value, str) else None
    for kind in sorted(kinds, key=lambda k: 0 if k is exact else order.get(k, 4)):
        try:
            return _coerce(value, kind)
        except NoFit:
            continue
    raise NoFit


def _coerce_container(value: Any, kind: Any, origin: Any) -> Any:  # noqa: ANN401
    if origin is tuple:
        inner = get_args(kind)[0]
        if not isinstance(value, list | tuple):
            raise NoFit
        return tuple(_coerce(item, inner) for item in value)
    if kind is list or origin is list:
        if not isinstance(value, list):
            raise NoFit
        inner = get_args(kind)[0] if get_args(kind) else Any
        return [_coerce(item, inner) for item in value]
    if kind is dict or origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise NoFit
        return dict(value)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return kind(**check_options(kind, value, kind.__name__))
    if isinstance(kind, type) and isinstance(value, kind):
        return value
    raise NoFit
