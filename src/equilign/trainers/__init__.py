"""The transformers side: play a round, compare, train."""

from importlib import import_module
from typing import Any

from equilign.methods import TRAINED
from equilign.trainers.config import GameConfig
from equilign.trainers.game_trainer import GameTrainer, Progress
from equilign.trainers.mirror import MirrorTrainer
from equilign.trainers.mirror_config import MirrorConfig
from equilign.trainers.references import References

_CLASSES = {
    where.split(":")[1]: where.split(":")[0]
    for method in TRAINED.values()
    for where in (method.trainer, method.config)
    if where is not None
}
"""One trainer and one configuration per method: name -> module, imported when asked for."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class
    if name in _CLASSES:
        return vars(import_module(_CLASSES[name]))[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_CLASSES})


__all__ = [
    "GameConfig",
    "GameTrainer",
    "MirrorConfig",
    "MirrorTrainer",
    "Progress",
    "References",
]
