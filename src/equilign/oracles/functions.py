"""Oracles from a user's own functions, named as "module:function" or "file.py:function"."""

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from equilign.errors import ConfigError
from equilign.oracles.base import CallableOracle, Oracle
from equilign.oracles.tabular import ScoreOracle

RETURNS = ("probability", "score")


def oracle_from_function(
    name: str, base: Path, returns: str | None = None, scale: float = 1.0
) -> Oracle:
    """An oracle from a function of the user's.

    Args:
        name: ``"module:function"`` or ``"file.py:function"``. Three forms are understood:
            ``f(prompt, a, b) -> Pr(a beats b)``; ``f(prompts, answers) -> scores``; and TRL's
            reward function, ``f(completions, **kwargs) -> scores`` with ``prompts`` among the
            keywords. An object or a class (without arguments) that has ``compare`` is taken as
            the oracle itself.
        base: folder that a relative file starts from; modules are looked for there as well.
        returns: ``"probability"`` or ``"score"``; None decides by the parameters.
        scale: logits per unit of score.

    Raises:
        ConfigError: it cannot be imported, does not exist, or has other parameters.
    """
    found = load_attribute(name, base)
    if isinstance(found, type) and "compare" in dir(found):
        found = _instance(found, name)
    if isinstance(found, Oracle):
        return found
    if not callable(found):
        raise ConfigError(f"{name} is {type(found).__name__}, neither a function nor an oracle")
    form = _form(found, name)
    if returns is not None and returns not in RETURNS:
        raise ConfigError(f"returns must be one of {', '.join(RETURNS)}; got {returns!r}")
    if returns is not None and (returns == "probability") != (form == "pair"):
        wanted = "(prompt, a, b)" if returns == "probability" else "(prompts, answers)"
        raise ConfigError(f"{name}: what returns a {returns} is a function of {wanted}")
    if form == "pair":
        return CallableOracle(found)
    return ScoreOracle(_trl(found) if form == "completions" else found, scale)


def _instance(oracle: type, name: str) -> Any:  # noqa: ANN401
    try:
        return oracle()
    except Exception as error:
        raise ConfigError(
            f"cannot make an oracle {name}() without arguments: {type(error).__name__}: {error}"
        ) from error


def _form(function: Callable[..., Any], name: str) -> str:
    """``"pair"``, ``"score"`` or ``"completions"`` (TRL's), by the parameters."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        parameters = {}  # type: ignore[assignment]
    if "completions" in parameters:
        return "completions"
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [
        p for p in parameters.values() if p.kind in kinds and p.default is inspect.Parameter.empty
    ]
    if len(needed) not in (2, 3):
        raise ConfigError(
            f"{name} has the parameters ({', '.join(parameters)}); an oracle is a function of "
            "(prompt, a, b) that returns Pr(a beats b), or of (prompts, answers) that returns "
            "one score per answer"
        )
    return "pair" if len(needed) == 3 else "score"


def _trl(function: Callable[..., Any]) -> Callable[[Sequence[str], Sequence[str]], np.ndarray]:
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())

    def score(prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        values = {"completions": list(answers)}
        if takes_all or "prompts" in parameters:
            values["prompts"] = list(prompts)
        # None is TRL's "not applicable": it becomes nan, which is refused with a message.
        return np.asarray(function(**values), dtype=np.float64)

    return score


def load_attribute(name: str, base: Path) -> Any:  # noqa: ANN401
    """What ``"module:name"`` or ``"file.py:name"`` refers to.

    Raises:
        ConfigError: malformed, missing, or its module raises on import; says why.
    """
    where, _, attribute = name.rpartition(":")
    if not where or not attribute:
        raise ConfigError(f"{name!r} must be 'module:function' or 'file.py:function'")
    module = _from_file(where, base) if where.endswith(".py") else _from_name(where, base)
    try:
        return getattr(module, attribute)
    except AttributeError:
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        there = ", ".join(names[:10]) or "no function"
        raise ConfigError(f"{where} has no {attribute!r}; it has {there}") from None


def _from_file(where: str, base: Path) -> ModuleType:
    path = Path(where).expanduser()
    path = path if path.is_absolute() else base / path
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    # One module per file, under a name that no package has; dataclasses need it registered.
    name = (
        f"_equilign_{path.stem}_{blake2b(str(path.resolve()).encode(), digest_size=6).hexdigest()}"
    )
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _importable(path.parent):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"cannot import {path}: {type(error).__name__}: {error}") from error
    return module


def _from_name(where: str, base: Path) -> ModuleType:
    try:
        with _importable(base):
            return import_module(where)
    except Exception as error:
        raise ConfigError(
            f"cannot import the module {where!r}: {type(error).__name__}: {error}. "
            "For a file write 'path/to/file.py:function'."
        ) from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Within, modules of ``folder`` are found as well."""
    sys.path.append(str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))
